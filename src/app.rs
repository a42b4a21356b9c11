//! The only wiring: settings → build → run → drain.

use std::path::PathBuf;
use std::time::Duration;

/// `shutdown.*`
#[derive(Clone, Debug)]
pub struct Shutdown {
    /// How long requests are still taken after SIGTERM.
    pub linger: Duration,
    /// How long the outbox is drained.
    pub deadline: Duration,
    /// How long sends under way may still take.
    pub grace: Duration,
    /// Where the summary line is written too.
    pub report_file: Option<PathBuf>,
    /// The pod's termination grace period, if known: after a `drain` only what is left of it is spent.
    pub pod_grace: Option<Duration>,
}

/// Everything a relay is built from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The app-facing listener.
    pub ingest: crate::ingress::Settings,
    /// The store.
    pub outbox: crate::outbox::sqlite::Settings,
    /// `outbox.durability`: a label, `persistent` or `pod`.
    pub durability: String,
    /// Claim, send, settle.
    pub forward: crate::forwarder::Settings,
    /// The upstream.
    pub cello: crate::cello::Settings,
    /// Probes and metrics.
    pub ops: crate::ops::Settings,
    /// The control API.
    pub admin: crate::admin::Settings,
    /// The end.
    pub shutdown: Shutdown,
    /// Logs.
    pub log: crate::telemetry::Settings,
}
