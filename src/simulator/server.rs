//! The listener: HTTP/1.1, and HTTP/2 where TLS agrees on it.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::api::Cello;
use super::wire::{ResetFlag, Wire};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1_024;
/// Connections at the same time; more wait.
const MAX_CONNECTIONS: usize = 10_000;
/// What a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// What requests under way may take once the listener is closed.
const GRACE: Duration = Duration::from_secs(1);
/// A pause after a failed accept (out of descriptors), so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A certificate chain and its key, both PEM.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Opens the socket without waiting for anything.
pub(super) fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Reads certificate and key; what is wrong with them is `InvalidInput`.
pub(super) fn tls(files: &TlsFiles) -> io::Result<TlsAcceptor> {
    let bad = |path: &Path, error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{}: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(&files.cert).map_err(|error| bad(&files.cert, &error))?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(|error| bad(&files.cert, &error))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| bad(&files.key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
    let mut config = config.map_err(|error| bad(&files.cert, &error))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts and serves until told to stop; then ends what is idle, and soon everything.
pub(super) async fn run(listener: TcpListener, tls: Option<TlsAcceptor>, cello: Arc<Cello>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = cello.stopped() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                Ok((stream, _)) => { connections.spawn(serve(stream, tls.clone(), Arc::clone(&cello))); }
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
        }
    }
    drop(listener);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        connections.shutdown().await;
    }
}

async fn serve(stream: TcpStream, tls: Option<TlsAcceptor>, cello: Arc<Cello>) {
    // Without it answers are only slower.
    stream.set_nodelay(true).ok();
    let reset = ResetFlag::default();
    let wire = Wire::new(stream, reset.clone());
    let Some(tls) = tls else { return serve_http1(wire, reset, cello).await };
    let handshake = tokio::time::timeout(HANDSHAKE, tls.accept(wire));
    let accepted = tokio::select! {
        accepted = handshake => accepted,
        () = cello.stopped() => return,
    };
    let Ok(Ok(stream)) = accepted else { return };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        serve_http2(stream, cello).await;
    } else {
        serve_http1(stream, reset, cello).await;
    }
}

async fn serve_http1(stream: impl AsyncRead + AsyncWrite + Unpin, reset: ResetFlag, cello: Arc<Cello>) {
    let answer = |request: Request<Incoming>| {
        let (cello, reset) = (Arc::clone(&cello), reset.clone());
        async move { cello.call(request).await.inspect_err(|_| reset.raise()) }
    };
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
    let mut connection = pin!(connection);
    // How a connection ended is of no interest here: faults end many on purpose.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = cello.stopped() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.ok();
}

/// Without a reset flag: an unanswered request resets its stream, not the connection.
async fn serve_http2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, cello: Arc<Cello>) {
    let answer = |request: Request<Incoming>| {
        let cello = Arc::clone(&cello);
        async move { cello.call(request).await }
    };
    let builder = http2::Builder::new(TokioExecutor::new());
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service_fn(answer)));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = cello.stopped() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.ok();
}
