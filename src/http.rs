//! Accept loop, limits and graceful close: used by every listener.

use std::time::Duration;

/// What a listener allows a client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Time to send a request's head.
    pub header_timeout: Duration,
    /// How long a connection may be silent.
    pub idle_timeout: Duration,
}
