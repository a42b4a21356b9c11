//! What the writer waits for, and how long.

use std::time::Duration;

use super::Writer;
use crate::outbox::sqlite::inbox::{GATHER, GATHER_FOR, LINGER_FOR, Wanted};
use crate::outbox::sqlite::store::Store;

/// While a commit is synced, the writer goes on when so many commands wait; with fewer it waits for the
/// sync's end, as waking costs more than they do.
pub(super) const WORTH_WAKING: usize = 16;
/// The longest wait of an idle writer.
const IDLE: Duration = Duration::from_secs(10);
/// The longest wait while a gate may become due: wall time can jump.
const GATED: Duration = Duration::from_secs(1);
/// Between two steps of an erasure that others may come between.
const SCRUB_EVERY: Duration = Duration::from_millis(1);
// Where events come and are delivered at the same time, a commit waits for more commands: counts and inner pages are written
// once a commit, and are as much as its events are. Where nothing is delivered, sooner syncs are worth more to callers.

/// Something was settled by one of the last so many commits: events are being delivered.
pub(super) const LATELY: u32 = 16;
/// The last commit appended for so many callers: more are about to come.
pub(super) const MANY: usize = 8;
/// Then a commit waits for so many commands …
pub(super) const WORTH_A_COMMIT: usize = 32;
/// … or so long.
pub(super) const GROWS_FOR: Duration = Duration::from_micros(300);

impl Writer {
    /// What there is to wait for.
    pub(super) fn wanted(&mut self) -> Wanted {
        let is_syncing = self.syncer.since().is_some();
        let store = self.store.as_ref();
        let now = self.env.clock.instant();
        let is_urgent = store.is_none_or(|store| store.has_to_copy(now) || store.queue.is_urgent());
        let in_flight = self.stats.in_flight as usize;
        let (company, gather) = match store {
            Some(store) if !is_urgent && self.jobs.is_empty() && self.closing.is_empty() => {
                // Once all that is in flight was delivered, no company can come before the next is handed out.
                if store.someone_waits() { (GATHER_FOR, GATHER.min(in_flight)) } else { (LINGER_FOR, GATHER) }
            }
            _ => (Duration::ZERO, GATHER),
        };
        let claims = is_urgent || store.is_some_and(Store::can_hand_out);
        let is_calm = !company.is_zero();
        let expects = in_flight > 0 && is_calm;
        let (commands, longest) = if is_syncing && is_calm {
            (WORTH_WAKING, IDLE)
        } else if is_calm && self.without_settles < LATELY && self.last_appends >= MANY {
            (WORTH_A_COMMIT, GROWS_FOR)
        } else {
            (1, IDLE)
        };
        Wanted { commands, claims, company, gather, expects, within: self.patience().min(longest) }
    }

    /// How long there is nothing to do unless someone asks.
    fn patience(&mut self) -> Duration {
        let now = self.env.clock.instant();
        let Some(store) = &mut self.store else {
            return self.reopen.at.saturating_duration_since(now).clamp(Duration::from_millis(1), IDLE);
        };
        let wants_more = !self.claims.is_empty() && store.recovery.is_none() && store.can_read();
        // Decisions wait for the end of a copy.
        let decides = !self.jobs.is_empty() && store.recovery.is_none();
        if decides || store.has_to_copy(now) || store.queue.is_urgent() || wants_more {
            return Duration::ZERO;
        }
        if !self.scrubs.is_empty() {
            return SCRUB_EVERY;
        }
        let mut patience = store.recovery.as_ref().and_then(|recovery| recovery.waits(now)).unwrap_or(IDLE).min(IDLE);
        if self.is_stirred || self.has_chores {
            patience = patience.min(self.chores_at.saturating_duration_since(now)).max(Duration::from_millis(1));
        }
        if store.books.gates > 0 && !self.claims.is_empty() {
            let pace = store.pace.now(self.env.clock.now(), now);
            let due = store.sql.next_due(pace).ok().flatten();
            let wait = due.map_or(GATED, |due| due.since(pace));
            patience = patience.min(wait.clamp(Duration::from_millis(1), GATED));
        }
        patience
    }
}

#[cfg(test)]
mod tests;
