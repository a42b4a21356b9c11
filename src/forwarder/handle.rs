//! How others steer and watch the forwarder.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::governor::Governor;
use super::shared::Shared;
use super::snapshot::{Pause, Snapshot};
use crate::outbox::Flow;

/// Steers and watches a [`super::Forwarder`]; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) shared: Arc<Shared>,
}

impl Handle {
    /// How the queue moves, and changes of that.
    #[must_use]
    pub fn flow(&self) -> watch::Receiver<Flow> {
        self.shared.flow()
    }

    /// Since when the breaker is open, with a probe under way or not, and changes of that.
    #[must_use]
    pub fn open_since(&self) -> watch::Receiver<Option<Instant>> {
        self.shared.open_since()
    }

    /// Starts no send for a while, or until [`Handle::resume`]; what was sent goes on.
    pub fn pause(&self, wait: Option<Duration>) {
        let since = self.shared.deps.clock.now();
        self.pause_as(Pause { since, until: wait.map(|wait| since.plus(wait)) });
    }

    /// The same for a pause that was ordered before, perhaps of another process.
    pub fn pause_as(&self, pause: Pause) {
        self.shared.pause(pause);
        self.told();
    }

    /// Where the forwarder stands now.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shared.snapshot()
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.order(Governor::resume);
    }

    /// Empties the queue before an end: retry times are ignored; pacing, breaker and holds are not.
    pub fn drain(&self) {
        self.order(Governor::drain);
        self.shared.deps.outbox.ignore_backoff(true);
    }

    /// No send starts from now on; what was sent goes on. [`super::Forwarder::run`] returns when
    /// that is settled.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// Resolves when nothing is under way: all that was sent is answered and durably settled.
    pub async fn idle(&self) {
        self.shared.idle().await;
    }

    /// Stops and cuts off the sends under way; says how many. Their outcome is unknown: they are
    /// counted ambiguous (`timeout`) and handed out again (or given up, if `ambiguous = "dead"`).
    /// Await [`Handle::idle`] after it, so that this is settled too.
    pub fn abort(&self) -> usize {
        self.shared.abort()
    }

    /// When the loop last moved; at least every ten seconds, also while it waits.
    #[must_use]
    pub fn heartbeat(&self) -> Instant {
        self.shared.last_beat()
    }

    fn order(&self, order: impl FnOnce(&mut Governor)) {
        self.shared.govern(order);
        self.told();
    }

    fn told(&self) {
        // Told before the caller goes on: whoever asks next sees the order in force.
        self.shared.tell_flow();
        self.shared.wake();
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handle")
    }
}
