//! Events as JSON: the same whether a running relay is asked or a stopped one's directory is read.

use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};
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
#[derive(Serialize)]
pub struct Shown {
    #[serde(flatten)]
    rest: Value,
    /// As it was stored and is sent: parsed, it would lose digits, and the order of its names. Comes last, which
    /// the page relies on.
    body: Box<RawValue>,
}

/// One event with its attempts.
#[must_use]
pub fn detail(detail: &Detail, reveal: bool) -> Shown {
    let mut shown = listed(&detail.listed, reveal);
    shown["history"] = detail.attempts.iter().map(|one| attempt(one, reveal)).collect();
    shown["overtakenAt"] = json!(detail.overtaken_at.map(|at| at.to_string()));
    shown["unsure"] = detail.unsure.as_ref().map_or(Value::Null, |one| attempt(one, reveal));
    shown["warnings"] = json!(warnings(detail));
    shown["support"] = json!(support(detail));
    Shown { rest: shown, body: if reveal { body(detail) } else { as_string(REDACTED) } }
}

/// What to think of before this event is replayed.
fn warnings(detail: &Detail) -> Vec<String> {
    let overtaken = detail
        .overtaken_at
        .map(|at| format!("later events of this user are delivered since {at}: a replay reaches Cello out of order"));
    let counted = "Cello may have counted this event already: a replay may count it twice";
    let counted = detail.listed.may_be_counted.then(|| counted.to_owned());
    let damaged = "the event does not match its checksum: the disk damaged it, and it is never sent";
    let damaged = (!detail.is_intact).then(|| damaged.to_owned());
    damaged.into_iter().chain(overtaken).chain(counted).collect()
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
    // Not an attempt that counted; it may be one that is listed above, of a former life.
    if let Some(unsure) = detail.unsure.as_ref().filter(|unsure| detail.attempts.iter().all(|one| one.at != unsure.at))
    {
        let request = unsure.request_id.as_deref().unwrap_or("none");
        text.push_str(&format!("{} sent, outcome unknown ({}), apigw-requestid {request}\n", unsure.at, unsure.reason));
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
fn body(detail: &Detail) -> Box<RawValue> {
    serde_json::from_slice(&detail.body).unwrap_or_else(|_| as_string(&String::from_utf8_lossy(&detail.body)))
}

fn as_string(text: &str) -> Box<RawValue> {
    to_raw_value(text).expect("a string is always JSON")
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::event::{EventId, Trigger, UserId};
    use crate::outbox::{Report, State};

    fn attempt(second: i64, reason: Reason, request_id: &str) -> Attempt {
        let at = Timestamp::from_millis(second * 1000);
        Attempt { at, reason, status: Some(502), request_id: Some(request_id.into()), message: Some("someone".into()) }
    }

    #[test]
    fn cellos_support_is_told_of_a_send_without_an_answer_that_was_no_attempt() {
        let report = Report {
            state: State::Dead,
            attempts: 1,
            next_attempt_at: None,
            delivered_at: None,
            reason: Some(Reason::Http422),
            message: None,
            request_id: None,
        };
        let id = EventId::new(Timestamp::from_millis(0), 1, 0);
        let user = UserId::new("someone");
        let listed = Listed { id, user, trigger: Trigger::None, body_bytes: 2, report, may_be_counted: true };
        let body = bytes::Bytes::from_static(b"{}");
        let attempts = vec![attempt(1, Reason::Http422, "r-1=")];
        let unsure = Some(attempt(2, Reason::Http5xx, "r-2="));
        let mut detail = Detail { listed, body, is_intact: true, attempts, overtaken_at: None, unsure };
        let text = support(&detail);
        let lines = text.lines().filter(|line| line.contains("r-2=")).collect::<Vec<_>>();
        assert_eq!(
            lines,
            ["1970-01-01T00:00:02.000Z sent, outcome unknown (http_5xx), apigw-requestid r-2="],
            "{text}"
        );
        assert!(!text.contains("someone"));
        detail.attempts.push(attempt(2, Reason::Http5xx, "r-2="));
        assert_eq!(support(&detail).matches("r-2=").count(), 1, "an attempt that is listed is told once");
    }
}
