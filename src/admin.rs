//! The control API: what operators and the CLI ask of a running relay.
//!
//! | call | what it does |
//! | --- | --- |
//! | `GET /` | the operator's page |
//! | `GET /api/status` | ledger, queue, state |
//! | `GET /api/events?state=&user=&reason=&after=&limit=&reveal=` | a page of waiting and dead events |
//! | `GET /api/events/{id}?reveal=` | one event with its last attempts |
//! | `GET /api/export?state=&user=&reason=&reveal=` | events as NDJSON |
//! | `POST /api/events/{id}/replay`, `…/discard` | one dead letter |
//! | `POST /api/replay`, `/api/discard` | `{"ids": […]}` or `{"filter": {…}, "dry_run": true}` |
//! | `POST /api/pause`, `/api/resume`, `/api/drain`, `/api/quit` | the flow; a pause may have `{"seconds": n}` |
//! | `PUT /api/log-level` | `{"level": "debug", "seconds": n}`; without seconds for good |
//!
//! Who asks decides what is allowed ([`Access`]): the unix socket may do everything; on TCP, reads are
//! redacted, and changes of state and revealing need the bearer of `admin.token_file`.

mod access;
mod events;
mod log_level;
mod page;
mod reply;
mod routes;
pub mod view;

pub use access::Access;
pub use log_level::LogLevel;

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

use crate::clock::Clock;
use crate::forwarder;
use crate::outbox::{DeadLetters, Outbox};

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

/// What the control API acts on.
pub struct Parts {
    /// The queue.
    pub outbox: Arc<dyn Outbox>,
    /// Its dead letters.
    pub dead: Arc<dyn DeadLetters>,
    /// Who empties it.
    pub forwarder: forwarder::Handle,
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
