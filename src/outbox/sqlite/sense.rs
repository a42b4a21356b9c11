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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::Ledger;
    use crate::outbox::sqlite::testing::Bench;

    #[test]
    fn a_count_that_nothing_ever_comes_to_cannot_be() {
        let counts: [fn(&mut Books) -> &mut u64; 11] = [
            |books| &mut books.gates,
            |books| &mut books.failed,
            |books| &mut books.done,
            |books| &mut books.dead_bytes,
            |books| &mut books.key_bytes,
            |books| &mut books.ledger.accepted,
            |books| &mut books.ledger.delivered,
            |books| &mut books.ledger.dead,
            |books| &mut books.ledger.discarded,
            |books| &mut books.ledger.erased,
            |books| &mut books.ledger.lost,
        ];
        for (n, count) in counts.into_iter().enumerate() {
            for (value, can_be) in [(0, true), (PLAUSIBLE - 1, true), (PLAUSIBLE, false), (u64::MAX, false)] {
                let mut books = Books::default();
                *count(&mut books) = value;
                assert_eq!(books.are_plausible(), can_be, "{value} as count {n}");
            }
        }
        for (next_seq, can_be) in [(EventId::MAX_SEQ, true), (EventId::MAX_SEQ + 1, false)] {
            assert_eq!(Books { next_seq, ..Books::default() }.are_plausible(), can_be);
        }
    }

    #[test]
    fn counts_that_came_after_others_are_nowhere_behind_them() {
        let of = |accepted, delivered, discarded, erased| {
            // Whatever is dead or lost.
            let ledger = Ledger { accepted, delivered, discarded, erased, dead: accepted % 3, lost: 10 - accepted };
            Books { ledger, ..Books::default() }
        };
        let others = of(4, 3, 2, 1);
        assert!(others.know_all_of(&others));
        assert!(of(5, 3, 2, 1).know_all_of(&others));
        assert!(of(9, 9, 9, 9).know_all_of(&others));
        for less in [of(3, 9, 9, 9), of(9, 2, 9, 9), of(9, 9, 1, 9), of(9, 9, 9, 0)] {
            assert!(!less.know_all_of(&others), "{less:?}");
        }
    }

    #[test]
    fn counts_that_contradict_the_rows_make_no_sense() {
        let makes_sense = |bench: &Bench, mark, next_seq, gates| {
            Books { mark, next_seq, gates, ..Books::default() }.make_sense_in(&bench.store.sql).is_ok()
        };
        let empty = Bench::with(&[], 0);
        assert!(makes_sense(&empty, 7, 7, 0));
        assert!(!makes_sense(&empty, 8, 7, 0), "the reading begins behind the end");
        assert!(!makes_sense(&empty, 7, 7, 1), "there is no such gate");
        assert!(!makes_sense(&empty, 7, EventId::MAX_SEQ + 1, 0));
        let mut bench = Bench::with(&["a", "a"], 10);
        assert!(makes_sense(&bench, 1, 3, 0));
        assert!(!makes_sense(&bench, 1, 2, 0), "the next number is given out");
        assert!(!makes_sense(&bench, 2, 3, 0), "the reading passes over the first");
        bench.gate("a");
        assert!(makes_sense(&bench, 1, 3, 1) && makes_sense(&bench, 1, 3, 9));
        assert!(!makes_sense(&bench, 1, 3, 0), "no gate is counted");
        bench.store.sql.park(&crate::event::UserId::new("a"), 1).unwrap();
        assert!(makes_sense(&bench, 2, 3, 1));
    }
}
