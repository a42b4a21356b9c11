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
use std::thread::JoinHandle;

use tokio::time::Instant;

use super::answer::{Answer, Desk};
use crate::outbox::sqlite::env::Env;
use crate::outbox::sqlite::fault::{Fault, lacks_room};
use crate::outbox::sqlite::place::Place;
use crate::outbox::sqlite::shared::Shared;
use crate::outbox::sqlite::sql::sqlite_failure;
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
    let code = if lacks_room(error) { rusqlite::ffi::SQLITE_FULL } else { rusqlite::ffi::SQLITE_IOERR_FSYNC };
    // Whatever it was: after a failed sync nothing is known of the data, so it is no plain `Full`.
    Fault::Broken(sqlite_failure(code))
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
    pub(super) fn start(shared: &Arc<Shared>, desk: Desk) -> io::Result<Self> {
        let (jobs, todo) = sync_channel::<Job>(1);
        let (done, results) = sync_channel(1);
        let writers = Arc::clone(shared);
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
                writers.inbox.nudge();
                desk.give(answers);
            }
        };
        let thread = shared.start("outbox-syncer", run)?;
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

#[cfg(test)]
#[path = "syncer/testing.rs"]
mod testing;
#[cfg(test)]
pub(super) use testing::Held;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::outbox::sqlite::inbox::Inbox;
    use crate::outbox::sqlite::testing::Bench;

    fn syncer() -> (Arc<Shared>, Syncer) {
        let shared = Arc::new(Shared::new(Inbox::new(), mpsc::channel(1).0));
        let syncer = Syncer::start(&shared, Desk::here()).unwrap();
        (shared, syncer)
    }

    /// Of what an opening has written.
    fn commit(bench: &mut Bench) -> Commit {
        let wal = bench.store.wal(&bench.env.home).unwrap();
        Commit { wal, place: bench.store.place, home: bench.env.home.clone(), took: Arc::default() }
    }

    #[test]
    fn a_commit_is_durable_when_its_wal_is_synced_and_still_has_its_name() {
        let mut bench = Bench::with(&["a"], 10);
        let commit = commit(&mut bench);
        assert!(commit.make_durable().is_ok());
        // What cannot be synced.
        let null = Arc::new(File::open("/dev/null").unwrap());
        let other = Commit { wal: null, home: commit.home.clone(), took: Arc::default(), ..commit };
        assert!(matches!(other.make_durable(), Err(Fault::Broken(_))));
        std::fs::rename(bench.env.home.wal(), bench.env.home.named("elsewhere")).unwrap();
        assert!(matches!(commit.make_durable(), Err(Fault::Gone)));
    }

    #[test]
    fn a_sync_without_room_says_so_and_leaves_as_little_known_as_any_other() {
        for (kind, expected) in [
            (io::ErrorKind::StorageFull, rusqlite::ffi::SQLITE_FULL),
            (io::ErrorKind::QuotaExceeded, rusqlite::ffi::SQLITE_FULL),
            (io::ErrorKind::Other, rusqlite::ffi::SQLITE_IOERR_FSYNC),
        ] {
            let Fault::Broken(error) = sync_fault(&kind.into()) else { panic!("{kind}") };
            assert_eq!(error.sqlite_error().unwrap().extended_code, expected, "{kind}");
        }
    }

    #[test]
    fn a_sync_has_a_thread_of_its_own_after_one_that_took_long() {
        let (bench, (_shared, syncer)) = (Bench::with(&[], 0), syncer());
        for (took, is_worth_it) in [(0, false), (399, false), (400, true), (10_000, true)] {
            syncer.took.store(took, Ordering::Relaxed);
            assert_eq!(syncer.is_worth_it(&bench.env), is_worth_it, "{took} µs");
        }
    }

    #[test]
    fn whoever_waits_for_a_commit_is_answered_and_a_sync_is_under_way_until_its_result_is_taken() {
        let (mut bench, (_shared, mut syncer)) = (Bench::with(&["a"], 10), syncer());
        assert!(syncer.since().is_none() && syncer.result(true).is_none());
        let (reply, answer) = oneshot::channel();
        let commit = commit(&mut bench);
        syncer.sync(&bench.env, commit, vec![Answer::Intend(reply, Ok(()))]);
        assert!(syncer.since().is_some_and(|since| since <= bench.env.clock.instant()));
        assert_eq!(answer.blocking_recv(), Ok(Ok(())));
        assert!(syncer.since().is_some());
        assert!(matches!(syncer.result(true), Some(Ok(()))));
        assert!(syncer.since().is_none() && syncer.result(true).is_none());
    }

    #[test]
    fn a_result_is_waited_for_or_not() {
        // In none of the rounds; in some of them it comes only while it is waited for.
        for _ in 0..50 {
            let (done, results) = sync_channel(1);
            let since = Some(Instant::now());
            let mut syncer = Syncer { jobs: None, results, thread: None, since, took: Arc::default() };
            assert!(syncer.result(false).is_none() && syncer.since().is_some(), "it goes on");
            std::thread::scope(|scope| {
                scope.spawn(move || done.send(Ok(())).unwrap());
                assert!(matches!(syncer.result(true), Some(Ok(()))));
            });
        }
    }

    #[test]
    fn a_syncer_that_panicked_has_synced_nothing() {
        let (_, results) = sync_channel(1);
        let since = Some(Instant::now() - Duration::from_secs(1));
        let mut syncer = Syncer { jobs: None, results, thread: None, since, took: Arc::default() };
        assert!(matches!(syncer.result(false), Some(Err((Fault::Broken(_), answers))) if answers.is_empty()));
        assert!(syncer.since().is_none());
    }

    #[test]
    fn a_syncer_that_is_dropped_has_ended() {
        let (shared, syncer) = syncer();
        drop(syncer);
        assert_eq!(Arc::strong_count(&shared), 1);
    }
}
