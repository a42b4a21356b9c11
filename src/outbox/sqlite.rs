//! The embedded store.

use std::path::PathBuf;
use std::time::Duration;

/// `outbox.*` and `idempotency.*`
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the file is.
    pub dir: PathBuf,
    /// Live pages, WAL and reserve together.
    pub max_bytes: u64,
    /// Undelivered and dead events together; 0 is no limit.
    pub max_events: u64,
    /// What is left free on the volume.
    pub min_free_bytes: u64,
    /// Preallocated, given up when the disk is full so that deliveries can still be recorded; at most
    /// an eighth of the volume.
    pub reserve: u64,
    /// How long a delivered event is remembered.
    pub remember: Duration,
    /// How many delivered events are remembered.
    pub remember_max: u64,
    /// How long an idempotency key is remembered.
    pub key_remember: Duration,
    /// Room for idempotency keys; the oldest go first.
    pub key_max_bytes: u64,
    /// Allows NFS, SMB and CephFS.
    pub allow_network_fs: bool,
    /// The base URL this outbox belongs to.
    pub upstream: String,
}
