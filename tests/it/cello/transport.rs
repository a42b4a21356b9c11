//! One call: what is sent, what is made of what comes back, and of what does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cello_relay::cello::{
    Auth, CONNECTING_MAX, Call, CallError, Cello, Judgement, KeySource, MAX_BODY, Settings, Verdict,
};
use cello_relay::clock::SystemClock;
use cello_relay::metrics::{Metrics, Operation};
use cello_relay::reason::Reason;
use hyper::http::uri::PathAndQuery;
use hyper::{Method, Version};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::tls::Identity;
use super::upstream::{Reply, Upstream};
use super::{EVENT, deliver_by, run, settings};

/// Delivers once without authentication.
async fn deliver(settings: Settings) -> Judgement {
    run(Settings { auth: Auth::None, ..settings }).deliver().await
}

async fn deliver_to(url: &str) -> Judgement {
    deliver(settings(url, Auth::None)).await
}

pub(crate) fn failed(judgement: &Judgement) -> (Verdict, Reason, bool) {
    (judgement.verdict, judgement.reason.unwrap(), judgement.outcome_unknown)
}

#[tokio::test]
async fn an_event_is_sent_as_stored_with_its_id_as_idempotency_key() {
    let upstream = Upstream::start(|seen| async move {
        match seen.path.ends_with("/token") {
            true => Reply::token("t1", 18_000),
            false => Reply::delivered(),
        }
    })
    .await;
    let running = run(settings(&format!("{}/some/path/", upstream.url()), super::values()));
    let judgement = running.deliver().await;
    assert_eq!((judgement.verdict, judgement.request_id.as_deref()), (Verdict::Delivered, Some("req-1=")));
    let seen = &upstream.seen("/some/path/events")[0];
    assert_eq!(seen.body, EVENT);
    assert_eq!(seen.header("content-type"), "application/json");
    assert_eq!(seen.header("user-agent"), concat!("cello-relay/", env!("CARGO_PKG_VERSION")));
    assert_eq!(seen.header("authorization"), "Bearer t1");
    assert_eq!(seen.header("accept-encoding"), "identity");
    assert_eq!(seen.header("idempotency-key").len(), 36);
    assert!(upstream.seen("/some/path/token")[0].header("authorization").is_empty());
}

#[tokio::test]
async fn a_read_goes_through_the_same_stack() {
    let upstream = Upstream::start(|_| async { Reply::json(404, r#"{"message":"none"}"#) }).await;
    let running = run(settings(&upstream.url(), Auth::None));
    let path = PathAndQuery::from_static("/referral-codes/a%20b");
    let call = Call::new(Operation::Read, Method::GET, path, Duration::from_secs(3));
    let answer = running.cello.call(call).await.unwrap();
    assert_eq!((answer.status.as_u16(), &answer.body[..]), (404, &br#"{"message":"none"}"#[..]));
    let seen = upstream.seen("/referral-codes/a%20b");
    assert_eq!((seen.len(), seen[0].header("accept-encoding"), seen[0].header("content-length")), (1, "identity", ""));
    assert_eq!(running.metric(r#"upstream_request_failures_total{reason="http_404"}"#), 1.0);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let upstream = Upstream::start(|_| async { Reply::With(307, "location", "/elsewhere".to_owned()) }).await;
    assert_eq!(failed(&deliver_to(&upstream.url()).await), (Verdict::Hold, Reason::Http3xx, false));
    assert!(upstream.seen("/elsewhere").is_empty());
}

#[tokio::test]
async fn of_a_huge_answer_only_the_start_is_read() {
    let huge = Bytes::from(vec![b'x'; 10 << 20]);
    let upstream = Upstream::start(move |_| std::future::ready(Reply::Answer(400, huge.clone()))).await;
    let running = run(settings(&upstream.url(), Auth::None));
    let call = Call::new(Operation::Read, Method::GET, PathAndQuery::from_static("/"), Duration::from_secs(9));
    let answer = running.cello.call(call).await.unwrap();
    assert_eq!((answer.body.len(), answer.cut), (MAX_BODY, true));
}

#[tokio::test]
async fn a_wait_that_cello_asks_for_reaches_the_forwarder() {
    let upstream = Upstream::start(|_| async { Reply::With(429, "retry-after", "7".to_owned()) }).await;
    let judgement = deliver_to(&upstream.url()).await;
    assert_eq!(failed(&judgement), (Verdict::Retry, Reason::Http429, false));
    assert_eq!(judgement.retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn no_answer_in_time_leaves_the_outcome_unknown() {
    let upstream = Upstream::start(|_| async { Reply::Hang }).await;
    let settings = Settings { timeout: Duration::from_secs(2), ..settings(&upstream.url(), Auth::None) };
    assert_eq!(failed(&deliver(settings).await), (Verdict::Retry, Reason::Timeout, true));
    assert_eq!(upstream.seen("/events").len(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_after_the_request_leaves_the_outcome_unknown() {
    let upstream = Upstream::start(|_| async { Reply::Reset }).await;
    assert_eq!(failed(&deliver_to(&upstream.url()).await), (Verdict::Retry, Reason::Reset, true));
    assert_eq!(upstream.seen("/events").len(), 1, "and it is not sent again by the client");
}

#[tokio::test]
async fn an_answer_that_breaks_off_leaves_the_outcome_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        read_request(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"success\"").await.unwrap();
    });
    let judgement = deliver_to(&format!("http://{address}")).await;
    assert_eq!(failed(&judgement), (Verdict::Retry, Reason::Reset, true));
}

#[tokio::test]
async fn a_port_that_refuses_got_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let judgement = deliver_to(&format!("http://{address}")).await;
    assert_eq!(failed(&judgement), (Verdict::Retry, Reason::Connect, false));
}

#[tokio::test]
async fn an_unknown_host_got_nothing() {
    // No name server is asked for a label of 64 letters, however slowly it would answer.
    let judgement = deliver_to(&format!("http://{}.invalid", "x".repeat(64))).await;
    assert_eq!(failed(&judgement), (Verdict::Retry, Reason::Dns, false));
}

#[tokio::test]
async fn a_handshake_without_an_end_is_cut_at_the_connect_timeout() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let settings = Settings { connect_timeout: Duration::from_secs(1), ..settings(&url, Auth::None) };
    assert_eq!(failed(&deliver(settings).await), (Verdict::Retry, Reason::Tls, false));
}

#[tokio::test]
async fn however_many_calls_want_a_connection_only_so_many_are_being_made_at_a_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let running = Arc::new(run(settings(&url, Auth::None)));
    let mut calling = JoinSet::new();
    for running in std::iter::repeat_n(running, 3 * CONNECTING_MAX) {
        calling.spawn(async move { running.deliver().await });
    }
    let mut half_open = Vec::new();
    // Without an end to any handshake, no others begin.
    while let Ok(accepted) = tokio::time::timeout(Duration::from_millis(500), listener.accept()).await {
        half_open.push(accepted.unwrap());
    }
    assert_eq!(half_open.len(), CONNECTING_MAX);
    drop(half_open);
    listener.accept().await.unwrap();
}

#[tokio::test]
async fn a_call_that_ends_before_it_is_connected_was_not_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let settings = Settings { timeout: Duration::from_millis(200), ..settings(&url, Auth::None) };
    assert_eq!(failed(&deliver(settings).await), (Verdict::Retry, Reason::Timeout, false));
}

#[tokio::test]
async fn a_pooled_connection_that_was_closed_is_replaced_without_doubt() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (closed, mut both_closed) = tokio::sync::mpsc::channel(1);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            read_request(&mut socket).await;
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            socket.shutdown().await.unwrap();
            while socket.read(&mut [0; 64]).await.is_ok_and(|read| read > 0) {}
            closed.send(()).await.unwrap();
        }
    });
    let running = run(settings(&url, Auth::None));
    for _ in 0..3 {
        assert_eq!(running.deliver().await.verdict, Verdict::Delivered);
        both_closed.recv().await.unwrap();
    }
}

#[tokio::test]
async fn many_calls_at_a_time_keep_as_many_connections_and_open_no_others_later() {
    const AT_A_TIME: usize = 100;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let opened = Arc::new(AtomicUsize::new(0));
    let (count, all_are_there) = (Arc::clone(&opened), Arc::new(Barrier::new(AT_A_TIME)));
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
            let all_are_there = Arc::clone(&all_are_there);
            tokio::spawn(async move {
                loop {
                    read_request(&mut socket).await;
                    all_are_there.wait().await;
                    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
                }
            });
        }
    });
    let running = run(settings(&url, Auth::None));
    for _ in 0..10 {
        let mut calls = JoinSet::new();
        for _ in 0..AT_A_TIME {
            let cello = Arc::clone(&running.cello);
            calls.spawn(async move { deliver_by(&cello).await });
        }
        let judgements = calls.join_all().await;
        assert!(judgements.iter().all(|judgement| judgement.verdict == Verdict::Delivered));
    }
    // A call may open one that turns out not to be needed, as another became free meanwhile.
    assert!(opened.load(Ordering::SeqCst) < 2 * AT_A_TIME, "{opened:?} connections");
}

#[test]
fn connections_are_made_and_driven_on_the_runtime_they_were_given_whoever_calls() {
    let io_thread = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (cellos, theirs) = (io_thread(), io_thread());
    let plain = cellos.block_on(Upstream::start(|_| async { Reply::delivered() }));
    let (encrypted, ca) = cellos.block_on(tls_upstream());
    let url = format!("https://localhost:{}", encrypted.address.port());
    let tls = Settings { ca_file: Some(ca.path().to_owned()), ..settings(&url, Auth::None) };
    for settings in [settings(&plain.url(), Auth::None), tls] {
        // A connection that is made here panics for want of sockets.
        let ours = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let before = theirs.metrics().num_alive_tasks();
        let client = Cello::on(theirs.handle().clone(), settings, Arc::new(SystemClock), Arc::new(Metrics::new()));
        // Kept until the end: its connections go with it.
        let client = client.unwrap();
        let judgement = ours.block_on(deliver_by(&client));
        assert_eq!(judgement.verdict, Verdict::Delivered);
        assert_eq!(ours.metrics().num_alive_tasks(), 0, "it is driven here");
        assert!(theirs.metrics().num_alive_tasks() > before);
    }
}

async fn read_request(socket: &mut TcpStream) {
    let mut read = Vec::new();
    while !read.ends_with(EVENT.as_bytes()) {
        assert!(socket.read_buf(&mut read).await.unwrap() > 0, "the request breaks off");
    }
}

/// A TLS upstream for `localhost`, and the file that lets it be trusted.
async fn tls_upstream() -> (Upstream, tempfile::NamedTempFile) {
    let identity = Identity::good();
    let upstream = Upstream::start_tls(identity.acceptor(), |_| async { Reply::delivered() }).await;
    (upstream, identity.ca_file)
}

#[tokio::test]
async fn an_unknown_issuer_got_nothing_and_one_of_the_ca_file_is_trusted() {
    let (upstream, ca_file) = tls_upstream().await;
    let url = format!("https://localhost:{}", upstream.address.port());
    assert_eq!(failed(&deliver_to(&url).await), (Verdict::Retry, Reason::Tls, false));
    assert!(upstream.seen("/events").is_empty());

    let settings = Settings { ca_file: Some(ca_file.path().to_owned()), ..settings(&url, Auth::None) };
    assert_eq!(deliver(settings).await.verdict, Verdict::Delivered);
    assert_eq!(upstream.seen("/events")[0].version, Version::HTTP_2);
}

#[tokio::test]
async fn a_proxy_is_used_unless_the_host_is_excepted() {
    let (upstream, ca_file) = tls_upstream().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = format!("http://user:pass@{}", listener.local_addr().unwrap());
    let (asked, mut heads) = tokio::sync::mpsc::channel(9);
    let target = upstream.address;
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                client.read_buf(&mut head).await.unwrap();
            }
            asked.send(String::from_utf8(head).unwrap()).await.unwrap();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            let mut upstream = TcpStream::connect(target).await.unwrap();
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut upstream).await });
        }
    });
    let url = format!("https://localhost:{}", upstream.address.port());
    let mut settings = settings(&url, Auth::None);
    settings.ca_file = Some(ca_file.path().to_owned());
    settings.https_proxy = Some(proxy);
    assert_eq!(deliver(settings.clone()).await.verdict, Verdict::Delivered);
    let head = heads.recv().await.unwrap();
    assert!(head.starts_with(&format!("CONNECT localhost:{} ", target.port())), "{head}");
    assert!(head.to_lowercase().contains("proxy-authorization: basic dxnlcjpwyxnz"), "{head}");

    settings.no_proxy = Some("localhost".to_owned());
    assert_eq!(deliver(settings).await.verdict, Verdict::Delivered);
    assert!(heads.try_recv().is_err());
}

#[tokio::test]
async fn what_no_client_can_be_built_from_is_said_without_its_secrets() {
    let build =
        |settings| Cello::new(settings, Arc::new(SystemClock), Arc::new(Metrics::new())).unwrap_err().to_string();
    let mut faulty = settings("https://user:canary@api.cello.so", Auth::None);
    assert!(build(faulty.clone()).starts_with("cello.base_url: "));
    assert!(!format!("{faulty:?} {}", build(faulty.clone())).contains("canary"));
    faulty.base_url = "https://api.cello.so".to_owned();
    for proxy in ["socks5://user:canary@a:1", "https://user:canary@a:1", "http://"] {
        faulty.https_proxy = Some(proxy.to_owned());
        assert!(build(faulty.clone()).starts_with("HTTPS_PROXY"), "{proxy}");
        assert!(!format!("{faulty:?} {}", build(faulty.clone())).contains("canary"));
    }
}

#[tokio::test]
async fn no_secret_and_no_personal_data_is_shown_by_debug() {
    let upstream = Upstream::start(|seen| async move {
        match seen.path.as_str() {
            "/token" => Reply::token("canary", 18_000),
            _ => Reply::json(400, r#"{"message":"canary@example.com"}"#),
        }
    })
    .await;
    let (access_key_id, secret_access_key) = ("canary".into(), "canary".into());
    let auth = Auth::Keys(KeySource::Values { access_key_id, secret_access_key });
    let mut settings = settings(&upstream.url(), auth);
    settings.https_proxy = Some("http://u:canary@127.0.0.1:1".to_owned());
    let running = run(settings.clone());
    let judgement = running.deliver().await;
    assert_eq!(judgement.message.as_deref(), Some("canary@example.com"));
    let path = PathAndQuery::from_static("/new-users/canary/reward");
    let call = Call::new(Operation::Read, Method::GET, path, Duration::from_secs(3)).with_json("canary".into());
    let answer = running.cello.call(call.clone()).await;
    let shown = format!("{settings:?} {:?} {judgement:?} {call:?} {answer:?} {:?}", running.cello, CallError::NoAccess);
    assert!(!shown.contains("canary"), "{shown}");
}
