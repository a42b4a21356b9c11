//! A small server for tests: answers from a script and remembers what arrived.

use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};

use super::client::Endpoint;

/// A request as it arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Method and path with query.
    pub(super) line: String,
    /// `Idempotency-Key`
    pub(super) key: String,
    pub(super) body: String,
}

pub(super) type Arrived = Arc<Mutex<Vec<Seen>>>;
/// Status and body, in turn; the last one for ever.
pub(super) type Script = Vec<(u16, &'static str)>;

pub(super) struct Scripted {
    pub(super) endpoint: Endpoint,
    pub(super) arrived: Arrived,
}

impl Scripted {
    pub(super) async fn on_tcp(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::Tcp(vec![listener.local_addr().unwrap()]);
        let (arrived, script) = (Arrived::default(), Arc::new(Mutex::new(script)));
        let seen = Arc::clone(&arrived);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, Arc::clone(&seen), Arc::clone(&script));
            }
        });
        Self { endpoint, arrived }
    }

    pub(super) fn on_socket(path: &Path, script: Script) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        let (arrived, script) = (Arrived::default(), Arc::new(Mutex::new(script)));
        let seen = Arc::clone(&arrived);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serve(stream, Arc::clone(&seen), Arc::clone(&script));
            }
        });
        Self { endpoint: Endpoint::Socket(path.to_owned()), arrived }
    }

    /// Method, path and body of what arrived.
    pub(super) fn requests(&self) -> Vec<(String, String)> {
        let arrived = self.arrived.lock().unwrap();
        arrived.iter().map(|seen| (seen.line.clone(), seen.body.clone())).collect()
    }
}

fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(stream: S, seen: Arrived, script: Arc<Mutex<Script>>) {
    let service = service_fn(move |request| answer(request, Arc::clone(&seen), Arc::clone(&script)));
    tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
}

#[expect(clippy::disallowed_methods, reason = "bounded by Limited")]
async fn answer(
    request: Request<Incoming>,
    seen: Arrived,
    script: Arc<Mutex<Script>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let line = format!("{} {}", request.method(), request.uri());
    let key = request.headers().get("idempotency-key").map(|key| key.to_str().unwrap().to_owned());
    let body = Limited::new(request.into_body(), 1 << 20).collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    seen.lock().unwrap().push(Seen { line, key: key.unwrap_or_default(), body });
    let mut script = script.lock().unwrap();
    let (status, body) = if script.len() > 1 { script.remove(0) } else { script[0] };
    let answer = Response::builder().status(StatusCode::from_u16(status).unwrap()).header("retry-after", "0");
    Ok(answer.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap())
}
