//! The one thread that owns the file: take all commands, one transaction, answer, hand out.
//!
//! While one batch is synced on a slow disk (by a thread of its own) the next transaction takes what comes, so
//! the rate of events does not hang on the rate of syncs. Nobody is answered before the sync returned.

mod answer;
mod failure;
mod house;
mod open;
mod scrub;
mod syncer;
#[cfg(test)]
mod testing;
mod transaction;
mod waiting;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::decide::Job;
use super::env::Env;
use super::fault::Fault;
use super::hand_out::Round;
use super::inbox::{Command, Decided, answer};
use super::shared::Shared;
use super::sql::contradiction;
use super::store::Store;
use super::volume::Lock;
use crate::outbox::lease::Returns;
use crate::outbox::{Claimed, ReadError, Stats, Want};
use answer::{Answer, Desk};
use failure::Reopen;
pub(super) use failure::open_or_quarantine;
use open::{Landing, Open};
use scrub::Scrub;
use syncer::Syncer;

/// Which opening the first one is.
pub(super) const FIRST_EPOCH: u64 = 1;

/// The writer's state.
pub(super) struct Writer {
    env: Env,
    shared: Arc<Shared>,
    returns: Arc<Returns>,
    /// `None` after a failure, until the file was opened anew.
    store: Option<Store>,
    /// Not while a relay that started on a full disk has not opened the file yet.
    was_open: bool,
    epoch: u64,
    inbox: Vec<Command>,
    /// Kept for its memory, as is `inbox`.
    work: Vec<Command>,
    /// The transaction under way, while the one before it is synced.
    open: Option<Open>,
    /// What memory follows with when the last commit is synced; `None` if there is no such commit.
    landing: Option<Landing>,
    syncer: Syncer,
    /// Those whose commit could not be synced.
    unanswered: Vec<Answer>,
    claims: VecDeque<(Want, oneshot::Sender<Vec<Claimed>>)>,
    jobs: VecDeque<(Job, oneshot::Sender<Result<Decided, ReadError>>)>,
    /// Erasures whose rows are gone; what they leave behind is overwritten.
    scrubs: VecDeque<Scrub>,
    closing: Vec<oneshot::Sender<()>>,
    /// To be given once the state they tell of can be seen.
    answers: Vec<Answer>,
    desk: Desk,
    stats: Stats,
    reopen: Reopen,
    chores_at: Instant,
    /// There was housekeeping left when it was last looked at.
    has_chores: bool,
    /// Something was written since the last look at housekeeping.
    is_busy: bool,
    /// Something was written since the store was last idle.
    is_stirred: bool,
    /// `stats.oldest` is as of the last commit.
    is_oldest_known: bool,
    /// How many callers the last commit appended for; 0 if the last turn had nothing to do.
    last_appends: usize,
    /// How many commits have settled nothing since one did.
    without_settles: u32,
    /// Bytes that may still be written, about, before the WAL is looked at.
    wal_room: u64,
    /// Keeps other processes out until the thread ends.
    lock: Lock,
}

/// Closes the inbox when the writer's thread ends.
struct Abandon(Arc<Shared>);

impl Drop for Abandon {
    fn drop(&mut self) {
        self.0.inbox.abandon();
    }
}

impl Writer {
    /// Answers are given in the runtime of whoever calls.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(super) fn new(
        env: Env,
        shared: Arc<Shared>,
        returns: Arc<Returns>,
        store: Option<Store>,
        lock: Lock,
    ) -> std::io::Result<Self> {
        let now = env.clock.instant();
        let recovered = store.as_ref().map(|store| store.books.ledger.undelivered());
        let capacity_bytes = env.settings.max_bytes;
        let stats = Stats { recovered: recovered.unwrap_or_default(), capacity_bytes, ..Stats::default() };
        let desk = Desk::here();
        let syncer = Syncer::start(&shared, desk.clone())?;
        let mut writer = Self {
            env,
            shared,
            returns,
            epoch: FIRST_EPOCH,
            was_open: store.is_some(),
            store,
            inbox: Vec::new(),
            work: Vec::new(),
            open: None,
            landing: None,
            syncer,
            unanswered: Vec::new(),
            claims: VecDeque::new(),
            jobs: VecDeque::new(),
            scrubs: VecDeque::new(),
            closing: Vec::new(),
            answers: Vec::new(),
            desk,
            stats,
            reopen: Reopen::starting(now),
            chores_at: now,
            has_chores: false,
            is_busy: true,
            is_stirred: true,
            is_oldest_known: false,
            last_appends: 0,
            without_settles: u32::MAX,
            wal_room: 0,
            lock,
        };
        writer.publish();
        Ok(writer)
    }

    /// Runs until the store is closed or dropped.
    pub(super) fn run(mut self) {
        // Whatever ends this thread, a panic too, nobody waits for it in vain.
        let _end = Abandon(Arc::clone(&self.shared));
        loop {
            let wanted = self.wanted();
            // A sync that hangs is no waiting for work.
            if self.syncer.since().is_none() {
                self.shared.beat_waiting();
            }
            self.shared.inbox.take(wanted, &mut self.inbox);
            self.shared.beat(self.syncer.since().unwrap_or_else(|| self.env.clock.instant()));
            if self.shared.inbox.is_abandoned() {
                return;
            }
            let work = self.sort();
            self.turn(work);
            if !self.closing.is_empty() && !self.has_to_go_on() {
                return self.close();
            }
        }
    }

    /// Something was begun that no later start could go on with.
    fn has_to_go_on(&self) -> bool {
        // A database that has lost its name is gone with this process.
        let copies_an_orphan =
            !self.env.orphans.is_empty() && self.store.as_ref().is_some_and(|s| s.recovery.is_some());
        !self.jobs.is_empty() || !self.scrubs.is_empty() || copies_an_orphan
    }

    /// Sets claims, decisions and the close aside; what is left goes into the transaction.
    fn sort(&mut self) -> Vec<Command> {
        let mut work = std::mem::take(&mut self.work);
        for command in self.inbox.drain(..) {
            match command {
                Command::Claim { want, reply } => self.claims.push_back((want, reply)),
                Command::Decide { decision, which, reply } => {
                    self.jobs.push_back((Job::new(decision, which), reply));
                }
                Command::Close { reply } => self.closing.push(reply),
                other => work.push(other),
            }
        }
        work
    }

    /// One turn of the loop.
    fn turn(&mut self, mut work: Vec<Command>) {
        self.last_appends = 0;
        if let Err(fault) = self.land_synced(false) {
            self.fail(&fault);
        }
        if self.store.is_none() && self.env.clock.instant() >= self.reopen.at {
            self.reopen();
        }
        self.note_ends(&work);
        let is_time = self.env.measure();
        if is_time {
            self.env.restore_reserve();
        }
        // Who only wants events need not wait for that.
        if is_time || !work.is_empty() || self.claims.is_empty() {
            self.look_around();
        }
        let abandoned = self.take_returns();
        if self.store.is_some() {
            let outcome = self.write(&mut work, &abandoned).and_then(|()| self.hand_out()).and_then(|()| self.scrub());
            if let Err(fault) = outcome {
                self.fail(&fault);
            }
        } else {
            self.refuse();
        }
        self.give_answers();
        self.note_ends(&work);
        // What was not answered goes unanswered, which says that nothing could be written.
        work.clear();
        self.work = work;
        if self.open.is_none()
            && let Err(fault) = self.keep_house()
        {
            self.fail(&fault);
            self.publish();
        }
    }

    /// Writes what came: beside a sync under way if it may.
    fn write(&mut self, work: &mut Vec<Command>, abandoned: &[u64]) -> Result<(), Fault> {
        let bytes: u64 = work.iter().map(open::bytes_of).sum();
        // Every commit also forgets what is old; an idle store makes one for that.
        let does_chores = work.is_empty() && self.has_chores && !self.is_busy;
        if self.is_plain(abandoned) && bytes <= house::LARGE_BATCH_BYTES && !does_chores {
            self.gather(work)?;
            return self.push_on();
        }
        self.finish_all()?;
        self.transact(work, abandoned)
    }

    /// Hands out events: together with the other answers, but nobody waits for a look at the file.
    fn hand_out(&mut self) -> Result<(), Fault> {
        if !self.answers.is_empty() && self.store.as_ref().is_some_and(|store| store.looks_to_hand_out()) {
            self.give_answers();
        }
        self.serve_claims()
    }

    /// Notices what no statement of this thread fails on.
    fn look_around(&mut self) {
        let generation = self.shared.generation.load(Ordering::Acquire);
        let Some(store) = &mut self.store else { return };
        let is_kept = store.place.is_kept(&self.env.home, &store.sql);
        self.env.volume.wal_bytes = store.place.wal_bytes();
        let met_now = |met: &AtomicU64| met.load(Ordering::Acquire) == generation;
        // No start will open a file without its head, but this connection has it open.
        if !is_kept || met_now(&self.shared.headless) {
            self.fail(&Fault::Gone);
        } else if met_now(&self.shared.damaged) {
            self.fail(&contradiction().into());
        }
    }

    /// Leases that were dropped give their events back; those that were intended come back from here,
    /// as nobody knows whether they were sent.
    fn take_returns(&mut self) -> Vec<u64> {
        let mut abandoned = Vec::new();
        for (seq, epoch) in self.returns.take() {
            let Some(store) = self.store.as_mut().filter(|store| store.epoch == epoch) else {
                self.env.astray.end(seq, epoch);
                continue;
            };
            match store.queue.flight(seq) {
                Some(flight) if flight.intended => abandoned.push(seq),
                _ => store.queue.release(seq),
            }
        }
        abandoned
    }

    /// Who settles by a lease that was lost is not sending any more.
    fn note_ends(&mut self, work: &[Command]) {
        if self.env.astray.is_empty() {
            return;
        }
        for command in work {
            if let Command::Settle { seq, epoch, .. } = command {
                self.env.astray.end(*seq, *epoch);
            }
        }
    }

    /// Nothing can be written now. Dropping a reply says so.
    fn refuse(&mut self) {
        for (_, reply) in self.jobs.drain(..) {
            answer(reply, Err(ReadError("the disk failed".to_owned())));
        }
        for scrub in self.scrubs.drain(..) {
            answer(scrub.reply, Err(ReadError("the disk failed".to_owned())));
        }
    }

    /// Hands out what waiting claims can get.
    fn serve_claims(&mut self) -> Result<(), Fault> {
        let Some(store) = self.store.as_mut().filter(|store| store.recovery.is_none()) else { return Ok(()) };
        while let Some((want, reply)) = self.claims.front() {
            if !reply.is_closed() {
                let ignore_backoff = self.shared.ignore_backoff.load(Ordering::Relaxed);
                let round = Round { want: *want, ignore_backoff, returns: &self.returns };
                let claimed = store.hand_out(&self.env, &round)?;
                if claimed.is_empty() {
                    break;
                }
                if let Some((_, reply)) = self.claims.pop_front() {
                    self.answers.push(Answer::Claim(reply, claimed));
                }
            } else {
                self.claims.pop_front();
            }
        }
        Ok(())
    }

    /// The end: nothing waits any more but claims.
    fn close(mut self) {
        if let Err(fault) = self.finish_all() {
            self.fail(&fault);
        }
        self.shared.stop_reader();
        for (_, reply) in self.claims.drain(..) {
            answer(reply, Vec::new());
        }
        if let Some(store) = self.store.take()
            && let Err(error) = store.sql.checkpoint_and_truncate()
        {
            self.count(&error.into());
        }
        drop(self.lock);
        for reply in self.closing.drain(..) {
            answer(reply, ());
        }
    }
}

#[cfg(test)]
#[path = "writer/tests.rs"]
mod tests;
