//! The end of an erasure: what deleting rows leaves behind is overwritten, a step a turn.

use tokio::sync::oneshot;

use super::{Answer, Writer};
use crate::outbox::ReadError;
use crate::outbox::sqlite::decide::Job;
use crate::outbox::sqlite::fault::Fault;
use crate::outbox::sqlite::inbox::{Decided, Decision};

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

    /// One step for the first erasure that waits for it.
    pub(super) fn scrub(&mut self) -> Result<(), Fault> {
        let (Some(store), Some(scrub)) = (&mut self.store, self.scrubs.front_mut()) else { return Ok(()) };
        scrub.step += 1;
        let Some(is_overwritten) = store.scrub(scrub.step)? else { return Ok(()) };
        store.sql.overwrite_all(false)?;
        let Some(Scrub { mut decided, reply, .. }) = self.scrubs.pop_front() else { return Ok(()) };
        decided.erased.is_overwritten = is_overwritten;
        decided.erased.quarantined = self.env.home.damaged_names();
        decided.erased.in_flight = decided.flying.len() as u64;
        self.answers.push(Answer::Decide(reply, Ok(decided)));
        Ok(())
    }
}
