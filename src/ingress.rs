//! What apps see: the `ingest` listener's service.
//!
//! A post's way: [`admission`] (Host, Origin, bearer) → [`post`] (media type, body, [`batch`]) →
//! [`crate::event`] (parse, validate, strip) → [`store`] (append, count) → the answer. A 2xx is sent only
//! after the append is durable.

mod admission;
mod answer;
mod batch;
mod bearer;
mod detail;
pub mod door;
#[cfg(fuzzing)]
pub mod fuzzing;
mod look;
mod notes;
mod post;
mod route;
mod store;
mod token;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper::header::{CACHE_CONTROL, EXPECT};
use hyper::http::request::Parts;
use hyper::service::Service;
use hyper::{Method, Request, Response};
use tokio::sync::watch;

pub use crate::event::Checks;
pub use admission::{check_bind, check_hosts, check_token_file};
pub use answer::Answer;

use crate::clock::Clock;
use crate::http::{Limits, body};
use crate::metrics::{Code, Counted, Label, Metrics, Route as RouteLabel};
use crate::outbox::{self, Flow, Outbox};
use admission::Admission;
use door::Door;
use route::Route;

/// The OpenAPI 3.1 document of this listener.
pub const OPENAPI: &str = include_str!("ingress/openapi.json");

/// What all request bodies that did not come in one piece may take together.
const BODY_BUDGET: usize = 16 * 1024 * 1024;

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
    /// `outbox.max_events`: a batch of more is never worth another try. 0: no limit.
    pub outbox_max_events: u64,
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

impl Settings {
    /// What the listener allows a client.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            max_connections: self.max_connections,
            header_timeout: self.header_timeout,
            idle_timeout: self.idle_timeout,
        }
    }
}

/// The ingress cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The bearer token is not to be had.
    #[error("ingest.token_file {path}: {why}")]
    Token {
        /// The configured file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

/// A read's answer on its way.
pub type ReadAnswer = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Authenticated reads through Cello, handed in by `app`: gets method, URI and `Cache-Control` of a known
/// read route, nothing else of the app's request.
pub type Reads = Arc<dyn Fn(Request<()>) -> ReadAnswer + Send + Sync>;

/// The service behind the `ingest` listener. Cheap to clone.
#[derive(Clone)]
pub struct Ingress {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    admission: Admission,
    outbox: Arc<dyn Outbox>,
    reads: Option<Reads>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    flow: watch::Receiver<Flow>,
    budget: body::Budget,
    door: Door,
}

impl Ingress {
    /// Builds the service; reads the token file, if there is one.
    ///
    /// # Errors
    /// If the token file cannot be read or is empty.
    pub fn new(
        settings: Settings,
        outbox: Arc<dyn Outbox>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        flow: watch::Receiver<Flow>,
    ) -> Result<Self, StartError> {
        let admission = Admission::new(&settings, clock.instant())?;
        let shared = Shared {
            settings,
            admission,
            outbox,
            reads: None,
            clock,
            metrics,
            flow,
            budget: body::Budget::new(BODY_BUDGET),
            door: Door::default(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Answers read routes through `reads`; without, they are not found. Only before the first request.
    #[must_use]
    pub fn with_reads(mut self, reads: Reads) -> Self {
        if let Some(shared) = Arc::get_mut(&mut self.shared) {
            shared.reads = Some(reads);
        }
        self
    }

    /// The last warnings and refusals, for operators.
    #[must_use]
    pub fn door(&self) -> Door {
        self.shared.door.clone()
    }
}

impl Service<Request<Incoming>> for Ingress {
    type Response = Answer;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        // Lent from here: what an async function takes by value lies in its future twice.
        let (head, mut body) = request.into_parts();
        Box::pin(async move { Ok(shared.answer(&head, &mut body).await) })
    }
}

impl Shared {
    /// Answers one request and counts it.
    async fn answer(&self, head: &Parts, body: &mut Incoming) -> Answer {
        let _in_flight = Counted::on(&self.metrics.ingest_in_flight);
        let started = self.clock.instant();
        let route = Route::find(head.uri.path());
        let label = route.map_or(RouteLabel::Other, Route::label);
        let announced = body.size_hint().exact();

        let answer = match self.admission.check(head, route, started) {
            Ok(()) => self.dispatch(head, route, body).await,
            Err(refusal) => Err(refusal),
        };
        let answer = answer.unwrap_or_else(|refusal| {
            detail::refused(&refusal, label, head);
            self.refused(&refusal);
            refusal.answer
        });

        // Who waits for `100 Continue` and was refused will not send the body.
        let waits = head.headers.contains_key(EXPECT) && announced.is_some() && body.size_hint().exact() == announced;
        if !body.is_end_stream() && !waits {
            body::drain(body).await;
        }
        self.metrics.ingest_requests.with(label, Code::of(answer.status())).inc();
        if matches!(label, RouteLabel::Events | RouteLabel::Batch) {
            self.metrics.ingest_duration.with(label).observe(started.elapsed().as_secs_f64());
        }
        answer
    }

    fn refused(&self, refusal: &answer::Refusal) {
        let Some((why, events)) = refusal.why() else { return };
        self.metrics.rejected.with(why).inc_by(events);
        let what = format!("http_{}", refusal.answer.status().as_u16());
        self.door.note(door::Kind::Refusal, &what, refusal.fields.clone(), 1, self.clock.now());
        tracing::warn!(event = "request_refused", reason = why.as_str(), "a request was refused");
    }

    async fn dispatch(
        &self,
        head: &Parts,
        route: Option<Route<'_>>,
        body: &mut Incoming,
    ) -> Result<Answer, Box<answer::Refusal>> {
        let route = route.ok_or_else(|| answer::not_found("no such path"))?;
        let allowed = route.methods();
        if !allowed.contains(&head.method) {
            return Err(answer::method_not_allowed(allowed));
        }
        match route {
            Route::Events => self.post(head, body, outbox::Route::Events).await,
            Route::Batch => self.post(head, body, outbox::Route::Batch).await,
            Route::Token => self.token(head, body).await,
            Route::Event(id) => self.event(id).await,
            Route::Outbox => Ok(self.outbox_state()),
            Route::OpenApi => Ok(answer::json(Bytes::from_static(OPENAPI.as_bytes()))),
            Route::Read | Route::Depersonalize => self.read(head).await,
        }
    }

    /// Hands a read on: method, URI and `Cache-Control` only. HEAD is asked for as GET; its body is cut when it is sent.
    async fn read(&self, head: &Parts) -> Result<Answer, Box<answer::Refusal>> {
        let reads = self.reads.as_ref().ok_or_else(|| answer::not_found("reads are not served here"))?;
        let mut request = Request::new(());
        *request.method_mut() = if head.method == Method::HEAD { Method::GET } else { head.method.clone() };
        *request.uri_mut() = head.uri.clone();
        for value in head.headers.get_all(CACHE_CONTROL) {
            request.headers_mut().append(CACHE_CONTROL, value.clone());
        }
        Ok(reads(request).await)
    }
}

/// Builds an answer's body.
fn full(body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::new(Full::new(body.into()))
}
