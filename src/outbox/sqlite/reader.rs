//! Looks into the file: lookups and listings on a read-only connection of their own, so that appends
//! and checkpoints never wait for a listing. A long listing is many short transactions.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::decide::lets_through;
use super::fault::Fault;
use super::inbox;
use super::recovery;
use super::row::{DeadRow, LineRow, ProgressRow, Row};
use super::shared::Shared;
use super::sql::Sql;
use super::unread::read_all;
use crate::event::EventId;
use crate::outbox::{Attempt, DeadGroup, Detail, Filter, Listed, ReadError, Report, State, may_be_counted};

/// Questions that wait for the reader, at most.
pub(super) const QUESTIONS: usize = 64;
/// Rows looked at in one transaction.
const SLICE: u64 = 256;
/// Waiting events looked at in one transaction, without their bodies.
const LINES: u64 = 4096;
/// Rows looked at before other questions get their turn.
const BUDGET: u64 = 4 * LINES;

/// What the reader is asked.
pub(super) enum Question {
    Lookup {
        id: EventId,
        reply: oneshot::Sender<Result<Option<Report>, ReadError>>,
    },
    List {
        filter: Filter,
        /// A sequence.
        from: u64,
        limit: usize,
        reply: oneshot::Sender<Result<Found, ReadError>>,
    },
    Groups {
        reply: oneshot::Sender<Result<Vec<DeadGroup>, ReadError>>,
    },
    Show {
        id: EventId,
        reply: oneshot::Sender<Result<Option<Detail>, ReadError>>,
    },
}

/// A part of a page.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) lines: Vec<Listed>,
    /// The sequence to go on from, if the page is not full and there may be more.
    pub(super) next: Option<u64>,
}

/// The reader's thread: runs until its questions end.
pub(super) fn run(path: PathBuf, shared: Arc<Shared>, mut questions: mpsc::Receiver<Question>) {
    while let Some(question) = questions.blocking_recv() {
        let mut open = shared.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = shared.generation.load(Ordering::Acquire);
        if open.as_ref().is_none_or(|(of, _)| *of != generation) {
            drop(open.take());
            match Sql::open_read_only(&path).map_err(Fault::from) {
                Ok(sql) => *open = Some((generation, sql)),
                Err(Fault::Damaged(_)) if read_all(&path).is_ok() => tell(&shared, &shared.headless, generation),
                Err(_) => {}
            }
        }
        let flying = shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner).flying.clone();
        let view = open.as_ref().map(|(_, sql)| View { sql, flying: &flying });
        let failure = answer(view.as_ref(), question);
        if let Some(fault) = failure {
            *open = None;
            // What cannot be read is no damage.
            if matches!(fault, Fault::Damaged(_)) && read_all(&path).is_ok() {
                tell(&shared, &shared.damaged, generation);
            }
        }
    }
    shared.looks.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// The file is the writer's, and so is what to do about damage.
fn tell(shared: &Shared, met: &AtomicU64, generation: u64) {
    met.store(generation, Ordering::Release);
    shared.inbox.nudge();
}

/// Answers; says why the connection should not be used again.
fn answer(view: Option<&View<'_>>, question: Question) -> Option<Fault> {
    match question {
        Question::Lookup { id, reply } => look(view, reply, |view| view.lookup(id), Option::is_some),
        Question::List { filter, from, limit, reply } => {
            look(view, reply, |view| view.list_part(&filter, from, limit), |_| false)
        }
        Question::Groups { reply } => look(view, reply, |view| view.sql.dead_groups(), |_| false),
        Question::Show { id, reply } => look(view, reply, |view| view.show(id), Option::is_some),
    }
}

/// While a damaged file is copied, only what `is_true` whatever comes over yet is told.
fn look<T>(
    view: Option<&View<'_>>,
    reply: oneshot::Sender<Result<T, ReadError>>,
    look: impl FnOnce(&View<'_>) -> rusqlite::Result<T>,
    is_true: impl FnOnce(&T) -> bool,
) -> Option<Fault> {
    let found = view.ok_or(rusqlite::Error::InvalidQuery).and_then(|view| {
        // Before the look: if the copy ends in between, all was there to be seen.
        let is_partial = recovery::unfinished(view.sql)?.is_some();
        Ok((look(view)?, is_partial))
    });
    let (result, failure) = match found {
        Ok((found, is_partial)) if is_partial && !is_true(&found) => (Err(being_recovered()), None),
        Ok((found, _)) => (Ok(found), None),
        Err(error) => (Err(read_error(&error)), Some(Fault::from(error))),
    };
    inbox::answer(reply, result);
    failure
}

fn being_recovered() -> ReadError {
    ReadError("what can be read of a damaged file is still coming over; ask again in a moment".to_owned())
}

/// Never holds a value of a row.
pub(super) fn read_error(error: &rusqlite::Error) -> ReadError {
    ReadError(match error {
        rusqlite::Error::SqliteFailure(code, _) => code.to_string(),
        rusqlite::Error::InvalidQuery => "it cannot be opened now".to_owned(),
        _ => "a row is damaged".to_owned(),
    })
}

/// The file, and what is in flight, which the file does not tell.
pub(super) struct View<'a> {
    pub(super) sql: &'a Sql,
    pub(super) flying: &'a [u64],
}

impl View<'_> {
    /// What is known of an event.
    pub(super) fn lookup(&self, id: EventId) -> rusqlite::Result<Option<Report>> {
        let seq = id.seq();
        if let Some(row) = self.sql.event(seq)?.filter(|row| row.id() == id) {
            return self.report_waiting(row.seq).map(Some);
        }
        if let Some(row) = self.sql.dead(seq)?.filter(|row| row.id == id) {
            return self.report_dead(&row).map(Some);
        }
        let done = self.sql.done(seq)?.filter(|row| row.id == id);
        Ok(done.map(|row| Report {
            state: State::Delivered,
            attempts: row.attempts,
            next_attempt_at: None,
            delivered_at: Some(row.done_at),
            reason: None,
            message: None,
            request_id: row.request_id,
        }))
    }

    fn report_waiting(&self, seq: u64) -> rusqlite::Result<Report> {
        let progress = self.sql.progress(seq)?;
        Ok(waiting_report(progress, self.sql.last_attempt(seq)?, self.flying.binary_search(&seq).is_ok()))
    }

    fn report_dead(&self, row: &DeadRow) -> rusqlite::Result<Report> {
        Ok(dead_report(row, self.sql.last_attempt(row.id.seq())?))
    }

    /// A page of events that wait or are dead, by sequence; however long it takes.
    pub(super) fn list(&self, filter: &Filter, after: Option<EventId>, limit: usize) -> rusqlite::Result<Vec<Listed>> {
        let (mut lines, mut next) = (Vec::new(), Some(after.map_or(0, |id| id.seq() + 1)));
        // A full page has no next part.
        while let Some(from) = next {
            let found = self.list_part(filter, from, limit - lines.len())?;
            lines.extend(found.lines);
            next = found.next;
        }
        Ok(lines)
    }

    /// What can be found of a page by looking at so many rows. Of each table a little more may be found than the page
    /// has room for.
    fn list_part(&self, filter: &Filter, from: u64, limit: usize) -> rusqlite::Result<Found> {
        let mut found = Found::default();
        if filter.state != Some(State::Dead) {
            found = self.list_waiting(filter, from, limit)?;
        }
        if filter.state.is_none_or(|state| state == State::Dead) {
            let dead = self.list_dead(filter, from, limit)?;
            found.lines.extend(dead.lines);
            found.next = [found.next, dead.next].into_iter().flatten().min();
        }
        found.lines.sort_by_key(|line| line.id.seq());
        if let Some(next) = found.next {
            // Beyond it one of the two has not looked yet.
            found.lines.retain(|line| line.id.seq() < next);
        }
        if found.lines.len() >= limit {
            found.lines.truncate(limit);
            found.next = None;
        }
        Ok(found)
    }

    fn list_waiting(&self, filter: &Filter, from: u64, limit: usize) -> rusqlite::Result<Found> {
        let (mut found, mut next, mut looked_at) = (Found::default(), Some(from), 0);
        while let Some(from) = next.filter(|_| found.lines.len() < limit) {
            if looked_at >= BUDGET {
                found.next = Some(from);
                break;
            }
            looked_at += LINES;
            let lines;
            (lines, next) = self.waiting_slice(filter, from, limit)?;
            for line in lines {
                let report = self.report_waiting(line.id.seq())?;
                let is_meant = filter.state.is_none_or(|state| state == report.state)
                    && filter.reason.is_none_or(|reason| Some(reason) == report.reason)
                    && filter.is_in_time(line.id);
                if is_meant {
                    let body = self.sql.body(line.id.seq())?.unwrap_or_default();
                    found.lines.push(listed_waiting(line, body.len(), report));
                }
            }
        }
        Ok(found)
    }

    /// Waiting events from a sequence on, and where to go on. What failed or is in flight is found without
    /// looking at what only waits.
    fn waiting_slice(&self, filter: &Filter, from: u64, limit: usize) -> rusqlite::Result<(Vec<LineRow>, Option<u64>)> {
        let is_of_user = |line: &LineRow| filter.user.as_ref().is_none_or(|user| *user == line.user);
        let by_seq = |seqs: &[u64]| -> rusqlite::Result<Vec<LineRow>> {
            let mut lines = Vec::new();
            for seq in seqs {
                lines.extend(self.sql.line(*seq)?.filter(is_of_user));
            }
            Ok(lines)
        };
        if filter.state == Some(State::InFlight) {
            let flying: Vec<u64> = self.flying.iter().copied().filter(|seq| *seq >= from).collect();
            return Ok((by_seq(&flying)?, None));
        }
        if filter.state == Some(State::Retrying) || filter.reason.is_some() {
            let seqs = self.sql.failed_from(from, SLICE)?;
            let next = seqs.last().filter(|_| seqs.len() as u64 == SLICE).map(|last| last + 1);
            return Ok((by_seq(&seqs)?, next));
        }
        let mut lines = Vec::new();
        let next = self.sql.lines_from(from, LINES, filter.user.as_ref(), |line| {
            if filter.is_in_time(line.id) {
                lines.push(line);
            }
            lines.len() < limit
        })?;
        Ok((lines, next))
    }

    fn list_dead(&self, filter: &Filter, from: u64, limit: usize) -> rusqlite::Result<Found> {
        let (mut found, mut next, mut looked_at) = (Found::default(), from, 0);
        while found.lines.len() < limit {
            if looked_at >= BUDGET {
                found.next = Some(next);
                break;
            }
            let rows = self.sql.dead_from(next, SLICE, filter)?;
            let count = rows.len() as u64;
            looked_at += SLICE;
            for row in rows {
                next = row.id.seq() + 1;
                if lets_through(filter, &row) && found.lines.len() < limit {
                    found.lines.push(self.listed_dead(row)?);
                }
            }
            if count < SLICE {
                break;
            }
        }
        Ok(found)
    }

    fn listed_dead(&self, row: DeadRow) -> rusqlite::Result<Listed> {
        let (report, body_bytes, seq) = (self.report_dead(&row)?, row.body_bytes as usize, row.id.seq());
        let is_unsure = self.unsure(seq).is_some();
        let may_be_counted = may_be_counted(row.reason, &self.sql.attempts(seq)?, row.attempts, is_unsure);
        Ok(Listed { id: row.id, user: row.user, trigger: row.trigger, body_bytes, report, may_be_counted })
    }

    /// One event that waits or is dead, with all that is kept of it.
    pub(super) fn show(&self, id: EventId) -> rusqlite::Result<Option<Detail>> {
        let seq = id.seq();
        let (listed, row) = if let Some(row) = self.sql.event(seq)?.filter(|row| row.id() == id) {
            (listed_waiting(LineRow::of(&row), row.event.body.len(), self.report_waiting(seq)?), row)
        } else if let Some(dead) = self.sql.dead(seq)?.filter(|row| row.id == id)
            && let Some(row) = dead_row(self.sql, seq)?
        {
            (self.listed_dead(dead)?, row)
        } else {
            return Ok(None);
        };
        let is_dead = listed.report.state == State::Dead;
        // A file of an older version that nobody has opened to write since lacks the one or the other.
        let overtaken = self.sql.overtaken(seq).unwrap_or_default();
        let passed = self.sql.passed(seq, &listed.user).unwrap_or_default();
        let overtaken_at = overtaken.into_iter().chain(passed).min().filter(|_| is_dead);
        let (attempts, unsure) = (self.sql.attempts(seq)?, self.unsure(seq));
        let is_intact = row.is_intact();
        Ok(Some(Detail { listed, body: row.event.body, is_intact, attempts, overtaken_at, unsure }))
    }

    /// The same holds of this.
    fn unsure(&self, seq: u64) -> Option<Attempt> {
        self.sql.unsure(seq).unwrap_or_default()
    }
}

/// The event of a dead letter, body and all.
pub(super) fn dead_row(sql: &Sql, seq: u64) -> rusqlite::Result<Option<Row>> {
    let mut found = None;
    sql.whole_dead_in_order(seq, 1, |dead| {
        found = (dead.row.seq == seq).then_some(dead.row);
        false
    })?;
    Ok(found)
}

/// What is told of a waiting event.
pub(super) fn waiting_report(progress: Option<ProgressRow>, last: Option<Attempt>, is_flying: bool) -> Report {
    let last = last.filter(|_| progress.is_some());
    let state = match (is_flying, &progress) {
        (true, _) => State::InFlight,
        (false, Some(_)) => State::Retrying,
        (false, None) => State::Pending,
    };
    Report {
        state,
        attempts: progress.as_ref().map_or(0, |row| row.progress.attempts),
        next_attempt_at: progress.as_ref().map(|row| row.next_at).filter(|_| state == State::Retrying),
        delivered_at: None,
        reason: progress.and_then(|row| row.reason),
        message: last.as_ref().and_then(|attempt| attempt.message.clone()),
        request_id: last.and_then(|attempt| attempt.request_id),
    }
}

/// What is told of a dead letter.
pub(super) fn dead_report(row: &DeadRow, last: Option<Attempt>) -> Report {
    Report {
        state: State::Dead,
        attempts: row.attempts,
        next_attempt_at: None,
        delivered_at: None,
        reason: row.reason,
        message: last.as_ref().and_then(|attempt| attempt.message.clone()),
        request_id: last.and_then(|attempt| attempt.request_id),
    }
}

pub(super) fn listed_waiting(line: LineRow, body_bytes: usize, report: Report) -> Listed {
    let LineRow { id, user, trigger } = line;
    Listed { id, user, trigger, body_bytes, report, may_be_counted: false }
}

#[cfg(test)]
mod tests;
