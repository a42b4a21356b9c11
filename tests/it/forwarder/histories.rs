//! Random histories of a relay in virtual time: traffic, weather upstream, operators, restarts and crashes.
//!
//! The forwarder is the real one. The outbox is the reference model, which `outbox_model` holds the embedded
//! store to; so both together speak for the whole. Each life of the relay is a runtime of its own, and a crash
//! drops it with everything that was under way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cello_relay::cello::Access;
use cello_relay::event::{Event, Trigger, UserId};
use cello_relay::forwarder::{Ambiguous, Deps, Forwarder, Handle, Settings};
use cello_relay::metrics::Metrics;
use cello_relay::outbox::memory::Memory;
use cello_relay::outbox::{Batch, DeadLetters, Filter, Outbox, Selection, State, Terms};
use proptest::prelude::*;

use super::truth::{LifeClock, Truth, Weather, ready};
use super::world::{MINUTE, SECOND, settings};

#[derive(Clone, Debug)]
enum Action {
    Post(Vec<u8>),
    Weather(Weather),
    Latency(u64),
    Access(bool),
    Pass(u64),
    Pause(Option<u64>),
    Resume,
    Replay {
        which: Option<usize>,
        may_duplicate: bool,
    },
    Discard(usize),
    Erase(u8),
    /// The store fails and is opened anew.
    Reopen,
    /// Stops as on SIGTERM; the next life begins.
    Restart,
    /// Everything under way is cut off; the next life begins.
    Crash,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let status = prop::sample::select(vec![400, 403, 429, 500, 503]);
    let weather = prop_oneof![
        3 => Just(Weather::Fine),
        3 => status.clone().prop_map(Weather::All),
        2 => (0..12_u8, status).prop_map(|(user, status)| Weather::OneUser(user, status)),
        3 => any::<u64>().prop_map(Weather::Mixed),
    ];
    let time = prop::sample::select(vec![1, 50, 1_000, 20_000, 60_000, 600_000, 7_200_000]);
    let action = prop_oneof![
        8 => prop::collection::vec(0..12_u8, 1..30).prop_map(Action::Post),
        5 => weather.prop_map(Action::Weather),
        1 => (0..20_000_u64).prop_map(Action::Latency),
        1 => any::<bool>().prop_map(Action::Access),
        10 => time.prop_map(Action::Pass),
        1 => prop::option::of(1..600_u64).prop_map(Action::Pause),
        2 => Just(Action::Resume),
        2 => (prop::option::of(any::<usize>()), any::<bool>()).prop_map(|(which, may_duplicate)| Action::Replay { which, may_duplicate }),
        1 => any::<usize>().prop_map(Action::Discard),
        1 => (0..12_u8).prop_map(Action::Erase),
        2 => Just(Action::Reopen),
        1 => Just(Action::Restart),
        2 => Just(Action::Crash),
    ];
    prop::collection::vec(action, 1..80)
}

/// What outlives a restart.
struct Relay {
    clock: Arc<LifeClock>,
    outbox: Arc<Memory>,
    truth: Arc<Truth>,
    settings: Settings,
    seed: u64,
    posted: u64,
}

impl Relay {
    fn new(ambiguous: Ambiguous, seed: u64) -> Self {
        let clock = Arc::new(LifeClock::default());
        let outbox = Arc::new(Memory::new(clock.clone()));
        let truth = Arc::new(Truth::new(clock.clone(), outbox.clone()));
        // Soon enough that a history of hours sees a mass refusal and exhausted events.
        let settings =
            Settings { max_strikes: 3, give_up_after: 60 * MINUTE, refusals_in_a_row: 5, ambiguous, ..settings() };
        Self { clock, outbox, truth, settings, seed, posted: 0 }
    }

    /// One life: from start to the next restart or crash, or to the end of the history.
    fn live(&mut self, actions: &mut impl Iterator<Item = Action>) -> bool {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            self.clock.begin_life();
            let deps = Deps {
                outbox: self.outbox.clone(),
                courier: self.truth.clone(),
                clock: self.clock.clone(),
                metrics: Arc::new(Metrics::new()),
            };
            let rng = fastrand::Rng::with_seed(self.seed);
            let (forwarder, handle) = Forwarder::new(deps, self.settings.clone(), false, rng);
            self.truth.begin_life(handle.clone());
            let running = tokio::spawn(forwarder.run());
            for action in actions {
                match action {
                    Action::Crash => return self.end_life(),
                    Action::Restart => {
                        handle.stop();
                        handle.idle().await;
                        running.await.unwrap();
                        return self.end_life();
                    }
                    action => self.act(action, &handle).await,
                }
                self.check();
            }
            self.heal(&handle).await;
            self.end_life();
            false
        })
    }

    fn end_life(&self) -> bool {
        self.truth.end_life();
        self.clock.end_life();
        true
    }

    async fn act(&mut self, action: Action, handle: &Handle) {
        match action {
            Action::Post(users) => self.post(&users),
            Action::Weather(weather) => self.truth.change(|truth| truth.weather = weather),
            Action::Latency(ms) => self.truth.change(|truth| truth.latency = Duration::from_millis(ms)),
            Action::Access(granted) => {
                self.truth.change(|truth| truth.granted |= granted);
                self.truth.access.send_replace(if granted { Access::Granted } else { Access::Waiting });
                settle_down().await;
                self.truth.change(|truth| truth.granted = granted);
            }
            Action::Pass(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            Action::Pause(seconds) => {
                let wait = seconds.map(Duration::from_secs);
                handle.pause(wait);
                // A pause that replaces a longer one may end sooner.
                self.truth.change(|truth| truth.paused_until = None);
                let until = self.clock.pause_ends(wait);
                settle_down().await;
                self.truth.change(|truth| truth.paused_until = until);
            }
            Action::Resume => {
                self.truth.change(|truth| truth.paused_until = None);
                handle.resume();
            }
            Action::Replay { which, may_duplicate } => {
                let terms = Terms { may_duplicate, ..Terms::default() };
                let selection = self.selection(which);
                self.truth.note_dead_as_replayed();
                self.outbox.replay(selection, terms).await.unwrap();
            }
            Action::Discard(which) => {
                self.outbox.discard(self.selection(Some(which))).await.unwrap();
            }
            Action::Erase(user) => {
                let erase = self.outbox.erase(UserId::new(&user.to_string()));
                // It waits for what is in flight, at most as long as an operator would.
                drop(tokio::time::timeout(MINUTE, erase).await);
            }
            Action::Reopen => self.truth.reopen(),
            Action::Restart | Action::Crash => unreachable!("they end a life"),
        }
    }

    fn post(&mut self, users: &[u8]) {
        let event = |user: &u8| {
            let user = user.to_string();
            let body = Bytes::from(user.clone());
            Event { user: UserId::new(&user), trigger: Trigger::None, body, trace: None }
        };
        let batch = Batch { events: users.iter().map(event).collect(), key: None };
        let receipt = ready(self.outbox.append(batch)).unwrap();
        self.posted += users.len() as u64;
        self.truth.change(|truth| truth.accepted.extend(receipt.ids));
    }

    fn selection(&self, which: Option<usize>) -> Selection {
        let dead = Filter { state: Some(State::Dead), ..Filter::default() };
        let listed = ready(self.outbox.list(dead.clone(), None, usize::MAX)).unwrap();
        match which.filter(|_| !listed.is_empty()) {
            Some(which) => Selection::Ids(vec![listed[which % listed.len()].id]),
            None => Selection::Matching(dead),
        }
    }

    /// The books balance, and nothing was done that must not be done.
    fn check(&self) {
        let ledger = self.outbox.stats().ledger;
        let listed = ready(self.outbox.list(Filter::default(), None, usize::MAX)).unwrap();
        let dead = listed.iter().filter(|line| line.report.state == State::Dead).count() as u64;
        let waiting = listed.len() as u64 - dead;
        let (delivered, gone) = self.truth.ends();
        assert_eq!(ledger.accepted, self.posted);
        assert_eq!((ledger.undelivered(), ledger.dead, ledger.delivered), (waiting, dead, delivered));
        assert_eq!(ledger.discarded + ledger.erased, gone);
        assert_eq!(self.posted, delivered + waiting + dead + gone, "conservation");
        self.truth.assert_clean();
    }

    /// When everything is well again, everything that waits is delivered.
    async fn heal(&mut self, handle: &Handle) {
        self.act(Action::Weather(Weather::Fine), handle).await;
        self.act(Action::Latency(20), handle).await;
        self.act(Action::Access(true), handle).await;
        self.act(Action::Resume, handle).await;
        let mut waited = Duration::ZERO;
        while self.outbox.stats().ledger.undelivered() > 0 {
            assert!(waited < 60 * MINUTE, "still waiting: {:?}", handle.snapshot());
            tokio::time::sleep(SECOND).await;
            waited += SECOND;
        }
        self.check();
    }
}

/// What was started before an order has begun, and is not what the order forbids.
async fn settle_down() {
    for _ in 0..32 {
        tokio::task::yield_now().await;
    }
}

/// A few hundred histories; twenty times as many in the long version; PROPTEST_CASES for any number.
fn cases() -> u32 {
    let long = std::env::vars().any(|(name, value)| name == "CELLO_RELAY_TEST_LONG" && value == "1");
    ProptestConfig::default().cases * if long { 20 } else { 1 }
}

proptest! {
    // A history that breaks a promise is shrunk and printed whole, seed included.
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, max_shrink_time: 30_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_events_are_conserved_in_order_and_nothing_is_sent_that_must_not_be(
        actions in actions(), at_most_once: bool, seed: u64,
    ) {
        let ambiguous = if at_most_once { Ambiguous::Dead } else { Ambiguous::Retry };
        let mut relay = Relay::new(ambiguous, seed);
        let mut actions = actions.into_iter();
        while relay.live(&mut actions) {
            relay.check();
        }
    }
}
