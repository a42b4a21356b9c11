//! What callers are told, and what others see of the writer's state.

use std::sync::PoisonError;

use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::Writer;
use crate::outbox::sqlite::inbox::{Decided, answer};
use crate::outbox::sqlite::shared::Snapshot;
use crate::outbox::{AppendError, Claimed, ReadError, Receipt, SettleError, Settled};

/// An answer and who waits for it.
pub(super) enum Answer {
    Append(oneshot::Sender<Result<Receipt, AppendError>>, Result<Receipt, AppendError>),
    /// A caller that left drops its leases, which brings the events back.
    Claim(oneshot::Sender<Vec<Claimed>>, Vec<Claimed>),
    Intend(oneshot::Sender<Result<(), SettleError>>, Result<(), SettleError>),
    Settle(oneshot::Sender<Result<Settled, SettleError>>, Result<Settled, SettleError>),
    Decide(oneshot::Sender<Result<Decided, ReadError>>, Result<Decided, ReadError>),
}

impl Answer {
    /// Tells whoever waits, and wakes them.
    pub(super) fn give(self) {
        match self {
            Answer::Append(reply, result) => answer(reply, result),
            Answer::Claim(reply, claimed) => answer(reply, claimed),
            Answer::Intend(reply, result) => answer(reply, result),
            Answer::Settle(reply, result) => answer(reply, result),
            Answer::Decide(reply, result) => answer(reply, result),
        }
    }
}

/// More answers at once are a sign of load.
const FEW: usize = 8;

/// Where answers are given.
///
/// A task that is woken from outside of its runtime wakes its thread. In a quiet runtime that sleeps again before the next
/// answer, so that a few are given by a task of the runtime; in a busy one it is awake.
#[derive(Clone)]
pub(super) struct Desk(Option<Handle>);

impl Desk {
    /// The runtime of whoever calls, if there is one.
    pub(super) fn here() -> Self {
        Self(Handle::try_current().ok())
    }

    /// Gives answers, in their order.
    pub(super) fn give(&self, answers: Vec<Answer>) {
        let is_few = (2..=FEW).contains(&answers.len());
        let give_all = || answers.into_iter().for_each(Answer::give);
        match &self.0 {
            Some(runtime) if is_few => drop(runtime.spawn(async { give_all() })),
            _ => give_all(),
        }
    }
}

impl Writer {
    /// Tells callers what has come of it; whoever then looks at the counts finds them changed.
    pub(super) fn give_answers(&mut self) {
        self.publish();
        self.desk.give(std::mem::take(&mut self.answers));
    }

    /// Shows others the state as of now.
    pub(super) fn publish(&mut self) {
        let stats = &mut self.stats;
        let mut flying = Vec::new();
        if let Some(store) = &self.store {
            let failed_in_flight;
            let landing = self.landing.as_ref();
            let left = |seq: u64| store.landed.contains(&seq) || landing.is_some_and(|landing| landing.ends(seq));
            (flying, failed_in_flight) = store.queue.flying(left);
            stats.ledger = store.books.ledger;
            stats.is_recovering = store.recovery.is_some();
            stats.in_flight = flying.len() as u64;
            stats.retrying = store.books.failed.saturating_sub(failed_in_flight);
            stats.size_bytes = self.env.used_bytes(store);
            if !self.is_oldest_known {
                stats.oldest = store.sql.oldest().ok().flatten();
                self.is_oldest_known = true;
            }
            stats.dead_letters_full = store.is_full_of_dead(&self.env);
            stats.refusing = self.env.room(store, 0, 1024, 1).err().map(AppendError::Full);
        } else {
            (stats.in_flight, stats.refusing) = (0, Some(AppendError::Unavailable));
        }
        let volume = &self.env.volume;
        stats.wal_bytes = volume.wal_bytes;
        (stats.volume_bytes, stats.volume_free_bytes) = (volume.space.total, volume.space.free);
        stats.quarantined_files = volume.damaged_files;
        let mut snapshot = self.shared.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        *snapshot = Snapshot { stats: self.stats.clone(), flying };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_few_answers_are_given_by_a_task_of_the_runtime_and_one_or_many_at_once() {
        for (count, are_at_once) in [(1, true), (2, false), (FEW, false), (FEW + 1, true)] {
            let (answers, mut replies): (Vec<_>, Vec<_>) = (0..count)
                .map(|_| {
                    let (reply, answer) = oneshot::channel();
                    (Answer::Intend(reply, Ok(())), answer)
                })
                .unzip();
            Desk::here().give(answers);
            let at_once = replies.iter_mut().filter_map(|reply| reply.try_recv().ok()).count();
            assert_eq!(at_once, if are_at_once { count } else { 0 });
            if !are_at_once {
                for reply in replies {
                    assert_eq!(reply.await, Ok(Ok(())));
                }
            }
        }
    }
}
