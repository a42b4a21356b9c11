//! What tests of the outbox share.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use cello_relay::clock::{Clock, SystemClock, Timestamp};
use cello_relay::event::{Event, EventId, Trigger, UserId};
use cello_relay::metrics::Metrics;
use cello_relay::outbox::sqlite::{OpenError, Seams, Settings, Sqlite};
use cello_relay::outbox::{Attempt, Batch, Claimed, DeadLetters, Filter, Outbox, Outcome, Settled, State, Want};
use cello_relay::reason::Reason;
use rusqlite::Connection;
use tokio::time::Instant;

/// For what is at hand, though the writer may still be copying.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Room for everything, nothing forgotten.
pub(crate) fn settings(dir: &Path) -> Settings {
    Settings {
        dir: dir.to_path_buf(),
        max_bytes: 1 << 30,
        max_events: 0,
        min_free_bytes: 0,
        reserve: 0,
        remember: Duration::from_secs(3600),
        remember_max: 100_000,
        dead_max_age: None,
        key_remember: Duration::from_secs(86_400),
        key_max_bytes: 64 << 20,
        allow_network_fs: true,
        upstream: "https://api.example".to_owned(),
        send_within: Duration::from_secs(60),
    }
}

/// An event of a user, with a number in its body.
pub(crate) fn event(user: &str, n: usize) -> Event {
    let payload = format!(r#"{{"ucc":"code","newUserId":"{user}","price":{n}}}"#);
    let body = Bytes::from(format!(r#"{{"eventName":"ReferralUpdated","payload":{payload},"context":{{}}}}"#));
    Event { user: UserId::new(user), trigger: Trigger::NewSignup, body, trace: (n % 2 == 1).then(|| "00-ab".into()) }
}

/// One event of each of these users.
pub(crate) fn batch(users: &[&str]) -> Batch {
    Batch { events: users.iter().map(|user| event(user, 0)).collect(), key: None }
}

/// Appends one event of each of these users.
pub(crate) async fn append(store: &(impl Outbox + ?Sized), users: &[&str]) -> Vec<EventId> {
    store.append(batch(users)).await.expect("appends").ids
}

pub(crate) fn ids(claimed: &[Claimed]) -> Vec<EventId> {
    claimed.iter().map(|claimed| claimed.id).collect()
}

pub(crate) fn users(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|claimed| claimed.event.user.as_str()).collect()
}

pub(crate) fn delivered() -> Outcome {
    Outcome::Delivered { request_id: Some("request-1".into()) }
}

pub(crate) fn attempt(reason: Reason) -> Attempt {
    let at = Timestamp::from_millis(1_764_000_000_000);
    Attempt { at, reason, status: Some(500), request_id: Some("request-0".into()), message: Some("went wrong".into()) }
}

pub(crate) fn retry(at: Timestamp, strike: bool) -> Outcome {
    Outcome::Retry { at, strike, attempt: attempt(Reason::Http5xx) }
}

pub(crate) fn dead(reason: Reason) -> Outcome {
    Outcome::Dead { reason, attempt: attempt(reason) }
}

/// Claims up to `max` events; there must be some.
pub(crate) async fn claim(store: &Sqlite, max: usize) -> Vec<Claimed> {
    let claimed = store.claim(Want { max, rotate: false });
    tokio::time::timeout(PATIENCE, claimed).await.expect("there is something to claim")
}

pub(crate) async fn settle_all(store: &Sqlite, claimed: Vec<Claimed>, outcome: &Outcome) {
    for claimed in claimed {
        store.settle(claimed.lease, outcome.clone()).await.unwrap();
    }
}

/// Delivers everything; the ids in the order in which they came.
pub(crate) async fn deliver_all(store: &Sqlite) -> Vec<EventId> {
    let mut order = Vec::new();
    while store.stats().ledger.undelivered() > 0 {
        let claimed = claim(store, 64).await;
        order.extend(ids(&claimed));
        settle_all(store, claimed, &delivered()).await;
    }
    order
}

/// Delivers all that waits; what was sent for each id, in order. A store that is opened anew meanwhile
/// hands out again what it did not hear of.
pub(crate) async fn deliver_what_is_left(store: &Sqlite) -> Vec<(EventId, String, Bytes)> {
    let (mut sent, mut idle) = (Vec::new(), 0);
    // A damaged ledger may know of fewer events than there are.
    while idle < 30 && (store.stats().ledger.undelivered() > 0 || !nothing_waits(store).await) {
        // Meanwhile damage may be met, and nothing be left.
        let claimed = tokio::time::timeout(Duration::from_millis(500), store.claim(Want { max: 64, rotate: false }));
        let claimed = claimed.await.unwrap_or_default();
        // The ledger may know of events that the damaged table has not any more.
        if claimed.is_empty() && nothing_waits(store).await {
            break;
        }
        idle = if claimed.is_empty() { idle + 1 } else { 0 };
        // All at once, as many senders would: they share a commit.
        let mut settles = Vec::new();
        for claimed in claimed {
            let event = (claimed.id, claimed.event.user.as_str().to_owned(), claimed.event.body.clone());
            settles.push((event, store.settle(claimed.lease, delivered())));
        }
        for (event, settled) in settles {
            if matches!(settled.await, Ok(Settled::Done)) {
                sent.push(event);
            }
        }
    }
    sent
}

/// Whether no waiting event is in the table; not known while the file cannot be read.
async fn nothing_waits(store: &Sqlite) -> bool {
    let mut found = 0;
    for state in [State::Pending, State::Retrying] {
        let filter = Filter { state: Some(state), ..Filter::default() };
        found += store.list(filter, None, 1).await.map_or(1, |lines| lines.len());
    }
    found == 0
}

/// Waits until a look at the store says so. Each look makes the writer take a turn.
pub(crate) async fn until(store: &Sqlite, mut holds: impl FnMut(&Sqlite) -> bool) {
    let looked = async {
        while !holds(store) {
            store.ignore_backoff(false);
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, looked).await.expect("it comes to hold");
}

/// So many events of so many users in turn, each with its number in its body.
pub(crate) fn numbered(users: usize, events: usize) -> Batch {
    Batch { events: (0..events).map(|n| event(&format!("user-{}", n % users), n)).collect(), key: None }
}

/// A clock that stands still unless it is moved, in both of its times.
pub(crate) struct ManualClock {
    wall_ms: AtomicI64,
    run: AtomicU64,
    origin: Instant,
}

impl ManualClock {
    pub(crate) fn new() -> Self {
        Self { wall_ms: AtomicI64::new(1_764_000_000_000), run: AtomicU64::new(0), origin: Instant::now() }
    }

    /// Time passes.
    pub(crate) fn pass(&self, by: Duration) {
        self.run.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
        self.wall_ms.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }

    /// Somebody sets the clock.
    pub(crate) fn set_back(&self, by: Duration) {
        self.wall_ms.fetch_sub(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.wall_ms.load(Ordering::SeqCst))
    }

    fn instant(&self) -> Instant {
        self.origin + Duration::from_millis(self.run.load(Ordering::SeqCst))
    }
}

/// A directory with an outbox that can be opened again and again, and whose commits can be made to fail.
pub(crate) struct Fixture {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    pub(crate) first_seq: u64,
    failures: Arc<Mutex<VecDeque<ErrorKind>>>,
    hold: Arc<Mutex<()>>,
    amid: Amid,
}

/// What is done when the next transaction is about to end.
type Amid = Arc<Mutex<Option<Box<dyn FnOnce() + Send>>>>;

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(Arc::new(SystemClock), |_| {})
    }

    pub(crate) fn with(clock: Arc<dyn Clock>, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut settings = settings(&dir.path().join("outbox"));
        change(&mut settings);
        let (metrics, failures, hold, amid) = Default::default();
        Self { dir, metrics, clock, settings, first_seq: 1, failures, hold, amid }
    }

    pub(crate) fn try_open(&self) -> Result<Sqlite, OpenError> {
        let (failures, hold, amid) = (Arc::clone(&self.failures), Arc::clone(&self.hold), Arc::clone(&self.amid));
        let before_commit = move || {
            drop(hold.lock().unwrap());
            if let Some(act) = amid.lock().unwrap().take() {
                act();
            }
            failures.lock().unwrap().pop_front().map_or(Ok(()), |kind| Err(kind.into()))
        };
        // Here syncs have their thread wherever they may, elsewhere only on a slow disk.
        let worth_a_thread = Duration::ZERO;
        let before_commit = Box::new(before_commit);
        let seams = Seams { first_seq: Some(self.first_seq), salt: Box::new(|| 0), before_commit, worth_a_thread };
        Sqlite::open_with(self.settings.clone(), Arc::clone(&self.clock), Arc::clone(&self.metrics), seams)
    }

    pub(crate) fn open(&self) -> Sqlite {
        self.try_open().expect("opens")
    }

    /// The next commits fail like that, one after the other.
    pub(crate) fn fail_next_commit(&self, kind: ErrorKind) {
        self.failures.lock().unwrap().push_back(kind);
    }

    /// Does something when the next transaction is about to end.
    pub(crate) fn amid_next_commit(&self, act: impl FnOnce() + Send + 'static) {
        *self.amid.lock().unwrap() = Some(Box::new(act));
    }

    /// No transaction ends as long as this is kept.
    pub(crate) fn hold_commits(&self) -> MutexGuard<'_, ()> {
        self.hold.lock().unwrap()
    }

    /// What is counted along, so that nobody has to count rows, is what counting them comes to, and no row tells of an
    /// event that is not there. For a closed store.
    pub(crate) fn books_balance(&self) {
        const COUNTED: &str = "SELECT gates, failed, done, dead_bytes, key_bytes FROM state";
        const ROWS: &str = "SELECT (SELECT count(*) FROM gate), \
            (SELECT count(*) FROM progress JOIN event USING (seq)), (SELECT count(*) FROM done), \
            (SELECT coalesce(sum(length(body) + length(user) + 64), 0) FROM dead), \
            (SELECT coalesce(sum(bytes), 0) FROM idempotency)";
        let file = Connection::open(self.path("outbox.db")).unwrap();
        let sums = |sql| file.query_row(sql, [], |row| (0..5).map(|n| row.get(n)).collect::<Result<Vec<i64>, _>>());
        assert_eq!(sums(COUNTED).unwrap(), sums(ROWS).unwrap(), "gates, failed, done, bytes of the dead, of keys");
        for strays in [
            "parked WHERE seq NOT IN (SELECT seq FROM event) OR user NOT IN (SELECT user FROM gate)",
            "gate WHERE user NOT IN (SELECT user FROM parked)",
            "unsure WHERE seq NOT IN (SELECT seq FROM event UNION SELECT seq FROM dead)",
            "attempt WHERE seq NOT IN (SELECT seq FROM event UNION SELECT seq FROM dead)",
            "progress WHERE seq NOT IN (SELECT seq FROM event)",
            "intent WHERE seq NOT IN (SELECT seq FROM event)",
        ] {
            let count = file.query_row(&format!("SELECT count(*) FROM {strays}"), [], |row| row.get::<_, i64>(0));
            assert_eq!(count.unwrap(), 0, "{strays}");
        }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.settings.dir.join(name)
    }
}
