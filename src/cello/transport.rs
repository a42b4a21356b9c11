//! One HTTP call: bounded in time and size, redirects not followed, failures classified.
//!
//! The question that matters after a failure is whether the request may have reached Cello
//! ([`TransportError::sent`]). It has not while no connection was assigned to it, nor when hyper hands it
//! back unwritten, as it does when a pooled connection turns out to be closed (and then it tries the
//! next one by itself), nor when an HTTP/2 peer says that it did nothing for it: a GOAWAY that ends below
//! its stream, or REFUSED_STREAM. Peers do so whenever they retire a connection, for all calls on it at
//! once, so such a call is sent again, once, before anybody hears of it.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT,
};
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Request};
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Client, ResponseFuture};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, timeout_at};
use tower::Service;
use zeroize::Zeroizing;

use super::answer::{self, Answer};
use super::base::Base;
use super::berth::Berth;
use super::connector::{ConnectError, Connector};
use super::skew::Skew;
use super::{BuildError, Settings, wiped};
use crate::clock::Clock;
use crate::event::EventId;
use crate::metrics::Operation;

/// Bytes of an answer's head.
const MAX_HEAD: usize = 64 * 1024;
/// A silent HTTP/2 connection with calls on it is asked for a sign of life so often; without one it
/// is dropped. Otherwise a path that went dead would fail every call until TCP gives up.
const PING_EVERY: Duration = Duration::from_secs(5);
const PONG_WITHIN: Duration = Duration::from_secs(5);

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("cello-relay/", env!("CARGO_PKG_VERSION")));
const SCHEME: &[u8] = b"Bearer ";
/// Nothing here unpacks answers. Without a word of it a proxy on the way may pack them.
const UNPACKED: HeaderValue = HeaderValue::from_static("identity");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A call to Cello, without the base URL and without its token, which the stack adds.
#[derive(Clone)]
pub struct Call {
    /// What it is counted as.
    pub operation: Operation,
    /// The method.
    pub method: Method,
    /// The path below the base URL, already encoded.
    pub path: PathAndQuery,
    /// A JSON body.
    pub body: Option<Bytes>,
    /// Sent as `Idempotency-Key`.
    pub key: Option<EventId>,
    /// For connecting, sending and reading the answer together; a token is waited for as long again.
    pub timeout: Duration,
    /// Sent once, whatever comes: not again after a 401 either.
    pub once: bool,
    /// Told, should the call be dropped.
    pub departed: Option<Departed>,
    /// The access token; set by the stack.
    pub(super) token: Option<SecretString>,
}

/// Whether a call that was dropped before its answer may have reached Cello; known once it is dropped.
#[derive(Clone, Debug, Default)]
pub struct Departed(Arc<AtomicBool>);

impl Departed {
    /// It may have.
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether it may have.
    #[must_use]
    pub fn is_noted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is under way, and by which connection, until it has ended.
struct UnderWay<'a> {
    connection: &'a CaptureConnection,
    departed: Option<&'a Departed>,
}

impl UnderWay<'_> {
    /// A connection was given to it, so it may have been written.
    fn is_assigned(&self) -> bool {
        self.connection.connection_metadata().is_some()
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(departed) = self.departed
            && self.is_assigned()
        {
            departed.note();
        }
    }
}

/// Shows no personal data: paths of reads hold user ids.
impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("operation", &self.operation)
            .field("method", &self.method)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl Call {
    /// A call without a body.
    #[must_use]
    pub fn new(operation: Operation, method: Method, path: PathAndQuery, timeout: Duration) -> Self {
        Self { operation, method, path, body: None, key: None, timeout, once: false, departed: None, token: None }
    }

    /// The same with a JSON body.
    #[must_use]
    pub fn with_json(self, body: Bytes) -> Self {
        Self { body: Some(body), ..self }
    }

    /// The same, never sent a second time.
    #[must_use]
    pub fn once(self) -> Self {
        Self { once: true, ..self }
    }

    /// The same, of which is known whether it has left should it be dropped.
    #[must_use]
    pub fn telling(self, departed: Departed) -> Self {
        Self { departed: Some(departed), ..self }
    }

    /// The same with an `Idempotency-Key`.
    #[must_use]
    pub fn with_key(self, key: EventId) -> Self {
        Self { key: Some(key), ..self }
    }
}

/// No (complete) answer came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer ({fault:?})")]
pub struct TransportError {
    /// What went wrong.
    pub fault: Fault,
    /// The request may have been written, so Cello may have acted on it.
    pub sent: bool,
}

/// What can go wrong on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The host's name was not resolved.
    Dns,
    /// No connection was made.
    Connect,
    /// The TLS handshake failed.
    Tls,
    /// The time was over.
    Timeout,
    /// The connection broke, or what came was not HTTP.
    Reset,
}

/// The client below all layers. Clones share their connections.
#[derive(Clone)]
pub(super) struct Transport(Arc<Wire>);

/// What clones share: every layer clones what is below it for every call.
struct Wire {
    client: Client<Connector, Full<Bytes>>,
    base: Base,
    clock: Arc<dyn Clock>,
    skew: Skew,
}

impl Transport {
    pub(super) fn new(
        settings: &Settings,
        berth: Berth,
        clock: Arc<dyn Clock>,
        skew: Skew,
    ) -> Result<Self, BuildError> {
        let base = Base::parse(&settings.base_url)?;
        let connector = Connector::new(settings, &base, berth.clone())?;
        let client = Client::builder(berth.clone())
            .timer(berth.clone())
            .pool_timer(berth)
            // All that fall idle are kept so long: about as many as there are calls at the same time. With a bound, each
            // call beyond it would open one of its own.
            .pool_idle_timeout(settings.pool_idle)
            .http1_max_buf_size(MAX_HEAD)
            // `http1_writev` stays on: copied together with their heads, requests with keys would lie in the
            // buffers of connections.
            // The bound of 100 headers is hyper's own: one that is set makes it clear a list of so many for each answer.
            .http2_max_header_list_size(MAX_HEAD as u32)
            .http2_keep_alive_interval(PING_EVERY)
            .http2_keep_alive_timeout(PONG_WITHIN)
            .retry_canceled_requests(true)
            .build(connector);
        Ok(Self(Arc::new(Wire { client, base, clock, skew })))
    }
}

impl Wire {
    async fn send(&self, call: &Call) -> Result<Answer, TransportError> {
        let deadline = Instant::now() + call.timeout;
        match self.exchange(call, deadline).await {
            Err(TransportError { fault: Fault::Reset, sent: false }) if !call.once => {
                self.exchange(call, deadline).await
            }
            result => result,
        }
    }

    async fn exchange(&self, call: &Call, deadline: Instant) -> Result<Answer, TransportError> {
        let Some((response, connection)) = self.ask(call) else {
            return Err(TransportError { fault: Fault::Connect, sent: false });
        };
        let mut under_way = UnderWay { connection: &connection, departed: call.departed.as_ref() };
        let exchange = async {
            let mut response = response.await.map_err(|error| classify(&error, under_way.is_assigned()))?;
            self.skew.see(response.headers(), self.clock.now());
            let read = answer::read(&mut response, self.clock.now()).await;
            read.map_err(|_| TransportError { fault: Fault::Reset, sent: true })
        };
        let ended = timeout_at(deadline, exchange).await;
        // It was not dropped, and what came of it says more.
        under_way.departed = None;
        ended.unwrap_or_else(|_| Err(TransportError { fault: Fault::Timeout, sent: under_way.is_assigned() }))
    }

    /// The response to come, and which connection it comes by; `None` if there can be no request.
    fn ask(&self, call: &Call) -> Option<(ResponseFuture, CaptureConnection)> {
        let mut request = self.request(call)?;
        let connection = capture_connection(&mut request);
        Some((self.client.request(request), connection))
    }

    /// The request on the wire; `None` if its URL would be too long to be one.
    fn request(&self, call: &Call) -> Option<Request<Full<Bytes>>> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = call.method.clone();
        *request.uri_mut() = self.base.join(&call.path)?;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, AGENT);
        headers.insert(ACCEPT_ENCODING, UNPACKED);
        if let Some(key) = call.key {
            let mut text = [0; EventId::TEXT_BYTES];
            let key = HeaderValue::from_str(key.write_to(&mut text)).expect("a UUID is a valid header value");
            headers.insert(IDEMPOTENCY_KEY, key);
        }
        if let Some(token) = &call.token {
            headers.insert(AUTHORIZATION, bearer(token)?);
        }
        if let Some(body) = &call.body {
            headers.insert(CONTENT_TYPE, JSON);
            *request.body_mut() = Full::new(body.clone());
        } else if call.method != Method::GET {
            // hyper says no length of an empty body; some servers and proxies answer that with 411.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        Some(request)
    }
}

/// The `Authorization` header of a token; `None` if it has characters that no header may hold.
pub(super) fn bearer(token: &SecretString) -> Option<HeaderValue> {
    let token = token.expose_secret();
    let mut text = Zeroizing::new(Vec::with_capacity(SCHEME.len() + token.len()));
    text.extend_from_slice(SCHEME);
    text.extend_from_slice(token.as_bytes());
    let mut value = HeaderValue::from_maybe_shared(wiped::shared(text)).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// What a failed request means; `assigned`: a connection had been given to it.
fn classify(error: &(dyn Error + 'static), assigned: bool) -> TransportError {
    let mut unwritten = !assigned;
    for cause in std::iter::successors(Some(error), |&error| error.source()) {
        if let Some(ConnectError(fault)) = cause.downcast_ref() {
            return TransportError { fault: *fault, sent: false };
        }
        // hyper says so of a request that it hands back without having begun to write it.
        unwritten |= cause.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        unwritten |= cause.downcast_ref().is_some_and(was_passed_over);
    }
    TransportError { fault: Fault::Reset, sent: !unwritten }
}

/// The peer says that it did nothing for this stream. Of a GOAWAY only the streams beyond the last one
/// that it names hear as such; the others see how the connection ends.
fn was_passed_over(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.is_go_away() || (error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)))
}

impl Service<Call> for Transport {
    type Response = Answer;
    type Error = TransportError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, TransportError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> Self::Future {
        let wire = Arc::clone(&self.0);
        // Lent from here: an async function keeps what it is given by value twice.
        Box::pin(async move { wire.send(&call).await })
    }
}

#[cfg(test)]
mod tests {
    use hyper::client::conn::http1::handshake;
    use hyper_util::rt::TokioIo;

    use super::*;
    use crate::cello::wiped::remains::Place;

    #[test]
    fn a_header_with_a_token_is_overwritten_when_it_has_been_sent() {
        let token = "t".repeat(900);
        let header = bearer(&token.as_str().into()).unwrap();
        assert_eq!(header, format!("Bearer {token}"));
        assert!(header.is_sensitive());
        let (mut place, of_the_request) = (Place::of(header.as_bytes()), header.clone());
        drop(header);
        assert!(place.holds(&token));
        drop(of_the_request);
        assert!(!place.holds(&token[..64]));
    }

    #[tokio::test]
    async fn a_request_that_hyper_hands_back_unwritten_was_not_sent() {
        let (client, _server) = tokio::io::duplex(64);
        let (mut sender, connection) = handshake::<_, Full<Bytes>>(TokioIo::new(client)).await.unwrap();
        drop(connection);
        let error = sender.send_request(Request::new(Full::default())).await.unwrap_err();
        assert_eq!(classify(&error, true), TransportError { fault: Fault::Reset, sent: false });
    }

    #[tokio::test]
    async fn a_request_whose_connection_broke_may_have_been_sent_only_if_it_had_one() {
        let (client, server) = tokio::io::duplex(4096);
        let (mut sender, connection) = handshake::<_, Full<Bytes>>(TokioIo::new(client)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut request = std::pin::pin!(sender.send_request(Request::new(Full::default())));
        tokio::select! {
            biased;
            _ = &mut request => panic!("answered by nobody"),
            () = tokio::task::yield_now() => {}
        }
        drop(server);
        let error = request.await.unwrap_err();
        assert!(connection.await.is_ok());
        assert!(classify(&error, true).sent);
        assert!(!classify(&error, false).sent);
    }
}
