//! Random histories, side by side on the embedded store and on the model, crashes included.

#![allow(clippy::unwrap_used, reason = "a test that fails there says where")]

use std::sync::Arc;
use std::time::Duration;

use cello_relay::clock::Clock;
use cello_relay::event::EventId;
use cello_relay::outbox::memory::Memory;
use cello_relay::outbox::sqlite::Sqlite;
use cello_relay::outbox::{
    Batch, Claimed, DeadLetters, Detail, Filter, Key, Outbox, Outcome, Route, Selection, Terms, Want,
};
use cello_relay::reason::Reason;
use proptest::prelude::*;

use crate::outbox_support::{Fixture, ManualClock, attempt, dead, delivered, event, retry};

#[derive(Clone, Debug)]
enum Action {
    Append { users: Vec<u8>, key: Option<u8> },
    Claim { rotate: bool },
    Settle { which: usize, outcome: Kind },
    Intend(usize),
    DropLease(usize),
    Pass(u64),
    Replay { which: Option<usize>, everything: bool },
    Discard(usize),
    Kill,
    FailCommit(bool),
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Delivered,
    Retry(u64),
    Release,
    Unsure,
    Dead,
}

fn actions() -> impl Strategy<Value = Vec<Action>> {
    let kind = prop_oneof![
        4 => Just(Kind::Delivered),
        2 => (0..4_u64).prop_map(Kind::Retry),
        1 => Just(Kind::Release),
        1 => Just(Kind::Unsure),
        2 => Just(Kind::Dead),
    ];
    let key = prop_oneof![4 => Just(None), 1 => (0..3_u8).prop_map(Some)];
    let action = prop_oneof![
        5 => (prop::collection::vec(0..4_u8, 1..4), key).prop_map(|(users, key)| Action::Append { users, key }),
        5 => any::<bool>().prop_map(|rotate| Action::Claim { rotate }),
        8 => (any::<usize>(), kind).prop_map(|(which, outcome)| Action::Settle { which, outcome }),
        1 => any::<usize>().prop_map(Action::Intend),
        1 => any::<usize>().prop_map(Action::DropLease),
        2 => (0..5_u64).prop_map(Action::Pass),
        2 => (prop::option::of(any::<usize>()), any::<bool>())
            .prop_map(|(which, everything)| Action::Replay { which, everything }),
        1 => any::<usize>().prop_map(Action::Discard),
        1 => Just(Action::Kill),
        1 => any::<bool>().prop_map(Action::FailCommit),
    ];
    prop::collection::vec(action, 1..60)
}

/// Both stores and what is held of them.
struct Pair {
    fixture: Fixture,
    clock: Arc<ManualClock>,
    sqlite: Option<Sqlite>,
    model: Memory,
    held: Vec<(Claimed, Claimed)>,
    known: Vec<EventId>,
    appended: usize,
}

impl Pair {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new());
        let fixture = Fixture::with(Arc::clone(&clock) as Arc<dyn Clock>, |_| {});
        let sqlite = Some(fixture.open());
        let model = Memory::new(Arc::clone(&clock) as Arc<dyn Clock>);
        Self { fixture, clock, sqlite, model, held: Vec::new(), known: Vec::new(), appended: 0 }
    }

    fn sqlite(&self) -> &Sqlite {
        self.sqlite.as_ref().expect("open but while it is killed")
    }

    fn take(&mut self, which: usize) -> Option<(Claimed, Claimed)> {
        (!self.held.is_empty()).then(|| self.held.swap_remove(which % self.held.len()))
    }

    async fn act(&mut self, action: Action) {
        match action {
            Action::Append { users, key } => self.append(&users, key).await,
            Action::Claim { rotate } => self.claim(rotate).await,
            Action::Settle { which, outcome } => self.settle(which, outcome).await,
            Action::Intend(which) => {
                if let Some((real, model)) = self.take(which) {
                    self.sqlite().intend(&real.lease).await.unwrap();
                    self.model.intend(&model.lease).await.unwrap();
                    self.held.push((real, model));
                }
            }
            Action::DropLease(which) => {
                drop(self.take(which));
                // A dropped lease is taken back in the writer's next turn; this waits for one.
                self.sqlite().discard(Selection::Ids(Vec::new())).await.unwrap();
            }
            Action::Pass(seconds) => self.clock.pass(Duration::from_secs(seconds)),
            Action::Replay { which, everything } => {
                let which = self.selection(which);
                let counts = {
                    let terms = if everything { Terms::everything() } else { Terms::default() };
                    (self.sqlite().replay(which.clone(), terms).await, self.model.replay(which, terms).await)
                };
                assert_eq!(counts.0.unwrap(), counts.1.unwrap());
            }
            Action::Discard(which) => {
                let which = self.selection(Some(which));
                let counts = (self.sqlite().discard(which.clone()).await, self.model.discard(which).await);
                assert_eq!(counts.0.unwrap(), counts.1.unwrap());
            }
            Action::Kill => {
                self.sqlite = None;
                self.held.clear();
                self.sqlite = Some(self.fixture.open());
            }
            Action::FailCommit(is_full) => self.fail_commit(is_full).await,
        }
    }

    fn selection(&self, which: Option<usize>) -> Selection {
        match which.filter(|_| !self.known.is_empty()) {
            Some(which) => Selection::Ids(vec![self.known[which % self.known.len()]]),
            None => Selection::Matching(Filter::default()),
        }
    }

    async fn append(&mut self, users: &[u8], key: Option<u8>) {
        let events = users.iter().map(|user| {
            self.appended += 1;
            event(&format!("user-{user}"), self.appended)
        });
        let events: Vec<_> = events.collect();
        let key = key.map(|key| Key {
            route: Route::Batch,
            key: format!("{key}").into(),
            body: [0; 32],
            notes: "as before".into(),
        });
        let batch = Batch { events, key };
        let real = self.sqlite().append(batch.clone()).await.unwrap();
        assert_eq!(real, self.model.append(batch).await.unwrap());
        self.known.extend(real.ids);
    }

    /// Takes all that can be had.
    async fn claim(&mut self, rotate: bool) {
        let want = Want { max: 100, rotate };
        let mut model = tokio::time::timeout(Duration::ZERO, self.model.claim(want)).await.unwrap_or_default();
        let mut real = Vec::new();
        while real.len() < model.len() {
            let more = tokio::time::timeout(Duration::from_secs(2), self.sqlite().claim(want)).await;
            real.extend(more.expect("what the model hands out can be had"));
        }
        let more = tokio::time::timeout(Duration::from_millis(1), self.sqlite().claim(want)).await;
        assert!(more.is_err(), "more than the model hands out");
        real.sort_by_key(|claimed| claimed.id.seq());
        model.sort_by_key(|claimed| claimed.id.seq());
        for (real, model) in real.into_iter().zip(model) {
            assert_eq!((real.id, &real.event, real.progress), (model.id, &model.event, model.progress));
            self.held.push((real, model));
        }
    }

    async fn settle(&mut self, which: usize, kind: Kind) {
        let Some((real, model)) = self.take(which) else { return };
        let outcome = match kind {
            Kind::Delivered => delivered(),
            Kind::Retry(seconds) => retry(self.clock.now().plus(Duration::from_secs(seconds)), seconds == 1),
            Kind::Release => Outcome::Release,
            Kind::Unsure => Outcome::Unsure { attempt: attempt(Reason::Timeout) },
            Kind::Dead => dead(Reason::Http400),
        };
        let real = self.sqlite().settle(real.lease, outcome.clone()).await;
        assert_eq!(real, self.model.settle(model.lease, outcome).await);
    }

    /// A commit fails: nothing of it is kept, and what was in flight comes back (unless the disk was
    /// only full: then nothing else happens).
    async fn fail_commit(&mut self, is_full: bool) {
        let kind = if is_full { std::io::ErrorKind::StorageFull } else { std::io::ErrorKind::Other };
        self.fixture.fail_next_commit(kind);
        let batch = Batch { events: vec![event("user-0", 0)], key: None };
        assert!(self.sqlite().append(batch).await.is_err());
        if is_full {
            // Appends are refused for a moment.
            self.clock.pass(Duration::from_secs(2));
        } else {
            self.held.clear();
            self.clock.pass(Duration::from_secs(1));
            // The file is opened again when the writer looks around next.
            while self.sqlite().stats().refusing.is_some() {
                self.sqlite().ignore_backoff(false);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    async fn compare(&self) {
        // A lookup waits for nothing that was answered.
        for id in &self.known {
            let mut real = self.sqlite().lookup(*id).await.unwrap();
            let model = self.model.lookup(*id).await.unwrap();
            if let (Some(real), Some(model)) = (&mut real, &model) {
                assert_eq!(real.delivered_at.is_some(), model.delivered_at.is_some());
            }
            assert_eq!(real, model, "{id}");
            let (real, model) = (self.sqlite().show(*id).await.unwrap(), self.model.show(*id).await.unwrap());
            let kept = |detail: Option<Detail>| detail.map(|it| (it.attempts, it.overtaken_at, it.unsure));
            assert_eq!(kept(real), kept(model), "{id}");
        }
        let (real, model) = (self.sqlite().stats(), self.model.stats());
        assert_eq!(real.ledger, model.ledger);
        assert_eq!((real.in_flight, real.retrying, real.oldest), (model.in_flight, model.retrying, model.oldest));
        let list = (self.sqlite().list(Filter::default(), None, 1000), self.model.list(Filter::default(), None, 1000));
        assert_eq!(list.0.await.unwrap(), list.1.await.unwrap());
    }
}

proptest! {
    // PROPTEST_CASES makes it many more.
    #![proptest_config(ProptestConfig { cases: ProptestConfig::default().cases / 8, failure_persistence: None, max_shrink_time: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_embedded_store_does_what_the_model_does(actions in actions()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new();
            for action in actions {
                pair.act(action).await;
                pair.compare().await;
            }
            pair.held.clear();
            pair.sqlite().close().await;
            pair.fixture.books_balance();
        });
    }
}
