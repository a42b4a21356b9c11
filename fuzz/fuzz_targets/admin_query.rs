//! The query string of the control API: filters and cursors mean one thing, and the same when written anew.
#![no_main]

use cello_relay::admin::fuzzing::query;
use cello_relay::clock::Timestamp;
use cello_relay::event::EventId;
use cello_relay::outbox::State;
use libfuzzer_sys::fuzz_target;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

const NOW: Timestamp = Timestamp::from_millis(1_764_000_000_000);

fuzz_target!(|text: &str| {
    let Some((filter, after, limit, reveal)) = query(text, NOW) else { return };
    assert!(limit.is_none_or(|limit| (1..=1000).contains(&limit)));
    assert!(filter.state != Some(State::Delivered), "the delivered are not listed");
    assert!(filter.since.is_none_or(|since| since <= NOW) && filter.until.is_none_or(|until| until <= NOW));
    if let Some(after) = after {
        assert_eq!(EventId::new(after.accepted_at(), after.seq(), after.salt()), after, "a cursor leads to one place");
    }
    let mut again = format!("&reveal={reveal}&");
    let mut add = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            again += &format!("{name}={}&", utf8_percent_encode(&value, NON_ALPHANUMERIC));
        }
    };
    let age = |at: Timestamp| NOW.since(at).as_secs().to_string();
    add("state", filter.state.map(|state| state.as_str().to_owned()));
    add("reason", filter.reason.map(|reason| reason.as_str().to_owned()));
    add("user", filter.user.as_ref().map(|user| user.as_str().to_owned()));
    add("after", after.map(|after| after.to_string()));
    add("limit", limit.map(|limit| limit.to_string()));
    // Times before all times have no age that could be written down.
    let has_age = |at: &Timestamp| at.as_millis() > 0;
    add("newer_than", filter.since.filter(has_age).map(age));
    add("older_than", filter.until.filter(has_age).map(age));
    let expected = (
        cello_relay::outbox::Filter {
            since: filter.since.filter(has_age),
            until: filter.until.filter(has_age),
            ..filter
        },
        after,
        limit,
        reveal,
    );
    assert_eq!(query(&again, NOW), Some(expected), "{again}");
});
