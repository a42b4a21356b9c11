//! Events as JSON: the same whether a running relay is asked or a stopped one's directory is read.

use serde_json::{Value, json};

use crate::outbox::{Attempt, Detail, Listed};
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
    })
}

/// One event with its attempts.
#[must_use]
pub fn detail(detail: &Detail, reveal: bool) -> Value {
    let mut shown = listed(&detail.listed, reveal);
    shown["history"] = detail.attempts.iter().map(|one| attempt(one, reveal)).collect();
    shown["body"] = if reveal { body(detail) } else { json!(REDACTED) };
    shown
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

/// Cello's own words may hold personal data.
fn words(message: Option<&str>, reveal: bool) -> Option<&str> {
    message.map(|message| if reveal { message } else { REDACTED })
}
