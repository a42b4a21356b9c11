//! What the writer works with beside the file: settings, time, metrics, the volume.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Settings;
use super::astray::Astray;
use super::fault::lacks_room;
use super::place::Orphan;
use super::sql::PAGE_BYTES;
use super::store::Store;
use super::unread::Unread;
use super::volume::{Home, Space};
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::outbox::Bound;

/// The volume is measured at most so often.
const MEASURE_EVERY: Duration = Duration::from_millis(200);
/// After the disk was full, appends are refused for so long.
const FULL_FOR: Duration = Duration::from_secs(1);
/// The reserve is made again when so much would be free beside it.
const SPARE_FOR_RESERVE: u64 = 4 << 20;
/// About what a remembered delivered event takes.
const DONE_BYTES: u64 = 48;

/// A sync that is quicker is the writer's own: another thread's waking and answers cost about as much, and on few
/// processors they are in the way of those who would use the time.
const WORTH_A_THREAD: Duration = Duration::from_micros(400);

/// Where randomness and failures come from, so that tests own them.
pub struct Seams {
    /// The first sequence number of a new file; random if `None`.
    pub first_seq: Option<u64>,
    /// The salt of the next ids.
    pub salt: Box<dyn FnMut() -> u32 + Send>,
    /// Called before each commit; an error stands for one of the disk.
    pub before_commit: Box<dyn FnMut() -> std::io::Result<()> + Send>,
    /// After a sync that took so long, the next one has a thread of its own, if somebody waits for the writer.
    pub worth_a_thread: Duration,
}

impl Default for Seams {
    fn default() -> Self {
        let salt = || fastrand::u32(0..=crate::event::EventId::MAX_SALT);
        let before_commit = Box::new(|| Ok(()));
        Self { first_seq: None, salt: Box::new(salt), before_commit, worth_a_thread: WORTH_A_THREAD }
    }
}

/// What the writer works with.
pub(super) struct Env {
    pub(super) settings: Settings,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) home: Home,
    pub(super) seams: Seams,
    pub(super) volume: Volume,
    /// Databases that lost their names, until all was copied from them; the last one may wait for a
    /// fresh file.
    pub(super) orphans: Vec<Orphan>,
    /// What may be being sent by leases of earlier openings.
    pub(super) astray: Astray,
    /// Of a damaged file that is copied.
    pub(super) unread: Unread,
}

/// The volume as last measured.
#[derive(Debug, Default)]
pub(super) struct Volume {
    pub(super) space: Space,
    pub(super) reserve_bytes: u64,
    pub(super) wal_bytes: u64,
    pub(super) damaged_files: u64,
    /// The file system gives no room in advance.
    is_unreservable: bool,
    measured: Option<Instant>,
    full_until: Option<Instant>,
}

impl Env {
    pub(super) fn new(
        settings: Settings,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        home: Home,
        seams: Seams,
    ) -> Self {
        let astray = Astray::new(settings.send_within);
        let (volume, orphans, unread) = (Volume::default(), Vec::new(), Unread::default());
        Self { settings, clock, metrics, home, seams, volume, orphans, astray, unread }
    }

    /// A database that lost its name and has no fresh file yet.
    pub(super) fn waiting_orphan(&self) -> Option<&Orphan> {
        self.orphans.last().filter(|orphan| orphan.name.is_none())
    }

    /// Measures the volume, unless that was done lately; says whether it did.
    pub(super) fn measure(&mut self) -> bool {
        let now = self.clock.instant();
        if self.volume.measured.is_some_and(|at| now.saturating_duration_since(at) < MEASURE_EVERY) {
            return false;
        }
        self.volume.measured = Some(now);
        if let Ok(space) = self.home.space() {
            self.volume.space = space;
        }
        self.volume.wal_bytes = self.home.wal_bytes();
        self.volume.reserve_bytes = self.home.reserve_bytes();
        self.volume.damaged_files = self.home.damaged_files();
        true
    }

    /// The disk is full: gives up the reserve and refuses appends for a while; says whether there was
    /// a reserve, so that it is worth trying again.
    pub(super) fn disk_is_full(&mut self) -> bool {
        self.volume.full_until = Some(self.clock.instant() + FULL_FOR);
        self.volume.measured = None;
        self.volume.reserve_bytes = 0;
        self.home.free_reserve()
    }

    /// Makes the reserve if it is missing and there is room for it.
    pub(super) fn restore_reserve(&mut self) {
        let wanted = self.wanted_reserve();
        let room = self.volume.space.free > self.settings.min_free_bytes.saturating_add(wanted + SPARE_FOR_RESERVE);
        if !room || self.is_disk_full() || !self.lacks_reserve() {
            return;
        }
        match self.home.make_reserve(wanted) {
            Ok(()) => self.volume.reserve_bytes = wanted,
            Err(error) => {
                self.volume.is_unreservable = !lacks_room(&error);
                tracing::debug!(%error, "no reserve could be made");
            }
        }
        self.volume.measured = None;
    }

    fn wanted_reserve(&self) -> u64 {
        self.settings.reserve.min(self.volume.space.total / 8).min(self.settings.max_bytes / 8)
    }

    /// Whether the reserve was given up, or never made for want of room.
    fn lacks_reserve(&self) -> bool {
        self.volume.reserve_bytes < self.wanted_reserve() && !self.volume.is_unreservable
    }

    /// Whether the volume has less left than it must.
    pub(super) fn is_short(&self) -> bool {
        self.is_disk_full() || self.volume.space.free < self.settings.min_free_bytes
    }

    fn is_disk_full(&self) -> bool {
        self.volume.full_until.is_some_and(|until| self.clock.instant() < until)
    }

    /// Bytes of the outbox's capacity that are used.
    pub(super) fn used_bytes(&self, store: &Store) -> u64 {
        store.live_pages * PAGE_BYTES + store.grown_bytes + self.volume.wal_bytes + self.volume.reserve_bytes
    }

    /// Whether a batch may be appended, after `added` bytes in the same transaction.
    pub(super) fn room(&self, store: &Store, added: u64, bytes: u64, events: u64) -> Result<(), Bound> {
        let settings = &self.settings;
        let ledger = &store.books.ledger;
        if settings.max_events > 0 && ledger.undelivered() + ledger.dead + events > settings.max_events {
            return Err(Bound::Events);
        }
        // What is only remembered makes room by itself and never stands in the way.
        let used = self.used_bytes(store).saturating_sub(store.books.done * DONE_BYTES);
        if used + added + bytes > settings.max_bytes {
            return Err(Bound::Bytes);
        }
        let keep_free = settings.min_free_bytes.saturating_add(added + bytes);
        // The room of a reserve that was given up is for deliveries: taken by events, it would leave a store that can neither
        // record a delivery nor be opened.
        if self.is_disk_full() || self.lacks_reserve() || self.volume.space.free < keep_free {
            return Err(Bound::Disk);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "env/tests.rs"]
mod tests;
