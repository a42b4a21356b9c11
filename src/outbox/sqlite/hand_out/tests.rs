//! How far the file is read, and what is known of who could get or waits for something.

use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::clock::SystemClock;
use crate::event::{Event, EventId, Trigger};
use crate::outbox::sqlite::env::{Seams, Volume};
use crate::outbox::sqlite::row::Gate;
use crate::outbox::sqlite::volume::Home;
use crate::outbox::sqlite::{Settings, writer};

/// An open store whose events nobody has read yet, from sequence 1 on.
struct Bench {
    store: Store,
    env: Env,
    _dir: TempDir,
}

impl Bench {
    /// One event for each of these users, with bodies of that size.
    fn with(users: &[&str], bytes: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings {
            dir: dir.path().join("outbox"),
            max_bytes: 1 << 30,
            max_events: 0,
            min_free_bytes: 0,
            reserve: 0,
            remember: Duration::ZERO,
            remember_max: 0,
            dead_max_age: None,
            key_remember: Duration::ZERO,
            key_max_bytes: 0,
            allow_network_fs: true,
            upstream: String::new(),
        };
        let home = Home::new(&settings.dir);
        home.create().unwrap();
        let env = Env {
            settings,
            clock: Arc::new(SystemClock),
            metrics: Arc::default(),
            home,
            seams: Seams::default(),
            volume: Volume::default(),
            orphans: Vec::new(),
        };
        let mut store = Store::open(&env, writer::FIRST_EPOCH, 1).unwrap_or_else(|_| panic!("opens"));
        store.sql.begin().unwrap();
        for (seq, user) in (1..).zip(users) {
            let body = vec![b'x'; bytes].into();
            let event = Event { user: UserId::new(user), trigger: Trigger::None, body, trace: None };
            store.sql.insert_event(EventId::new(env.clock.now(), seq, 0), &event).unwrap();
        }
        store.sql.commit().unwrap();
        store.books.next_seq = users.len() as u64 + 1;
        store.durable = store.books;
        Self { store, env, _dir: dir }
    }

    /// The sequences up to which a few steps have read.
    fn read(&mut self, steps: usize) -> Vec<u64> {
        let read = |_| {
            self.store.read_slice().unwrap();
            self.store.queue.cursor
        };
        (0..steps).map(read).collect()
    }

    fn hand_out(&mut self, max: usize) -> Vec<Claimed> {
        let returns = Returns::new(|| ());
        let round = Round { want: Want { max, rotate: false }, ignore_backoff: false, returns: &returns };
        self.store.hand_out(&self.env, &round).unwrap()
    }

    fn gate(&mut self, user: &str) {
        let gate = Gate { due: self.env.clock.now(), wait: Duration::ZERO };
        self.store.sql.set_gate(&UserId::new(user), gate).unwrap();
        self.store.books.gates += 1;
    }
}

fn users(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("user-{n}")).collect()
}

fn of(users: &[String]) -> Vec<&str> {
    users.iter().map(String::as_str).collect()
}

#[test]
fn the_file_is_read_in_steps_of_256_rows_each_row_once_and_to_its_end() {
    let many = users(600);
    assert_eq!(Bench::with(&of(&many), 10).read(3), [257, 513, 601]);
    assert_eq!(Bench::with(&of(&many[..256]), 10).read(1), [257]);
    assert_eq!(Bench::with(&of(&many[..257]), 10).read(2), [257, 258]);
}

#[test]
fn large_rows_are_read_in_steps_of_256_kib() {
    let many = users(5);
    assert_eq!(Bench::with(&of(&many), 128 << 10).read(3), [3, 5, 6]);
    assert_eq!(Bench::with(&of(&many), 100 << 10).read(2), [4, 6]);
}

#[test]
fn a_claim_is_known_to_get_something_from_memory_from_the_file_or_behind_a_gate() {
    let can = |bench: &Bench| (bench.store.can_hand_out(), bench.store.looks_to_hand_out());
    let mut bench = Bench::with(&["a", "a"], 10);
    assert_eq!(can(&bench), (true, true), "there is something to read");
    bench.read(1);
    assert_eq!(can(&bench), (true, false), "it is at hand");
    let _claimed = bench.hand_out(9);
    assert_eq!(can(&bench), (false, false), "what is left waits behind it");
    bench.gate("b");
    assert_eq!(can(&bench), (true, true));
}

#[test]
fn a_delivery_is_known_to_be_waited_for_where_a_users_next_event_is_behind_it() {
    let mut bench = Bench::with(&["a", "b", "b"], 10);
    bench.read(1);
    let claimed = bench.hand_out(1);
    assert_eq!(claimed[0].event.user.as_str(), "a");
    assert!(bench.store.someone_waits(), "of b one waits behind the other");
    let mut bench = Bench::with(&["a", "b"], 10);
    bench.read(1);
    assert!(!bench.store.someone_waits());
    let _claimed = bench.hand_out(9);
    assert!(!bench.store.someone_waits());
    bench.gate("c");
    assert!(bench.store.someone_waits(), "it may be behind a gate");
}
