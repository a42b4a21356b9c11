//! Makes commits durable: at once, or on a slow disk in a thread while the writer fills the next one.
//!
//! SQLite syncs a commit inside `COMMIT`, with nothing else going on meanwhile. Here it only writes (in
//! `synchronous=NORMAL`), and the WAL is synced from here before anyone is answered: a 2xx still means
//! synced. A transaction that is not synced when the power goes is rolled back by the WAL's checksums, as
//! is one that SQLite was syncing itself. Checkpoints sync WAL and database as ever.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{Builder, JoinHandle};

use tokio::time::Instant;

use super::answer::{Answer, Desk};
use crate::outbox::sqlite::env::Env;
use crate::outbox::sqlite::fault::Fault;
use crate::outbox::sqlite::place::Place;
use crate::outbox::sqlite::shared::Shared;
use crate::outbox::sqlite::volume::Home;

/// A commit to be made durable.
pub(super) struct Commit {
    pub(super) wal: Arc<File>,
    pub(super) place: Place,
    pub(super) home: Home,
    /// See [`Syncer::took`].
    pub(super) took: Arc<AtomicU64>,
}

impl Commit {
    /// Returns when the commit is on stable storage, in files that a later start finds.
    pub(super) fn make_durable(&self) -> Result<(), Fault> {
        // On these threads that is real time, whatever clock the store has.
        let started = Instant::now();
        self.wal.sync_data().map_err(|error| sync_fault(&error))?;
        self.took.store(started.elapsed().as_micros() as u64, Ordering::Relaxed);
        if self.place.is_untouched(&self.home) { Ok(()) } else { Err(Fault::Gone) }
    }
}

fn sync_fault(error: &io::Error) -> Fault {
    let code = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => rusqlite::ffi::SQLITE_FULL,
        _ => rusqlite::ffi::SQLITE_IOERR_FSYNC,
    };
    // Whatever it was: after a failed sync nothing is known of the data, so it is no plain `Full`.
    Fault::Broken(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None))
}

/// A commit with those who wait for it.
struct Job {
    commit: Commit,
    answers: Vec<Answer>,
}

/// What has come of a sync; if it failed, with those who are not answered.
type Synced = Result<(), (Fault, Vec<Answer>)>;

/// The writer's end.
pub(super) struct Syncer {
    jobs: Option<SyncSender<Job>>,
    results: Receiver<Synced>,
    thread: Option<JoinHandle<()>>,
    /// Since when it syncs.
    since: Option<Instant>,
    /// Microseconds that the last sync took, whoever did it.
    pub(super) took: Arc<AtomicU64>,
}

impl Syncer {
    /// Starts the thread.
    pub(super) fn start(shared: Arc<Shared>, desk: Desk) -> io::Result<Self> {
        let (jobs, todo) = sync_channel::<Job>(1);
        let (done, results) = sync_channel(1);
        let run = move || {
            for Job { commit, answers } in todo {
                let (result, answers) = match commit.make_durable() {
                    Ok(()) => (Ok(()), answers),
                    Err(fault) => (Err((fault, answers)), Vec::new()),
                };
                // The writer first: the next commit can go. It follows in memory before it takes what the
                // answers bring.
                if done.send(result).is_err() {
                    return;
                }
                shared.inbox.nudge();
                desk.give(answers);
            }
        };
        let thread = Builder::new().name("outbox-syncer".to_owned()).spawn(run)?;
        Ok(Self { jobs: Some(jobs), results, thread: Some(thread), since: None, took: Arc::default() })
    }

    /// Whether the disk is so slow that the writer has better things to do meanwhile.
    pub(super) fn is_worth_it(&self, env: &Env) -> bool {
        u128::from(self.took.load(Ordering::Relaxed)) >= env.seams.worth_a_thread.as_micros()
    }

    /// Syncs a commit and answers those who wait for it; without an answer they know that it may be lost.
    pub(super) fn sync(&mut self, env: &Env, commit: Commit, answers: Vec<Answer>) {
        self.since = Some(env.clock.instant());
        if let Some(jobs) = &self.jobs {
            // Fails only if the thread panicked; then `result` says so.
            drop(jobs.send(Job { commit, answers }));
        }
    }

    /// Since when a sync is under way whose result was not taken.
    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }

    /// What has come of the sync under way: `None` while it is, or if there is none. With `waits` it is waited for.
    pub(super) fn result(&mut self, waits: bool) -> Option<Synced> {
        self.since?;
        let result = match self.results.try_recv() {
            Err(TryRecvError::Empty) if !waits => return None,
            Err(TryRecvError::Empty) => self.results.recv().ok(),
            other => other.ok(),
        };
        self.since = None;
        Some(result.unwrap_or_else(|| Err((sync_fault(&io::ErrorKind::BrokenPipe.into()), Vec::new()))))
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // One that panicked was reported by the panic hook.
            drop(thread.join());
        }
    }
}
