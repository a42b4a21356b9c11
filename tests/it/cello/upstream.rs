//! A scripted stand-in for Cello: answers as told, records every request.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

/// A request as received.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) version: Version,
    pub(crate) headers: hyper::HeaderMap,
    pub(crate) body: String,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// What to answer.
pub(crate) enum Reply {
    Answer(u16, Bytes),
    /// With one header.
    With(u16, &'static str, String),
    /// With a content type.
    Typed(u16, &'static str, Bytes),
    /// Never.
    Hang,
    /// The connection is closed instead.
    Reset,
}

impl Reply {
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self::Answer(status, Bytes::copy_from_slice(body.as_bytes()))
    }

    /// A token of Cello.
    pub(crate) fn token(token: &str, life: u32) -> Self {
        Self::json(201, &format!(r#"{{"accessToken":"{token}","expiresIn":{life},"refreshToken":"refresh-{token}"}}"#))
    }

    pub(crate) fn delivered() -> Self {
        Self::json(200, r#"{"success": true}"#)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::json(401, r#"{"message":"Unauthorized"}"#)
    }
}

type Script = dyn Fn(Seen) -> Pin<Box<dyn Future<Output = Reply> + Send>> + Send + Sync;

/// The server; ends with the test's runtime.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: watch::Receiver<usize>,
}

#[derive(Clone)]
struct Shared {
    script: Arc<Script>,
    seen: Arc<Mutex<Vec<Seen>>>,
    count: watch::Sender<usize>,
}

impl Upstream {
    /// Answers each request by `script`.
    pub(crate) async fn start<F>(script: impl Fn(Seen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        Self::listen(script, None).await
    }

    /// The same behind TLS, with HTTP/2 or 1.1.
    pub(crate) async fn start_tls<F>(tls: TlsAcceptor, script: impl Fn(Seen) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        Self::listen(script, Some(tls)).await
    }

    async fn listen<F>(script: impl Fn(Seen) -> F + Send + Sync + 'static, tls: Option<TlsAcceptor>) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, count) = watch::channel(0);
        let script: Arc<Script> = Arc::new(move |seen| Box::pin(script(seen)));
        let shared = Shared { script, seen: Arc::default(), count: sender };
        let seen = shared.seen.clone();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (shared, tls) = (shared.clone(), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(socket, false, shared).await,
                        Some(tls) => {
                            let Ok(stream) = tls.accept(socket).await else { return };
                            let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                            serve(stream, h2, shared).await;
                        }
                    }
                });
            }
        });
        Self { address, seen, count }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests to a path so far.
    pub(crate) fn seen(&self, path: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path == path).cloned().collect()
    }

    /// Every request that is not for a token.
    pub(crate) fn calls(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.path != "/token").cloned().collect()
    }

    /// Waits until a path was asked for so often.
    pub(crate) async fn saw(&self, path: &str, times: usize) -> Vec<Seen> {
        let mut count = self.count.clone();
        let enough = count.wait_for(|_| self.seen(path).len() >= times);
        let waited = tokio::time::timeout(std::time::Duration::from_secs(20), enough).await;
        assert!(waited.is_ok(), "{path} was asked for {} times, not {times}", self.seen(path).len());
        drop(waited);
        self.seen(path)
    }
}

async fn serve(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, h2: bool, shared: Shared) {
    let service = service_fn(move |request: Request<Incoming>| answer(request, shared.clone()));
    let io = TokioIo::new(io);
    // A client that leaves, or a reply that is a reset, is no failure of the script.
    if h2 {
        drop(hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await);
    } else {
        drop(hyper::server::conn::http1::Builder::new().serve_connection(io, service).await);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("reset")]
struct ResetNow;

async fn answer(request: Request<Incoming>, shared: Shared) -> Result<Response<Full<Bytes>>, ResetNow> {
    let (head, body) = request.into_parts();
    #[expect(clippy::disallowed_methods, reason = "the body is Limited")]
    let body = Limited::new(body, 1 << 20).collect().await.map_err(|_| ResetNow)?.to_bytes();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let target = head.uri.path_and_query().map_or("", |target| target.as_str()).to_owned();
    let method = head.method.to_string();
    let seen = Seen { method, path: target, version: head.version, headers: head.headers, body };
    shared.seen.lock().unwrap().push(seen.clone());
    shared.count.send_modify(|count| *count += 1);
    let response = Response::builder().header("apigw-requestid", "req-1=");
    let built = match (shared.script)(seen).await {
        Reply::Answer(status, body) => response.status(status).body(Full::new(body)),
        Reply::With(status, name, value) => response.status(status).header(name, value).body(Full::default()),
        Reply::Typed(status, kind, body) => response.status(status).header("content-type", kind).body(Full::new(body)),
        Reply::Hang => std::future::pending().await,
        Reply::Reset => return Err(ResetNow),
    };
    Ok(built.unwrap())
}
