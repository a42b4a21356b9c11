//! Appending, counted exactly even when the caller has left.

use crate::event::{Checked, Trigger};
use crate::metrics::{Label, Metrics, Stripped, Warning};
use crate::outbox::{AppendError, Batch, Outbox, Receipt};

/// What is counted once a batch is stored.
pub(super) struct Tally {
    triggers: [u32; Trigger::ALL.len()],
    warnings: [u32; Warning::ALL.len()],
    stripped: usize,
}

impl Tally {
    pub(super) fn of(checked: &[Checked]) -> Self {
        let mut tally = Tally { triggers: [0; Trigger::ALL.len()], warnings: [0; Warning::ALL.len()], stripped: 0 };
        for event in checked {
            tally.triggers[event.event.trigger.index()] += 1;
            tally.stripped += event.stripped_count;
            for (kind, _) in &event.warnings {
                tally.warnings[kind.index()] += 1;
            }
        }
        tally
    }

    fn count(&self, metrics: &Metrics) {
        for (trigger, count) in Trigger::ALL.into_iter().zip(self.triggers).filter(|(_, count)| *count > 0) {
            metrics.accepted.with(trigger).inc_by(count.into());
        }
        for (kind, count) in Warning::ALL.iter().copied().zip(self.warnings).filter(|(_, count)| *count > 0) {
            metrics.ingest_warnings.with(kind).inc_by(count.into());
        }
        if self.stripped > 0 {
            metrics.stripped.with(Stripped::Unknown).inc_by(self.stripped as u64);
        }
    }
}

/// Appends and counts. Runs to its end even if the caller leaves meanwhile, because a connection's request
/// under way is never dropped (see `http::connection`): what is committed is counted.
pub(super) async fn append(
    outbox: &dyn Outbox,
    metrics: &Metrics,
    batch: Batch,
    tally: &Tally,
) -> Result<Receipt, AppendError> {
    let receipt = outbox.append(batch).await?;
    if receipt.replayed.is_some() {
        metrics.deduplicated.inc_by(receipt.ids.len() as u64);
    } else {
        tally.count(metrics);
    }
    Ok(receipt)
}
