//! The end: stop taking, empty what can be emptied, close, say what is left.
//!
//! ```text
//! signal ─▶ /readyz 503 ─linger─▶ listener closed ─▶ drain (≤ deadline) ─▶ no new send ─grace─▶ close ─▶ summary
//! ```

use std::fmt;
use std::path::PathBuf;
use std::process;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::clock::Clock;
use crate::forwarder;
use crate::metrics::Phase;
use crate::outbox::Outbox;

/// How often the drain looks whether the outbox is empty; it is told in a snapshot, not by an event.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Kept of the pod's grace period for closing the outbox, beside what sends under way may still take.
const CLOSING: Duration = Duration::from_secs(1);

/// `shutdown.*`
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// How long requests are still taken after SIGTERM.
    pub linger: Duration,
    /// How long the outbox is drained.
    pub deadline: Duration,
    /// How long sends under way may still take.
    pub grace: Duration,
    /// Where the summary line is written too.
    pub report_file: Option<PathBuf>,
    /// The pod's termination grace period, if known: after a `drain` only what is left of it is spent.
    pub pod_grace: Option<Duration>,
}

/// What was left when a relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Events that wait for the next start.
    pub undelivered: u64,
    /// Dead letters that wait for an operator.
    pub dead: u64,
    /// How long the oldest undelivered event has waited.
    pub oldest: Duration,
}

/// The line of the report file.
impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "undelivered={} dead={} oldest={}s", self.undelivered, self.dead, self.oldest.as_secs())
    }
}

/// SIGTERM and SIGINT, caught from the moment this is made: as process 1 of a container there is no
/// default action to rely on.
pub struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    /// Installs the handlers; needs a runtime around it.
    ///
    /// # Errors
    /// The system refuses a handler.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, int: signal(SignalKind::interrupt())? })
    }

    /// Resolves to the exit code that a signal stands for.
    async fn next(&mut self) -> i32 {
        tokio::select! {
            _ = self.term.recv() => 143,
            _ = self.int.recv() => 130,
        }
    }

    /// Waits for the first signal, or for `quit` to be asked for. From then on a further signal ends
    /// the process at once.
    pub(super) async fn first(mut self, quit: &mut watch::Receiver<bool>) {
        tokio::select! {
            _ = self.next() => {}
            Ok(_) = quit.wait_for(|asked| *asked) => {}
        }
        tokio::spawn(async move {
            let code = self.next().await;
            tracing::warn!(event = "killed", code, "a second signal: ending at once");
            process::exit(code);
        });
    }
}

/// When a `drain` began, if one did: the pod's grace period runs from there.
#[derive(Clone, Debug, Default)]
pub(super) struct DrainBegan(Arc<Mutex<Option<Instant>>>);

impl DrainBegan {
    /// The first drain counts.
    fn note(&self, now: Instant) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(now);
    }

    /// What is left of `grace`, less what the end takes after the drain.
    fn left_of(&self, grace: Duration, end: Duration, now: Instant) -> Option<Duration> {
        let began = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        began.map(|began| grace.saturating_sub(now - began).saturating_sub(end))
    }
}

/// What `POST /api/drain` does: posts are still taken, backoff is dropped, and the start is remembered.
pub(super) fn on_drain(
    forwarder: forwarder::Handle,
    began: DrainBegan,
    phase: watch::Sender<Phase>,
    clock: Arc<dyn Clock>,
) -> Arc<dyn Fn() + Send + Sync> {
    Arc::new(move || {
        began.note(clock.instant());
        forwarder.drain();
        phase.send_if_modified(|phase| {
            let serving = *phase == Phase::Serving;
            if serving {
                *phase = Phase::Terminating;
            }
            serving
        });
    })
}

/// What the end acts on.
pub(super) struct Ending<'a> {
    pub(super) outbox: &'a dyn Outbox,
    pub(super) forwarder: &'a forwarder::Handle,
    pub(super) phase: &'a watch::Sender<Phase>,
    pub(super) settings: &'a Shutdown,
    pub(super) drain_began: &'a DrainBegan,
    pub(super) clock: &'a dyn Clock,
}

impl Ending<'_> {
    /// Runs the end to its end.
    pub(super) async fn run(self, stop_ingest: watch::Sender<bool>, mut ingest: JoinSet<()>) -> End {
        self.phase.send_replace(Phase::Draining);
        tracing::info!(event = "draining", undelivered = self.undelivered(), "ending: emptying the outbox");
        tokio::time::sleep(self.settings.linger).await;
        stop_ingest.send_replace(true);
        // The listener itself bounds how long that takes.
        while ingest.join_next().await.is_some() {}
        self.forwarder.drain();
        let budget = self.budget();
        let _emptied = timeout(budget, self.emptied(self.clock.instant() + budget)).await;
        self.forwarder.stop();
        if timeout(self.settings.grace, self.forwarder.idle()).await.is_err() {
            self.forwarder.abort();
            self.forwarder.idle().await;
        }
        self.outbox.close().await;
        self.report()
    }

    fn budget(&self) -> Duration {
        let (now, end) = (self.clock.instant(), self.settings.grace + CLOSING);
        let left = self.settings.pod_grace.and_then(|grace| self.drain_began.left_of(grace, end, now));
        left.map_or(self.settings.deadline, |left| left.min(self.settings.deadline))
    }

    /// Resolves when nothing waits, or when nothing can go before `end`, as a pause lasts longer.
    async fn emptied(&self, end: Instant) {
        while self.undelivered() > 0 && !self.is_paused_until(end) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn is_paused_until(&self, end: Instant) -> bool {
        let paused = self.forwarder.snapshot().paused.and_then(|pause| pause.left(self.clock.now()));
        paused.is_some_and(|left| left.is_none_or(|left| self.clock.instant() + left >= end))
    }

    fn undelivered(&self) -> u64 {
        self.outbox.stats().ledger.undelivered()
    }

    fn report(&self) -> End {
        let stats = self.outbox.stats();
        let end = End {
            undelivered: stats.ledger.undelivered(),
            dead: stats.ledger.dead,
            oldest: stats.oldest_age(self.clock.now()),
        };
        tracing::info!(
            event = "shutdown_summary",
            undelivered = end.undelivered,
            dead = end.dead,
            oldest_seconds = end.oldest.as_secs(),
            "ended",
        );
        if let Some(file) = &self.settings.report_file
            && let Err(error) = std::fs::write(file, format!("{end}\n"))
        {
            tracing::warn!(event = "report_not_written", %error, "shutdown.report_file cannot be written");
        }
        end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_one_line_of_three_facts() {
        let end = End { undelivered: 3, dead: 1, oldest: Duration::from_millis(61_500) };
        assert_eq!(end.to_string(), "undelivered=3 dead=1 oldest=61s");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_drain_only_what_is_left_of_the_pods_grace_is_spent() {
        let began = DrainBegan::default();
        let left = |grace| began.left_of(Duration::from_secs(grace), Duration::from_secs(3), Instant::now());
        assert_eq!(left(60), None);
        began.note(Instant::now());
        tokio::time::advance(Duration::from_secs(40)).await;
        began.note(Instant::now());
        assert_eq!(left(60), Some(Duration::from_secs(17)));
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(left(60), Some(Duration::ZERO));
    }
}
