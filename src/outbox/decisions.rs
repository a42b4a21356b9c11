//! What operators decide about events, and what comes of it.

use super::{ATTEMPTS_KEPT, Attempt};
use crate::clock::Timestamp;
use crate::event::EventId;
use crate::reason::Reason;

/// How a replay goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Replays also what Cello may have counted already; otherwise that is passed over.
    pub may_duplicate: bool,
    /// Puts back at most so many, in sequence.
    pub limit: u64,
    /// Looks only at what comes after this event.
    pub after: Option<EventId>,
}

impl Default for Terms {
    fn default() -> Self {
        Self { may_duplicate: false, limit: u64::MAX, after: None }
    }
}

impl Terms {
    /// Everything that is meant, duplicates or not.
    #[must_use]
    pub fn everything() -> Self {
        Self { may_duplicate: true, ..Self::default() }
    }
}

/// What a replay did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// So many were put back into the queue.
    pub count: u64,
    /// So many stay dead because Cello may have counted them already.
    pub passed_over: u64,
    /// The last one that was put back, if the limit ended the replay there: go on after it.
    pub next: Option<EventId>,
}

/// What an erasure did, or found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Erased {
    /// Events that waited and had not failed.
    pub pending: u64,
    /// Events that waited for another attempt.
    pub retrying: u64,
    /// Dead letters.
    pub dead: u64,
    /// Remembered idempotency keys that name the person.
    pub keys: u64,
    /// Events in flight that did not end in time; they are still there.
    pub in_flight: u64,
    /// Damaged files that lie aside; they were not searched.
    pub quarantined: Vec<String>,
    /// Nothing is left in free pages and the write-ahead log either. `false`: the next idle moment does that.
    pub is_overwritten: bool,
}

impl Erased {
    /// Events that are gone.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.pending + self.retrying + self.dead
    }

    /// Adds what another pass found; what it says of files and flights stands.
    pub fn add(&mut self, pass: Self) {
        *self = Self {
            pending: self.pending + pass.pending,
            retrying: self.retrying + pass.retrying,
            dead: self.dead + pass.dead,
            keys: self.keys + pass.keys,
            ..pass
        };
    }
}

/// The dead letters of one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadGroup {
    /// Why they died; `None` is a reason that a newer release wrote.
    pub reason: Option<Reason>,
    /// How many there are.
    pub count: u64,
    /// When the first of them was accepted.
    pub oldest: Timestamp,
}

/// Whether Cello may have counted an event that is dead for `reason` after these last of `made` attempts: a
/// request was sent, and nobody knows what became of it.
#[must_use]
pub fn may_be_counted(reason: Option<Reason>, attempts: &[Attempt], made: u32) -> bool {
    let is_forgotten = attempts.len() >= ATTEMPTS_KEPT && made as usize > attempts.len();
    reason == Some(Reason::Ambiguous) || is_forgotten || attempts.iter().any(is_unknown)
}

fn is_unknown(attempt: &Attempt) -> bool {
    match attempt.reason {
        Reason::Timeout | Reason::Reset | Reason::NotJson | Reason::Ambiguous => true,
        // 501, 503 and 505 say that nothing was done.
        Reason::Http5xx => !matches!(attempt.status, Some(501 | 503 | 505)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(reason: Reason, status: Option<u16>) -> Attempt {
        Attempt { at: Timestamp::from_millis(0), reason, status, request_id: None, message: None }
    }

    #[test]
    fn what_cello_may_have_counted_is_told_from_what_it_refused() {
        let counted = |reason, status| may_be_counted(Some(Reason::Exhausted), &[attempt(reason, status)], 1);
        assert!([Reason::Timeout, Reason::Reset, Reason::NotJson].iter().all(|reason| counted(*reason, None)));
        assert!(counted(Reason::Http5xx, Some(502)) && !counted(Reason::Http5xx, Some(503)));
        assert!(!counted(Reason::Http422, Some(422)) && !counted(Reason::Connect, None));
        assert!(may_be_counted(Some(Reason::Ambiguous), &[], 0));
    }

    #[test]
    fn attempts_that_were_forgotten_may_have_been_counted() {
        let refusals = vec![attempt(Reason::Http422, Some(422)); ATTEMPTS_KEPT];
        assert!(!may_be_counted(Some(Reason::Exhausted), &refusals, ATTEMPTS_KEPT as u32));
        assert!(may_be_counted(Some(Reason::Exhausted), &refusals, ATTEMPTS_KEPT as u32 + 1));
    }
}
