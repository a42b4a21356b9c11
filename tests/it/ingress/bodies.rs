//! Bodies: types, encodings, sizes, and clients that behave badly.

use std::io::Write;
use std::time::Duration;

use super::support::{EVENT, Rig, settings};
use crate::wire::{Wire, request};

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("in memory");
    encoder.finish().expect("in memory")
}

#[tokio::test]
async fn json_is_taken_with_any_parameter_or_no_type_and_other_types_are_415() {
    let rig = Rig::start();
    for good in ["application/json", "Application/JSON; charset=utf-8", ""] {
        let answer = rig.ask("POST", "/events", &[("content-type", good)], EVENT.as_bytes()).await;
        assert_eq!(answer.status, 200, "{good:?}");
    }
    for bad in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", "multipart/form-data; boundary=x"]
    {
        let answer = rig.ask("POST", "/events", &[("content-type", bad)], EVENT.as_bytes()).await;
        assert!(answer.status == 415 && answer.body.contains("application/json"), "{bad}: {}", answer.body);
    }
    assert_eq!(rig.metric("events_rejected_total{reason=\"media_type\"}"), 4.0);
}

#[tokio::test]
async fn gzip_is_unpacked_within_the_limits_of_what_it_holds() {
    let rig = Rig::start();
    let coded = [("content-encoding", "gzip")];
    assert_eq!(rig.ask("POST", "/events", &coded, &gzip(EVENT.as_bytes())).await.status, 200);
    // A bomb: 64 MiB of nothing in some 64 KiB would be over the limit on the wire, so a smaller one.
    let bomb = gzip(&vec![b' '; 2 << 20]);
    assert!(bomb.len() < 4096, "{}", bomb.len());
    let answer = rig.ask("POST", "/events", &coded, &bomb).await;
    assert!(answer.status == 413 && answer.body.contains("4096 bytes (ingest.max_body_bytes)"), "{}", answer.body);
    let torn = gzip(EVENT.as_bytes());
    for bad in [EVENT.as_bytes(), &torn[..torn.len() - 9], b"\x1f\x8b"] {
        assert_eq!(rig.ask("POST", "/events", &coded, bad).await.status, 400);
    }
    for other in ["br", "gzip, gzip", "deflate"] {
        let answer = rig.ask("POST", "/events", &[("content-encoding", other)], EVENT.as_bytes()).await;
        assert_eq!((answer.status, answer.header("accept-encoding")), (415, Some("gzip")), "{other}");
    }
    assert_eq!(rig.outbox.bodies().len(), 1);
}

#[tokio::test]
async fn a_body_over_the_limit_is_answered_413_and_a_client_that_sends_on_sees_it() {
    let rig = Rig::start();
    let large = vec![b' '; 3 << 20];
    let mut wire = Wire::connect(rig.at).await;
    wire.send(request("POST", "/events", &[], &large)).await;
    let answer = wire.answer().await;
    assert!(answer.status == 413 && answer.body.contains("4096 bytes (ingest.max_body_bytes)"), "{}", answer.body);
    // The body was read away, so the connection goes on.
    wire.send(request("POST", "/events", &[], EVENT.as_bytes())).await;
    assert_eq!(wire.answer().await.status, 200);

    let mut chunked = Wire::connect(rig.at).await;
    chunked.send(request("POST", "/events", &[("transfer-encoding", "chunked")], b"")).await;
    chunked.send([b"2000\r\n", &[b' '; 0x2000][..], b"\r\n0\r\n\r\n"].concat()).await;
    assert_eq!(chunked.answer().await.status, 413);
}

#[tokio::test]
async fn a_body_in_pieces_is_taken_whole() {
    let rig = Rig::start();
    let mut wire = Wire::connect(rig.at).await;
    wire.send(request("POST", "/events", &[("transfer-encoding", "chunked")], b"")).await;
    for piece in EVENT.as_bytes().chunks(11) {
        wire.send(format!("{:x}\r\n{}\r\n", piece.len(), String::from_utf8_lossy(piece))).await;
    }
    wire.send("0\r\n\r\n").await;
    assert_eq!(wire.answer().await.status, 200);
}

#[tokio::test]
async fn a_client_that_asks_before_sending_is_told_to_go_on_or_refused_at_once() {
    let rig = Rig::start();
    let length = EVENT.len().to_string();
    let mut wire = Wire::connect(rig.at).await;
    wire.send(request("POST", "/events", &[("expect", "100-continue"), ("content-length", &length)], b"")).await;
    assert_eq!(wire.until("\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    wire.send(EVENT).await;
    assert_eq!(wire.answer().await.status, 200);

    let mut wire = Wire::connect(rig.at).await;
    wire.send(request("POST", "/events", &[("expect", "100-continue"), ("content-length", "5000")], b"")).await;
    assert_eq!(wire.answer().await.status, 413);
}

#[tokio::test]
async fn a_body_that_stops_coming_is_answered_408_and_half_a_body_stores_nothing() {
    let mut settings = settings();
    settings.idle_timeout = Duration::from_secs(1);
    let rig = Rig::with(settings, None);
    let half = |length: usize| {
        let head = request("POST", "/events", &[("content-length", &length.to_string())], b"");
        [&head, &EVENT.as_bytes()[..20]].concat()
    };
    let mut silent = Wire::connect(rig.at).await;
    silent.send(half(EVENT.len())).await;
    let answer = silent.answer().await;
    assert_eq!((answer.status, answer.header("connection")), (408, Some("close")));
    let mut gone = Wire::connect(rig.at).await;
    gone.send(half(EVENT.len())).await;
    gone.finish_sending().await;
    rig.until_metric("ingest_connections", 0.0).await;
    assert!(rig.outbox.bodies().is_empty());
}

#[tokio::test]
async fn a_client_may_close_its_half_and_still_be_answered() {
    let rig = Rig::start();
    let mut wire = Wire::connect(rig.at).await;
    wire.send(request("POST", "/events", &[], EVENT.as_bytes())).await;
    wire.finish_sending().await;
    assert_eq!(wire.answer().await.status, 200);
    assert!(wire.is_hung_up().await);
}

#[tokio::test]
async fn pipelined_posts_are_stored_and_answered_in_order() {
    let rig = Rig::start();
    let all: Vec<u8> = (0..5)
        .flat_map(|n| request("POST", "/events", &[], EVENT.replace("\"u\"", &format!("\"u{n}\"")).as_bytes()))
        .collect();
    let mut wire = Wire::connect(rig.at).await;
    wire.send(all).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(wire.answer().await.json()["id"].as_str().expect("an id").to_owned());
    }
    assert!(ids.is_sorted());
    let users: Vec<_> = rig.outbox.bodies().iter().map(|body| body["payload"]["newUserId"].clone()).collect();
    assert_eq!(users, ["u0", "u1", "u2", "u3", "u4"]);
}

#[tokio::test]
async fn posts_are_answered_beside_2000_idle_connections() {
    let rig = Rig::start();
    let mut idle = Vec::new();
    // A process that may open only 4,096 files has both ends of these.
    for _ in 0..400 {
        for _ in 0..5 {
            idle.push(Wire::connect(rig.at).await);
        }
        assert_eq!(rig.post(EVENT).await.0, 200);
    }
    assert_eq!(rig.outbox.bodies().len(), 400);
}

#[tokio::test]
async fn many_half_sent_large_bodies_neither_starve_small_ones_nor_each_other() {
    let mut settings = settings();
    (settings.max_batch_bytes, settings.max_batch) = (4 << 20, 40_000);
    let rig = Rig::with(settings, None);
    // Eight times most of 4 MiB is twice the budget of all bodies together.
    let event = EVENT.replace("\"c\"", &format!("\"{}\"", "c".repeat(2000)));
    let body = format!("[{}]", vec![event; 1600].join(","));
    let (first, rest) = body.split_at(body.len() - 1000);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let (head, first, rest) = (
            request("POST", "/events/batch", &[("content-length", &body.len().to_string())], b""),
            first.to_owned(),
            rest.to_owned(),
        );
        let mut wire = Wire::connect(rig.at).await;
        clients.push(tokio::spawn(async move {
            wire.send(head).await;
            wire.send(first).await;
            wire.send(rest).await;
            wire.answer().await.status
        }));
    }
    assert_eq!(rig.post(EVENT).await.0, 200);
    for client in clients {
        assert_eq!(client.await.expect("no panic"), 200);
    }
}
