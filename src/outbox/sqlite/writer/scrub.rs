//! The end of an erasure: what deleting rows leaves behind is overwritten, a step a turn.

use tokio::sync::oneshot;

use super::{Answer, Writer};
use crate::outbox::ReadError;
use crate::outbox::sqlite::decide::Job;
use crate::outbox::sqlite::fault::Fault;
use crate::outbox::sqlite::inbox::{Decided, Decision};

/// Free pages given back in a step.
const PAGES: u64 = 64;
/// Steps before the rest is left to the next idle moment: 4 GiB of free pages.
const MAX_STEPS: u32 = 1 << 14;

/// An erasure whose rows are gone.
pub(super) struct Scrub {
    decided: Decided,
    pub(super) reply: oneshot::Sender<Result<Decided, ReadError>>,
    step: u32,
}

impl Writer {
    /// The last slice of a decision is committed: it is answered, or scrubbed after.
    pub(super) fn end_job(&mut self, job: Job, reply: oneshot::Sender<Result<Decided, ReadError>>) {
        match job.decision {
            Decision::Erase(_) => self.scrubs.push_back(Scrub { decided: job.decided, reply, step: 0 }),
            _ => self.answers.push(Answer::Decide(reply, Ok(job.decided))),
        }
    }

    /// One step for the first erasure that waits for it: gives free pages back and, when there are none, empties the WAL.
    pub(super) fn scrub(&mut self) -> Result<(), Fault> {
        let (Some(store), Some(scrub)) = (&mut self.store, self.scrubs.front_mut()) else { return Ok(()) };
        scrub.step += 1;
        let is_last = scrub.step >= MAX_STEPS;
        if store.free_pages > 0 {
            self.give_back(PAGES)?;
        }
        let Some(store) = &mut self.store else { return Ok(()) };
        let is_overwritten = store.free_pages == 0 && store.sql.checkpoint_and_truncate()?;
        if !is_overwritten && !is_last {
            return Ok(());
        }
        store.sql.overwrite_all(false)?;
        let Some(Scrub { mut decided, reply, .. }) = self.scrubs.pop_front() else { return Ok(()) };
        decided.erased.is_overwritten = is_overwritten;
        decided.erased.quarantined = self.env.home.damaged_names();
        decided.erased.in_flight = decided.flying.len() as u64;
        self.answers.push(Answer::Decide(reply, Ok(decided)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::UserId;
    use crate::outbox::sqlite::testing::Bench;
    use crate::outbox::sqlite::writer::testing::Rig;

    #[test]
    fn an_erasure_ends_when_all_free_pages_and_the_wal_are_gone_step_by_step() {
        // Bodies of a hundred pages each.
        let mut rig = Rig::new(Bench::with(&["person", "other", "person"], 100 * 4096));
        let (erase, mut erased) = Rig::decide(Decision::Erase(UserId::new("person")));
        rig.turn([erase]);
        let mut free = Vec::new();
        let erased = (0..10).find_map(|_| {
            rig.turn([]);
            free.extend((rig.store().free_pages > 0).then_some(rig.store().free_pages));
            erased.try_recv().ok()
        });
        let erased = erased.expect("it ends").unwrap().erased;
        assert!(free.len() >= 3 && free.windows(2).all(|pair| pair[0] - pair[1] <= PAGES), "{free:?}");
        assert!(erased.is_overwritten && erased.pending == 2);
        assert_eq!((rig.store().free_pages, rig.writer.env.home.wal_bytes()), (0, 0));
    }

    #[test]
    fn an_erasure_beside_an_append_does_not_end_while_there_are_free_pages() {
        let mut rig = Rig::new(Bench::with(&["person", "other"], 100 * 4096));
        rig.writer.env.volume.space.free = 1 << 40;
        let (erase, mut erased) = Rig::decide(Decision::Erase(UserId::new("person")));
        rig.turn([]);
        rig.turn([erase, rig.append(&["other"], 10).0]);
        while erased.try_recv().is_err() {
            rig.turn([rig.append(&["other"], 10).0]);
        }
        let (_, free) = rig.store().sql.pages().unwrap();
        assert_eq!(free, 0);
    }

    #[test]
    fn an_erasure_that_somebodys_look_keeps_from_its_end_says_so_after_many_steps() {
        let mut rig = Rig::new(Bench::with(&["a"], 10));
        let look = rusqlite::Connection::open(rig.writer.env.home.database()).unwrap();
        look.execute_batch("BEGIN; SELECT * FROM event").unwrap();
        let (reply, mut answer) = oneshot::channel();
        rig.writer.scrubs.push_back(Scrub { decided: Decided::default(), reply, step: MAX_STEPS - 2 });
        rig.turn([]);
        assert!(answer.try_recv().is_err());
        rig.turn([]);
        assert!(!answer.try_recv().unwrap().unwrap().erased.is_overwritten);
    }

    #[test]
    fn an_erasure_goes_on_for_4_gib_of_free_pages() {
        assert_eq!(u64::from(MAX_STEPS) * PAGES * crate::outbox::sqlite::sql::PAGE_BYTES, 4 << 30);
    }
}
