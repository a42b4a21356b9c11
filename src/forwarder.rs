//! Claim → send → settle.
//!
//! One loop claims as much as [`governor`] permits and starts a task for each event; the task sends,
//! asks the governor what the answer means, and settles. A slot is free as soon as Cello answered;
//! what was sent and is not durably settled is bounded, because a crash sends it twice.
//!
//! ```text
//! governor   how much may be sent; breaker, hold, probes, slow start (pure)
//!   answers  what an answer means for the event (pure)
//! strikes    when an event is given up (pure)
//! backoff    when a failed event is due again (pure)
//! pacing     sends per second (pure)
//! supply     events claimed and not yet sent
//! flights    events sent and not yet recorded (pure)
//! delivery   one event's way
//! handle     pause, drain, stop
//! snapshot   what operators see of it
//! ```

mod backoff;
mod delivery;
mod flights;
mod governor;
mod handle;
mod pacing;
mod shared;
mod snapshot;
mod strikes;
mod supply;
#[cfg(test)]
mod testing;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use handle::Handle;
pub use snapshot::{Breaker, Failure, Pause, Snapshot};

use crate::cello::{Access, Courier, Judgement};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use governor::Permit;
use shared::Shared;
use supply::Supply;

/// The loop moves at least so often, so that a stuck one is told from a waiting one.
const BEAT: Duration = Duration::from_secs(10);
/// While there is no token nothing is claimed, so that only a look tells whether something waits for it.
const LOOK: Duration = Duration::from_secs(1);

/// `forward.*`
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many events are sent at the same time, at most.
    pub concurrency: usize,
    /// How many events are sent in a second, at most; 0 is no limit.
    pub max_per_second: u32,
    /// The first wait of an event's backoff.
    pub backoff_min: Duration,
    /// The longest wait of an event's backoff.
    pub backoff_max: Duration,
    /// Dead (`exhausted`) needs so many strikes …
    pub max_strikes: u32,
    /// … and so much time since the first failure.
    pub give_up_after: Duration,
    /// So many refusals of different users in a row hold the queue.
    pub refusals_in_a_row: u32,
    /// What happens when the outcome of a sent request is unknown.
    pub ambiguous: Ambiguous,
}

/// `forward.ambiguous`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ambiguous {
    /// Send again: at least once.
    #[default]
    Retry,
    /// Give up: at most once.
    Dead,
}

/// What a forwarder works with.
#[derive(Clone)]
pub struct Deps {
    /// Where events come from.
    pub outbox: Arc<dyn Outbox>,
    /// Who takes them to Cello.
    pub courier: Arc<dyn Courier>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
}

impl fmt::Debug for Deps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Deps")
    }
}

/// Moves events from the outbox to Cello. Clones are the same forwarder, for one to go on where another has ended.
#[derive(Clone)]
pub struct Forwarder {
    shared: Arc<Shared>,
    access: watch::Receiver<Access>,
}

impl Forwarder {
    /// A forwarder that has not started, and the handle to steer it. `log_deliveries` is
    /// `log.deliveries`; `rng` draws the jitter.
    #[must_use]
    pub fn new(deps: Deps, settings: Settings, log_deliveries: bool, rng: fastrand::Rng) -> (Self, Handle) {
        let access = deps.courier.access();
        let shared = Arc::new(Shared::new(deps, settings, log_deliveries, rng));
        (Self { shared: Arc::clone(&shared), access }, Handle { shared })
    }

    /// Forwards until [`Handle::stop`] is called or the outbox is closed; returns when all that was
    /// sent is settled. To be run once at a time; dropped, it gives back what has not started.
    pub async fn run(mut self) {
        let shared = &self.shared;
        let mut supply = Supply::new(&*shared.deps.outbox);
        let mut now = shared.deps.clock.instant();
        let mut beat_at = now;
        let mut timer = pin!(tokio::time::sleep_until(beat_at));
        shared.govern(|governor| governor.set_access(*self.access.borrow_and_update()));
        loop {
            shared.beat(now);
            let mut permit = shared.permit(now);
            if start(shared, &permit, &mut supply) {
                // What has started used up its share of the rate: when the next may start is known only now.
                permit.ask_at = shared.permit(now).ask_at;
            }
            shared.tell_flow();
            if shared.has_ended() {
                return;
            }
            let rest = if *self.access.borrow() == Access::Waiting { LOOK } else { BEAT };
            beat_at = if beat_at <= now { now + rest } else { beat_at.min(now + rest) };
            let wake_at = permit.ask_at.map_or(beat_at, |at| at.min(beat_at));
            if timer.deadline() != wake_at {
                timer.as_mut().reset(wake_at);
            }
            tokio::select! {
                biased;
                () = shared.woken() => (),
                access = changed(&mut self.access) => shared.govern(|governor| governor.set_access(access)),
                open = supply.arrive() => if !open { shared.stop() },
                () = &mut timer => (),
            }
            now = shared.deps.clock.instant();
        }
    }
}

/// Starts as many sends as are permitted and at hand, then lets the supply follow the permit; says whether any started.
fn start(shared: &Arc<Shared>, permit: &Permit, supply: &mut Supply<'_>) -> bool {
    let mut started = 0;
    while started < permit.send
        && let Some(claimed) = supply.pop()
    {
        let shared = Arc::clone(shared);
        if let Some(ticket) = shared.take_off(claimed.id, &claimed.event.user) {
            tokio::spawn(delivery::deliver(shared, claimed, ticket));
            started += 1;
        } else {
            // It takes no slot: another event is wanted for that.
            tokio::spawn(delivery::settle_again(shared, claimed));
        }
    }
    supply.adjust(permit, started);
    started > 0
}

/// The next change of access; never resolves once there can be none.
async fn changed(access: &mut watch::Receiver<Access>) -> Access {
    if access.changed().await.is_err() {
        return std::future::pending().await;
    }
    *access.borrow_and_update()
}

impl fmt::Debug for Forwarder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Forwarder")
    }
}

#[cfg(test)]
mod tests;
