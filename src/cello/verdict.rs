//! What an answer of Cello, or none, means for the event.

use std::time::Duration;

use crate::reason::Reason;

/// What happens to the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Cello has it.
    Delivered,
    /// Cello refuses this very event: dead.
    Refused,
    /// The fault is ours or on the way: hold.
    Hold,
    /// Try again later.
    Retry,
    /// No token could be had; nothing was sent.
    NoAccess,
}

/// A verdict with all that is kept of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What happens to the event.
    pub verdict: Verdict,
    /// Why; of no meaning when delivered.
    pub reason: Option<Reason>,
    /// Cello's status.
    pub status: Option<u16>,
    /// `apigw-requestid`.
    pub request_id: Option<Box<str>>,
    /// Cello's `message`, capped. May hold personal data.
    pub message: Option<Box<str>>,
    /// `Retry-After` of a 429 or 503, clamped to 1 s–10 min.
    pub retry_after: Option<Duration>,
    /// The request was sent and Cello may have counted it all the same.
    pub outcome_unknown: bool,
}
