//! Events as JSON: the same whether a running relay is asked or a stopped one's directory is read.

use serde_json::{Value, json};

use crate::outbox::{Attempt, Detail, Erased, Listed};
use crate::reason::Reason;

/// Stands for personal data that was not asked for.
const REDACTED: &str = "[redacted]";

/// A line of a listing.
#[must_use]
pub fn listed(listed: &Listed, reveal: bool) -> Value {
    let report = &listed.report;
    json!({
        "id": listed.id.to_string(),
        "state": report.state.as_str(),
        "user": if reveal { listed.user.as_str() } else { REDACTED },
        "trigger": listed.trigger.as_str(),
        "bytes": listed.body_bytes,
        "attempts": report.attempts,
        "acceptedAt": listed.id.accepted_at().to_string(),
        "nextAttemptAt": report.next_attempt_at.map(|at| at.to_string()),
        "reason": report.reason.map(Reason::as_str),
        "message": words(report.message.as_deref(), reveal),
        "requestId": report.request_id,
        "mayBeCounted": listed.may_be_counted,
    })
}

/// One event with its attempts.
#[must_use]
pub fn detail(detail: &Detail, reveal: bool) -> Value {
    let mut shown = listed(&detail.listed, reveal);
    shown["history"] = detail.attempts.iter().map(|one| attempt(one, reveal)).collect();
    shown["overtakenAt"] = json!(detail.overtaken_at.map(|at| at.to_string()));
    shown["warnings"] = json!(warnings(detail));
    shown["support"] = json!(support(detail));
    shown["body"] = if reveal { body(detail) } else { json!(REDACTED) };
    shown
}

/// What to think of before this event is replayed.
fn warnings(detail: &Detail) -> Vec<String> {
    let overtaken = detail
        .overtaken_at
        .map(|at| format!("later events of this user are delivered since {at}: a replay reaches Cello out of order"));
    let counted = "Cello may have counted this event already: a replay may count it twice";
    let counted = detail.listed.may_be_counted.then(|| counted.to_owned());
    overtaken.into_iter().chain(counted).collect()
}

/// What Cello's support needs to find an event, as text to paste; without personal data.
fn support(detail: &Detail) -> String {
    let listed = &detail.listed;
    let reason = listed.report.reason.map_or(String::new(), |reason| format!(" ({reason})"));
    let (state, accepted) = (listed.report.state.as_str(), listed.id.accepted_at());
    let mut text = format!("ReferralUpdated event {}\naccepted {accepted}, now {state}{reason}\n", listed.id);
    for attempt in &detail.attempts {
        let status = attempt.status.map_or("no answer".to_owned(), |status| format!("status {status}"));
        let request = attempt.request_id.as_deref().unwrap_or("none");
        text.push_str(&format!("{} {status} ({}), apigw-requestid {request}\n", attempt.at, attempt.reason));
    }
    text
}

/// What an erasure did.
#[must_use]
pub fn erased(erased: &Erased) -> Value {
    json!({
        "count": erased.events(), "pending": erased.pending, "retrying": erased.retrying, "dead": erased.dead,
        "keys": erased.keys, "in_flight": erased.in_flight, "quarantined": erased.quarantined,
        "overwritten": erased.is_overwritten,
    })
}

fn attempt(attempt: &Attempt, reveal: bool) -> Value {
    json!({
        "at": attempt.at.to_string(),
        "reason": attempt.reason.as_str(),
        "status": attempt.status,
        "requestId": attempt.request_id,
        "message": words(attempt.message.as_deref(), reveal),
    })
}

/// The body as JSON; as text, should the disk have damaged it.
fn body(detail: &Detail) -> Value {
    serde_json::from_slice(&detail.body).unwrap_or_else(|_| json!(String::from_utf8_lossy(&detail.body)))
}

/// A body on one line, as NDJSON needs it. Apps may write theirs over several lines, and in JSON a raw line break is
/// never part of a value: a space does as well.
#[must_use]
pub fn one_line(body: &[u8]) -> String {
    String::from_utf8_lossy(body).replace(['\n', '\r'], " ")
}

/// Cello's own words may hold personal data.
fn words(message: Option<&str>, reveal: bool) -> Option<&str> {
    message.map(|message| if reveal { message } else { REDACTED })
}
