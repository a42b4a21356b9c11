//! Accept loop, limits and graceful close: used by every listener.
//!
//! HTTP/1.1 with keep-alive and pipelining. What a client may cost is bounded: connections, a head's
//! size and time, silence. A panic in a handler is answered with 500; the process's
//! panic hook counts it.

mod bearer;
mod bind;
pub mod body;
mod connection;
mod guard;
pub(crate) mod host;
mod watched;

use std::convert::Infallible;
use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::service::Service;
use hyper::{Request, Response};
use prometheus::IntGauge;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

pub(crate) use bearer::bearer;
pub use bind::bind;

/// How long requests under way may take after the listeners were closed: what a commit takes, many times over.
/// An ending relay empties its outbox only then.
const FINISH_WITHIN: Duration = Duration::from_secs(2);

/// Wait after an accept that failed for want of something (file descriptors, memory), doubled up to
/// [`ACCEPT_RETRY_MAX`].
const ACCEPT_RETRY_MIN: Duration = Duration::from_millis(20);

/// The longest such wait.
const ACCEPT_RETRY_MAX: Duration = Duration::from_secs(1);

/// What a listener allows a client.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time; more wait in the kernel's queue.
    pub max_connections: usize,
    /// Time to send a request's head.
    pub header_timeout: Duration,
    /// How long a connection may be silent.
    pub idle_timeout: Duration,
}

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// A Unix socket.
    Unix(UnixListener),
}

impl Listener {
    fn poll_accept(&self, context: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        match self {
            Listener::Tcp(listener) => listener.poll_accept(context).map_ok(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(listener) => listener.poll_accept(context).map_ok(|(stream, _)| Stream::Unix(stream)),
        }
    }
}

impl From<TcpListener> for Listener {
    fn from(listener: TcpListener) -> Self {
        Listener::Tcp(listener)
    }
}

impl From<UnixListener> for Listener {
    fn from(listener: UnixListener) -> Self {
        Listener::Unix(listener)
    }
}

/// [`serve_counted`] without counting.
pub async fn serve<S, B>(listeners: Vec<Listener>, service: S, limits: Limits, stop: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + Unpin + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    serve_counted(listeners, service, limits, None, stop).await;
}

/// Answers connections until `stop` turns true (or its sender is gone); then closes the listeners,
/// finishes requests under way with `Connection: close`, closes idle connections and returns when all
/// are gone, or after [`FINISH_WITHIN`]. Open ones are counted in `connections`.
pub async fn serve_counted<S, B>(
    listeners: Vec<Listener>,
    service: S,
    limits: Limits,
    connections: Option<IntGauge>,
    stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + Unpin + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let room = limits.max_connections.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
    let places = Arc::new(Semaphore::new(room));
    accept(listeners, service, limits, connections, &places, stop).await;
    // Every connection holds a place, so all places free means all connections gone.
    let all_gone = places.acquire_many(room as u32);
    if tokio::time::timeout(FINISH_WITHIN, all_gone).await.is_err() {
        let open = room - places.available_permits();
        tracing::warn!(
            event = "connections_dropped",
            connections = open,
            "requests were still under way when the listener closed, and are dropped"
        );
    }
}

/// Accepts on all listeners until told to stop; then they are closed.
async fn accept<S, B>(
    listeners: Vec<Listener>,
    service: S,
    limits: Limits,
    connections: Option<IntGauge>,
    places: &Arc<Semaphore>,
    stop: watch::Receiver<bool>,
) where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + Unpin + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut stopping = stop.clone();
    let told = stopping.wait_for(|stop| *stop);
    tokio::pin!(told);
    let mut retry_in = ACCEPT_RETRY_MIN;
    for turn in 0.. {
        let (place, accepted) = tokio::select! {
            _ = &mut told => return,
            next = next(&listeners, turn, places) => next,
        };
        let served = connection::Served { limits, connections: connections.clone(), stop: stop.clone(), place };
        match accepted {
            Ok(Stream::Tcp(stream)) => {
                retry_in = ACCEPT_RETRY_MIN;
                // Small answers must not wait for an acknowledgement. Fails only on a dead socket.
                stream.set_nodelay(true).ok();
                tokio::spawn(served.run(stream, service.clone()));
            }
            Ok(Stream::Unix(stream)) => {
                retry_in = ACCEPT_RETRY_MIN;
                tokio::spawn(served.run(stream, service.clone()));
            }
            Err(error) if is_clients_fault(&error) => {}
            Err(error) => {
                drop(served);
                tracing::warn!(event = "accept_failed", %error, retry_ms = retry_in.as_millis() as u64, "cannot accept connections");
                tokio::select! {
                    _ = &mut told => return,
                    () = tokio::time::sleep(retry_in) => {}
                }
                retry_in = (retry_in * 2).min(ACCEPT_RETRY_MAX);
            }
        }
    }
}

/// An accepted connection.
enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(tokio::net::UnixStream),
}

/// Waits for a free place first: a full relay leaves new connections in the kernel's queue. Each listener is the first
/// that is looked at in its turn, so that none keeps the others' waiting.
async fn next(
    listeners: &[Listener],
    turn: usize,
    places: &Arc<Semaphore>,
) -> (OwnedSemaphorePermit, io::Result<Stream>) {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    let (before, after) = listeners.split_at(turn.checked_rem(listeners.len()).unwrap_or(0));
    let accepted = poll_fn(|context| {
        let mut polled = after.iter().chain(before).map(|listener| listener.poll_accept(context));
        polled.find(Poll::is_ready).unwrap_or(Poll::Pending)
    });
    (place, accepted.await)
}

/// The connection was gone before it was accepted; the listener is fine.
fn is_clients_fault(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}
