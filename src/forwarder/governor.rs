//! How much may be sent now. Pure: time is passed in, nothing here waits.
//!
//! ```text
//!            five users failed in a row
//!   Closed ───────────────────────────────▶ Open          one probe at a time,
//!     │  ▲ ◀──────── delivered ───────────── │            1 s × 2 to 30 s,
//!     │  └───────── delivered ──────────┐    │ hold       rotating over users
//!     └── hold: two users, or alone ──▶ Held(reason)
//!         mass refusal: 20 users
//! ```
//!
//! Beside this mode, four things stop everything: an operator's pause, a `Retry-After`, the want of
//! access and the end. `answers` says what an answer of Cello means for the event and for the mode.

mod answers;
#[cfg(test)]
mod tests;

use std::time::Duration;

use tokio::time::Instant;

pub(super) use answers::{Case, Fate, reason_of};

use super::Settings;
use super::pacing::Pacing;
use super::snapshot::{Breaker, Look};
use crate::cello::Access;
use crate::outbox::Flow;
use crate::reason::Reason;

/// So many events may be answered and not yet durably settled, beyond those being sent. What is
/// settled in vain after a crash is sent twice, so this bounds the duplicates.
const UNSETTLED_BEYOND_CONCURRENCY: usize = 64;
/// So many events are kept claimed and unsent at full speed: what a commit's time can send.
const AT_HAND: usize = 64;
/// The first wait between probes; it doubles …
const PROBE_MIN: Duration = Duration::from_secs(1);
/// … up to this: tens of calls in ten minutes, and found within half a minute when Cello is back.
const PROBE_MAX: Duration = Duration::from_secs(30);

/// Whether events go out as they come, or only as probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Closed,
    Open,
    Held(Reason),
}

/// An operator's pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    No,
    Until(Instant),
    UntilResumed,
}

/// What the loop may do now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Permit {
    /// So many sends may start.
    pub(super) send: usize,
    /// So many events may be kept claimed and unsent; more are given back.
    pub(super) keep: usize,
    /// How to claim: `rotate` of [`crate::outbox::Want`].
    pub(super) rotate: bool,
    /// When to ask again, if nothing else happens.
    pub(super) ask_at: Option<Instant>,
}

/// Given for a send that starts, shown when its answer is there.
#[derive(Debug)]
pub(super) struct Ticket {
    probe: bool,
}

/// What is shown of the governor's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) circuit_open: bool,
    pub(super) held: Option<Reason>,
    pub(super) paused: bool,
    /// Closed, open or starting slowly.
    pub(super) breaker: Breaker,
    /// How many sends may be under way.
    pub(super) limit: usize,
}

/// Decides how much may be sent.
#[derive(Debug)]
pub(super) struct Governor {
    settings: Settings,
    mode: Mode,
    probe_wait: Duration,
    probe_at: Instant,
    /// Sends that may be under way while closed: 1, 2, 4 … `concurrency` after a recovery.
    limit: usize,
    /// Deliveries at this limit; as many as the limit double it.
    delivered_at_limit: usize,
    pacing: Pacing,
    /// Nothing starts before: a rest, or Cello's `Retry-After`.
    wait_until: Option<Instant>,
    /// Cello's `Retry-After` alone.
    paced_until: Option<Instant>,
    access: Access,
    pause: Pause,
    draining: bool,
    stopped: bool,
    /// Sent and not yet answered.
    sending: usize,
    /// Handed out and not yet durably settled or given back.
    unsettled: usize,
    record: answers::Record,
}

impl Governor {
    pub(super) fn new(settings: Settings, access: Access, now: Instant) -> Self {
        let settings = Settings { concurrency: settings.concurrency.max(1), ..settings };
        Self {
            mode: Mode::Closed,
            probe_wait: PROBE_MIN,
            probe_at: now,
            limit: settings.concurrency,
            delivered_at_limit: 0,
            pacing: Pacing::new(settings.max_per_second, now),
            wait_until: None,
            paced_until: None,
            access,
            pause: Pause::No,
            draining: false,
            stopped: false,
            sending: 0,
            unsettled: 0,
            record: answers::Record::default(),
            settings,
        }
    }

    /// What may be done now.
    pub(super) fn permit(&mut self, now: Instant) -> Permit {
        self.forget_what_has_ended(now);
        if self.stopped || self.access != Access::Granted || self.pause == Pause::UntilResumed {
            return Permit::default();
        }
        let paused_until = if let Pause::Until(end) = self.pause { Some(end) } else { None };
        if let Some(end) = paused_until.max(self.wait_until) {
            return Permit { ask_at: Some(end), ..Permit::default() };
        }
        match self.mode {
            Mode::Closed => self.permit_closed(now),
            Mode::Open | Mode::Held(_) => self.permit_probe(now),
        }
    }

    fn permit_closed(&mut self, now: Instant) -> Permit {
        let slots = self.limit.saturating_sub(self.sending).min(self.room());
        let send = slots.min(self.pacing.available(now));
        // At full speed more are kept at hand: a claim takes as long as a commit, and meanwhile every free
        // slot needs an event.
        let at_full_speed = self.limit == self.settings.concurrency && !self.pacing.is_limited();
        let keep = if at_full_speed { send + AT_HAND } else { send };
        let ask_at = if slots > 0 { self.pacing.next() } else { None };
        Permit { send, keep, rotate: self.draining, ask_at }
    }

    fn permit_probe(&mut self, now: Instant) -> Permit {
        if self.sending > 0 {
            return Permit::default();
        }
        if now < self.probe_at {
            return Permit { ask_at: Some(self.probe_at), ..Permit::default() };
        }
        let send = self.pacing.available(now).min(self.room()).min(1);
        Permit { send, keep: send, rotate: true, ask_at: self.pacing.next() }
    }

    fn room(&self) -> usize {
        (self.settings.concurrency + UNSETTLED_BEYOND_CONCURRENCY).saturating_sub(self.unsettled)
    }

    fn forget_what_has_ended(&mut self, now: Instant) {
        if matches!(self.pause, Pause::Until(end) if end <= now) {
            self.pause = Pause::No;
        }
        self.wait_until = self.wait_until.filter(|end| *end > now);
    }

    /// A send starts, as [`Governor::permit`] allowed.
    pub(super) fn sent(&mut self) -> Ticket {
        self.sending += 1;
        self.unsettled += 1;
        self.pacing.take();
        Ticket { probe: self.mode != Mode::Closed }
    }

    /// An event that is not sent now waits to be settled or given back.
    pub(super) fn waits(&mut self) {
        self.unsettled += 1;
    }

    /// A send ended without an answer: nothing was sent after all, or its task panicked.
    ///
    /// A moment's rest, so that whatever went wrong is not repeated in a tight loop.
    pub(super) fn unanswered(&mut self, ticket: &Ticket, now: Instant) {
        self.sending -= 1;
        self.after_probe(ticket, now);
        self.rest(PROBE_MIN, now);
    }

    /// What was sent is durably settled, or was given back.
    pub(super) fn settled(&mut self) {
        self.unsettled -= 1;
    }

    /// An outcome was not stored.
    pub(super) fn unrecorded(&mut self, now: Instant) {
        self.rest(PROBE_MIN, now);
    }

    /// Nothing starts before `wait` is over.
    fn rest(&mut self, wait: Duration, now: Instant) {
        self.wait_until = self.wait_until.max(Some(now + wait));
    }

    fn close_slowly(&mut self) {
        self.mode = Mode::Closed;
        self.limit = 1;
        self.delivered_at_limit = 0;
    }

    fn leave_closed(&mut self, mode: Mode, now: Instant) {
        if self.mode == Mode::Closed {
            self.probe_wait = PROBE_MIN;
            self.probe_at = now + PROBE_MIN;
        }
        self.mode = mode;
    }

    /// Plans the next probe after one that did not close the breaker.
    fn after_probe(&mut self, ticket: &Ticket, now: Instant) {
        if ticket.probe && self.mode != Mode::Closed {
            self.probe_wait = (self.probe_wait * 2).min(PROBE_MAX);
            self.probe_at = now + self.probe_wait;
        }
    }

    /// Whether calls can be authenticated has changed.
    pub(super) fn set_access(&mut self, access: Access) {
        let was_refused = self.is_without_keys();
        self.access = access;
        let held_for_keys = matches!(self.mode, Mode::Closed | Mode::Held(Reason::Credentials));
        if was_refused && !self.is_without_keys() && held_for_keys {
            self.close_slowly();
        }
    }

    fn is_without_keys(&self) -> bool {
        matches!(self.access, Access::Refused(_) | Access::Missing(_))
    }

    /// An operator stops delivery, for a while or until [`Governor::resume`].
    pub(super) fn pause(&mut self, until: Option<Instant>) {
        self.pause = until.map_or(Pause::UntilResumed, Pause::Until);
    }

    /// Ends an operator's pause.
    pub(super) fn resume(&mut self) {
        self.pause = Pause::No;
    }

    /// The queue is being emptied; retry times are ignored, so every failure counts for the breaker.
    pub(super) fn drain(&mut self) {
        self.draining = true;
    }

    /// No send starts from now on.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// So many are unsettled that nothing may be sent.
    pub(super) fn is_full(&self) -> bool {
        self.room() == 0
    }

    pub(super) fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Sent and not yet answered.
    pub(super) fn sending(&self) -> usize {
        self.sending
    }

    /// How the queue moves; `something_waits` is asked only where it matters.
    pub(super) fn flow(&self, something_waits: impl FnOnce() -> bool) -> Flow {
        let view = self.view();
        if view.paused {
            return Flow::Paused;
        }
        if self.draining {
            return Flow::Draining;
        }
        if let Some(reason) = view.held {
            return Flow::Held(reason);
        }
        let failing = self.record.last_failed || self.access == Access::Waiting;
        if view.circuit_open || (failing && something_waits()) { Flow::Retrying } else { Flow::Ok }
    }

    /// What is shown of the state.
    pub(super) fn view(&self) -> View {
        let held = match self.mode {
            _ if self.is_without_keys() => Some(Reason::Credentials),
            Mode::Held(reason) => Some(reason),
            Mode::Closed | Mode::Open => None,
        };
        View {
            circuit_open: self.mode == Mode::Open,
            held,
            paused: self.pause != Pause::No,
            breaker: self.breaker().without_probe(),
            limit: if self.mode == Mode::Closed { self.limit } else { 1 },
        }
    }

    fn breaker(&self) -> Breaker {
        match self.mode {
            Mode::Open if self.sending > 0 => Breaker::HalfOpen,
            Mode::Open => Breaker::Open,
            Mode::Closed if self.limit < self.settings.concurrency => Breaker::SlowStart,
            Mode::Closed | Mode::Held(_) => Breaker::Closed,
        }
    }

    /// What an operator sees of it.
    pub(super) fn look(&self, now: Instant) -> Look {
        let View { held, paused, .. } = self.view();
        let probing = self.mode != Mode::Closed && self.sending == 0;
        Look {
            breaker: self.breaker(),
            held,
            paused,
            probe_at: probing.then_some(self.probe_at.max(now)),
            paced_until: self.paced_until.filter(|end| *end > now),
            last_delivered_at: self.record.last_delivered_at,
            last_failure: self.record.last_failure.clone(),
        }
    }
}
