//! One batch, one transaction: nothing in memory follows before the commit, nobody is answered before.

use super::{Answer, Writer};
use crate::outbox::sqlite::apply::{After, Effect, Work};
use crate::outbox::sqlite::decide::{self, Job, Slice};
use crate::outbox::sqlite::env::Env;
use crate::outbox::sqlite::fault::Fault;
use crate::outbox::sqlite::inbox::{Command, Decision};
use crate::outbox::sqlite::recovery::Recovery;
use crate::outbox::sqlite::row::Counts;
use crate::outbox::sqlite::store::Store;

impl Writer {
    /// Runs a batch as one transaction, if there is anything to write; then changes what is in memory
    /// and answers.
    pub(super) fn transact(&mut self, work: &mut Vec<Command>, abandoned: &[u64]) -> Result<(), Fault> {
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
        self.stay_in_place()?;
        (self.is_busy, self.is_stirred) = (true, true);
        self.is_oldest_known = false;
        let counted: usize = work.iter().map(events_of).sum();
        self.finish(work, effects, abandoned)?;
        self.finish_slice(slice);
        self.env.metrics.outbox_batch.observe(counted as f64);
        Ok(())
    }

    /// After a commit and before its answers: it is in a file that a later start finds.
    fn stay_in_place(&mut self) -> Result<(), Fault> {
        let Some(store) = &mut self.store else { return Ok(()) };
        if store.place.is_kept(&self.env.home) {
            return Ok(());
        }
        // It was committed, and is copied to the fresh file with the rest.
        store.counts.report(&self.env.metrics);
        Err(Fault::Gone)
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
        store.counts = Counts::default();
        let was_recovering = store.recovery.is_some();
        let job = self.jobs.front().filter(|_| !was_recovering).map(|(job, _)| job);
        let work = Work { commands: work, abandoned, is_full };
        let written = write_all(store, &mut self.env, &work, job);
        if written.is_ok() && store.recovery.is_none() {
            self.env.orphans.clear();
        }
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
        store.counts.report(&self.env.metrics);
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
                            if let Some(flight) = flight {
                                store.queue.forget_release(&flight.waiting.event.user);
                            }
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
        decide::count(&self.env, &job.decision, &slice.decided);
        (job.next, job.stage) = (slice.next, slice.stage);
        job.decided.add(slice.decided);
        job.gone.extend(slice.gone);
        if slice.is_last
            && let Some((job, reply)) = self.jobs.pop_front()
        {
            self.end_job(job, reply);
        }
    }
}

/// Everything a transaction writes, from begin to commit.
fn write_all(
    store: &mut Store,
    env: &mut Env,
    work: &Work<'_>,
    job: Option<&Job>,
) -> Result<(Vec<Effect>, Option<Slice>), Fault> {
    if job.is_some_and(|job| matches!(job.decision, Decision::Erase(_))) {
        store.sql.overwrite_all(true)?;
    }
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

/// How many events a command appends or settles.
fn events_of(command: &Command) -> usize {
    match command {
        Command::Append { batch, .. } => batch.events.len(),
        _ => 1,
    }
}

fn seam_error(error: std::io::Error) -> rusqlite::Error {
    let code = match error.kind() {
        std::io::ErrorKind::StorageFull => rusqlite::ffi::SQLITE_FULL,
        _ => rusqlite::ffi::SQLITE_IOERR_FSYNC,
    };
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None)
}
