//! The Cello of random histories: answers by its weather, and holds every call against what must never happen.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use cello_relay::cello::{Access, Courier, Delivery, Departed, Judgement};
use cello_relay::clock::{Clock, Timestamp};
use cello_relay::event::{EventId, UserId};
use cello_relay::forwarder::{Breaker, Handle};
use cello_relay::outbox::memory::Memory;
use cello_relay::outbox::{DeadLetters, Filter, Outbox, State};
use tokio::sync::watch;
use tokio::time::Instant;

use super::world::{DAY, SECOND, settings, status};

/// Sends that are answered and not yet settled, and events at hand, beyond those being sent.
const BEYOND: usize = 64 + 64;

/// What Cello answers.
#[derive(Clone, Debug)]
pub(crate) enum Weather {
    Fine,
    /// Everything with that status.
    All(u16),
    /// One user's events with that status.
    OneUser(u8, u16),
    /// Now this, now that.
    Mixed(u64),
}

/// What a future that never waits comes to.
pub(crate) fn ready<T>(mut future: Pin<Box<dyn Future<Output = T> + Send + '_>>) -> T {
    match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("the model answers at once"),
    }
}

/// Wall time that goes on from one life (one paused runtime) to the next.
#[derive(Default)]
pub(crate) struct LifeClock(Mutex<(i64, Option<Instant>)>);

impl LifeClock {
    pub(crate) fn begin_life(&self) {
        self.0.lock().unwrap().1 = Some(Instant::now());
    }

    /// A second later the next one begins.
    pub(crate) fn end_life(&self) {
        let now = self.now().plus(SECOND).as_millis();
        *self.0.lock().unwrap() = (now, None);
    }

    /// When a pause that is ordered now ends.
    pub(crate) fn pause_ends(&self, wait: Option<Duration>) -> Option<Timestamp> {
        Some(self.now().plus(wait.unwrap_or(10_000 * DAY)))
    }
}

impl Clock for LifeClock {
    fn now(&self) -> Timestamp {
        let (ms, origin) = *self.0.lock().unwrap();
        Timestamp::from_millis(1_700_000_000_000 + ms).plus(origin.map_or(Duration::ZERO, |origin| origin.elapsed()))
    }
}

/// What is true of this history so far.
pub(crate) struct Facts {
    pub(crate) weather: Weather,
    pub(crate) latency: Duration,
    pub(crate) granted: bool,
    pub(crate) paused_until: Option<Timestamp>,
    pub(crate) accepted: Vec<EventId>,
    life: u32,
    handle: Option<Handle>,
    replayed: HashSet<EventId>,
    /// In flight when the store was opened anew: one that was at hand may still be sent, once.
    lost: HashSet<EventId>,
    /// In which life Cello took it last.
    taken: HashMap<EventId, u32>,
    /// The latest event of a user that was taken and never replayed.
    latest: HashMap<String, EventId>,
    delivered: HashSet<EventId>,
    under_way: BTreeSet<String>,
    /// Calls since the breaker opened, or the hold began.
    probes: HashMap<Timestamp, u64>,
    wrong: Vec<String>,
}

pub(crate) struct Truth {
    clock: Arc<LifeClock>,
    outbox: Arc<Memory>,
    pub(crate) access: watch::Sender<Access>,
    facts: Mutex<Facts>,
}

impl Truth {
    pub(crate) fn new(clock: Arc<LifeClock>, outbox: Arc<Memory>) -> Self {
        let facts = Facts {
            weather: Weather::Fine,
            latency: Duration::from_millis(20),
            granted: true,
            paused_until: None,
            accepted: Vec::new(),
            life: 0,
            handle: None,
            replayed: HashSet::new(),
            lost: HashSet::new(),
            taken: HashMap::new(),
            latest: HashMap::new(),
            delivered: HashSet::new(),
            under_way: BTreeSet::new(),
            probes: HashMap::new(),
            wrong: Vec::new(),
        };
        Self { clock, outbox, access: watch::Sender::new(Access::Granted), facts: Mutex::new(facts) }
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts());
    }

    pub(crate) fn begin_life(&self, handle: Handle) {
        let mut facts = self.facts();
        facts.life += 1;
        facts.handle = Some(handle);
        // The forwarder does not keep a pause; `admin` does, in a file.
        facts.paused_until = None;
    }

    pub(crate) fn end_life(&self) {
        let mut facts = self.facts();
        facts.handle = None;
        facts.under_way.clear();
        facts.lost.clear();
        facts.probes.clear();
    }

    /// From now on the dead may come back, in their old place.
    pub(crate) fn note_dead_as_replayed(&self) {
        let dead = Filter { state: Some(State::Dead), ..Filter::default() };
        let dead = ready(self.outbox.list(dead, None, usize::MAX)).unwrap();
        self.facts().replayed.extend(dead.iter().map(|line| line.id));
    }

    /// The store fails and is opened anew: what is in flight may be sent without a lease that holds.
    pub(crate) fn reopen(&self) {
        let flying = Filter { state: Some(State::InFlight), ..Filter::default() };
        let flying = ready(self.outbox.list(flying, None, usize::MAX)).unwrap();
        self.facts().lost.extend(flying.iter().map(|line| line.id));
        self.outbox.reopen();
    }

    /// How many of the accepted events are delivered, and how many are gone by an operator's word.
    pub(crate) fn ends(&self) -> (u64, u64) {
        let mut facts = self.facts();
        let (mut delivered, mut gone) = (0, 0);
        for id in facts.accepted.clone() {
            let state = ready(self.outbox.lookup(id)).unwrap().map(|report| report.state);
            let was_delivered = facts.delivered.contains(&id);
            match state {
                None => gone += 1,
                Some(State::Delivered) => {
                    delivered += 1;
                    if !facts.taken.contains_key(&id) {
                        facts.wrong.push(format!("{id} counts as delivered and Cello never took it"));
                    }
                    facts.delivered.insert(id);
                }
                Some(_) => {}
            }
            if was_delivered && state != Some(State::Delivered) {
                facts.wrong.push(format!("{id} was delivered and is now {state:?}"));
            }
        }
        (delivered, gone)
    }

    pub(crate) fn assert_clean(&self) {
        let facts = self.facts();
        assert!(facts.wrong.is_empty(), "{:#?}", facts.wrong);
    }

    /// Holds a call that begins against what must never happen.
    fn judge_call(&self, id: EventId, user: &str) {
        let now = self.clock.now();
        let snapshot = self.facts().handle.clone().map(|handle| handle.snapshot()).unwrap_or_default();
        let state = ready(self.outbox.lookup(id)).unwrap().map(|report| report.state);
        let of_user = Filter { user: Some(UserId::new(user)), ..Filter::default() };
        let of_user = ready(self.outbox.list(of_user, None, usize::MAX)).unwrap();
        let in_flight = self.outbox.stats().in_flight as usize;

        let mut facts = self.facts();
        let mut wrong = Vec::new();
        let mut must = |holds: bool, what: &str| {
            if !holds {
                wrong.push(format!("{now} {id} of {user}: {what}"));
            }
        };
        must(facts.under_way.insert(user.to_owned()), "two events of one user are under way");
        must(facts.lost.remove(&id) || state == Some(State::InFlight), "sent without being in flight");
        let older = of_user.iter().filter(|line| line.id.seq() < id.seq() && line.report.state != State::Dead);
        must(older.filter(|line| !facts.replayed.contains(&line.id)).count() == 0, "an older one still waits");
        must(facts.paused_until.is_none_or(|until| now >= until), "sent in a pause");
        must(facts.granted, "sent without access");
        let concurrency = settings().concurrency;
        must(facts.under_way.len() <= concurrency, "more under way than concurrency allows");
        must(in_flight <= concurrency + BEYOND, "more claimed than the window");

        let is_open = matches!(snapshot.breaker, Breaker::Open | Breaker::HalfOpen);
        let opened = snapshot.breaker_since.filter(|_| is_open).max(snapshot.hold.map(|(_, since)| since));
        // What had been started when it opened is no probe.
        if let Some(opened) = opened.filter(|opened| now > *opened) {
            let probes = facts.probes.entry(opened).or_default();
            *probes += 1;
            must(*probes <= 1 + now.since(opened).as_secs(), "more than a probe a second");
        }
        facts.wrong.extend(wrong);
    }

    fn answer(&self, id: EventId, user: &str) -> u16 {
        let mut facts = self.facts();
        let code = match &mut facts.weather {
            Weather::Fine => 200,
            Weather::All(code) => *code,
            Weather::OneUser(stuck, code) if user == stuck.to_string() => *code,
            Weather::OneUser(..) => 200,
            Weather::Mixed(seed) => {
                let mut rng = fastrand::Rng::with_seed(*seed);
                *seed = rng.u64(..);
                *rng.choice(&[200, 200, 200, 400, 403, 429, 500, 503]).unwrap()
            }
        };
        if code == 200 {
            facts.note_taken(id, user);
        }
        code
    }
}

impl Facts {
    fn note_taken(&mut self, id: EventId, user: &str) {
        let before = self.taken.insert(id, self.life);
        if before == Some(self.life) {
            self.wrong.push(format!("{id} of {user} was taken twice without a crash between"));
        }
        if before.is_some() || self.replayed.contains(&id) {
            return;
        }
        if self.latest.insert(user.to_owned(), id).is_some_and(|latest| latest.seq() > id.seq()) {
            self.wrong.push(format!("{id} of {user} came after a later one"));
        }
    }
}

/// Ends a call, also one that is cut off.
struct UnderWay<'a>(&'a Truth, String);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.facts().under_way.remove(&self.1);
    }
}

impl Courier for Truth {
    fn deliver(&self, id: EventId, body: Bytes, departed: Departed) -> Delivery<'_> {
        Box::pin(async move {
            let user = String::from_utf8(body.to_vec()).unwrap();
            self.judge_call(id, &user);
            departed.note();
            let _under_way = UnderWay(self, user.clone());
            let latency = self.facts().latency;
            tokio::time::sleep(latency).await;
            let code = self.answer(id, &user);
            let retry_after = (code == 429).then(|| Duration::from_secs(7));
            Judgement { retry_after, ..status(code) }
        })
    }

    fn access(&self) -> watch::Receiver<Access> {
        self.access.subscribe()
    }
}
