//! What the loop, the sends under way and the handles share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tracing::{info, warn};

use super::backoff::Backoff;
use super::flights::{Answer, Flights, Standing};
use super::governor::{Governor, Permit, Ticket, View};
use super::snapshot::{Breaker, Look, Pause, Snapshot};
use super::{Ambiguous, Deps, Settings};
use crate::clock::Timestamp;
use crate::event::{EventId, UserId};
use crate::outbox::{Flow, SettleError};

pub(super) struct Shared {
    pub(super) deps: Deps,
    pub(super) ambiguous: Ambiguous,
    /// One info line per delivered or dead event.
    pub(super) log_deliveries: bool,
    pub(super) backoff: Mutex<Backoff>,
    state: Mutex<State>,
    flow: watch::Sender<Flow>,
    /// Since when the breaker is open.
    open_since: watch::Sender<Option<Instant>>,
    /// Wakes the loop: a slot or an order came.
    changed: Notify,
    /// Wakes those who wait until nothing is under way.
    idle: Notify,
    /// Wakes those who wait for what is under way of a user.
    landed: Notify,
    /// Cuts off the sends under way.
    abort: Notify,
    origin: Instant,
    /// Milliseconds from `origin` to the loop's last move.
    beat_ms: AtomicU64,
}

struct State {
    governor: Governor,
    flights: Flights,
    shown: View,
    held_since: Option<(Instant, Timestamp)>,
    breaker_since: Timestamp,
    pause: Option<Pause>,
}

impl Shared {
    pub(super) fn new(deps: Deps, settings: Settings, log_deliveries: bool, rng: fastrand::Rng) -> Self {
        let origin = deps.clock.instant();
        let access = *deps.courier.access().borrow();
        let ambiguous = settings.ambiguous;
        let backoff = Backoff::new(settings.backoff_min, settings.backoff_max, rng);
        let governor = Governor::new(settings, access, origin);
        let calm = View { circuit_open: false, held: None, paused: false, breaker: Breaker::Closed, limit: 0 };
        let state = State {
            governor,
            flights: Flights::default(),
            shown: calm,
            held_since: None,
            breaker_since: deps.clock.now(),
            pause: None,
        };
        let shared = Self {
            deps,
            ambiguous,
            log_deliveries,
            backoff: Mutex::new(backoff),
            state: Mutex::new(state),
            flow: watch::Sender::default(),
            open_since: watch::Sender::default(),
            changed: Notify::new(),
            idle: Notify::new(),
            landed: Notify::new(),
            abort: Notify::new(),
            origin,
            beat_ms: AtomicU64::new(0),
        };
        shared.govern(|_| ());
        shared
    }

    /// Asks or tells the governor something, and shows what changed.
    pub(super) fn govern<R>(&self, act: impl FnOnce(&mut Governor) -> R) -> R {
        self.change(|state| act(&mut state.governor))
    }

    fn change<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let result = act(&mut state);
        let view = state.governor.view();
        if view != state.shown {
            self.show(&mut state, view);
        }
        result
    }

    pub(super) fn permit(&self, now: Instant) -> Permit {
        self.govern(|governor| governor.permit(now))
    }

    /// Sets the gauges and writes one line for each change that an operator wants to know of.
    fn show(&self, state: &mut State, view: View) {
        let before = std::mem::replace(&mut state.shown, view);
        let metrics = &self.deps.metrics;
        metrics.upstream_limit.set(i64::try_from(view.limit).unwrap_or(i64::MAX));
        metrics.circuit_open.set(view.circuit_open.into());
        metrics.paused.set(view.paused.into());
        if before.breaker != view.breaker {
            state.breaker_since = self.deps.clock.now();
        }
        if before.circuit_open != view.circuit_open {
            self.open_since.send_replace(view.circuit_open.then(|| self.deps.clock.instant()));
            if view.circuit_open {
                warn!(event = "circuit_opened", "events of several users failed in a row: only probes are sent");
            } else {
                info!(event = "circuit_closed", "the breaker closed");
            }
        }
        if before.paused != view.paused {
            let event = if view.paused { "delivery_paused" } else { "delivery_unpaused" };
            info!(event, "an operator's pause began or ended");
        }
        if before.held != view.held {
            metrics.held.only(view.held);
            let now = self.deps.clock.instant();
            if let Some(reason) = view.held {
                state.held_since.get_or_insert((now, self.deps.clock.now()));
                warn!(
                    event = "delivery_held",
                    reason = reason.as_str(),
                    "delivery is held: only probes are sent, nothing is burned"
                );
            } else {
                let held_for = state.held_since.take().map_or(0, |(since, _)| (now - since).as_secs());
                info!(event = "delivery_resumed", held_seconds = held_for, "delivery is no longer held");
            }
        }
    }

    /// An outcome could not be stored, so the event is handed out again. If nobody knows whether Cello has it, that may
    /// make a duplicate; a moment's rest keeps these few.
    pub(super) fn not_recorded(&self, error: SettleError) {
        let now = self.deps.clock.instant();
        self.govern(|governor| governor.unrecorded(now));
        warn!(event = "settle_failed", %error, "an outcome was not stored: the event is handed out again, and settled only if Cello has it");
    }

    /// Pauses delivery until the order says; one that is over ends a pause.
    pub(super) fn pause(&self, pause: Pause) {
        let (now, wall) = (self.deps.clock.instant(), self.deps.clock.now());
        self.change(|state| {
            state.pause = Some(pause);
            match pause.left(wall) {
                // A pause beyond the end of time lasts until resumed.
                Some(left) => state.governor.pause(left.and_then(|left| now.checked_add(left))),
                None => state.governor.resume(),
            }
        });
    }

    /// What an operator sees.
    pub(super) fn snapshot(&self) -> Snapshot {
        let (now, wall) = (self.deps.clock.instant(), self.deps.clock.now());
        let at = |moment: Instant| wall.plus(moment.saturating_duration_since(now));
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let look: Look = state.governor.look(now);
        Snapshot {
            flow: *self.flow.borrow(),
            breaker: look.breaker,
            breaker_since: Some(state.breaker_since),
            hold: look.held.map(|reason| (reason, state.held_since.map_or(wall, |(_, since)| since))),
            paused: state.pause.filter(|_| look.paused),
            next_probe_at: look.probe_at.map(at),
            paced_until: look.paced_until.map(at),
            last_delivered_at: look.last_delivered_at,
            last_failure: look.last_failure,
        }
    }

    /// Tells the watchers how the queue moves.
    pub(super) fn tell_flow(&self) {
        let flow = self.govern(|governor| governor.flow(|| self.deps.outbox.stats().ledger.undelivered() > 0));
        self.flow.send_if_modified(|told| std::mem::replace(told, flow) != flow);
    }

    pub(super) fn flow(&self) -> watch::Receiver<Flow> {
        self.flow.subscribe()
    }

    pub(super) fn open_since(&self) -> watch::Receiver<Option<Instant>> {
        self.open_since.subscribe()
    }

    /// A claimed event starts: with a ticket if it is to be sent now, with none if it has to wait, was sent before, or all
    /// has been stopped meanwhile.
    pub(super) fn take_off(&self, id: EventId, user: &UserId) -> Option<Ticket> {
        self.change(|state| {
            if !state.governor.is_stopped() && state.flights.standing(id, user) == Standing::Free {
                state.flights.begin(user);
                return Some(state.governor.sent());
            }
            state.governor.waits();
            None
        })
    }

    /// What came of an event and is not recorded, if anything, as soon as nothing of its user is under way.
    pub(super) async fn landed(&self, id: EventId, user: &UserId) -> Option<Answer> {
        loop {
            let mut notified = std::pin::pin!(self.landed.notified());
            notified.as_mut().enable();
            match self.change(|state| state.flights.standing(id, user)) {
                Standing::UnderWay => notified.await,
                Standing::Sent(answer) => return Some(answer),
                Standing::Free => return None,
            }
        }
    }

    /// Keeps in mind what came of an event, as the outbox could not.
    pub(super) fn remember(&self, id: EventId, answer: Answer) {
        self.change(|state| state.flights.remember(id, answer));
    }

    /// The outbox knows it now.
    pub(super) fn forget(&self, id: EventId) {
        self.change(|state| state.flights.forget(id));
    }

    /// An event is settled, or given back; `sender` is whose it is, if it was sent for that.
    pub(super) fn settled(&self, sender: Option<&UserId>) {
        let (was_full, is_idle) = self.change(|state| {
            if let Some(user) = sender {
                state.flights.end(user);
            }
            let was_full = state.governor.is_full();
            state.governor.settled();
            (was_full, state.governor.unsettled() == 0)
        });
        self.landed.notify_waiters();
        if is_idle {
            self.idle.notify_waiters();
        }
        if was_full || is_idle {
            self.changed.notify_one();
        }
    }

    /// Resolves when nothing is under way: neither sent and unanswered nor answered and unsettled.
    pub(super) async fn idle(&self) {
        loop {
            let mut notified = std::pin::pin!(self.idle.notified());
            notified.as_mut().enable();
            if self.govern(|governor| governor.unsettled()) == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Wakes the loop.
    pub(super) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Resolves when the loop has been woken.
    pub(super) async fn woken(&self) {
        self.changed.notified().await;
    }

    /// No send starts from now on.
    pub(super) fn stop(&self) {
        self.govern(Governor::stop);
        self.wake();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.govern(|governor| governor.is_stopped())
    }

    /// Stopped, and nothing is under way.
    pub(super) fn has_ended(&self) -> bool {
        self.govern(|governor| governor.is_stopped() && governor.unsettled() == 0)
    }

    /// Stops, and cuts off the sends under way; says how many there were.
    pub(super) fn abort(&self) -> usize {
        self.stop();
        let cut_off = self.govern(|governor| governor.sending());
        self.abort.notify_waiters();
        cut_off
    }

    /// Resolves when [`Shared::abort`] is called; it hears that from when it is made.
    pub(super) fn aborted(&self) -> tokio::sync::futures::Notified<'_> {
        self.abort.notified()
    }

    /// The loop moved.
    pub(super) fn beat(&self, now: Instant) {
        let ms = u64::try_from((now - self.origin).as_millis()).unwrap_or(u64::MAX);
        self.beat_ms.store(ms, Ordering::Relaxed);
    }

    pub(super) fn last_beat(&self) -> Instant {
        self.origin + Duration::from_millis(self.beat_ms.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
#[path = "shared/tests.rs"]
mod tests;
