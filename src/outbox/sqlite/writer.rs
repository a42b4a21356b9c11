//! The one thread that owns the file: take all commands, one transaction, answer, hand out.
//!
//! While one batch is synced the next one gathers in the inbox (group commit), so the rate of events
//! does not hang on the rate of syncs. Nobody is answered before the commit returned.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::apply::{After, Effect, Work};
use super::decide::{self, Job, Slice};
use super::env::Env;
use super::fault::Fault;
use super::hand_out::Round;
use super::inbox::{Command, answer};
use super::recovery::{self, Recovery};
use super::shared::{Shared, Snapshot};
use super::sql::FRAME_BYTES;
use super::store::{Failure, Store};
use super::volume::Lock;
use crate::outbox::lease::Returns;
use crate::outbox::{AppendError, Claimed, ReadError, Receipt, SettleError, Settled, Stats, Want};

/// The WAL stays under this, but for a single batch that is larger.
const WAL_MAX_BYTES: u64 = 4 << 20;
/// The WAL is moved into the database when it is this large.
const CHECKPOINT_BYTES: u64 = 3 << 20;
/// The longest wait of an idle writer.
const IDLE: Duration = Duration::from_secs(10);
/// The longest wait while a gate may become due: wall time can jump.
const GATED: Duration = Duration::from_secs(1);
/// Between two looks at what is only housekeeping.
const CHORES_EVERY: Duration = Duration::from_secs(5);
/// Free pages that are kept for the next appends, and how many are given back in a step.
const SPARE_PAGES: u64 = 256;
const VACUUM_PAGES: u64 = 64;
/// The waits between attempts to open the file again.
const REOPEN_MIN: Duration = Duration::from_millis(100);
const REOPEN_MAX: Duration = Duration::from_secs(10);

/// The writer's state.
pub(super) struct Writer {
    env: Env,
    shared: Arc<Shared>,
    returns: Arc<Returns>,
    /// `None` after a failure, until the file was opened anew.
    store: Option<Store>,
    epoch: u64,
    inbox: Vec<Command>,
    /// Kept for its memory, as is `inbox`.
    work: Vec<Command>,
    claims: VecDeque<(Want, oneshot::Sender<Vec<Claimed>>)>,
    jobs: VecDeque<(Job, oneshot::Sender<Result<u64, ReadError>>)>,
    closing: Vec<oneshot::Sender<()>>,
    /// To be given once the state they tell of can be seen.
    answers: Vec<Answer>,
    stats: Stats,
    reopen: Reopen,
    chores_at: Instant,
    /// There was housekeeping left when it was last looked at.
    has_chores: bool,
    /// Something was written since the last idle moment.
    is_stirred: bool,
    oldest_seq: Option<u64>,
    /// Keeps other processes out until the thread ends.
    lock: Lock,
}

/// An answer and who waits for it.
enum Answer {
    Append(oneshot::Sender<Result<Receipt, AppendError>>, Result<Receipt, AppendError>),
    /// A caller that left drops its leases, which brings the events back.
    Claim(oneshot::Sender<Vec<Claimed>>, Vec<Claimed>),
    Intend(oneshot::Sender<Result<(), SettleError>>, Result<(), SettleError>),
    Settle(oneshot::Sender<Result<Settled, SettleError>>, Result<Settled, SettleError>),
    Decide(oneshot::Sender<Result<u64, ReadError>>, Result<u64, ReadError>),
}

impl Answer {
    fn give(self) {
        match self {
            Answer::Append(reply, result) => answer(reply, result),
            Answer::Claim(reply, claimed) => answer(reply, claimed),
            Answer::Intend(reply, result) => answer(reply, result),
            Answer::Settle(reply, result) => answer(reply, result),
            Answer::Decide(reply, result) => answer(reply, result),
        }
    }
}

/// When the file is opened again after a failure.
struct Reopen {
    at: Instant,
    wait: Duration,
}

impl Writer {
    pub(super) fn new(env: Env, shared: Arc<Shared>, returns: Arc<Returns>, store: Store, lock: Lock) -> Self {
        let now = env.clock.instant();
        let stats = Stats {
            recovered: store.books.ledger.undelivered(),
            capacity_bytes: env.settings.max_bytes,
            ..Stats::default()
        };
        let mut writer = Self {
            env,
            shared,
            returns,
            epoch: store.epoch,
            store: Some(store),
            inbox: Vec::new(),
            work: Vec::new(),
            claims: VecDeque::new(),
            jobs: VecDeque::new(),
            closing: Vec::new(),
            answers: Vec::new(),
            stats,
            reopen: Reopen { at: now, wait: REOPEN_MIN },
            chores_at: now,
            has_chores: false,
            is_stirred: true,
            oldest_seq: None,
            lock,
        };
        writer.publish();
        writer
    }

    /// Runs until the store is closed or dropped.
    pub(super) fn run(mut self) {
        loop {
            let patience = self.patience();
            self.shared.beat_waiting();
            self.shared.inbox.take(patience, &mut self.inbox);
            self.shared.beat(self.env.clock.instant());
            if self.shared.inbox.is_abandoned() {
                return;
            }
            let work = self.sort();
            self.turn(work);
            if !self.closing.is_empty() && self.jobs.is_empty() {
                return self.close();
            }
        }
    }

    /// How long there is nothing to do unless someone asks.
    fn patience(&mut self) -> Duration {
        let now = self.env.clock.instant();
        let Some(store) = &mut self.store else {
            return self.reopen.at.saturating_duration_since(now).clamp(Duration::from_millis(1), IDLE);
        };
        let wants_more = !self.claims.is_empty() && store.recovery.is_none() && store.can_read();
        if !self.jobs.is_empty() || store.recovery.is_some() || store.queue.is_urgent() || wants_more {
            return Duration::ZERO;
        }
        let mut patience = IDLE;
        if self.is_stirred || self.has_chores {
            patience = patience.min(self.chores_at.saturating_duration_since(now)).max(Duration::from_millis(1));
        }
        if store.books.gates > 0 && !self.claims.is_empty() {
            let pace = store.pace.now(self.env.clock.now(), now);
            let due = store.sql.next_due(pace).ok().flatten();
            let wait = due.map_or(GATED, |due| due.since(pace));
            patience = patience.min(wait.clamp(Duration::from_millis(1), GATED));
        }
        patience
    }

    /// Sets claims, decisions and the close aside; what is left goes into the transaction.
    fn sort(&mut self) -> Vec<Command> {
        let mut work = std::mem::take(&mut self.work);
        for command in self.inbox.drain(..) {
            match command {
                Command::Claim { want, reply } => self.claims.push_back((want, reply)),
                Command::Decide { decision, which, reply } => {
                    self.jobs.push_back((Job { decision, which, next: 0, count: 0 }, reply));
                }
                Command::Close { reply } => self.closing.push(reply),
                other => work.push(other),
            }
        }
        work
    }

    /// One turn of the loop.
    fn turn(&mut self, mut work: Vec<Command>) {
        if self.store.is_none() && self.env.clock.instant() >= self.reopen.at {
            self.reopen();
        }
        self.env.measure();
        let abandoned = self.take_returns();
        if self.store.is_some() {
            let mut outcome = self.transact(&mut work, &abandoned);
            if outcome.is_ok() && !self.answers.is_empty() {
                self.give_answers();
            }
            outcome = outcome.and_then(|()| self.serve_claims());
            if let Err(fault) = outcome {
                self.fail(&fault);
            }
        } else {
            self.refuse(&mut work);
        }
        self.give_answers();
        // What was not answered goes unanswered, which says that nothing could be written.
        work.clear();
        self.work = work;
        if let Err(fault) = self.keep_house() {
            self.fail(&fault);
            self.publish();
        }
    }

    /// Leases that were dropped give their events back; those that were intended come back from here,
    /// as nobody knows whether they were sent.
    fn take_returns(&mut self) -> Vec<u64> {
        let mut abandoned = Vec::new();
        for (seq, epoch) in self.returns.take() {
            let Some(store) = self.store.as_mut().filter(|store| store.epoch == epoch) else { continue };
            match store.queue.flight(seq) {
                Some(flight) if flight.intended => abandoned.push(seq),
                _ => store.queue.release(seq),
            }
        }
        abandoned
    }

    /// Nothing can be written now. Dropping a reply says so.
    fn refuse(&mut self, work: &mut Vec<Command>) {
        work.clear();
        for (_, reply) in self.jobs.drain(..) {
            answer(reply, Err(ReadError("the disk failed".to_owned())));
        }
    }

    /// Runs a batch as one transaction, if there is anything to write; then changes what is in memory
    /// and answers.
    fn transact(&mut self, work: &mut Vec<Command>, abandoned: &[u64]) -> Result<(), Fault> {
        let Some(store) = &self.store else { return Ok(()) };
        let is_idle = work.is_empty() && abandoned.is_empty() && self.jobs.is_empty() && !self.has_chores;
        if is_idle && store.recovery.is_none() && !store.queue.is_urgent() {
            return Ok(());
        }
        self.make_room_in_wal(work)?;
        let (effects, slice) = match self.write(work, abandoned, false) {
            Err(Fault::Full(error)) => {
                // Appends are refused, the rest is tried again with the room that the reserve gives.
                self.count(&Fault::Full(error));
                self.env.disk_is_full();
                self.write(work, abandoned, true)?
            }
            result => result?,
        };
        self.is_stirred = true;
        let counted = work.len();
        self.finish(work, effects, abandoned)?;
        self.finish_slice(slice);
        self.env.metrics.outbox_batch.observe(counted as f64);
        Ok(())
    }

    /// The transaction itself. On an error nothing has changed but `landed` and the like.
    fn write(
        &mut self,
        work: &[Command],
        abandoned: &[u64],
        is_full: bool,
    ) -> Result<(Vec<Effect>, Option<Slice>), Fault> {
        let Some(store) = &mut self.store else { return Ok((Vec::new(), None)) };
        let books = store.books;
        store.newly_gated.clear();
        store.landed.clear();
        let was_recovering = store.recovery.is_some();
        let job = self.jobs.front().filter(|_| !was_recovering).map(|(job, _)| job);
        let work = Work { commands: work, abandoned, is_full };
        let written = write_all(store, &mut self.env, &work, job);
        if written.is_err() {
            store.books = books;
            store.sql.rollback()?;
            if was_recovering {
                store.recovery = Recovery::load(&store.sql)?;
            }
        }
        written
    }

    /// After the commit: memory follows the disk, and callers are answered.
    fn finish(&mut self, work: &mut Vec<Command>, effects: Vec<Effect>, abandoned: &[u64]) -> Result<(), Fault> {
        let Some(store) = &mut self.store else { return Ok(()) };
        store.queue.forget_pending();
        for user in std::mem::take(&mut store.newly_gated) {
            store.queue.gated(&user);
        }
        for seq in abandoned {
            store.queue.land(*seq);
        }
        let mut appended = Vec::new();
        for (command, effect) in work.drain(..).zip(effects) {
            match (command, effect) {
                (Command::Append { reply, .. }, Effect::Appended { receipt, waiting }) => {
                    appended.extend(waiting);
                    self.answers.push(Answer::Append(reply, Ok(receipt)));
                }
                (Command::Append { reply, .. }, Effect::Refused(error)) => {
                    self.answers.push(Answer::Append(reply, Err(error)));
                }
                (Command::Intend { seq, reply, .. }, Effect::Intended(result)) => {
                    if result.is_ok() {
                        store.queue.intended(seq);
                    }
                    self.answers.push(Answer::Intend(reply, result));
                }
                (Command::Settle { seq, reply, .. }, Effect::Settled { result, after }) => {
                    match after {
                        After::Landed => {
                            let flight = store.queue.land(seq);
                            flight.map(|flight| store.queue.forget_release(&flight.waiting.event.user));
                        }
                        After::Released => store.queue.release(seq),
                        After::Nothing => {}
                    }
                    self.answers.push(Answer::Settle(reply, result));
                }
                _ => {}
            }
        }
        store.take_in_new(appended)
    }

    /// Answers a decision that was carried out, or notes how far it got.
    fn finish_slice(&mut self, slice: Option<Slice>) {
        let Some(slice) = slice else { return };
        let Some((job, _)) = self.jobs.front_mut() else { return };
        decide::count(&self.env, job.decision, slice.count);
        (job.next, job.count) = (slice.next, job.count + slice.count);
        if slice.is_last
            && let Some((job, reply)) = self.jobs.pop_front()
        {
            self.answers.push(Answer::Decide(reply, Ok(job.count)));
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

    /// Tells callers what has come of it; whoever then looks at the counts finds them changed.
    fn give_answers(&mut self) {
        self.publish();
        for answer in self.answers.drain(..) {
            answer.give();
        }
    }

    // --- housekeeping

    /// A batch that would make the WAL too large waits for a checkpoint.
    fn make_room_in_wal(&mut self, work: &[Command]) -> Result<(), Fault> {
        let bytes: u64 = work.iter().map(command_bytes).sum();
        if bytes > CHECKPOINT_BYTES / 8 {
            self.checkpoint(CHECKPOINT_BYTES.saturating_sub(bytes))?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, above_bytes: u64) -> Result<(), Fault> {
        let Some(store) = &self.store else { return Ok(()) };
        if store.sql.wal_frames()? * FRAME_BYTES <= above_bytes {
            return Ok(());
        }
        // A WAL that is used again needs no new blocks, which makes its syncs cheaper; one that grew
        // too large for that is cut.
        let is_large = self.env.home.wal_bytes() > WAL_MAX_BYTES;
        let is_done = if is_large { store.sql.checkpoint_and_truncate()? } else { store.sql.checkpoint()? };
        if is_done {
            self.stats.checkpointed_at = Some(self.env.clock.now());
        }
        Ok(())
    }

    /// Checkpoints; and when nobody waits: trims what is remembered, gives space back, makes the
    /// reserve again.
    fn keep_house(&mut self) -> Result<(), Fault> {
        self.checkpoint(CHECKPOINT_BYTES)?;
        let now = self.env.clock.instant();
        let Some(store) = &mut self.store else { return Ok(()) };
        if now < self.chores_at {
            return Ok(());
        }
        let is_more = store.has_chores(&self.env)?;
        let vacuums = store.free_pages > SPARE_PAGES;
        if vacuums {
            store.sql.vacuum(VACUUM_PAGES)?;
            store.measure()?;
        }
        self.has_chores = is_more;
        self.is_stirred = vacuums || is_more;
        self.chores_at = now + if self.is_stirred { Duration::from_millis(20) } else { CHORES_EVERY };
        self.env.restore_reserve();
        Ok(())
    }

    // --- failure

    fn count(&self, fault: &Fault) {
        self.env.metrics.outbox_errors.with(fault.label()).inc();
        tracing::error!(event = "outbox_error", reason = fault.text(), "the outbox failed");
    }

    /// What is on disk is not known any more: forgets everything and opens the file anew.
    fn fail(&mut self, fault: &Fault) {
        self.count(fault);
        let former = self.store.take();
        let books = former.as_ref().map(|store| store.books);
        drop(former);
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        self.refuse(&mut Vec::new());
        if matches!(fault, Fault::Damaged(_)) {
            self.epoch += 1;
            let opened = recovery::quarantine(&mut self.env, self.epoch, books);
            self.opened(opened);
        } else {
            self.reopen.at = self.env.clock.instant() + self.reopen.wait;
            self.reopen.wait = (self.reopen.wait * 2).min(REOPEN_MAX);
        }
    }

    fn reopen(&mut self) {
        self.epoch += 1;
        let opened = open_or_quarantine(&mut self.env, self.epoch);
        self.opened(opened);
    }

    fn opened(&mut self, opened: Result<Store, Failure>) {
        self.shared.generation.fetch_add(1, Ordering::AcqRel);
        match opened {
            Ok(store) => {
                tracing::info!(event = "outbox_reopened", "the outbox works again");
                self.store = Some(store);
                self.reopen.wait = REOPEN_MIN;
                self.oldest_seq = None;
            }
            Err(failure) => {
                match failure {
                    Failure::Fault(fault) => self.count(&fault),
                    Failure::Refused(error) => tracing::error!(event = "outbox_error", %error, "the outbox failed"),
                }
                self.reopen.at = self.env.clock.instant() + self.reopen.wait;
                self.reopen.wait = (self.reopen.wait * 2).min(REOPEN_MAX);
            }
        }
    }

    /// The end: nothing waits any more but claims.
    fn close(mut self) {
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

    // --- what others see

    fn publish(&mut self) {
        let stats = &mut self.stats;
        if let Some(store) = &self.store {
            let (in_flight, failed_in_flight) = store.queue.in_flight();
            stats.ledger = store.books.ledger;
            stats.in_flight = in_flight;
            stats.retrying = store.books.failed.saturating_sub(failed_in_flight);
            stats.size_bytes = self.env.used_bytes(store);
            if self.is_stirred || self.oldest_seq.is_none() {
                let oldest = store.sql.oldest().ok().flatten();
                (self.oldest_seq, stats.oldest) = oldest.unzip();
            }
            stats.refusing = self.env.room(store, 0, 1024, 1).err().map(AppendError::Full);
        } else {
            (stats.in_flight, stats.refusing) = (0, Some(AppendError::Unavailable));
        }
        let volume = &self.env.volume;
        stats.wal_bytes = volume.wal_bytes;
        (stats.volume_bytes, stats.volume_free_bytes) = (volume.space.total, volume.space.free);
        stats.quarantined_files = volume.damaged_files;
        let flying = self.store.as_ref().map(|store| store.queue.flying()).unwrap_or_default();
        let mut snapshot = self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        *snapshot = Snapshot { stats: self.stats.clone(), flying };
    }
}

/// Everything a transaction writes, from begin to commit.
fn write_all(
    store: &mut Store,
    env: &mut Env,
    work: &Work<'_>,
    job: Option<&Job>,
) -> Result<(Vec<Effect>, Option<Slice>), Fault> {
    store.sql.begin()?;
    let effects = store.apply(env, work)?;
    let slice = job.map(|job| store.decide(env, job)).transpose()?;
    if store.recovery.is_some() {
        store.recover(env)?;
    }
    store.books.mark = store.queue.mark();
    store.sql.write_books(&store.books)?;
    let started = env.clock.instant();
    (env.seams.before_commit)().map_err(seam_error)?;
    store.sql.commit()?;
    env.metrics.outbox_commit.observe(env.clock.instant().saturating_duration_since(started).as_secs_f64());
    store.measure()?;
    Ok((effects, slice))
}

fn seam_error(error: std::io::Error) -> rusqlite::Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull => rusqlite::ffi::SQLITE_FULL,
        _ => rusqlite::ffi::SQLITE_IOERR_FSYNC,
    };
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
}

fn command_bytes(command: &Command) -> u64 {
    match command {
        Command::Append { batch, .. } => batch.events.iter().map(super::row::event_bytes).sum(),
        _ => 256,
    }
}

/// Opens the file; a damaged one is moved aside.
pub(super) fn open_or_quarantine(env: &mut Env, epoch: u64) -> Result<Store, Failure> {
    let first_seq = recovery::first_seq(env);
    match Store::open(env, epoch, first_seq) {
        Err(Failure::Fault(fault @ Fault::Damaged(_))) => {
            env.metrics.outbox_errors.with(fault.label()).inc();
            recovery::quarantine(env, epoch, None)
        }
        // On a full disk not even the WAL's index can be made; the reserve makes room for it.
        Err(Failure::Fault(_)) if env.disk_is_full() => Store::open(env, epoch, first_seq),
        other => other,
    }
}
