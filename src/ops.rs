//! Probes and metrics.

use std::net::SocketAddr;
use std::time::Duration;

/// `ops.*`
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// A loop that has not moved for so long fails `/livez`.
    pub stall_after: Duration,
}
