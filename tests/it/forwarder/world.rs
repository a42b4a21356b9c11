//! A forwarder between an outbox in memory and a scripted Cello, all in virtual time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cello_relay::cello::{Access, Courier, Delivery, Departed, Judgement, Verdict};
use cello_relay::clock::{Clock, TestClock, Timestamp};
use cello_relay::event::EventId;
use cello_relay::forwarder::{Ambiguous, Deps, Forwarder, Handle, Settings};
use cello_relay::metrics::Metrics;
use cello_relay::reason::Reason;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::outbox::WatchedOutbox;

pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MINUTE: Duration = Duration::from_secs(60);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A request that the scripted Cello got.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) id: EventId,
    pub(crate) user: String,
    /// Since the start.
    pub(crate) at: Duration,
    /// How many came before it.
    pub(crate) number: usize,
    /// How many were under way, this one included.
    pub(crate) under_way: usize,
}

type Script = dyn Fn(&Call) -> Judgement + Send + Sync;

/// Answers as scripted, and remembers.
pub(crate) struct Cello {
    script: Mutex<Arc<Script>>,
    latency: Mutex<Duration>,
    calls: Mutex<Vec<Call>>,
    under_way: Mutex<usize>,
    /// Calls get a connection.
    is_reached: Mutex<bool>,
    pub(crate) access: watch::Sender<Access>,
    origin: Instant,
}

impl Cello {
    fn new(script: Arc<Script>) -> Arc<Self> {
        Arc::new(Self {
            script: Mutex::new(script),
            latency: Mutex::new(Duration::from_millis(20)),
            calls: Mutex::default(),
            under_way: Mutex::default(),
            is_reached: Mutex::new(true),
            access: watch::Sender::new(Access::Granted),
            origin: TestClock::starting_at(Timestamp::default()).instant(),
        })
    }

    pub(crate) fn answer(&self, script: impl Fn(&Call) -> Judgement + Send + Sync + 'static) {
        *self.script.lock().unwrap() = Arc::new(script);
    }

    pub(crate) fn set_latency(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    /// From now on calls wait for a connection that does not come.
    pub(crate) fn be_out_of_reach(&self) {
        *self.is_reached.lock().unwrap() = false;
        self.set_latency(MINUTE);
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    fn note(&self, id: EventId, body: &Bytes) -> Call {
        let under_way = {
            let mut under_way = self.under_way.lock().unwrap();
            *under_way += 1;
            *under_way
        };
        let mut calls = self.calls.lock().unwrap();
        let user = String::from_utf8(body.to_vec()).unwrap();
        let call = Call { id, user, at: self.origin.elapsed(), number: calls.len(), under_way };
        calls.push(call.clone());
        call
    }
}

/// Counts a call as ended, also one that is cut off.
struct UnderWay<'a>(&'a Cello);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        *self.0.under_way.lock().unwrap() -= 1;
    }
}

impl Courier for Cello {
    fn deliver(&self, id: EventId, body: Bytes, departed: Departed) -> Delivery<'_> {
        Box::pin(async move {
            let call = self.note(id, &body);
            if *self.is_reached.lock().unwrap() {
                departed.note();
            }
            let _under_way = UnderWay(self);
            let latency = *self.latency.lock().unwrap();
            tokio::time::sleep(latency).await;
            let script = Arc::clone(&self.script.lock().unwrap());
            script(&call)
        })
    }

    fn access(&self) -> watch::Receiver<Access> {
        self.access.subscribe()
    }
}

/// All of it, running.
pub(crate) struct World {
    pub(crate) outbox: Arc<WatchedOutbox>,
    pub(crate) cello: Arc<Cello>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) handle: Handle,
    pub(crate) running: JoinHandle<()>,
    pub(crate) forwarder: Forwarder,
}

impl World {
    pub(crate) fn start(script: impl Fn(&Call) -> Judgement + Send + Sync + 'static) -> Self {
        Self::with(settings(), 0, script)
    }

    pub(crate) fn with(
        settings: Settings,
        seed: u64,
        script: impl Fn(&Call) -> Judgement + Send + Sync + 'static,
    ) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TestClock::starting_at(Timestamp::from_millis(1_700_000_000_000)));
        let outbox = WatchedOutbox::new(Arc::clone(&clock));
        let cello = Cello::new(Arc::new(script));
        let metrics = Arc::new(Metrics::new());
        let deps = Deps { outbox: outbox.clone(), courier: cello.clone(), clock, metrics: metrics.clone() };
        let (forwarder, handle) = Forwarder::new(deps, settings, true, fastrand::Rng::with_seed(seed));
        let running = tokio::spawn(forwarder.clone().run());
        Self { outbox, cello, metrics, handle, running, forwarder }
    }

    /// Posts one event for each of `count` users, numbered from `first`.
    pub(crate) fn post_users(&self, first: usize, count: usize) {
        for user in first..first + count {
            self.outbox.post(&user.to_string());
        }
    }

    /// Resolves when so many are delivered in all.
    pub(crate) async fn delivered(&self, count: usize) {
        self.outbox.until(|outbox| outbox.delivered().len() >= count).await;
    }

    /// Lets virtual time pass.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// The defaults.
pub(crate) fn settings() -> Settings {
    Settings {
        concurrency: 8,
        max_per_second: 0,
        backoff_min: SECOND,
        backoff_max: 5 * MINUTE,
        max_strikes: 20,
        give_up_after: DAY,
        refusals_in_a_row: 20,
        ambiguous: Ambiguous::Retry,
    }
}

/// Cello's answer of that status, judged.
pub(crate) fn status(status: u16) -> Judgement {
    let (verdict, reason) = match status {
        200 => (Verdict::Delivered, None),
        400 => (Verdict::Refused, Some(Reason::Http400)),
        403 => (Verdict::Hold, Some(Reason::Http403)),
        429 => (Verdict::Retry, Some(Reason::Http429)),
        500..600 => (Verdict::Retry, Some(Reason::Http5xx)),
        other => panic!("no judgement of {other} is scripted"),
    };
    Judgement {
        verdict,
        reason,
        status: Some(status),
        request_id: None,
        message: None,
        retry_after: None,
        outcome_unknown: status == 500,
    }
}
