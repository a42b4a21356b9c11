//! What is measured, one file a question; each is run once a round.

mod backlog;
mod disk;
mod footprint;
mod latency;
mod listing;
mod reads;
mod throughput;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use cello_relay::event::EventId;
use tempfile::TempDir;

use crate::results::Results;

/// How much is measured.
pub(crate) struct Plan {
    pub(crate) rounds: usize,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// Time of scenarios that watch something happen, not a rate.
    pub(crate) watched: Duration,
    /// Events of a backlog that is drained.
    pub(crate) drained: u64,
    /// Events of backlogs that stay, ascending.
    pub(crate) pending: &'static [u64],
}

impl Plan {
    pub(crate) fn full() -> Self {
        Self {
            rounds: 5,
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(5),
            watched: Duration::from_secs(10),
            drained: 100_000,
            pending: &[1_000_000, 5_000_000],
        }
    }

    pub(crate) fn quick() -> Self {
        Self {
            rounds: 2,
            warm_up: Duration::from_millis(500),
            measured: Duration::from_secs(2),
            watched: Duration::from_secs(5),
            drained: 30_000,
            pending: &[1_000_000],
        }
    }
}

/// What scenarios share.
pub(crate) struct Bench {
    pub(crate) plan: Plan,
    pub(crate) results: Results,
    /// Outboxes with so many pending events, kept for later rounds.
    filled: BTreeMap<u64, Arc<TempDir>>,
    /// One with dead letters too, and an event deep in it.
    large: Option<(Arc<TempDir>, EventId)>,
}

impl Bench {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { plan, results: Results::default(), filled: BTreeMap::new(), large: None }
    }
}

/// A scenario by its name on the command line.
pub(crate) type Scenario = (&'static str, fn(&mut Bench));

/// The one that `--quick` repeats.
pub(crate) const CORE: &str = "throughput";

/// In the order in which they run.
pub(crate) const ALL: &[Scenario] = &[
    (CORE, throughput::run),
    ("sizes", throughput::sizes),
    ("drain", backlog::drain),
    ("pending", backlog::pending),
    ("open-loop", latency::open_loop),
    ("delivery", latency::delivery),
    ("reads", reads::hits),
    ("interference", reads::interference),
    ("listing", listing::run),
    ("idle", footprint::idle),
    ("connections", footprint::connections),
    ("trickle", footprint::trickle),
    ("tenth", footprint::tenth),
    ("start", footprint::start),
    ("binary", footprint::size),
    ("syncs", disk::syncs),
];
