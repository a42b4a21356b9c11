//! Upstreams that answer badly: interim answers, heads and bodies without end, answers nobody asked for, bad TLS.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cello_relay::cello::{Auth, Departed, Judgement, MAX_BODY, Settings, Verdict};
use cello_relay::reason::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::raw::{Peer, Then, say};
use super::tls::Identity;
use super::transport::failed;
use super::upstream::{Reply, Upstream};
use super::{deliver_telling, run, settings, values};

/// Much less than a call may take.
const SOON: Duration = Duration::from_secs(8);
const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 16\r\n\r\n{\"success\":true}";

/// What one delivery to a peer comes to that says `bytes` and then goes on so.
async fn judged(bytes: &'static [u8], then: fn() -> Then) -> Judgement {
    let peer = Peer::http1(move |_, _| say(bytes, then())).await;
    let running = run(settings(&peer.url(), Auth::None));
    let judgement = tokio::time::timeout(SOON, running.deliver()).await;
    let judgement = judgement.unwrap_or_else(|_| panic!("no end: {:?}", String::from_utf8_lossy(bytes)));
    assert_eq!(peer.requests(), 1, "{:?}", String::from_utf8_lossy(bytes));
    judgement
}

#[tokio::test]
async fn interim_answers_are_passed_over_and_one_that_ends_http_is_no_delivery() {
    for interim in ["100 Continue", "102 Processing", "103 Early Hints\r\nlink: </x>"] {
        let interim = format!("HTTP/1.1 {interim}\r\n\r\n");
        let peer = Peer::http1(move |_, _| say(interim.repeat(3) + OK, Then::Listen)).await;
        let running = run(settings(&peer.url(), Auth::None));
        for _ in 0..2 {
            assert_eq!(running.deliver().await.verdict, Verdict::Delivered);
        }
    }
    let switched =
        judged(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", || Then::Close);
    let (verdict, _, unknown) = failed(&switched.await);
    assert_eq!((verdict, unknown), (Verdict::Retry, true));
}

#[tokio::test]
async fn interim_answers_without_end_are_cut_off_by_the_calls_time() {
    let peer = Peer::http1(|_, _| say("", Then::Repeat(b"HTTP/1.1 102 Processing\r\n\r\n"))).await;
    let running = run(Settings { timeout: Duration::from_secs(2), ..settings(&peer.url(), Auth::None) });
    let judgement = tokio::time::timeout(SOON, running.deliver()).await;
    assert_eq!(failed(&judgement.expect("an end")), (Verdict::Retry, Reason::Timeout, true));
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    for (start, again) in [
        (&b"HTTP/1.1 200 OK\r\n"[..], &b"x: aaaaaaaaaaaaaaaa\r\n"[..]),
        (b"HTTP/1.1 200 OK\r\nx: ", b"aaaaaaaaaaaaaaaa"),
        (b"HTTP/1.1 200 ", b"OK OK OK OK OK "),
        (b"", b"aaaaaaaaaaaaaaaaaaaaaaaa"),
    ] {
        let peer = Peer::http1(move |_, _| say(start, Then::Repeat(again))).await;
        let running = run(settings(&peer.url(), Auth::None));
        let judgement = tokio::time::timeout(SOON, running.deliver()).await.expect("an end");
        assert_eq!(failed(&judgement), (Verdict::Retry, Reason::Reset, true));
    }
}

#[tokio::test]
async fn a_body_without_end_is_judged_by_its_start() {
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let (json, html) =
        ([&chunked[..], b"b\r\n{\"success\":\r\n3\r\n1,\"\r\n"].concat(), [&chunked[..], b"6\r\n<html>\r\n"].concat());
    for (start, delivered) in [(json, true), (html, false)] {
        let peer = Peer::http1(move |_, _| say(&start, Then::Repeat(b"10\r\naaaaaaaaaaaaaaaa\r\n"))).await;
        let running = run(settings(&peer.url(), Auth::None));
        let judgement = tokio::time::timeout(SOON, running.deliver()).await.expect("an end");
        match delivered {
            true => assert_eq!(judgement.verdict, Verdict::Delivered),
            false => assert_eq!(failed(&judgement), (Verdict::Retry, Reason::NotJson, true)),
        }
        assert_eq!(peer.requests(), 1);
    }
}

#[tokio::test]
async fn a_large_answer_that_says_delivered_is_believed_and_the_next_call_is_not_disturbed() {
    let large = format!(r#"{{"success":true,"log":"{}"}}"#, "a".repeat(2 * MAX_BODY));
    let large = Bytes::from(large);
    let upstream = Upstream::start(move |_| std::future::ready(Reply::Answer(200, large.clone()))).await;
    let running = run(settings(&upstream.url(), Auth::None));
    for sent in 1..=3 {
        assert_eq!(running.deliver().await.verdict, Verdict::Delivered);
        assert_eq!(upstream.seen("/events").len(), sent);
    }
}

#[tokio::test]
async fn what_is_not_http_or_contradicts_itself_leaves_the_outcome_unknown() {
    for bytes in [
        &b"hello\r\n\r\n"[..],
        b"HTTP/9.9 200 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\0\0\x04\x04\0\0\0\0\0",
    ] {
        let judgement = judged(bytes, || Then::Close).await;
        assert_eq!(failed(&judgement), (Verdict::Retry, Reason::Reset, true), "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[tokio::test]
async fn an_answer_that_trickles_is_cut_off_by_the_calls_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 60000\r\n\r\n".iter().chain(std::iter::repeat(&b'1'));
        for byte in head {
            tick.tick().await;
            if socket.write_u8(*byte).await.is_err() {
                return;
            }
        }
    });
    let running = run(Settings { timeout: Duration::from_secs(1), ..settings(&url, Auth::None) });
    let judgement = tokio::time::timeout(SOON, running.deliver()).await.expect("an end");
    assert_eq!(failed(&judgement), (Verdict::Retry, Reason::Timeout, true));
}

/// Such an answer, taken for that of the next request, would settle another event.
#[tokio::test]
async fn an_answer_that_nobody_asked_for_is_never_taken_for_that_of_the_next_event() {
    const UNASKED: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 16\r\n\r\n{\"message\":\"no\"}";
    let peer = Peer::http1(|_, _| say([OK, UNASKED].concat(), Then::Listen)).await;
    let running = run(settings(&peer.url(), Auth::None));
    for sent in 1..=20 {
        let judgement = running.deliver().await;
        assert_eq!(judgement.verdict, Verdict::Delivered, "{sent}: {judgement:?}");
    }
}

#[tokio::test]
async fn an_expired_certificate_or_one_of_another_name_gets_nothing() {
    for (identity, good) in
        [(Identity::good(), true), (Identity::of("localhost", 2001), false), (Identity::of("api.example", 2100), false)]
    {
        let upstream = Upstream::start_tls(identity.acceptor(), |_| async { Reply::delivered() }).await;
        let url = format!("https://localhost:{}", upstream.address.port());
        let ca_file = Some(identity.ca_file.path().to_owned());
        let judgement = run(Settings { ca_file, ..settings(&url, Auth::None) }).deliver().await;
        match good {
            true => assert_eq!(judgement.verdict, Verdict::Delivered),
            false => assert_eq!(failed(&judgement), (Verdict::Retry, Reason::Tls, false)),
        }
        assert_eq!(upstream.seen("/events").len(), usize::from(good));
    }
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_gets_nothing() {
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"", b"\x15\x03\x03\0\x02\x02\x28", &[0x16; 20_000]] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(bytes).await.ok();
            socket.shutdown().await.ok();
        });
        let running = run(settings(&url, Auth::None));
        let judgement = tokio::time::timeout(SOON, running.deliver()).await.expect("an end");
        assert_eq!(failed(&judgement), (Verdict::Retry, Reason::Tls, false));
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_has_left_only_if_it_had_a_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    // To the one no handshake is made; the other gets its request, and answers nothing.
    for (scheme, has_left) in [("https", false), ("http", true)] {
        let running = run(settings(&format!("{scheme}://{at}"), Auth::None));
        let departed = Departed::default();
        let met = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 16]).await.unwrap();
            stream
        };
        tokio::select! {
            judgement = deliver_telling(&running.cello, departed.clone()) => panic!("{judgement:?}"),
            stream = met => drop(stream),
        }
        assert_eq!(departed.is_noted(), has_left, "{scheme}");
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_while_it_waits_for_another_token_after_a_401_has_not_left() {
    let tokens = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start(move |seen| {
        let is_first = seen.path == "/token" && tokens.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            match seen.path.as_str() {
                "/token" if is_first => Reply::token("t", 18_000),
                "/token" => std::future::pending().await,
                _ => Reply::unauthorized(),
            }
        }
    })
    .await;
    let (running, departed) = (run(settings(&upstream.url(), values())), Departed::default());
    tokio::select! {
        judgement = deliver_telling(&running.cello, departed.clone()) => panic!("{judgement:?}"),
        _ = upstream.saw("/token", 2) => {}
    }
    assert!(!departed.is_noted() && upstream.seen("/events").len() == 1);
}
