//! The gauges that mirror state: set from it at each scrape, so that they are exact and cost nothing in between.

use std::sync::Arc;

use crate::clock::Timestamp;
use crate::metrics::{Metrics, Phase, Place};
use crate::outbox::{Outbox, Stats};

/// Where the gauges come from.
#[derive(Clone)]
pub struct Sources {
    metrics: Arc<Metrics>,
    outbox: Arc<dyn Outbox>,
}

impl Sources {
    /// Gauges of this outbox.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>, outbox: Arc<dyn Outbox>) -> Self {
        Self { metrics, outbox }
    }

    /// The outbox as of its last commit; never waits for a disk.
    pub(super) fn stats(&self) -> Stats {
        self.outbox.stats()
    }

    /// Sets every mirrored gauge and renders all metrics.
    pub(super) fn render(&self, phase: Phase) -> String {
        self.metrics.state.only(Some(phase));
        self.mirror(&self.stats());
        self.metrics.render()
    }

    fn mirror(&self, stats: &Stats) {
        let metrics = &self.metrics;
        for (place, count) in [
            (Place::Pending, stats.pending()),
            (Place::InFlight, stats.in_flight),
            (Place::Retrying, stats.retrying),
            (Place::Dead, stats.ledger.dead),
        ] {
            metrics.outbox_events.with(place).set(gauge(count));
        }
        metrics.outbox_size.set(gauge(stats.size_bytes));
        metrics.outbox_capacity.set(gauge(stats.capacity_bytes));
        metrics.outbox_wal.set(gauge(stats.wal_bytes));
        metrics.outbox_volume.set(gauge(stats.volume_bytes));
        metrics.outbox_volume_free.set(gauge(stats.volume_free_bytes));
        metrics.outbox_quarantined.set(gauge(stats.quarantined_files));
        metrics.outbox_recovered.set(gauge(stats.recovered));
        metrics.outbox_oldest.set(seconds(stats.oldest));
        metrics.outbox_checkpoint.set(seconds(stats.checkpointed_at));
    }
}

fn gauge(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// 0 stands for "never" and "none".
fn seconds(moment: Option<Timestamp>) -> f64 {
    moment.map_or(0.0, Timestamp::as_seconds)
}
