//! Counts that cannot be: SQLite finds nothing wrong with them, and by them events would never be found, for ever.

use super::row::Books;
use super::sql::{Sql, contradiction};
use crate::event::EventId;

/// More than anything here ever comes to, and far from where sums of it overflow.
const PLAUSIBLE: u64 = 1 << 53;

impl Books {
    /// Whether the counts can be true, as far as they tell by themselves. That the ledger adds up is not asked: nothing
    /// is lost by it, and `outbox check` tells.
    pub(super) fn are_plausible(&self) -> bool {
        let ledger = &self.ledger;
        let ended = [ledger.delivered, ledger.dead, ledger.discarded, ledger.erased, ledger.lost];
        let counts = [self.gates, self.failed, self.done, self.dead_bytes, self.key_bytes, ledger.accepted];
        counts.iter().chain(&ended).all(|count| *count < PLAUSIBLE) && self.next_seq <= EventId::MAX_SEQ
    }

    /// Whether they came after others.
    pub(super) fn know_all_of(&self, others: &Self) -> bool {
        let ended = |books: &Self| {
            let ledger = &books.ledger;
            [ledger.accepted, ledger.delivered, ledger.discarded, ledger.erased]
        };
        ended(self).iter().zip(ended(others)).all(|(these, others)| *these >= others)
    }

    /// Compares them with the rows, at the price of a few looks.
    ///
    /// # Errors
    /// As of a damaged file, if they contradict each other.
    pub(super) fn make_sense_in(&self, sql: &Sql) -> rusqlite::Result<()> {
        let makes_sense = self.are_plausible()
            && self.mark <= self.next_seq
            && sql.last_seq()?.is_none_or(|last| last < self.next_seq)
            && (self.gates > 0) == sql.has_gates()?
            && sql.are_parked_before(self.mark)?;
        if makes_sense { Ok(()) } else { Err(contradiction()) }
    }
}
