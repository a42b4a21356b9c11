//! Appending, counted exactly even when the caller has left.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use crate::event::Checked;
use crate::event::Trigger;
use crate::metrics::Label;
use crate::metrics::{Metrics, Stripped, Warning};
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

    /// The kinds of warnings that occur, with their number.
    pub(super) fn warnings(&self) -> impl Iterator<Item = (Warning, u32)> {
        Warning::ALL.iter().copied().zip(self.warnings).filter(|(_, count)| *count > 0)
    }

    fn count(&self, metrics: &Metrics) {
        for (trigger, count) in Trigger::ALL.into_iter().zip(self.triggers).filter(|(_, count)| *count > 0) {
            metrics.accepted.with(trigger).inc_by(count.into());
        }
        for (kind, count) in self.warnings() {
            metrics.ingest_warnings.with(kind).inc_by(count.into());
        }
        if self.stripped > 0 {
            metrics.stripped.with(Stripped::Unknown).inc_by(self.stripped as u64);
        }
    }
}

/// Appends and counts. If the caller leaves meanwhile, both still happen: what is committed is counted.
pub(super) fn append(
    outbox: &Arc<dyn Outbox>,
    metrics: &Arc<Metrics>,
    batch: Batch,
    tally: Tally,
) -> Uncancelled<Result<Receipt, AppendError>> {
    let (outbox, metrics) = (Arc::clone(outbox), Arc::clone(metrics));
    Uncancelled(Some(Box::pin(async move {
        let receipt = outbox.append(batch).await;
        match &receipt {
            Ok(receipt) if receipt.replayed.is_some() => metrics.deduplicated.inc_by(receipt.ids.len() as u64),
            Ok(_) => tally.count(&metrics),
            Err(_) => {}
        }
        receipt
    })))
}

/// Work that is finished in the background if nobody waits for it any more.
pub(super) struct Uncancelled<T: Send + 'static>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T: Send + 'static> Future for Uncancelled<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let work = self.0.as_mut().expect("not polled again after it was done");
        let done = ready!(work.as_mut().poll(cx));
        self.0 = None;
        Poll::Ready(done)
    }
}

impl<T: Send + 'static> Drop for Uncancelled<T> {
    fn drop(&mut self) {
        if let (Some(work), Ok(runtime)) = (self.0.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}
