//! The accept loop: limits, silence, the end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cello_relay::http::{self, Limits, Listener};
use cello_relay::metrics::Metrics;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use crate::wire::{Wire, ask, request};

const LIMITS: Limits =
    Limits { max_connections: 3000, header_timeout: Duration::from_secs(5), idle_timeout: Duration::from_secs(10) };

struct Server {
    at: SocketAddr,
    stop: watch::Sender<bool>,
    /// What `/wait` waits for.
    gate: Arc<Semaphore>,
    /// One permit for each request that came to `/wait`.
    came: Arc<Semaphore>,
    metrics: Arc<Metrics>,
    ended: JoinHandle<()>,
}

async fn answer(
    request: Request<Incoming>,
    gate: Arc<Semaphore>,
    came: Arc<Semaphore>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    match request.uri().path() {
        "/panic" => panic!("on purpose"),
        "/wait" => {
            came.add_permits(1);
            gate.acquire().await.expect("open").forget();
        }
        _ => {}
    }
    Ok(Response::new(Full::new(Bytes::from(request.uri().path().to_owned()))))
}

fn start(limits: Limits) -> Server {
    start_on(1, limits).0
}

/// With so many listeners; where they all are.
fn start_on(count: usize, limits: Limits) -> (Server, Vec<SocketAddr>) {
    let listeners = http::bind(&vec!["127.0.0.1:0".parse().expect("an address"); count]).expect("bound");
    let all: Vec<SocketAddr> = listeners.iter().map(|listener| listener.local_addr().expect("an address")).collect();
    let at = all[0];
    let (stop, stopped) = watch::channel(false);
    let (gate, metrics) = (Arc::new(Semaphore::new(0)), Arc::new(Metrics::new()));
    let came = Arc::new(Semaphore::new(0));
    let seams = (Arc::clone(&gate), Arc::clone(&came));
    let service = service_fn(move |request| Box::pin(answer(request, Arc::clone(&seams.0), Arc::clone(&seams.1))));
    let connections = Some(metrics.ingest_connections.clone());
    let listeners = listeners.into_iter().map(Listener::from).collect();
    let ended = tokio::spawn(http::serve_counted(listeners, Arc::new(service), limits, connections, stopped));
    (Server { at, stop, gate, came, metrics, ended }, all)
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_on_one_connection() {
    let server = start(LIMITS);
    let mut wire = Wire::connect(server.at).await;
    let all: Vec<u8> = ["/1", "/2", "/3"].iter().flat_map(|path| request("GET", path, &[], b"")).collect();
    wire.send(all).await;
    for path in ["/1", "/2", "/3"] {
        assert_eq!(wire.answer().await.body, path);
    }
}

#[tokio::test]
async fn no_listener_keeps_the_only_place_from_the_others() {
    let (_server, all) = start_on(3, Limits { max_connections: 1, ..LIMITS });
    for at in [all[0], all[0], all[2], all[1], all[1]] {
        // The place is free again when it is dropped.
        let mut wire = Wire::connect(at).await;
        wire.send(request("GET", "/", &[], b"")).await;
        let answered = tokio::time::timeout(Duration::from_secs(5), wire.answer());
        assert_eq!(answered.await.expect("an answer").body, "/");
    }
}

#[tokio::test]
async fn a_panic_in_a_handler_is_answered_500_and_the_connection_goes_on() {
    let server = start(LIMITS);
    let mut wire = Wire::connect(server.at).await;
    wire.send(request("GET", "/panic", &[], b"")).await;
    let answer = wire.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (500, r#"{"message":"internal error"}"#));
    wire.send(request("GET", "/still-here", &[], b"")).await;
    assert_eq!(wire.answer().await.body, "/still-here");
}

#[tokio::test]
async fn a_head_that_trickles_in_is_cut_off_after_the_header_timeout() {
    let limits = Limits { header_timeout: Duration::from_secs(1), idle_timeout: Duration::from_secs(3600), ..LIMITS };
    let server = start(limits);
    let mut wire = Wire::connect(server.at).await;
    wire.send("GET / HTTP/1.1\r\nhost: loc").await;
    assert!(wire.is_hung_up().await);
    // The same for the second head of a connection.
    let mut wire = Wire::connect(server.at).await;
    wire.send(request("GET", "/", &[], b"")).await;
    wire.answer().await;
    wire.send("GET").await;
    assert!(wire.is_hung_up().await);
}

#[tokio::test]
async fn a_silent_connection_is_closed_after_the_idle_timeout_and_not_after_the_header_timeout() {
    let limits = Limits { header_timeout: Duration::from_millis(1), idle_timeout: Duration::from_secs(1), ..LIMITS };
    let server = start(limits);
    let since = tokio::time::Instant::now();
    let (mut unused, mut used) = (Wire::connect(server.at).await, Wire::connect(server.at).await);
    used.send(request("GET", "/", &[], b"")).await;
    used.answer().await;
    assert!(unused.is_hung_up().await && used.is_hung_up().await);
    assert!(since.elapsed() >= Duration::from_millis(900), "{:?}", since.elapsed());
}

#[tokio::test]
async fn an_answer_that_takes_longer_than_the_idle_timeout_still_comes() {
    let server = start(Limits { idle_timeout: Duration::from_secs(1), ..LIMITS });
    let mut wire = Wire::connect(server.at).await;
    wire.send(request("GET", "/wait", &[], b"")).await;
    let early = tokio::time::timeout(Duration::from_millis(1500), wire.until("\r\n")).await;
    assert!(early.is_err(), "nothing may come before the gate opens: {early:?}");
    server.gate.add_permits(1);
    assert_eq!(wire.answer().await.body, "/wait");
}

#[tokio::test]
async fn beyond_the_limit_connections_wait_and_are_served_when_there_is_room() {
    let server = start(Limits { max_connections: 1, ..LIMITS });
    let mut first = Wire::connect(server.at).await;
    first.send(request("GET", "/first", &[], b"")).await;
    assert_eq!(first.answer().await.body, "/first");
    let mut second = Wire::connect(server.at).await;
    second.send(request("GET", "/second", &[], b"")).await;
    let early = tokio::time::timeout(Duration::from_millis(100), second.until("\r\n")).await;
    assert!(early.is_err(), "{early:?}");
    drop(first);
    assert_eq!(second.answer().await.body, "/second");
}

#[tokio::test]
async fn when_stopped_requests_under_way_are_finished_idle_connections_closed_and_new_ones_refused() {
    let server = start(LIMITS);
    let (mut busy, mut idle) = (Wire::connect(server.at).await, Wire::connect(server.at).await);
    idle.send(request("GET", "/", &[], b"")).await;
    idle.answer().await;
    busy.send(request("GET", "/wait", &[], b"")).await;
    server.came.acquire().await.expect("open").forget();
    server.stop.send(true).expect("listening");
    assert!(idle.is_hung_up().await);
    assert!(tokio::net::TcpStream::connect(server.at).await.is_err());
    assert!(!server.ended.is_finished());
    server.gate.add_permits(1);
    let answer = busy.answer().await;
    assert_eq!((answer.body.as_str(), answer.header("connection")), ("/wait", Some("close")));
    assert!(busy.is_hung_up().await);
    server.ended.await.expect("no panic");
    assert_eq!(server.metrics.ingest_connections.get(), 0);
}

#[tokio::test]
async fn when_stopped_a_request_that_does_not_end_is_waited_for_only_a_little() {
    let server = start(LIMITS);
    let mut busy = Wire::connect(server.at).await;
    busy.send(request("GET", "/wait", &[], b"")).await;
    server.came.acquire().await.expect("open").forget();
    server.stop.send(true).expect("listening");
    let ended = tokio::time::timeout(Duration::from_secs(6), server.ended).await;
    ended.expect("before anybody loses patience").expect("no panic");
}

#[tokio::test]
async fn a_head_that_is_too_large_is_answered_431_and_two_lengths_400() {
    let server = start(LIMITS);
    let large = "x".repeat(64 * 1024);
    let mut wire = Wire::connect(server.at).await;
    wire.try_send(request("GET", "/", &[("x", &large)], b"")).await;
    assert_eq!(wire.answer().await.status, 431);
    let both = [("content-length", "3"), ("content-length", "4")];
    assert_eq!(ask(server.at, "POST", "/", &both, b"").await.status, 400);
}

#[tokio::test]
async fn nothing_can_be_smuggled_behind_a_request_with_a_length_and_chunks() {
    let server = start(LIMITS);
    let mut wire = Wire::connect(server.at).await;
    let headers = [("content-length", "4"), ("transfer-encoding", "chunked")];
    let mut bytes = request("POST", "/first", &headers, b"");
    bytes.extend_from_slice(b"0\r\n\r\n");
    bytes.extend(request("GET", "/smuggled", &[], b""));
    wire.send(bytes).await;
    let first = wire.answer().await;
    assert!(first.status == 400 || first.body == "/first", "{first:?}");
    assert!(wire.is_hung_up().await, "the connection ends with the doubtful request");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = http::bind(&["127.0.0.1:0".parse().expect("an address")]).expect("bound");
    let address = taken[0].local_addr().expect("an address");
    let error = http::bind(&[address]).expect_err("in use");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_missing_ipv6_stack_is_tolerated_if_another_address_binds() {
    // An address that this machine has not, as `[::1]` is where IPv6 is switched off.
    let (missing, fine) = ("192.0.2.1:0".parse().expect("an address"), "127.0.0.1:0".parse().expect("an address"));
    assert_eq!(http::bind(&[missing, fine]).expect("one of two").len(), 1);
    assert_eq!(http::bind(&[missing]).expect_err("none").kind(), std::io::ErrorKind::AddrNotAvailable);
}
