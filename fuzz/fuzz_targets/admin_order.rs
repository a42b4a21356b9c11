//! The body of a replay or discard: whatever it holds, only dead letters can be meant.
#![no_main]

use cello_relay::admin::fuzzing::order;
use cello_relay::clock::Timestamp;
use cello_relay::outbox::{Selection, State};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

fuzz_target!(|body: &[u8]| {
    let Ok(body) = serde_json::from_slice::<Value>(body) else { return };
    let Some((selection, per_second)) = order(&body, NOW) else { return };
    assert!(per_second != Some(0));
    match selection {
        Selection::Ids(ids) => {
            let given = body["ids"].as_array().expect("ids are given").len();
            assert_eq!(ids.len(), given, "none is passed over in silence");
            assert!(body.get("filter").is_none());
        }
        Selection::Matching(filter) => {
            let given = body["filter"].as_object().expect("a filter is given");
            assert!(body.get("ids").is_none());
            assert_eq!(filter.state, Some(State::Dead));
            // A condition that were overlooked would make the order reach further.
            assert_eq!(filter.user.as_ref().map(|user| user.as_str()), given.get("user").and_then(Value::as_str));
            assert_eq!(filter.reason.map(|reason| reason.as_str()), given.get("reason").and_then(Value::as_str));
            let bounds = |names: [&str; 2]| names.iter().any(|name| given.contains_key(*name));
            assert_eq!(filter.until.is_some(), bounds(["olderThan", "older_than"]));
            assert_eq!(filter.since.is_some(), bounds(["newerThan", "newer_than"]));
        }
    }
});
