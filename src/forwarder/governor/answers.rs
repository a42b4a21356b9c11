//! What an answer means for the event and for the mode.

use std::collections::HashSet;

use tokio::time::Instant;

use super::super::strikes;
use super::{Governor, Mode, Ticket};
use crate::cello::{Judgement, Verdict};
use crate::clock::Timestamp;
use crate::event::UserId;
use crate::forwarder::{Ambiguous, Failure};
use crate::outbox::Progress;
use crate::reason::Reason;

/// So many different users' failures in a row open the breaker.
const USERS_THAT_OPEN: usize = 5;
/// So many users that were blamed in the last hold are remembered.
const BLAMED_MAX: usize = 64;

/// An answer, and all that its meaning depends on.
#[derive(Debug)]
pub(in super::super) struct Case<'a> {
    pub(in super::super) user: &'a UserId,
    pub(in super::super) progress: &'a Progress,
    pub(in super::super) judgement: &'a Judgement,
    /// No other event is undelivered.
    pub(in super::super) alone: bool,
    pub(in super::super) now: Timestamp,
}

/// What becomes of the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Fate {
    Delivered,
    /// Burned; due again after a backoff.
    Retry {
        strike: bool,
    },
    /// Nothing burned.
    Release,
    Dead(Reason),
}

/// What the answers since the last delivery were.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// The last answer was none that Cello meant for this event.
    pub(super) last_failed: bool,
    /// When Cello last took an event.
    pub(super) last_delivered_at: Option<Timestamp>,
    /// The last answer that was no delivery.
    pub(super) last_failure: Option<Failure>,
    /// Whose events failed since Cello last took or refused one.
    failed: HashSet<UserId>,
    /// How many failures those were.
    failures: usize,
    /// Whose event was the first to get an answer of the hold class.
    suspect: Option<UserId>,
    /// Whose events were refused.
    refused: HashSet<UserId>,
    /// Whose events got an answer of the hold class in this hold.
    in_hold: HashSet<UserId>,
    /// Whose events did so in the last hold and were then passed by another's: the fault is theirs.
    blamed: HashSet<UserId>,
}

impl Governor {
    /// An answer is there: the slot is free, the mode may change, and the event's fate is said.
    pub(in super::super) fn answered(&mut self, ticket: &Ticket, case: &Case<'_>, now: Instant) -> Fate {
        self.sending -= 1;
        if let Some(wait) = case.judgement.retry_after {
            self.rest(wait, now);
            self.paced_until = self.paced_until.max(Some(now + wait));
        }
        self.record.keep(case);
        let fate = match case.judgement.verdict {
            Verdict::Delivered => self.delivered(case.user),
            Verdict::Refused => self.refused(case, now),
            Verdict::Hold => self.hold_class(case, now),
            Verdict::Retry => self.failed(case, now),
            Verdict::NoAccess => self.no_access(now),
        };
        self.after_probe(ticket, now);
        self.at_most_once(fate, case.judgement)
    }

    /// The end cuts a send off: nothing is burned, except where sending again is ruled out.
    pub(in super::super) fn cut_off(&mut self, judgement: &Judgement) -> Fate {
        self.sending -= 1;
        self.at_most_once(Fate::Release, judgement)
    }

    /// With `ambiguous = "dead"` an event that Cello may have is never sent again.
    fn at_most_once(&self, fate: Fate, judgement: &Judgement) -> Fate {
        let again = matches!(fate, Fate::Retry { .. } | Fate::Release);
        if again && judgement.outcome_unknown && self.settings.ambiguous == Ambiguous::Dead {
            return Fate::Dead(Reason::Ambiguous);
        }
        fate
    }

    fn delivered(&mut self, user: &UserId) -> Fate {
        let record = &mut self.record;
        record.last_failed = false;
        record.failed.clear();
        record.failures = 0;
        record.suspect = None;
        record.refused.clear();
        if !record.in_hold.is_empty() {
            record.blamed = std::mem::take(&mut record.in_hold);
        }
        record.blamed.remove(user);
        if self.mode != Mode::Closed {
            self.close_slowly();
        } else if self.limit < self.settings.concurrency {
            self.delivered_at_limit += 1;
            if self.delivered_at_limit >= self.limit {
                self.limit = (self.limit * 2).min(self.settings.concurrency);
                self.delivered_at_limit = 0;
            }
        }
        Fate::Delivered
    }

    /// Cello refuses this event. That is an answer of Cello itself, so any breaker or hold but one for
    /// mass refusal ends; nothing is burned in them, so there the event is sent once more.
    fn refused(&mut self, case: &Case<'_>, now: Instant) -> Fate {
        self.record.failed.clear();
        self.record.failures = 0;
        match self.mode {
            Mode::Held(Reason::MassRefusal) => return Fate::Release,
            Mode::Open | Mode::Held(_) => {
                self.close_slowly();
                return Fate::Release;
            }
            Mode::Closed => {}
        }
        self.record.refused.insert(case.user.clone());
        if self.record.refused.len() >= self.settings.refusals_in_a_row as usize {
            self.leave_closed(Mode::Held(Reason::MassRefusal), now);
            return Fate::Release;
        }
        self.record.last_failed = false;
        Fate::Dead(reason_of(case.judgement))
    }

    /// The fault is ours or on the way, unless it is this event's alone.
    fn hold_class(&mut self, case: &Case<'_>, now: Instant) -> Fate {
        let reason = reason_of(case.judgement);
        if matches!(reason, Reason::Http401 | Reason::Credentials) {
            // A token fresh from Cello that Cello does not take: no event's fault.
            return self.hold(Reason::Credentials, now);
        }
        if let Mode::Held(Reason::MassRefusal) = self.mode {
            return self.failed(case, now);
        }
        if let Mode::Held(_) = self.mode {
            self.blame(case.user);
            return self.hold(reason, now);
        }
        // Others went through where this one did not: while sending goes on, that is no hold's sign.
        let at_fault = case.progress.overtaken || case.progress.strikes > 0 || self.record.blamed.contains(case.user);
        if at_fault && self.mode == Mode::Closed {
            return self.failed(case, now);
        }
        let suspect = self.record.suspect.get_or_insert_with(|| case.user.clone()).clone();
        if case.alone || suspect != *case.user {
            self.blame(&suspect);
            self.blame(case.user);
            return self.hold(reason, now);
        }
        self.failed(case, now)
    }

    fn hold(&mut self, reason: Reason, now: Instant) -> Fate {
        self.record.last_failed = true;
        self.leave_closed(Mode::Held(reason), now);
        Fate::Release
    }

    fn blame(&mut self, user: &UserId) {
        if self.record.in_hold.len() < BLAMED_MAX {
            self.record.in_hold.insert(user.clone());
        }
    }

    fn failed(&mut self, case: &Case<'_>, now: Instant) -> Fate {
        self.record.last_failed = true;
        self.record.failures += 1;
        if self.record.failed.len() < USERS_THAT_OPEN {
            self.record.failed.insert(case.user.clone());
        }
        let in_a_row = if self.draining { self.record.failures } else { self.record.failed.len() };
        if self.mode == Mode::Closed && in_a_row >= USERS_THAT_OPEN {
            self.leave_closed(Mode::Open, now);
        }
        // A drain ignores retry times, so burning says nothing; released, it comes after all others.
        if self.mode != Mode::Closed || self.draining {
            return Fate::Release;
        }
        let strike = strikes::is_strike(case.progress, case.judgement);
        if strike && strikes::is_exhausted(case.progress, case.now, &self.settings) {
            return Fate::Dead(Reason::Exhausted);
        }
        Fate::Retry { strike }
    }

    /// Nothing was sent. Sending stops as soon as `access` says so; until then, a moment's rest.
    fn no_access(&mut self, now: Instant) -> Fate {
        self.record.last_failed = true;
        self.rest(super::PROBE_MIN, now);
        Fate::Release
    }
}

impl Record {
    /// For operators: what came last.
    fn keep(&mut self, case: &Case<'_>) {
        let Judgement { verdict, status, request_id, .. } = case.judgement;
        if *verdict == Verdict::Delivered {
            self.last_delivered_at = Some(case.now);
        } else {
            let (reason, request_id) = (reason_of(case.judgement), request_id.clone());
            self.last_failure = Some(Failure { at: case.now, reason, status: *status, request_id });
        }
    }
}

/// Why it was not delivered; whoever judged has said it.
pub(in super::super) fn reason_of(judgement: &Judgement) -> Reason {
    judgement.reason.unwrap_or(Reason::Reset)
}
