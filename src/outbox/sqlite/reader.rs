//! Looks into the file: lookups and listings on a read-only connection of their own, so that appends
//! and checkpoints never wait for a listing. A long listing is many short transactions.

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use tokio::sync::{mpsc, oneshot};

use super::decide::lets_through;
use super::inbox;
use super::row::{Body, DeadRow, Row};
use super::shared::Shared;
use super::sql::Sql;
use crate::event::EventId;
use crate::outbox::{Detail, Filter, Listed, ReadError, Report, State};

/// Questions that wait for the reader, at most.
pub(super) const QUESTIONS: usize = 64;
/// Rows looked at in one transaction.
const SLICE: u64 = 256;

/// What the reader is asked.
pub(super) enum Question {
    Lookup {
        id: EventId,
        reply: oneshot::Sender<Result<Option<Report>, ReadError>>,
    },
    List {
        filter: Filter,
        after: Option<EventId>,
        limit: usize,
        reply: oneshot::Sender<Result<Vec<Listed>, ReadError>>,
    },
    Show {
        id: EventId,
        reply: oneshot::Sender<Result<Option<Detail>, ReadError>>,
    },
}

/// The reader's thread: runs until its questions end.
pub(super) fn run(path: PathBuf, shared: Arc<Shared>, mut questions: mpsc::Receiver<Question>) {
    let mut open: Option<(u64, Sql)> = None;
    while let Some(question) = questions.blocking_recv() {
        let generation = shared.generation.load(Ordering::Acquire);
        if open.as_ref().is_none_or(|(of, _)| *of != generation) {
            drop(open.take());
            open = Sql::open_read_only(&path).ok().map(|sql| (generation, sql));
        }
        let flying = shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner).flying.clone();
        let view = open.as_ref().map(|(_, sql)| View { sql, flying: &flying });
        let failed = answer(view.as_ref(), question);
        if failed {
            open = None;
        }
    }
}

/// Answers; says whether the connection should not be used again.
fn answer(view: Option<&View<'_>>, question: Question) -> bool {
    fn give<T>(reply: oneshot::Sender<Result<T, ReadError>>, result: Option<rusqlite::Result<T>>) -> bool {
        let result = result.unwrap_or(Err(rusqlite::Error::InvalidQuery));
        let failed = result.is_err();
        inbox::answer(reply, result.map_err(|error| read_error(&error)));
        failed
    }
    match question {
        Question::Lookup { id, reply } => give(reply, view.map(|view| view.lookup(id))),
        Question::List { filter, after, limit, reply } => {
            give(reply, view.map(|view| view.list(&filter, after, limit)))
        }
        Question::Show { id, reply } => give(reply, view.map(|view| view.show(id))),
    }
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
        let last = self.sql.last_attempt(seq)?.filter(|_| progress.is_some());
        let state = match (self.flying.binary_search(&seq), &progress) {
            (Ok(_), _) => State::InFlight,
            (_, Some(_)) => State::Retrying,
            _ => State::Pending,
        };
        Ok(Report {
            state,
            attempts: progress.as_ref().map_or(0, |row| row.progress.attempts),
            next_attempt_at: progress.as_ref().map(|row| row.next_at).filter(|_| state == State::Retrying),
            delivered_at: None,
            reason: progress.and_then(|row| row.reason),
            message: last.as_ref().and_then(|attempt| attempt.message.clone()),
            request_id: last.and_then(|attempt| attempt.request_id),
        })
    }

    fn report_dead(&self, row: &DeadRow) -> rusqlite::Result<Report> {
        let last = self.sql.last_attempt(row.id.seq())?;
        Ok(Report {
            state: State::Dead,
            attempts: row.attempts,
            next_attempt_at: None,
            delivered_at: None,
            reason: row.reason,
            message: last.as_ref().and_then(|attempt| attempt.message.clone()),
            request_id: last.and_then(|attempt| attempt.request_id),
        })
    }

    /// A page of events that wait or are dead, by sequence.
    pub(super) fn list(&self, filter: &Filter, after: Option<EventId>, limit: usize) -> rusqlite::Result<Vec<Listed>> {
        let from = after.map_or(0, |id| id.seq() + 1);
        let mut listed = Vec::new();
        if filter.state != Some(State::Dead) {
            listed = self.list_waiting(filter, from, limit)?;
        }
        if filter.state.is_none_or(|state| state == State::Dead) {
            listed.extend(self.list_dead(filter, from, limit)?);
        }
        listed.sort_by_key(|line| line.id.seq());
        listed.truncate(limit);
        Ok(listed)
    }

    fn list_waiting(&self, filter: &Filter, from: u64, limit: usize) -> rusqlite::Result<Vec<Listed>> {
        let (mut listed, mut next) = (Vec::new(), from);
        while listed.len() < limit {
            let mut rows: Vec<Row> = Vec::new();
            let count = self.sql.events_from(next, SLICE, |mut row| {
                next = row.seq + 1;
                // Only the length is shown; bodies of a slice would be megabytes.
                row.event.body = row.event.body.slice(..0);
                if filter.user.as_ref().is_none_or(|user| *user == row.event.user) {
                    rows.push(row);
                }
                true
            })?;
            for row in rows {
                let report = self.report_waiting(row.seq)?;
                let is_meant = filter.state.is_none_or(|state| state == report.state)
                    && filter.reason.is_none_or(|reason| Some(reason) == report.reason);
                if is_meant && listed.len() < limit {
                    let body_bytes = self.sql.body(Body::Waiting, row.seq)?.map_or(0, |body| body.len());
                    let (id, trigger) = (row.id(), row.event.trigger);
                    listed.push(Listed { id, user: row.event.user, trigger, body_bytes, report });
                }
            }
            if count < SLICE {
                break;
            }
        }
        Ok(listed)
    }

    fn list_dead(&self, filter: &Filter, from: u64, limit: usize) -> rusqlite::Result<Vec<Listed>> {
        let (mut listed, mut next) = (Vec::new(), from);
        while listed.len() < limit {
            let rows = self.sql.dead_from(next, SLICE)?;
            let count = rows.len() as u64;
            for row in rows {
                next = row.id.seq() + 1;
                if lets_through(filter, &row) && listed.len() < limit {
                    listed.push(self.listed_dead(row)?);
                }
            }
            if count < SLICE {
                break;
            }
        }
        Ok(listed)
    }

    fn listed_dead(&self, row: DeadRow) -> rusqlite::Result<Listed> {
        let (report, body_bytes) = (self.report_dead(&row)?, row.body_bytes as usize);
        Ok(Listed { id: row.id, user: row.user, trigger: row.trigger, body_bytes, report })
    }

    /// One event that waits or is dead, with all that is kept of it.
    pub(super) fn show(&self, id: EventId) -> rusqlite::Result<Option<Detail>> {
        let seq = id.seq();
        let (listed, body) = if let Some(row) = self.sql.event(seq)?.filter(|row| row.id() == id) {
            let (trigger, body_bytes) = (row.event.trigger, row.event.body.len());
            let report = self.report_waiting(seq)?;
            (Listed { id, user: row.event.user, trigger, body_bytes, report }, Some(row.event.body))
        } else if let Some(row) = self.sql.dead(seq)?.filter(|row| row.id == id) {
            (self.listed_dead(row)?, self.sql.body(Body::Dead, seq)?)
        } else {
            return Ok(None);
        };
        let attempts = self.sql.attempts(seq)?;
        Ok(Some(Detail { listed, body: body.unwrap_or_default(), attempts }))
    }
}
