//! An ingress on a real socket before an outbox that does what the test says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cello_relay::clock::{Clock, SystemClock, Timestamp};
use cello_relay::event::EventId;
use cello_relay::http::{self, Listener};
use cello_relay::ingress::door::Door;
use cello_relay::ingress::{Checks, Ingress, Reads, Settings};
use cello_relay::metrics::Metrics;
use cello_relay::outbox::{
    AppendError, Batch, Claimed, Flow, Lease, Ledger, Outbox, Outcome, ReadError, Receipt, Report, SettleError,
    Settled, Stats, Wait, Want,
};
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::wire::{Answer, ask};

pub(crate) const EVENT: &str = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"c","newUserId":"u"},"context":{"event":{"trigger":"new-signup","timestamp":"2022-10-05 14:14:34"}}}"#;

/// Stores in memory and remembers keys; refuses or waits when told.
#[derive(Default)]
pub(crate) struct FakeOutbox {
    pub(crate) batches: Mutex<Vec<Batch>>,
    known: Mutex<HashMap<String, (cello_relay::outbox::Key, Receipt)>>,
    pub(crate) refusing: Mutex<Option<AppendError>>,
    pub(crate) reports: Mutex<HashMap<EventId, Report>>,
    /// Appends wait while this is true.
    pub(crate) closed_gate: watch::Sender<bool>,
}

impl FakeOutbox {
    pub(crate) fn bodies(&self) -> Vec<Value> {
        let batches = self.batches.lock().expect("no panic");
        let events = batches.iter().flat_map(|batch| &batch.events);
        events.map(|event| serde_json::from_slice(&event.body).expect("JSON")).collect()
    }

    fn store(&self, batch: Batch) -> Result<Receipt, AppendError> {
        let name = batch.key.as_ref().map(|key| format!("{:?} {}", key.route, key.key));
        let mut known = self.known.lock().expect("no panic");
        if let Some((first, receipt)) = name.as_ref().and_then(|name| known.get(name)) {
            let same = batch.key.as_ref().is_some_and(|key| key.body == first.body);
            let again = Receipt { replayed: Some(first.notes.clone()), ..receipt.clone() };
            return if same { Ok(again) } else { Err(AppendError::KeyReused) };
        }
        if let Some(error) = *self.refusing.lock().expect("no panic") {
            return Err(error);
        }
        let mut batches = self.batches.lock().expect("no panic");
        let first: usize = batches.iter().map(|batch| batch.events.len()).sum();
        let at = Timestamp::from_millis(1_760_688_930_012);
        let ids = (first..first + batch.events.len()).map(|seq| EventId::new(at, seq as u64 + 1, 7)).collect();
        let receipt = Receipt { ids, replayed: None };
        if let (Some(name), Some(key)) = (name, batch.key.clone()) {
            known.insert(name, (key, receipt.clone()));
        }
        batches.push(batch);
        Ok(receipt)
    }
}

impl Outbox for FakeOutbox {
    fn append(&self, batch: Batch) -> Wait<'_, Result<Receipt, AppendError>> {
        let mut gate = self.closed_gate.subscribe();
        Box::pin(async move {
            gate.wait_for(|closed| !closed).await.expect("the outbox lives");
            self.store(batch)
        })
    }

    fn claim(&self, _: Want) -> Wait<'_, Vec<Claimed>> {
        unreachable!("ingress only appends and looks up")
    }

    fn intend<'a>(&'a self, _: &'a Lease) -> Wait<'a, Result<(), SettleError>> {
        unreachable!("ingress only appends and looks up")
    }

    fn settle(&self, _: Lease, _: Outcome) -> Wait<'_, Result<Settled, SettleError>> {
        unreachable!("ingress only appends and looks up")
    }

    fn lookup(&self, id: EventId) -> Wait<'_, Result<Option<Report>, ReadError>> {
        let report = self.reports.lock().expect("no panic").get(&id).cloned();
        Box::pin(async move { Ok(report) })
    }

    fn stats(&self) -> Stats {
        let ledger = Ledger { accepted: 9, delivered: 3, dead: 2, ..Ledger::default() };
        let oldest = Some(SystemClock.now().minus(Duration::from_secs(90)));
        Stats { ledger, in_flight: 1, retrying: 1, oldest, ..Stats::default() }
    }

    fn ignore_backoff(&self, _: bool) {}

    fn close(&self) -> Wait<'_, ()> {
        Box::pin(async {})
    }
}

/// A running ingress.
pub(crate) struct Rig {
    pub(crate) at: SocketAddr,
    pub(crate) outbox: Arc<FakeOutbox>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) door: Door,
    pub(crate) flow: watch::Sender<Flow>,
    /// Ends the server when dropped.
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
}

pub(crate) fn settings() -> Settings {
    Settings {
        listen: vec!["127.0.0.1:0".parse().expect("an address")],
        max_body_bytes: 4096,
        max_batch: 3,
        max_batch_bytes: 8192,
        outbox_max_events: 0,
        checks: Checks::Warn,
        allowed_hosts: vec!["relay.example".to_owned()],
        token_file: None,
        allow_unauthenticated_remote: false,
        max_connections: 10_000,
        header_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(10),
    }
}

impl Rig {
    pub(crate) fn start() -> Self {
        Self::with(settings(), None)
    }

    pub(crate) fn with(settings: Settings, reads: Option<Reads>) -> Self {
        let outbox = Arc::new(FakeOutbox::default());
        let (metrics, (flow, flowing)) = (Arc::new(Metrics::new()), watch::channel(Flow::Ok));
        let limits = settings.limits();
        let listeners = http::bind(&settings.listen).expect("bound");
        let at = listeners[0].local_addr().expect("an address");
        let store: Arc<dyn Outbox> = Arc::clone(&outbox) as _;
        let ingress = Ingress::new(settings, store, Arc::new(SystemClock), Arc::clone(&metrics), flowing);
        let mut ingress = ingress.expect("a valid token file, if any");
        if let Some(reads) = reads {
            ingress = ingress.with_reads(reads);
        }
        let door = ingress.door();
        let (stop, stopped) = watch::channel(false);
        let connections = Some(metrics.ingest_connections.clone());
        let listeners = listeners.into_iter().map(Listener::from).collect();
        let server = tokio::spawn(http::serve_counted(listeners, ingress, limits, connections, stopped));
        Self { at, outbox, metrics, door, flow, stop, server }
    }

    /// Ends the server once every connection that it accepted is done; gives the users of what was stored.
    pub(crate) async fn end(self) -> Vec<String> {
        self.stop.send_replace(true);
        self.server.await.expect("no panic");
        let users =
            self.outbox.bodies().into_iter().map(|body| body["payload"]["newUserId"].as_str().map(str::to_owned));
        users.map(|user| user.expect("a user")).collect()
    }

    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        ask(self.at, method, path, headers, body).await
    }

    /// Posts an event and gives status and JSON.
    pub(crate) async fn post(&self, body: &str) -> (u16, Value) {
        let answer = self.ask("POST", "/events", &[], body.as_bytes()).await;
        (answer.status, answer.json())
    }

    /// Waits until a metric has this value.
    pub(crate) async fn until_metric(&self, sample: &str, value: f64) {
        let reached = async {
            while self.metric(sample) != value {
                tokio::task::yield_now().await;
            }
        };
        let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
        reached.unwrap_or_else(|_| panic!("{sample} is {}, not {value}", self.metric(sample)));
    }

    pub(crate) fn metric(&self, sample: &str) -> f64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("cello_relay_{sample} ")));
        line.map_or(0.0, |value| value.parse().expect("a number"))
    }
}
