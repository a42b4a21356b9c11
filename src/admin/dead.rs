//! Dead letters at a glance: by reason, with what to do about each.

use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::Parts;
use super::reply::{self, Body, Refusal};
use crate::reason::Reason;

/// The dead letters by reason, most first.
pub(super) async fn groups(parts: &Parts) -> Result<Response<Body>, Refusal> {
    let groups = parts.dead.dead_groups().await?;
    let total: u64 = groups.iter().map(|group| group.count).sum();
    let groups: Vec<Value> = groups
        .iter()
        .map(|group| {
            let reason = group.reason.map_or("unknown", Reason::as_str);
            let (count, oldest) = (group.count, group.oldest.to_string());
            json!({"reason": reason, "count": count, "oldestAt": oldest, "advice": advice(group.reason)})
        })
        .collect();
    Ok(reply::json(StatusCode::OK, &json!({"total": total, "groups": groups})))
}

/// What to do about events that died for that reason, in one sentence.
pub(super) fn advice(reason: Option<Reason>) -> &'static str {
    use Reason::{Ambiguous, Corrupt, Exhausted, Http400, Http409, Http413, Http422, SuccessFalse};
    match reason {
        Some(Http400 | Http422 | SuccessFalse) => {
            "Cello refused what these events say: look at one with its message, mend the app or the data at Cello, then \
             replay with a canary, or discard."
        }
        Some(Http409) => "Cello says that it has these already: make sure of one with Cello, then discard.",
        Some(Http413) => "These events are larger than Cello takes: make the app send less, then discard.",
        Some(Exhausted) => {
            "Tried for a long time while others went through: look at the attempts of one and ask Cello's support with \
             its text; replay when Cello has mended it."
        }
        Some(Ambiguous) => {
            "Sent, and nobody knows whether Cello counted them: ask Cello's support about the ids, then discard, or \
             replay with may_duplicate."
        }
        Some(Corrupt) => {
            "The disk changed these events, so they are not sent: have the app send them again, then discard, and have \
             the disk checked."
        }
        _ => "Look at one with its attempts, mend the cause, then replay with a canary.",
    }
}
