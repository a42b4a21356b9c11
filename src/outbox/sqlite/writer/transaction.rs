//! One batch, one transaction: memory that others see follows only after the sync, nobody is answered
//! before.
//!
//! ```text
//! gather ─▶ open ─commit▶ syncing ─synced▶ landed
//! ```
//!
//! While one batch is synced on a slow disk the next transaction is open and takes what comes, so that the disk
//! and the processor work at the same time. Either way a sync is shared by all who came during the last one.
//! What is rare (decisions, recovery, large batches) has the file to itself.

use std::sync::Arc;

use super::open::Open;
use super::syncer::Commit;
use super::{Answer, Writer};
use crate::outbox::sqlite::apply::After;
use crate::outbox::sqlite::decide::{self, Slice};
use crate::outbox::sqlite::fault::Fault;
use crate::outbox::sqlite::inbox::{Command, Decision};
use crate::outbox::sqlite::recovery::Recovery;
use crate::outbox::sqlite::sql::Syncs;

impl Writer {
    /// Whether that work may share the file with a sync under way.
    pub(super) fn is_plain(&self, abandoned: &[u64]) -> bool {
        let is_calm = self.store.as_ref().is_some_and(|store| store.recovery.is_none() && !store.queue.is_urgent());
        is_calm && abandoned.is_empty() && self.jobs.is_empty() && self.scrubs.is_empty() && self.closing.is_empty()
    }

    /// Adds work to the open transaction.
    pub(super) fn gather(&mut self, work: &mut Vec<Command>) -> Result<(), Fault> {
        if work.is_empty() {
            return Ok(());
        }
        let Some(store) = &mut self.store else { return Ok(()) };
        if self.open.is_none() {
            self.open = Some(Open::begin(store, Syncs::Later)?);
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        let from = open.commands.len();
        open.commands.append(work);
        match open.apply(store, &mut self.env, from, &[]) {
            Err(Fault::Full(error)) => self.go_on_with_a_full_disk(error),
            result => result,
        }
    }

    /// Commits the open transaction, if no other is being synced.
    pub(super) fn push_on(&mut self) -> Result<(), Fault> {
        if self.open.is_none() || self.landing.is_some() {
            return Ok(());
        }
        let answers = match self.commit() {
            Err(Fault::Full(error)) => {
                self.go_on_with_a_full_disk(error)?;
                self.commit()?
            }
            result => result?,
        };
        let Some(store) = &mut self.store else { return Ok(()) };
        let commit = match store.wal(&self.env.home) {
            Ok(wal) => {
                // As of the look that was just taken: until the sync's end the WAL may not shrink.
                let took = Arc::clone(&self.syncer.took);
                Commit { wal, place: store.place, home: self.env.home.clone(), took }
            }
            Err(fault) => return self.give_up(fault, answers),
        };
        self.publish();
        if self.syncer.is_worth_it(&self.env) && !self.shared.inbox.is_quiet() {
            self.syncer.sync(&self.env, commit, answers);
            return Ok(());
        }
        if let Err(fault) = commit.make_durable() {
            return self.give_up(fault, answers);
        }
        self.land(Ok(()))?;
        self.answers.extend(answers);
        Ok(())
    }

    /// A commit that could not be synced: who waits for it is left without an answer once that can be seen.
    fn give_up(&mut self, fault: Fault, answers: Vec<Answer>) -> Result<(), Fault> {
        self.unanswered = answers;
        self.land(Err(fault))
    }

    /// Ends the open transaction; nothing but its sync is left.
    fn commit(&mut self) -> Result<Vec<Answer>, Fault> {
        let (Some(store), Some(mut open)) = (&mut self.store, self.open.take()) else { return Ok(Vec::new()) };
        let started = self.env.clock.instant();
        if let Err(fault) = open.commit(store, &mut self.env) {
            self.open = Some(open);
            return Err(fault);
        }
        (self.is_busy, self.is_stirred) = (true, true);
        self.is_oldest_known &= self.stats.oldest.is_some() && open.only_appends();
        self.wal_room = self.wal_room.saturating_sub(open.wal_bytes());
        let (landing, answers) = open.divide(store, started);
        self.landing = Some(landing);
        Ok(answers)
    }

    /// Memory follows a commit that has been synced meanwhile.
    pub(super) fn land_synced(&mut self, waits: bool) -> Result<(), Fault> {
        match self.syncer.result(waits) {
            None => Ok(()),
            Some(Ok(())) => self.land(Ok(())),
            Some(Err((fault, answers))) => self.give_up(fault, answers),
        }
    }

    /// Nothing is open or being synced afterwards, and nobody waits for what comes next.
    pub(super) fn finish_all(&mut self) -> Result<(), Fault> {
        self.land_synced(true)?;
        self.push_on()?;
        self.land_synced(true)?;
        if !self.answers.is_empty() {
            self.give_answers();
        }
        Ok(())
    }

    /// Memory follows a commit: what ended leaves the queue, what is new enters it.
    fn land(&mut self, durable: Result<(), Fault>) -> Result<(), Fault> {
        let Some(mut landing) = self.landing.take() else { return durable };
        self.last_appends = landing.appends;
        self.without_settles = if landing.flights.is_empty() { self.without_settles.saturating_add(1) } else { 0 };
        let metrics = &self.env.metrics;
        let took = self.env.clock.instant().saturating_duration_since(landing.started);
        metrics.outbox_commit.observe(took.as_secs_f64());
        if matches!(durable, Ok(()) | Err(Fault::Gone)) {
            // One that lost its name is committed all the same, and is copied with the rest.
            landing.counts.report(metrics);
            metrics.outbox_batch.observe(landing.events as f64);
        }
        let Some(store) = &mut self.store else { return durable };
        if durable.is_err() {
            // The file is about to be opened anew. What was settled is not being sent, the other flights may be.
            for (seq, _) in landing.flights.iter().filter(|(_, after)| *after != After::Nothing) {
                store.queue.land(*seq);
            }
            return durable;
        }
        self.reopen.is_over();
        store.landing.clear();
        store.durable = landing.books;
        for seq in landing.intended {
            store.queue.intended(seq);
        }
        for (seq, after) in landing.flights {
            match after {
                After::Landed => {
                    if let Some(flight) = store.queue.land(seq) {
                        store.queue.forget_release(&flight.waiting.event.user);
                    }
                }
                After::Released => store.queue.release(seq),
                After::Nothing => {}
            }
        }
        store.take_in_new(landing.appended)
    }

    /// Runs a batch as a transaction that has the file to itself, if there is anything to write.
    pub(super) fn transact(&mut self, work: &mut Vec<Command>, abandoned: &[u64]) -> Result<(), Fault> {
        let Some(store) = &self.store else { return Ok(()) };
        let is_idle = work.is_empty() && abandoned.is_empty() && self.jobs.is_empty() && !self.has_chores;
        if is_idle && !store.has_to_copy(self.env.clock.instant()) && !store.queue.is_urgent() {
            return Ok(());
        }
        self.make_room_in_wal(work)?;
        let slice = match self.write_alone(work, abandoned, false) {
            Err(Fault::Full(error)) => {
                self.note_full_disk(error);
                self.write_alone(work, abandoned, true)?
            }
            result => result?,
        };
        self.finish_slice(slice);
        Ok(())
    }

    /// From begin to land, synced by SQLite itself. On an error nothing has changed but the notes of the
    /// transaction, and `work` is as it was.
    fn write_alone(
        &mut self,
        work: &mut Vec<Command>,
        abandoned: &[u64],
        is_full: bool,
    ) -> Result<Option<Slice>, Fault> {
        let Some(store) = &mut self.store else { return Ok(None) };
        let was_recovering = store.recovery.is_some();
        let job = self.jobs.front().filter(|_| !was_recovering).map(|(job, _)| job);
        if job.is_some_and(|job| matches!(job.decision, Decision::Erase(_))) {
            store.sql.overwrite_all(true)?;
        }
        let mut open = Open::begin(store, Syncs::Itself)?;
        (open.is_full, open.commands) = (is_full, std::mem::take(work));
        let written = open.apply(store, &mut self.env, 0, abandoned).and_then(|()| {
            let slice = job.map(|job| store.decide(&self.env, job)).transpose()?;
            if was_recovering {
                store.recover(&mut self.env)?;
            }
            Ok(slice)
        });
        self.open = Some(open);
        let committed = written.and_then(|slice| self.commit().map(|answers| (slice, answers)));
        let (slice, answers) = match committed {
            Ok(committed) => committed,
            Err(fault) => {
                *work = self.undo_open()?;
                if let Some(store) = self.store.as_mut().filter(|_| was_recovering) {
                    store.recovery = Recovery::load(&store.sql)?;
                }
                return Err(fault);
            }
        };
        // It may have copied or deleted much more than its commands say.
        self.wal_room = 0;
        let Some(store) = &mut self.store else { return Ok(None) };
        if store.recovery.is_none() {
            self.env.orphans.clear();
        }
        for seq in abandoned {
            store.queue.land(*seq);
        }
        if !store.place.is_kept(&self.env.home, &store.sql) {
            return self.give_up(Fault::Gone, answers).map(|()| slice);
        }
        self.land(Ok(()))?;
        self.answers.extend(answers);
        Ok(slice)
    }

    /// Undoes the open transaction; gives what it was made of.
    pub(super) fn undo_open(&mut self) -> Result<Vec<Command>, Fault> {
        let (Some(store), Some(open)) = (&mut self.store, self.open.take()) else { return Ok(Vec::new()) };
        store.books = open.books;
        store.written_deferred = 0;
        store.sql.rollback()?;
        Ok(open.commands)
    }

    /// Writes the open transaction anew with the room that the reserve gives, without its appends.
    fn go_on_with_a_full_disk(&mut self, error: rusqlite::Error) -> Result<(), Fault> {
        self.note_full_disk(error);
        let commands = self.undo_open()?;
        let Some(store) = &mut self.store else { return Ok(()) };
        let open = self.open.insert(Open::begin(store, Syncs::Later)?);
        (open.is_full, open.commands) = (true, commands);
        open.apply(store, &mut self.env, 0, &[])
    }

    fn note_full_disk(&mut self, error: rusqlite::Error) {
        self.count(&Fault::Full(error));
        self.env.disk_is_full();
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
