//! Probes and `/metrics`, on a listener of their own.
//!
//! None of the probes depends on Cello: an outage upstream must not take an app's pod out of service.
//!
//! | path | 200 when |
//! | --- | --- |
//! | `/startupz` | config read, outbox open, listeners bound |
//! | `/readyz` | an event could be stored durably now, and the relay is not ending |
//! | `/livez` | every loop has moved within `ops.stall_after`; waiting, held and paused loops beat too |
//! | `/metrics` | always: the classic text format |

mod gauges;

pub use gauges::Sources;

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::metrics::Phase;

/// Prometheus 3 refuses an answer without it.
const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const TEXT_TYPE: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// `ops.*`
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// A loop that has not moved for so long fails `/livez`.
    pub stall_after: Duration,
}

/// Tells when a loop last moved.
pub type Heartbeat = Arc<dyn Fn() -> Instant + Send + Sync>;

/// The `ops` listener's service.
#[derive(Clone)]
pub struct Ops {
    inner: Arc<Inner>,
}

struct Inner {
    stall_after: Duration,
    sources: Sources,
    phase: watch::Receiver<Phase>,
    /// Each loop that must not stall, by name.
    heartbeats: Vec<(&'static str, Heartbeat)>,
}

impl Ops {
    /// A service that reads `sources` and watches over `heartbeats`.
    #[must_use]
    pub fn new(
        settings: &Settings,
        sources: Sources,
        phase: watch::Receiver<Phase>,
        heartbeats: Vec<(&'static str, Heartbeat)>,
    ) -> Self {
        Self { inner: Arc::new(Inner { stall_after: settings.stall_after, sources, phase, heartbeats }) }
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(path, "/startupz" | "/readyz" | "/livez" | "/metrics") {
            return text(StatusCode::NOT_FOUND, "not found: try /startupz, /readyz, /livez or /metrics\n".to_owned());
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut refusal = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refusal;
        }
        match path {
            "/startupz" => probe(self.inner.not_started()),
            "/readyz" => probe(self.inner.not_ready()),
            "/livez" => probe(self.inner.stalled()),
            _ => {
                let mut answer = text(StatusCode::OK, self.inner.sources.render(*self.inner.phase.borrow()));
                answer.headers_mut().insert(CONTENT_TYPE, METRICS_TYPE);
                answer
            }
        }
    }
}

impl Inner {
    fn not_started(&self) -> Option<String> {
        (*self.phase.borrow() == Phase::Starting).then(|| "starting".to_owned())
    }

    fn not_ready(&self) -> Option<String> {
        match *self.phase.borrow() {
            Phase::Starting => Some("starting".to_owned()),
            Phase::Draining => Some("ending: no new events are taken once shutdown.linger is over".to_owned()),
            Phase::Serving | Phase::Terminating => self.sources.stats().refusing.map(|error| error.to_string()),
        }
    }

    fn stalled(&self) -> Option<String> {
        let stalled = |(name, heartbeat): &(&str, Heartbeat)| {
            let silent = heartbeat().elapsed();
            (silent > self.stall_after).then(|| format!("the {name} loop has not moved for {} s", silent.as_secs()))
        };
        self.heartbeats.iter().find_map(stalled)
    }
}

/// 200, or 503 with what is wrong.
fn probe(wrong: Option<String>) -> Response<Full<Bytes>> {
    match wrong {
        None => text(StatusCode::OK, "ok\n".to_owned()),
        Some(wrong) => text(StatusCode::SERVICE_UNAVAILABLE, wrong + "\n"),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::from(body));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, TEXT_TYPE);
    answer
}

impl Service<Request<Incoming>> for Ops {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        ready(Ok(self.answer(request.method(), request.uri().path())))
    }
}

#[cfg(test)]
mod tests;
