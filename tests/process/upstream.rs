//! A stand-in for Cello inside the test, and what arrived there.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cello_relay::clock::SystemClock;
use cello_relay::simulator::{Arrival, Options, Simulator};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::relay::PATIENCE;

/// Nothing listens there.
pub(crate) const UNREACHABLE: &str = "http://127.0.0.1:9";

/// A running stand-in; ends when dropped.
pub(crate) struct Upstream {
    simulator: Simulator,
    unanswered: AtomicUsize,
    runtime: Runtime,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with_token_life(life: Duration) -> Self {
        let mut options = Options::default();
        options.tokens.life = life;
        Self::with(options)
    }

    pub(crate) fn with(options: Options) -> Self {
        Self::keeping(options, 1_000_000)
    }

    /// Only the last `keep` arrivals are kept.
    pub(crate) fn keeping(options: Options, keep: usize) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let entered = runtime.enter();
        let options = Options { keep, ..options };
        let simulator = Simulator::start(options, Arc::new(SystemClock)).expect("a free port");
        drop(entered);
        Self { simulator, unanswered: AtomicUsize::new(0), runtime }
    }

    pub(crate) fn base_url(&self) -> String {
        self.simulator.base_url()
    }

    pub(crate) fn fault(&self, rules: &str) {
        self.simulator.faults(rules.parse().expect("well-formed faults"));
    }

    pub(crate) fn heal(&self) {
        self.fault("[]");
    }

    pub(crate) fn revoke_tokens(&self) {
        self.fault(r#"{"revokeTokens": true}"#);
    }

    pub(crate) fn refuse_keys(&self) {
        self.fault(r#"{"refuseKeys": true}"#);
    }

    /// How many events came in, whatever they were answered.
    pub(crate) fn received(&self) -> u64 {
        self.simulator.stats().received
    }

    /// How often a token was asked for.
    pub(crate) fn token_calls(&self) -> u64 {
        let calls = self.simulator.stats().token_calls;
        calls.access_key + calls.refresh_token + calls.malformed
    }

    /// Waits until so many events came in.
    pub(crate) fn wait_until_received(&self, count: u64) {
        let received = self.simulator.until(|stats| stats.received >= count);
        let received = async { tokio::time::timeout(PATIENCE, received).await };
        self.runtime.block_on(received).expect("events come in");
    }

    /// All events that came in, counted or not, in order of arrival.
    pub(crate) fn events(&self) -> Vec<Arrival> {
        self.simulator.events()
    }

    pub(crate) fn stats(&self) -> Value {
        serde_json::to_value(self.simulator.stats()).expect("plain numbers")
    }

    /// Waits for the next event to come in.
    pub(crate) fn wait_for_arrival(&self) {
        self.wait_until_received(self.received() + 1);
    }

    /// Whether sends were left without an answer since the last call: they were under way when the relay died.
    pub(crate) fn sends_cut_off(&self) -> bool {
        let now = self.simulator.events().iter().filter(|arrival| arrival.status.is_none()).count();
        now > self.unanswered.swap(now, Ordering::SeqCst)
    }

    /// The events that count, in order of arrival.
    pub(crate) fn arrivals(&self) -> Arrivals {
        Arrivals(self.simulator.events().into_iter().filter(|arrival| arrival.counts).collect())
    }
}

/// Events that Cello counted.
pub(crate) struct Arrivals(Vec<Arrival>);

impl Arrivals {
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn bodies(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|arrival| std::str::from_utf8(&arrival.body).expect("UTF-8"))
    }

    /// Every acknowledged event is here, first arrivals are in order per user; gives the number of duplicates.
    pub(crate) fn assert_complete_and_in_order(&self, acked: &BTreeMap<String, Vec<u64>>) -> usize {
        self.assert_in_order();
        self.assert_complete(acked);
        self.duplicates()
    }

    /// How many came more than once.
    pub(crate) fn duplicates(&self) -> usize {
        self.0.len() - self.first_arrivals().values().map(Vec::len).sum::<usize>()
    }

    /// First arrivals are in order per user.
    pub(crate) fn assert_in_order(&self) {
        for (user, numbers) in self.first_arrivals() {
            assert!(numbers.is_sorted(), "{user}: out of order: {numbers:?}");
        }
    }

    /// How many acknowledged events are not here.
    pub(crate) fn missing(&self, acked: &BTreeMap<String, Vec<u64>>) -> usize {
        let arrived = self.first_arrivals();
        let is_here = |user: &String, number: &u64| arrived.get(user).is_some_and(|numbers| numbers.contains(number));
        acked.iter().map(|(user, numbers)| numbers.iter().filter(|number| !is_here(user, number)).count()).sum()
    }

    /// Every acknowledged event is here.
    pub(crate) fn assert_complete(&self, acked: &BTreeMap<String, Vec<u64>>) {
        let arrived = self.first_arrivals();
        for (user, numbers) in acked {
            let arrived: HashSet<&u64> = arrived.get(user).into_iter().flatten().collect();
            let lost: Vec<&u64> = numbers.iter().filter(|number| !arrived.contains(number)).collect();
            assert!(lost.is_empty(), "{user}: lost {lost:?}");
        }
    }

    /// The numbers of each user's events, each where it first came.
    fn first_arrivals(&self) -> BTreeMap<String, Vec<u64>> {
        let mut seen = HashSet::new();
        let mut arrived: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for (user, number) in self.0.iter().map(numbered) {
            if seen.insert((user.clone(), number)) {
                arrived.entry(user).or_default().push(number);
            }
        }
        arrived
    }
}

/// Whose event it is, and which of that user's.
pub(crate) fn numbered(arrival: &Arrival) -> (String, u64) {
    let body: Value = serde_json::from_slice(&arrival.body).expect("JSON");
    let number = body["context"]["sequence"].as_u64().expect("a numbered event");
    (arrival.user.as_deref().expect("a user").to_owned(), number)
}
