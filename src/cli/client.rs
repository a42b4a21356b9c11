//! A small HTTP client for the relay itself, over its unix socket or TCP on this machine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::exit::{Exit, Failure};

/// More than any answer of the relay that is read whole.
const MAX_ANSWER: usize = 64 << 20;
/// Time for connecting and for an answer to begin: the relay is on this machine.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Where the relay listens.
#[derive(Clone, Debug)]
pub(super) enum Endpoint {
    Socket(PathBuf),
    /// Tried in turn.
    Tcp(Vec<SocketAddr>),
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Endpoint::Socket(path) => path.display().fmt(f),
            Endpoint::Tcp(addresses) => {
                let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
                f.write_str(&texts.join(", "))
            }
        }
    }
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("nobody answers there ({0})")]
    NoRelay(#[source] io::Error),
    #[error("that cannot be asked ({0}); what is too long for a query can be filtered out of `--json`")]
    Unaskable(#[source] hyper::http::Error),
    #[error("the connection broke ({0})")]
    Broken(#[from] hyper::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("the answer is too large or broke off")]
    Body,
}

/// An answer read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: hyper::HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// The JSON of a success, or a failure that says what the relay said.
    pub(super) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        if !self.status.is_success() {
            return Err(Failure::new(
                Exit::Unavailable,
                format!("the relay refused ({}): {}", self.status, self.message()),
            ));
        }
        let unexpected =
            |error| Failure::new(Exit::Unavailable, format!("the relay's answer is not understood: {error}"));
        serde_json::from_slice(&self.body).map_err(unexpected)
    }

    /// The `message` of an answer, or as much of it as fits a line.
    pub(super) fn message(&self) -> String {
        #[derive(serde::Deserialize)]
        struct Message {
            message: String,
        }
        match serde_json::from_slice(&self.body) {
            Ok(Message { message }) => message,
            Err(_) => String::from_utf8_lossy(&self.body).chars().take(200).collect(),
        }
    }
}

/// One kept-alive connection to the relay, made when first needed and again when it broke.
pub(super) struct Client {
    endpoint: Endpoint,
    bearer: Option<String>,
    /// Time for an answer to begin.
    patience: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
}

impl Client {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, bearer: None, patience: TIMEOUT, connection: None }
    }

    /// With this token on every request.
    pub(super) fn with_bearer(mut self, token: Option<String>) -> Self {
        self.bearer = token;
        self
    }

    /// Waiting so long for answers to begin: of what takes its time on purpose.
    pub(super) fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Where it connects to.
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// `GET path`
    pub(super) async fn get(&mut self, path: &str) -> Result<Answer, CallError> {
        self.call(Method::GET, path, &[], Bytes::new()).await
    }

    /// `POST path` with JSON.
    pub(super) async fn post(&mut self, path: &str, body: &serde_json::Value) -> Result<Answer, CallError> {
        let json = [(header::CONTENT_TYPE.as_str(), "application/json")];
        self.call(Method::POST, path, &json, body.to_string().into()).await
    }

    /// Any request, its answer read whole.
    pub(super) async fn call(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, CallError> {
        Self::whole(self.start(method, path, headers, body).await?).await
    }

    /// The rest of an answer.
    #[expect(clippy::disallowed_methods, reason = "bounded by Limited")]
    pub(super) async fn whole(answer: Response<Incoming>) -> Result<Answer, CallError> {
        let (head, body) = answer.into_parts();
        let whole = tokio::time::timeout(TIMEOUT, Limited::new(body, MAX_ANSWER).collect());
        let body = whole.await.map_err(|_| CallError::Timeout)?.map_err(|_| CallError::Body)?.to_bytes();
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// Any request; the answer's body is read by the caller.
    pub(super) async fn start(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Response<Incoming>, CallError> {
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.bearer {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(CallError::Unaskable)?;
        let patience = self.patience;
        let answer = tokio::time::timeout(patience, self.exchange(request)).await.unwrap_or(Err(CallError::Timeout));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, CallError> {
        let mut kept = self.connection.take();
        if let Some(connection) = &mut kept
            && connection.ready().await.is_err()
        {
            kept = None;
        }
        let connection = match kept {
            Some(connection) => connection,
            None => connect(&self.endpoint).await?,
        };
        Ok(self.connection.insert(connection).send_request(request).await?)
    }
}

async fn connect(endpoint: &Endpoint) -> Result<SendRequest<Full<Bytes>>, CallError> {
    match endpoint {
        Endpoint::Socket(path) => handshake(UnixStream::connect(path).await.map_err(CallError::NoRelay)?).await,
        Endpoint::Tcp(addresses) => {
            let mut failed = io::Error::new(io::ErrorKind::NotFound, "no address is configured");
            for address in addresses.iter().flat_map(|address| reachable(*address)) {
                match TcpStream::connect(address).await {
                    Ok(stream) => {
                        // A matter of latency; without it everything works all the same.
                        stream.set_nodelay(true).ok();
                        return handshake(stream).await;
                    }
                    Err(error) => failed = error,
                }
            }
            Err(CallError::NoRelay(failed))
        }
    }
}

/// A listener on every address is reached by loopback: where IPv6 is switched off, by that of IPv4 alone.
fn reachable(address: SocketAddr) -> Vec<SocketAddr> {
    let (v4, v6) = (IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST));
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => vec![(v4, address.port()).into()],
        IpAddr::V6(ip) if ip.is_unspecified() => vec![(v6, address.port()).into(), (v4, address.port()).into()],
        _ => vec![address],
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, CallError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the connection, whose errors reach the request that is under way.
    tokio::spawn(connection);
    Ok(sender)
}

/// `?a=b&c=d` of those that are set, encoded; empty if none is.
pub(super) fn query(parameters: &[(&str, Option<&str>)]) -> String {
    let set = parameters.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode((*value)?))));
    let joined = set.collect::<Vec<_>>().join("&");
    if joined.is_empty() { joined } else { format!("?{joined}") }
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_hold_what_is_set_encoded() {
        assert_eq!(
            query(&[("state", None), ("user", Some("a b&c/é")), ("limit", Some("5"))]),
            "?user=a%20b%26c%2F%C3%A9&limit=5"
        );
        assert_eq!(query(&[("state", None)]), "");
    }

    #[test]
    fn a_listener_on_every_address_is_reached_by_loopback() {
        let reach = |text: &str| reachable(text.parse().unwrap()).iter().map(SocketAddr::to_string).collect::<Vec<_>>();
        assert_eq!(reach("0.0.0.0:1"), ["127.0.0.1:1"]);
        assert_eq!(reach("[::]:1"), ["[::1]:1", "127.0.0.1:1"], "the second where there is no IPv6");
        assert_eq!(reach("10.0.0.1:1"), ["10.0.0.1:1"]);
    }
}
