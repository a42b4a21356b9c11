//! What can be read of a damaged file: rows before the first damaged place and behind the last one, as recovery
//! takes them over. What belongs to a row and cannot be read is left out.

use std::cell::OnceCell;

use super::reader::{dead_report, dead_row, listed_waiting, waiting_report};
use super::row::{LineRow, Row, Table};
use super::sql::Sql;
use crate::clock::Timestamp;
use crate::event::{EventId, UserId};
use crate::outbox::{Detail, Filter, Listed, Report, State, may_be_counted};

/// How much of a damaged outbox can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Events that are what was stored.
    pub readable: u64,
    /// Events that wait or are dead by the outbox's own books, if those can be read.
    pub expected: Option<u64>,
}

/// The events that can be reached, in sequence, once they were looked for: 16 bytes for each.
pub(super) type Places = OnceCell<Vec<(u64, Table)>>;

/// A look into a damaged file.
pub(super) struct Salvage<'a> {
    pub(super) sql: &'a Sql,
    pub(super) places: &'a Places,
}

impl Salvage<'_> {
    /// A page of events that wait or are dead, by sequence.
    pub(super) fn list(&self, filter: &Filter, after: Option<EventId>, limit: usize) -> Vec<Listed> {
        let places = self.places();
        let from = places.partition_point(|(seq, _)| after.is_some_and(|id| *seq <= id.seq()));
        let found = places[from..].iter().filter_map(|(seq, table)| self.listed(*table, *seq));
        found.filter(|line| is_meant(filter, line)).take(limit).collect()
    }

    /// One event with what can be read of its history.
    pub(super) fn show(&self, id: EventId) -> Option<Detail> {
        let seq = id.seq();
        let table = [Table::Waiting, Table::Dead]
            .into_iter()
            .find(|table| self.row(*table, seq).is_some_and(|row| row.id() == id))?;
        let (listed, row) = (self.listed(table, seq)?, self.row(table, seq)?);
        let overtaken_at = overtaken_at(self.sql, seq, &listed.user).filter(|_| table == Table::Dead);
        let attempts = self.sql.attempts(seq).unwrap_or_default();
        let (unsure, is_intact) = (self.sql.unsure(seq).unwrap_or_default(), row.is_intact());
        Some(Detail { listed, body: row.event.body, is_intact, attempts, overtaken_at, unsure })
    }

    /// Looks at everything.
    pub(super) fn damage(&self) -> Damage {
        let intact = |(seq, table): &&(u64, Table)| self.row(*table, *seq).is_some_and(|row| row.is_intact());
        let readable = self.places().iter().filter(intact).count() as u64;
        let ledger = self.sql.books().ok().map(|books| books.ledger);
        Damage { readable, expected: ledger.map(|ledger| ledger.undelivered() + ledger.dead) }
    }

    fn places(&self) -> &[(u64, Table)] {
        self.places.get_or_init(|| {
            let mut places = Vec::new();
            for table in [Table::Waiting, Table::Dead] {
                let mut is_reached = false;
                for is_down in [false, true] {
                    is_reached = is_reached || self.sql.seqs(table, is_down, |seq| places.push((seq, table))).is_ok();
                }
            }
            // On a damaged page they may lie in any order.
            places.sort_unstable();
            places.dedup_by_key(|(seq, _)| *seq);
            places
        })
    }

    fn row(&self, table: Table, seq: u64) -> Option<Row> {
        let row = match table {
            Table::Waiting => self.sql.event(seq),
            Table::Dead => dead_row(self.sql, seq),
        };
        row.ok().flatten()
    }

    fn listed(&self, table: Table, seq: u64) -> Option<Listed> {
        let last = self.sql.last_attempt(seq).unwrap_or_default();
        if table == Table::Waiting {
            let line = self.sql.line(seq).ok().flatten().or_else(|| self.row(table, seq).as_ref().map(LineRow::of))?;
            let progress = self.sql.progress(seq).unwrap_or_default();
            let body = self.sql.body(seq).ok().flatten().unwrap_or_default();
            return Some(listed_waiting(line, body.len(), waiting_report(progress, last, false)));
        }
        let row = self.sql.dead(seq).ok().flatten()?;
        let (attempts, unsure) = (self.sql.attempts(seq).unwrap_or_default(), self.sql.unsure(seq).unwrap_or_default());
        let may_be_counted = may_be_counted(row.reason, &attempts, row.attempts, unsure.is_some());
        let (report, body_bytes): (Report, usize) = (dead_report(&row, last), row.body_bytes as usize);
        Some(Listed { id: row.id, user: row.user, trigger: row.trigger, body_bytes, report, may_be_counted })
    }
}

/// Since when at the latest a later event of a dead letter's user is delivered, as far as that can be read.
pub(super) fn overtaken_at(sql: &Sql, seq: u64, user: &UserId) -> Option<Timestamp> {
    let (overtaken, passed) = (sql.overtaken(seq).unwrap_or_default(), sql.passed(seq, user).unwrap_or_default());
    overtaken.into_iter().chain(passed).min()
}

fn is_meant(filter: &Filter, line: &Listed) -> bool {
    let state: State = line.report.state;
    filter.state.is_none_or(|wanted| wanted == state)
        && filter.user.as_ref().is_none_or(|user| *user == line.user)
        && filter.reason.is_none_or(|reason| Some(reason) == line.report.reason)
        && filter.is_in_time(line.id)
}

#[cfg(test)]
#[path = "salvage/tests.rs"]
mod tests;
