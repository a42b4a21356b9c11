//! The control API: what operators and the CLI ask of a running relay.
//!
//! | call | what it does |
//! | --- | --- |
//! | `GET /` | the operator's page |
//! | `GET /api/status` | everything: state, reasons, ledger, queue, upstream, token, rates |
//! | `GET /api/dead` | dead letters by reason, with what to do |
//! | `GET /api/events?state=&user=&reason=&older_than=&newer_than=&after=&limit=&reveal=` | a page of waiting and dead events |
//! | `GET /api/events/{id}?reveal=` | one event with its last attempts |
//! | `GET /api/export?ids=` or `?state=&user=&reason=&older_than=&newer_than=&after=&limit=`, `&reveal=` | events as NDJSON |
//! | `POST /api/events/{id}/replay`, `…/discard` | one dead letter; `{"dry_run": true}`, a replay also with `may_duplicate`, `canary` |
//! | `POST /api/replay`, `/api/discard` | `{"ids": […]}` or `{"filter": {…}}`, with `"dry_run": true`; a replay also with `may_duplicate`, `canary`, `per_second` |
//! | `POST /api/erase` | `{"user": "…", "dry_run": true}`, `"yes": true` if events wait |
//! | `POST /api/pause`, `/api/resume`, `/api/drain`, `/api/quit` | the flow; a pause may have `{"seconds": n}` |
//! | `PUT /api/log-level` | `{"level": "debug", "seconds": n}`; without seconds for good |
//! | `GET /openapi.json` | all of this as an OpenAPI document |
//!
//! A canary, a pace, or `Accept: application/x-ndjson` make the answer to a replay or discard a line of progress
//! every quarter of a second, the last one with `"done": true`; such an order ends when its reader leaves.
//!
//! Who asks decides what is allowed ([`Access`]): the unix socket may do everything; on TCP, reads are
//! redacted, and changes of state and revealing need the bearer of `admin.token_file`.

mod access;
pub mod audit;
mod dead;
mod decide;
mod events;
mod export;
mod fields;
#[cfg(fuzzing)]
pub mod fuzzing;
mod log_level;
mod order;
mod page;
pub mod pause;
pub mod reasons;
mod reply;
mod routes;
pub mod snapshot;
mod status;
mod stepwise;
pub mod view;
mod watcher;

pub use access::{Access, token_file_warning};
pub(crate) use export::LEFT_OUT;
pub use log_level::LogLevel;
pub use pause::PauseFile;
pub use routes::ROUTES;
pub use snapshot::{About, Auth};
pub use watcher::Watch;

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use tokio::sync::watch;

use crate::cello::Cello;
use crate::clock::{Clock, Timestamp};
use crate::forwarder;
use crate::ingress::door::Door;
use crate::metrics::{Metrics, Phase};
use crate::outbox::{DeadLetters, Outbox};

/// The OpenAPI 3.1 document of this API.
pub const OPENAPI: &str = include_str!("admin/openapi.json");

/// `admin.*`
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen on TCP.
    pub listen: Vec<SocketAddr>,
    /// The control socket.
    pub socket: PathBuf,
    /// A file with the bearer token that changes of state need on TCP.
    pub token_file: Option<PathBuf>,
    /// Lets `POST /api/quit` end the relay.
    pub allow_quit: bool,
}

/// Keeps the rates and tells the log of reasons that come and go, for ever.
pub async fn watch(parts: Arc<Parts>) {
    watcher::run(parts).await;
}

/// What the control API acts on.
pub struct Parts {
    /// The queue.
    pub outbox: Arc<dyn Outbox>,
    /// Its dead letters.
    pub dead: Arc<dyn DeadLetters>,
    /// Who empties it.
    pub forwarder: forwarder::Handle,
    /// Who knows the token and Cello's clock.
    pub cello: Arc<Cello>,
    /// Who knows what was refused and warned about.
    pub door: Door,
    /// What happened how often.
    pub metrics: Arc<Metrics>,
    /// What only shows over time.
    pub watch: Watch,
    /// What does not change.
    pub about: About,
    /// Where this process is in its life.
    pub phase: watch::Receiver<Phase>,
    /// When this process began.
    pub started_at: Timestamp,
    /// Where a pause is kept over restarts.
    pub pause_file: PauseFile,
    /// Pausing and resuming, one at a time: file and forwarder must agree.
    pub steering: tokio::sync::Mutex<()>,
    /// How much is logged.
    pub log_level: LogLevel,
    /// Ages are told by it.
    pub clock: Arc<dyn Clock>,
    /// Told when a drain begins.
    pub drain: Arc<dyn Fn() + Send + Sync>,
    /// Told to end the relay; `None` while `admin.allow_quit` is off.
    pub quit: Option<watch::Sender<bool>>,
}

/// The control API as one kind of listener offers it.
#[derive(Clone)]
pub struct Admin {
    parts: Arc<Parts>,
    access: Arc<Access>,
}

impl Admin {
    /// The API over `parts`, for whom `access` lets in.
    #[must_use]
    pub fn new(parts: Arc<Parts>, access: Access) -> Self {
        Self { parts, access: Arc::new(access) }
    }
}

impl Service<Request<Incoming>> for Admin {
    type Response = Response<reply::Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let (parts, access) = (self.parts.clone(), self.access.clone());
        Box::pin(async move {
            Ok(routes::answer(&parts, &access, request).await.unwrap_or_else(reply::Refusal::into_response))
        })
    }
}
