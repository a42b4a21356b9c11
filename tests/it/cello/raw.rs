//! Peers that speak HTTP byte by byte, so that they can speak it badly.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::EVENT;

/// What follows on a request.
pub(crate) struct Say {
    pub(crate) bytes: Vec<u8>,
    pub(crate) then: Then,
}

/// What follows on an answer.
pub(crate) enum Then {
    /// The next request on the connection.
    Listen,
    /// The end of the connection.
    Close,
    /// These bytes, again and again, until the client leaves.
    Repeat(&'static [u8]),
}

pub(crate) fn say(bytes: impl AsRef<[u8]>, then: Then) -> Say {
    Say { bytes: bytes.as_ref().to_vec(), then }
}

/// Says what to do about the n-th request of all, from 1; of an HTTP/2 connection, also the stream's id.
pub(crate) type Script = dyn Fn(usize, u32) -> Say + Send + Sync;

/// A listening peer; ends with the test's runtime.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicUsize>,
}

impl Peer {
    /// Plain HTTP/1.1.
    pub(crate) async fn http1(script: impl Fn(usize, u32) -> Say + Send + Sync + 'static) -> Self {
        Self::listen(None, Arc::new(script)).await
    }

    /// HTTP/2, behind TLS.
    pub(crate) async fn http2(tls: TlsAcceptor, script: impl Fn(usize, u32) -> Say + Send + Sync + 'static) -> Self {
        Self::listen(Some(tls), Arc::new(script)).await
    }

    async fn listen(tls: Option<TlsAcceptor>, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, requests) = (listener.local_addr().unwrap(), Arc::default());
        let count = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (tls, count, script) = (tls.clone(), Arc::clone(&count), Arc::clone(&script));
                tokio::spawn(async move {
                    match tls {
                        None => serve_http1(socket, &count, &*script).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(socket).await {
                                serve_http2(stream, &count, &*script).await;
                            }
                        }
                    }
                });
            }
        });
        Self { address, requests }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that came in whole.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve_http1(mut socket: impl AsyncRead + AsyncWrite + Unpin, count: &AtomicUsize, script: &Script) {
    let mut read = Vec::new();
    loop {
        while !read.ends_with(EVENT.as_bytes()) {
            if !socket.read_buf(&mut read).await.is_ok_and(|read| read > 0) {
                return;
            }
        }
        read.clear();
        let number = count.fetch_add(1, Ordering::SeqCst) + 1;
        if !follow(&mut socket, script(number, 0)).await {
            return;
        }
    }
}

/// Whether the connection goes on.
async fn follow(socket: &mut (impl AsyncWrite + Unpin), say: Say) -> bool {
    let said = socket.write_all(&say.bytes).await.is_ok() && socket.flush().await.is_ok();
    match say.then {
        Then::Listen => said,
        Then::Close => {
            // The client may have left first.
            socket.shutdown().await.ok();
            false
        }
        Then::Repeat(bytes) => {
            while socket.write_all(bytes).await.is_ok() {}
            false
        }
    }
}

const PREFACE: usize = 24;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

async fn serve_http2(mut socket: impl AsyncRead + AsyncWrite + Unpin, count: &AtomicUsize, script: &Script) {
    let mut preface = [0; PREFACE];
    if socket.read_exact(&mut preface).await.is_err()
        || !follow(&mut socket, say(frame(SETTINGS, 0, 0, &[]), Then::Listen)).await
    {
        return;
    }
    loop {
        let mut head = [0; 9];
        if socket.read_exact(&mut head).await.is_err() {
            return;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        if socket.read_exact(&mut payload).await.is_err() {
            return;
        }
        let (kind, flags) = (head[3], head[4]);
        let reply = match kind {
            SETTINGS | PING if flags & ACK == 0 => {
                let echo: &[u8] = if kind == PING { &payload } else { &[] };
                say(frame(kind, ACK, 0, echo), Then::Listen)
            }
            HEADERS | DATA if flags & END_STREAM != 0 => {
                let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
                script(count.fetch_add(1, Ordering::SeqCst) + 1, stream)
            }
            _ => continue,
        };
        if !follow(&mut socket, reply).await {
            return;
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A 200 without a body.
pub(crate) fn ok(stream: u32) -> Vec<u8> {
    // `:status: 200` is an entry of HPACK's static table.
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x88])
}

/// Another status, as an interim answer.
pub(crate) fn interim(stream: u32, status: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &[&[0x08, 3], status.as_bytes()].concat())
}

/// The connection ends; of what came, streams up to `last` were or may be worked on.
pub(crate) fn go_away(last: u32, error: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[last.to_be_bytes(), error.to_be_bytes()].concat())
}

pub(crate) fn reset(stream: u32, error: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &error.to_be_bytes())
}

/// The start of a head that has no end …
pub(crate) fn endless_head(stream: u32) -> Vec<u8> {
    frame(HEADERS, 0, stream, &[0x88])
}

/// … and how it goes on for stream 1: `x: aaa…`, as a literal that is not remembered.
pub(crate) const MORE_OF_A_HEAD: &[u8] = &[
    0,
    0,
    16,
    CONTINUATION,
    0,
    0,
    0,
    0,
    1,
    0,
    1,
    b'x',
    12,
    b'a',
    b'a',
    b'a',
    b'a',
    b'a',
    b'a',
    b'a',
    b'a',
    b'a',
    b'a',
    b'a',
    b'a',
];
