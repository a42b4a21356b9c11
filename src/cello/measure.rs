//! The layer that counts and times calls.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower::Service;

use super::answer::Answer;
use super::transport::{Call, TransportError};
use super::verdict::judge;
use crate::clock::Clock;
use crate::metrics::{Counted, Metrics, Operation};

/// Counts what goes through `S`.
#[derive(Clone)]
pub(super) struct Measure<S> {
    inner: S,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl<S> Measure<S> {
    pub(super) fn new(inner: S, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        Self { inner, metrics, clock }
    }
}

impl<S> Service<Call> for Measure<S>
where
    S: Service<Call, Response = Answer, Error = TransportError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, TransportError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let (metrics, clock, operation) = (self.metrics.clone(), self.clock.clone(), call.operation);
        let sending = self.inner.call(call);
        Box::pin(async move {
            metrics.upstream_requests.with(operation).inc();
            // Taken off however the call ends, even if its caller leaves.
            let _in_flight = Counted::on(&metrics.upstream_in_flight);
            let start = clock.instant();
            let result = sending.await;
            // Token calls have a histogram of their own.
            if operation != Operation::Token {
                let took = clock.instant().duration_since(start);
                metrics.upstream_duration.with(operation).observe(took.as_secs_f64());
            }
            if let Some(reason) = judge(result.as_ref()).reason {
                metrics.upstream_failures.with(reason).inc();
            }
            result
        })
    }
}
