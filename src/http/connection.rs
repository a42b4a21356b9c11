//! One connection, from its first byte to its end.

use std::convert::Infallible;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::Limits;
use super::guard::Guard;
use super::watched::{Activity, Watched, WatchedStream};
use crate::metrics::Counted;

/// The largest head, and the most that is read ahead of a body's reader.
const BUFFER: usize = 16 * 1024;

/// What a connection is served with.
pub(super) struct Served {
    pub(super) limits: Limits,
    /// How many are open, where somebody wants to know.
    pub(super) connections: Option<IntGauge>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) place: OwnedSemaphorePermit,
}

impl Served {
    /// Serves until the client leaves, is silent for too long, or all are told to stop.
    pub(super) async fn run<S, B, I>(mut self, stream: I, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible, Future: Unpin>,
        I: WatchedStream,
        B: Body<Data = Bytes> + 'static,
        B::Error: Into<Box<dyn Error + Send + Sync>>,
    {
        let _counted = self.connections.as_ref().map(Counted::on);
        // No buffer is made for a connection that is opened and never used.
        let first_byte = tokio::time::timeout(self.limits.idle_timeout, stream.readable());
        let usable = tokio::select! {
            // What has come already is answered, also at the end.
            biased;
            usable = first_byte => matches!(usable, Ok(Ok(()))),
            () = told(&mut self.stop) => false,
        };
        if !usable {
            return;
        }
        let activity = Arc::new(Activity::default());
        let stream = Watched::new(stream, self.limits, Arc::clone(&activity));
        let guarded = Guard::new(service, activity);
        let mut http = http1::Builder::new();
        // No `pipeline_flush`: with it hyper closes without flushing while unread bytes are buffered.
        http
            // `Watched` keeps the time, for heads too: hyper's own timer would also end idle connections
            // and is made anew for every request.
            .header_read_timeout(None)
            // A client that has sent everything may close its half, or leave: its request is still answered
            // and never dropped under way.
            .half_close(true)
            .max_buf_size(BUFFER);
        let mut connection = pin!(http.serve_connection(TokioIo::new(stream), guarded));
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = told(&mut self.stop) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::trace!(%error, "a connection ended early");
        }
        drop(self.place);
    }
}

/// Waits for the word to stop, or for nobody being left to say it.
async fn told(stop: &mut watch::Receiver<bool>) {
    stop.wait_for(|stop| *stop).await.ok();
}
