//! What apps see: the `ingest` listener's service.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::event::Checks;

/// `ingest.*` and `idempotency.*` as far as they concern a request.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// A single event's request body, decompressed.
    pub max_body_bytes: usize,
    /// Events in one batch.
    pub max_batch: usize,
    /// A batch's request body, decompressed.
    pub max_batch_bytes: usize,
    /// What is done about what Cello does not state as refused.
    pub checks: Checks,
    /// More hosts than loopback that a request may name.
    pub allowed_hosts: Vec<String>,
    /// A file with the bearer token that every request must carry.
    pub token_file: Option<PathBuf>,
    /// Lets other machines in without a token.
    pub allow_unauthenticated_remote: bool,
    /// Connections at the same time.
    pub max_connections: usize,
    /// Time to send a request's head.
    pub header_timeout: Duration,
    /// How long a kept-alive connection may be silent, also in the middle of a body.
    pub idle_timeout: Duration,
}
