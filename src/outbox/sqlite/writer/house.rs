//! Housekeeping: checkpoints, and what is done when nobody waits.

use std::time::Duration;

use super::Writer;
use super::open::bytes_of;
use crate::outbox::sqlite::fault::Fault;
use crate::outbox::sqlite::inbox::Command;
use crate::outbox::sqlite::sql::{FRAME_BYTES, Syncs};

/// The WAL stays under this, but for a single batch that is larger.
const WAL_MAX_BYTES: u64 = 4 << 20;
/// The WAL is moved into the database when it is this large.
const CHECKPOINT_BYTES: u64 = 3 << 20;
/// Between two looks at the WAL so much may be written, however large it is.
const LOOK_BYTES: u64 = 256 << 10;
/// A batch with more has the file to itself, after a checkpoint if need be.
pub(super) const LARGE_BATCH_BYTES: u64 = CHECKPOINT_BYTES / 8;
/// Between two looks at what is only housekeeping.
const CHORES_EVERY: Duration = Duration::from_secs(5);
/// The same while there is more to do.
const CHORES_GO_ON: Duration = Duration::from_millis(20);
/// Free pages that a busy store keeps for the next appends.
const SPARE_PAGES: u64 = 256;
/// Free pages that are given back in a step, so few that an append beside it hardly waits: 3 MiB a second.
const VACUUM_PAGES: u64 = 16;

impl Writer {
    /// A batch that would make the WAL too large waits for a checkpoint.
    pub(super) fn make_room_in_wal(&mut self, work: &[Command]) -> Result<(), Fault> {
        let bytes: u64 = work.iter().map(bytes_of).sum();
        if bytes > LARGE_BATCH_BYTES {
            self.checkpoint(CHECKPOINT_BYTES.saturating_sub(bytes))?;
        }
        Ok(())
    }

    fn checkpoint(&mut self, above_bytes: u64) -> Result<(), Fault> {
        let Some(store) = &self.store else { return Ok(()) };
        let size = store.sql.wal_frames()? * FRAME_BYTES;
        // What is reckoned between two looks is more than what is written, and a look takes long enough to be worth avoiding.
        self.wal_room = CHECKPOINT_BYTES.saturating_sub(size).max(LOOK_BYTES);
        if size <= above_bytes {
            return Ok(());
        }
        // A WAL that is used again needs no new blocks, which makes its syncs cheaper; one that grew
        // too large for that is cut.
        let is_large = self.env.home.wal_bytes() > WAL_MAX_BYTES;
        if is_large {
            self.land_synced(true)?;
        }
        let Some(store) = &self.store else { return Ok(()) };
        let is_done = if is_large { store.sql.checkpoint_and_truncate()? } else { store.sql.checkpoint()? };
        if is_done {
            self.wal_room = CHECKPOINT_BYTES;
            self.stats.checkpointed_at = Some(self.env.clock.now());
        }
        Ok(())
    }

    /// Checkpoints; from time to time also forgets what was remembered long enough and gives space
    /// back.
    pub(super) fn keep_house(&mut self) -> Result<(), Fault> {
        if self.wal_room == 0 {
            self.checkpoint(CHECKPOINT_BYTES)?;
        }
        let now = self.env.clock.instant();
        let Some(store) = self.store.as_mut().filter(|_| now >= self.chores_at) else { return Ok(()) };
        let is_idle = !std::mem::take(&mut self.is_busy);
        if self.is_stirred {
            store.measure()?;
        }
        store.look_at_gates()?;
        self.has_chores = store.has_chores(&self.env, !is_idle)?;
        let vacuums = store.free_pages > if is_idle { 0 } else { SPARE_PAGES };
        if vacuums {
            self.give_back(VACUUM_PAGES)?;
        }
        let goes_on = vacuums || self.has_chores;
        // On a full disk the WAL's blocks are needed: what is delivered can be recorded in them.
        let is_short = self.env.is_short();
        if is_idle && !goes_on && self.is_stirred && !is_short {
            self.erase_leftovers()?;
        }
        self.chores_at = now + if goes_on { CHORES_GO_ON } else { CHORES_EVERY };
        Ok(())
    }

    /// Gives up to `pages` free pages back to the volume, as one commit.
    pub(super) fn give_back(&mut self, pages: u64) -> Result<(), Fault> {
        // At most one transaction in the WAL is not synced: what is wrong before several is damage, no power cut.
        self.land_synced(true)?;
        let Some(store) = &mut self.store else { return Ok(()) };
        store.sql.sync(Syncs::Itself)?;
        store.sql.vacuum(pages)?;
        // Each page that is given back is written, or one that takes its place.
        self.wal_room = self.wal_room.saturating_sub(2 * pages * FRAME_BYTES);
        store.measure()
    }

    /// An idle store holds no trace of events that ended: free pages are gone, and so is the WAL.
    fn erase_leftovers(&mut self) -> Result<(), Fault> {
        self.land_synced(true)?;
        let Some(store) = &self.store else { return Ok(()) };
        if store.sql.checkpoint_and_truncate()? {
            self.stats.checkpointed_at = Some(self.env.clock.now());
            self.is_stirred = false;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "house/tests.rs"]
mod tests;
