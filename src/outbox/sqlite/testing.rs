//! What the unit tests of the store share.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;

use super::env::{Env, Seams};
use super::hand_out::Round;
use super::inbox::Inbox;
use super::row::Gate;
use super::shared::Shared;
use super::sql::PAGE_BYTES;
use super::store::Store;
use super::volume::Home;
use super::{Settings, writer};
use crate::clock::SystemClock;
use crate::event::{Event, EventId, Trigger, UserId};
use crate::outbox::lease::Returns;
use crate::outbox::{Claimed, Want};

/// An open store whose events nobody has read yet, from sequence 1 on.
pub(super) struct Bench {
    pub(super) store: Store,
    pub(super) env: Env,
    _dir: TempDir,
}

impl Bench {
    /// One event for each of these users, with bodies of that size.
    pub(super) fn with(users: &[&str], bytes: usize) -> Self {
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
            send_within: Duration::from_secs(60),
        };
        let home = Home::new(&settings.dir);
        home.create().unwrap();
        let env = Env::new(settings, Arc::new(SystemClock), Arc::default(), home, Seams::default());
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

    /// Claims at most so many events.
    pub(super) fn hand_out(&mut self, max: usize) -> Vec<Claimed> {
        let returns = Returns::new(|| ());
        let round = Round { want: Want { max, rotate: false }, ignore_backoff: false, returns: &returns };
        self.store.hand_out(&self.env, &round).unwrap()
    }

    /// A writer of it, without its thread, and the directory.
    pub(super) fn into_writer(self) -> (writer::Writer, TempDir) {
        let lock = self.env.home.lock().unwrap_or_else(|error| panic!("{error}"));
        let (ask, _questions) = mpsc::channel(1);
        let shared = Arc::new(Shared::new(Inbox::new(), ask));
        let writer = writer::Writer::new(self.env, shared, Returns::new(|| ()), Some(self.store), lock).unwrap();
        (writer, self._dir)
    }

    /// Gates a user of whom nothing is here.
    pub(super) fn gate(&mut self, user: &str) {
        let gate = Gate { due: self.env.clock.now(), wait: Duration::ZERO };
        self.store.sql.set_gate(&UserId::new(user), gate).unwrap();
        self.store.books.gates += 1;
    }
}

/// Changes the first page of a table, of which all has to be in the database.
pub(super) fn change_page(database: &Path, table: &str, change: impl FnOnce(&mut [u8])) {
    let sql = "SELECT rootpage FROM sqlite_schema WHERE name = ?";
    let file = rusqlite::Connection::open(database).unwrap();
    let page = file.query_row(sql, [table], |row| row.get::<_, u32>(0)).unwrap() as usize;
    drop(file);
    let mut bytes = std::fs::read(database).unwrap();
    change(&mut bytes[(page - 1) * PAGE_BYTES as usize..][..PAGE_BYTES as usize]);
    std::fs::write(database, bytes).unwrap();
}
