//! What every outbox promises, run against each of them.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

mod counts;
mod dead;
mod decisions;
mod turns;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cello_relay::clock::{Clock, TestClock, Timestamp};
use cello_relay::metrics::Metrics;
use cello_relay::outbox::memory::{Limits, Memory};
use cello_relay::outbox::sqlite::{Seams, Settings, Sqlite};
use cello_relay::outbox::{
    ATTEMPTS_KEPT, AppendError, Attempt, Batch, Bound, Claimed, DeadLetters, Filter, Key, Ledger, Outbox, Outcome,
    Progress, Route, Selection, SettleError, Settled, State, Terms, Want,
};
use cello_relay::reason::Reason;

use crate::outbox_support::{Fixture, append, attempt, batch, dead, delivered, event, ids, retry, settings, users};

/// Both traits, as tests need them.
trait Store: Outbox + DeadLetters {}
impl<T: Outbox + DeadLetters> Store for T {}

struct Subject {
    store: Box<dyn Store>,
    clock: Arc<TestClock>,
    /// Removed when the test is over.
    _dir: tempfile::TempDir,
}

fn start() -> Timestamp {
    Timestamp::from_millis(1_764_000_000_000)
}

fn sqlite(dir: &Path, clock: &Arc<TestClock>, change: impl FnOnce(&mut Settings)) -> Box<dyn Store> {
    let mut settings = settings(dir);
    change(&mut settings);
    let seams = Seams { first_seq: Some(1), salt: Box::new(|| 0), ..Seams::default() };
    let clock = Arc::clone(clock) as Arc<dyn Clock>;
    Box::new(Sqlite::open_with(settings, clock, Arc::new(Metrics::new()), seams).expect("opens"))
}

/// Runs a test on the model and on the embedded store, with at most `max_events` (0: any number).
async fn each<F: AsyncFn(Subject)>(max_events: u64, test: F) {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::starting_at(start()));
    let limits = Limits { max_events, max_dead: 0 };
    let memory = Memory::bounded(Arc::clone(&clock) as Arc<dyn Clock>, limits);
    test(Subject { store: Box::new(memory), clock, _dir: dir }).await;

    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::starting_at(start()));
    let store = sqlite(dir.path(), &clock, |settings| settings.max_events = max_events);
    test(Subject { store, clock, _dir: dir }).await;
}

impl Subject {
    async fn claim(&self, max: usize) -> Vec<Claimed> {
        self.store.claim(Want { max, rotate: false }).await
    }

    async fn claim_one(&self) -> Claimed {
        let mut claimed = self.claim(1).await;
        assert_eq!(claimed.len(), 1);
        claimed.remove(0)
    }

    async fn nothing_is_due(&self) -> bool {
        let wait = Duration::from_millis(60);
        tokio::time::timeout(wait, self.claim(100)).await.is_err()
    }

    async fn settle(&self, claimed: Claimed, outcome: Outcome) -> Settled {
        self.store.settle(claimed.lease, outcome).await.expect("settles")
    }

    async fn state(&self, id: cello_relay::event::EventId) -> Option<State> {
        self.store.lookup(id).await.unwrap().map(|report| report.state)
    }

    fn ledger(&self) -> Ledger {
        self.store.stats().ledger
    }
}

#[tokio::test]
async fn events_of_one_user_are_handed_out_in_order_and_one_at_a_time() {
    each(0, async |subject: Subject| {
        let appended = append(&*subject.store, &["a", "a", "b", "a"]).await;
        let first = subject.claim(10).await;
        assert_eq!(ids(&first), [appended[0], appended[2]]);
        assert!(subject.nothing_is_due().await);
        let [a, b] = <[Claimed; 2]>::try_from(first).unwrap();
        subject.settle(b, delivered()).await;
        assert!(subject.nothing_is_due().await, "another user's settle frees nobody");
        subject.settle(a, delivered()).await;
        let second = subject.claim(10).await;
        assert_eq!(ids(&second), [appended[1]]);
    })
    .await;
}

#[tokio::test]
async fn a_waiting_claim_is_woken_by_an_append() {
    each(0, async |subject: Subject| {
        let (claimed, appended) = tokio::join!(subject.claim(4), append(&*subject.store, &["a"]));
        assert_eq!(ids(&claimed), appended);
        assert_eq!(claimed[0].event, event("a", 0));
        assert_eq!(claimed[0].progress, Progress::default());
    })
    .await;
}

#[tokio::test]
async fn a_dropped_lease_gives_the_event_back_unburned() {
    each(0, async |subject: Subject| {
        let appended = append(&*subject.store, &["a", "a"]).await;
        drop(subject.claim(1).await);
        let again = subject.claim_one().await;
        assert_eq!((again.id, again.progress.attempts), (appended[0], 0));
    })
    .await;
}

#[tokio::test]
async fn a_claim_whose_caller_has_left_takes_nothing_with_it() {
    each(0, async |subject: Subject| {
        let abandoned = tokio::time::timeout(Duration::from_millis(20), subject.claim(1)).await;
        assert!(abandoned.is_err());
        let appended = append(&*subject.store, &["a"]).await;
        assert_eq!(ids(&subject.claim(1).await), appended);
    })
    .await;
}

#[tokio::test]
async fn a_retry_waits_until_it_is_due_and_delays_nobody_else() {
    each(0, async |subject: Subject| {
        let appended = append(&*subject.store, &["a", "a", "b"]).await;
        let a = subject.claim_one().await;
        let at = subject.clock.now().plus(Duration::from_secs(60));
        subject.settle(a, retry(at, true)).await;
        let report = subject.store.lookup(appended[0]).await.unwrap().unwrap();
        assert_eq!((report.state, report.attempts, report.next_attempt_at), (State::Retrying, 1, Some(at)));
        assert_eq!((report.reason, report.message.as_deref()), (Some(Reason::Http5xx), Some("went wrong")));
        assert_eq!(subject.state(appended[1]).await, Some(State::Pending));
        assert_eq!((subject.store.stats().retrying, subject.store.stats().pending()), (1, 2));

        let b = subject.claim(10).await;
        assert_eq!(ids(&b), [appended[2]]);
        assert!(subject.nothing_is_due().await, "not before it is due, and the user's next neither");
        subject.clock.advance(Duration::from_secs(61));
        let again = subject.claim_one().await;
        assert_eq!(again.id, appended[0]);
        assert_eq!((again.progress.attempts, again.progress.strikes), (1, 1));
    })
    .await;
}

#[tokio::test]
async fn ignoring_backoff_makes_every_retry_due() {
    each(0, async |subject: Subject| {
        let appended = append(&*subject.store, &["a"]).await;
        let a = subject.claim_one().await;
        subject.settle(a, retry(subject.clock.now().plus(Duration::from_secs(60)), false)).await;
        assert!(subject.nothing_is_due().await);
        let wake = async { subject.store.ignore_backoff(true) };
        let (claimed, ()) = tokio::join!(subject.claim(1), wake);
        assert_eq!(ids(&claimed), appended);
    })
    .await;
}

#[tokio::test]
async fn an_event_is_overtaken_only_by_deliveries_since_its_last_attempt() {
    each(0, async |subject: Subject| {
        append(&*subject.store, &["b", "a", "c"]).await;
        let b = subject.claim_one().await;
        subject.settle(b, delivered()).await;
        let mut a = subject.claim_one().await;
        assert!(!a.progress.overtaken);
        let soon = |subject: &Subject| subject.clock.now().plus(Duration::from_secs(1));
        subject.settle(a, retry(soon(&subject), false)).await;
        let c = subject.claim_one().await;
        subject.clock.advance(Duration::from_secs(2));
        a = subject.claim_one().await;
        assert!(!a.progress.overtaken, "nothing was delivered since");
        subject.settle(a, retry(soon(&subject), false)).await;
        subject.settle(c, delivered()).await;
        subject.clock.advance(Duration::from_secs(2));
        assert!(subject.claim_one().await.progress.overtaken);
    })
    .await;
}

#[tokio::test]
async fn a_known_key_gets_the_first_answer_and_stores_nothing() {
    each(0, async |subject: Subject| {
        let key = |body: u8, route| Key { route, key: "k".into(), body: [body; 32], notes: "said".into() };
        let keyed = |key| cello_relay::outbox::Batch { key: Some(key), ..batch(&["a", "b"]) };
        let first = subject.store.append(keyed(key(1, Route::Batch))).await.unwrap();
        assert_eq!(first.replayed, None);
        let again = subject.store.append(keyed(key(1, Route::Batch))).await.unwrap();
        assert_eq!((again.ids, again.replayed.as_deref()), (first.ids, Some("said")));
        let other_body = subject.store.append(keyed(key(2, Route::Batch))).await;
        assert_eq!(other_body, Err(AppendError::KeyReused));
        assert_eq!(subject.ledger().accepted, 2);
        let other_route = subject.store.append(keyed(key(2, Route::Events))).await.unwrap();
        assert_eq!(other_route.replayed, None);
    })
    .await;
}

#[tokio::test]
async fn a_full_outbox_refuses_new_events_and_nothing_else() {
    each(2, async |subject: Subject| {
        let key = Key { route: Route::Events, key: "k".into(), body: [0; 32], notes: "".into() };
        let keyed = || cello_relay::outbox::Batch { key: Some(key.clone()), ..batch(&["a"]) };
        let first = subject.store.append(keyed()).await.unwrap();
        append(&*subject.store, &["b"]).await;
        let full = Err(AppendError::Full(Bound::Events));
        assert_eq!(subject.store.append(batch(&["c"])).await, full);
        assert_eq!(subject.store.append(keyed()).await.unwrap().ids, first.ids, "known keys are answered");
        assert_eq!(subject.store.stats().refusing, Some(AppendError::Full(Bound::Events)));

        let mut claimed = subject.claim(2).await;
        subject.settle(claimed.remove(0), dead(Reason::Http400)).await;
        assert_eq!(subject.store.append(batch(&["c"])).await, full, "dead letters count too");
        subject.settle(claimed.remove(0), delivered()).await;
        append(&*subject.store, &["c"]).await;
    })
    .await;
}

#[tokio::test]
async fn only_the_last_attempts_are_kept() {
    each(0, async |subject: Subject| {
        let appended = append(&*subject.store, &["a"]).await;
        for n in 0..ATTEMPTS_KEPT as u64 + 5 {
            let claimed = subject.claim_one().await;
            let mut attempt = attempt(Reason::Timeout);
            attempt.at = Timestamp::from_millis(n as i64);
            let at = subject.clock.now().minus(Duration::from_secs(1));
            subject.settle(claimed, Outcome::Retry { at, strike: false, attempt }).await;
            subject.clock.advance(Duration::from_millis(5));
        }
        let detail = subject.store.show(appended[0]).await.unwrap().unwrap();
        let times: Vec<i64> = detail.attempts.iter().map(|attempt| attempt.at.as_millis()).collect();
        assert_eq!(times, (5..25).collect::<Vec<i64>>());
        assert_eq!(detail.listed.report.attempts, 25);
        assert_eq!(detail.body, event("a", 0).body);
    })
    .await;
}

#[tokio::test]
async fn a_delivered_event_is_remembered_without_its_body() {
    each(0, async |subject: Subject| {
        let appended = append(&*subject.store, &["a"]).await;
        let claimed = subject.claim_one().await;
        assert_eq!(subject.state(appended[0]).await, Some(State::InFlight));
        subject.settle(claimed, delivered()).await;
        let report = subject.store.lookup(appended[0]).await.unwrap().unwrap();
        assert_eq!((report.state, report.request_id.as_deref()), (State::Delivered, Some("request-1")));
        assert!(report.delivered_at.is_some());
        assert!(subject.store.show(appended[0]).await.unwrap().is_none());
        let other = cello_relay::event::EventId::new(start(), appended[0].seq(), 77);
        assert_eq!(subject.state(other).await, None, "an id is more than its sequence");
    })
    .await;
}

#[tokio::test]
async fn listings_are_pages_by_sequence_of_what_the_filter_lets_through() {
    each(0, async |subject: Subject| {
        let appended = append(&*subject.store, &["a", "b", "a", "c", "d"]).await;
        let mut claimed = subject.claim(2).await;
        subject.settle(claimed.remove(0), dead(Reason::Http400)).await;
        let at = subject.clock.now().plus(Duration::from_secs(60));
        subject.settle(claimed.remove(0), retry(at, false)).await;
        let list = async |filter: Filter, after, limit| {
            let lines = subject.store.list(filter, after, limit).await.unwrap();
            lines.into_iter().map(|line| line.id).collect::<Vec<_>>()
        };
        assert_eq!(list(Filter::default(), None, 3).await, appended[..3]);
        assert_eq!(list(Filter::default(), Some(appended[2]), 3).await, appended[3..]);
        let state = |state| Filter { state: Some(state), ..Filter::default() };
        assert_eq!(list(state(State::Dead), None, 9).await, appended[..1]);
        assert_eq!(list(state(State::Retrying), None, 9).await, appended[1..2]);
        assert_eq!(list(state(State::Pending), None, 9).await, appended[2..]);
        let of_a = Filter { user: Some(event("a", 0).user), ..Filter::default() };
        assert_eq!(list(of_a, None, 9).await, [appended[0], appended[2]]);
        let failed = Filter { reason: Some(Reason::Http5xx), ..Filter::default() };
        assert_eq!(list(failed, None, 9).await, appended[1..2]);
    })
    .await;
}

#[tokio::test]
async fn an_intended_event_whose_lease_is_dropped_is_dead_and_not_sent_again() {
    each(0, async |subject: Subject| {
        let appended = append(&*subject.store, &["a", "a"]).await;
        let claimed = subject.claim_one().await;
        subject.store.intend(&claimed.lease).await.unwrap();
        drop(claimed);
        let next = subject.claim_one().await;
        assert_eq!(next.id, appended[1]);
        let report = subject.store.lookup(appended[0]).await.unwrap().unwrap();
        assert_eq!((report.state, report.reason), (State::Dead, Some(Reason::Ambiguous)));
        subject.store.intend(&next.lease).await.unwrap();
        subject.settle(next, delivered()).await;
        assert_eq!(subject.ledger(), Ledger { accepted: 2, delivered: 1, dead: 1, ..Ledger::default() });
    })
    .await;
}

#[tokio::test]
async fn after_close_claims_end_empty_and_appends_are_refused() {
    each(0, async |subject: Subject| {
        let (claimed, ()) = tokio::join!(subject.claim(1), subject.store.close());
        assert!(claimed.is_empty());
        assert_eq!(subject.store.append(batch(&["a"])).await, Err(AppendError::Closed));
        assert!(subject.claim(1).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_claim_takes_only_different_users_and_at_most_what_it_wants() {
    each(0, async |subject: Subject| {
        append(&*subject.store, &["a", "b", "a", "c", "b", "d"]).await;
        let claimed = subject.claim(3).await;
        assert_eq!(users(&claimed), ["a", "b", "c"]);
        assert_eq!(subject.store.stats().in_flight, 3);
    })
    .await;
}

#[tokio::test]
async fn a_lease_of_an_earlier_opening_is_lost() {
    let fixture = Fixture::new();
    let store = fixture.open();
    append(&store, &["a"]).await;
    fixture.fail_next_commit(std::io::ErrorKind::Other);
    let claimed = store.claim(Want { max: 1, rotate: false }).await.remove(0);
    let failed = store.append(batch(&["b"])).await;
    assert_eq!(failed, Err(AppendError::Unavailable));
    let again = store.claim(Want { max: 1, rotate: false }).await;
    assert_eq!(again[0].id, claimed.id, "it is handed out again after the file was opened anew");
    let result = store.settle(claimed.lease, delivered()).await;
    assert_eq!(result, Err(SettleError::LeaseLost));
}
