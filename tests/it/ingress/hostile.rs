//! Callers that send nonsense, half of something, or too much: nothing slips in, and nobody else waits.

use super::bodies::gzip;
use super::support::{EVENT, Rig};
use crate::wire::{Wire, request};

fn event_of(user: &str) -> String {
    EVENT.replace("\"u\"", &format!("\"{user}\""))
}

fn post_of(user: &str) -> Vec<u8> {
    request("POST", "/events", &[], event_of(user).as_bytes())
}

/// What a shape leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// 400 (or nothing) and the end of the connection: nothing is stored of it, nor of what follows.
    Refused,
    /// Its event is stored, and the connection ends: what follows may not be what it seems.
    Last,
    /// There is no doubt about it, and what follows is the next request.
    Plain,
    /// Refused, but where it ends is beyond doubt: what follows is the next request.
    Declined,
}
use Fate::{Declined, Last, Plain, Refused};

#[tokio::test]
async fn nothing_is_smuggled_in_behind_a_request_whose_length_is_in_doubt() {
    for (name, bytes, fate) in shapes() {
        let rig = Rig::start();
        let mut wire = Wire::connect(rig.at).await;
        wire.try_send(&bytes).await;
        wire.try_send(post_of("behind")).await;
        // It may have hung up already.
        wire.try_finish_sending().await;
        let statuses = wire.statuses().await;
        let stored = rig.end().await;
        match fate {
            Refused => {
                assert!(statuses.is_empty() || statuses == [400], "{name}: {statuses:?}");
                assert!(stored.is_empty(), "{name}: {stored:?}");
            }
            Last => assert_eq!((&statuses[..], &stored[..]), (&[200][..], &["first".to_owned()][..]), "{name}"),
            Plain => {
                assert_eq!((statuses, stored), (vec![200; 2], vec!["first".to_owned(), "behind".to_owned()]), "{name}")
            }
            Declined => {
                assert!(matches!(statuses[..], [400 | 403, 200]), "{name}: {statuses:?}");
                assert_eq!(stored, ["behind"], "{name}");
            }
        }
    }
}

fn shapes() -> Vec<(&'static str, Vec<u8>, Fate)> {
    let body = event_of("first");
    let length = body.len();
    let chunk = format!("{length:x}\r\n{body}\r\n0\r\n\r\n");
    let head = |headers: &str, body: &str| {
        format!("POST /events HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n{body}").into_bytes()
    };
    let both = format!("content-length: {}\r\ntransfer-encoding: chunked\r\n", chunk.len());
    let both_short = format!("transfer-encoding: chunked\r\ncontent-length: {length}\r\n");
    let lengths = |value: &str| format!("content-length: {value}\r\n");
    let te = |value: &str| format!("transfer-encoding: {value}\r\n");
    let chunked = te("chunked");
    vec![
        ("both lengths", head(&both, &chunk), Last),
        ("both lengths, the other way", head(&both_short, &chunk), Last),
        ("two lengths", head(&(lengths(&length.to_string()) + &lengths("3")), &body), Refused),
        ("the same length twice", head(&lengths(&length.to_string()).repeat(2), &body), Plain),
        ("a list of lengths", head(&lengths(&format!("{length}, 3")), &body), Refused),
        ("a list of the same", head(&lengths(&format!("{length}, {length}")), &body), Refused),
        ("a signed length", head(&lengths(&format!("+{length}")), &body), Refused),
        ("a negative length", head(&lengths("-1"), &body), Refused),
        ("a hexadecimal length", head(&lengths("0x5"), &body), Refused),
        ("an empty length", head(&lengths(""), &body), Refused),
        ("a length beyond all numbers", head(&lengths("99999999999999999999999"), &body), Refused),
        ("a length with a space before its colon", head(&format!("content-length : {length}\r\n"), &body), Refused),
        ("identity, chunked", head(&te("identity, chunked"), &chunk), Refused),
        ("chunked, identity", head(&te("chunked, identity"), &chunk), Refused),
        ("identity", head(&te("identity"), &chunk), Refused),
        ("chunked twice", head(&te("chunked, chunked"), &chunk), Refused),
        ("chunked in two headers", head(&chunked.repeat(2), &chunk), Refused),
        ("chunked, then identity in a second header", head(&(chunked.clone() + &te("identity")), &chunk), Refused),
        ("xchunked", head(&te("xchunked"), &chunk), Refused),
        ("chunked and a tab", head(&te("chunked\t"), &chunk), Plain),
        ("chunked and a vertical tab", head(&te("chunked\x0b"), &chunk), Refused),
        ("quoted chunked", head(&te("\"chunked\""), &chunk), Refused),
        ("an empty transfer encoding and a length", head(&(te("") + &lengths(&length.to_string())), &body), Refused),
        (
            "a folded transfer encoding",
            head(&format!("transfer-encoding:\r\n chunked\r\n{}", lengths("3")), &chunk),
            Refused,
        ),
        (
            "a folded header that hides a length",
            head(&format!("x: a\r\n content-length: 3\r\n{}", lengths(&length.to_string())), &body),
            Refused,
        ),
        (
            "a header that is a length after a bare CR",
            head(&format!("x: a\rcontent-length: 3\r\n{}", lengths(&length.to_string())), &body),
            Refused,
        ),
        ("a NUL in a header", head(&format!("x: a\0b\r\n{}", lengths(&length.to_string())), &body), Refused),
        ("a header without a colon", head(&format!("x\r\n{}", lengths(&length.to_string())), &body), Refused),
        (
            "a space before the first header",
            format!("POST /events HTTP/1.1\r\n host: localhost\r\n{}\r\n{body}", lengths(&length.to_string()))
                .into_bytes(),
            Refused,
        ),
        (
            "bare LF as line ends",
            format!(
                "POST /events HTTP/1.1\nhost: localhost\n{}\n{body}",
                lengths(&length.to_string()).replace('\r', "")
            )
            .into_bytes(),
            Plain,
        ),
        (
            "chunks of HTTP/1.0",
            format!("POST /events HTTP/1.0\r\nhost: localhost\r\n{chunked}\r\n{chunk}").into_bytes(),
            Refused,
        ),
        (
            "HTTP/1.2",
            format!("POST /events HTTP/1.2\r\nhost: localhost\r\n{}\r\n{body}", lengths(&length.to_string()))
                .into_bytes(),
            Refused,
        ),
        ("two hosts", head(&format!("host: localhost\r\n{}", lengths(&length.to_string())), &body), Declined),
        (
            "another authority in the target",
            format!(
                "POST http://evil.example/events HTTP/1.1\r\nhost: localhost\r\n{}\r\n{body}",
                lengths(&length.to_string())
            )
            .into_bytes(),
            Declined,
        ),
        ("a chunk with an extension", head(&chunked, &format!("{length:x};a=\"b\"\r\n{body}\r\n0;c\r\n\r\n")), Plain),
        ("an extension with a bare LF", head(&chunked, &format!("{length:x};a\nb\r\n{body}\r\n0\r\n\r\n")), Refused),
        (
            "an extension without end",
            head(&chunked, &format!("{length:x};{}\r\n{body}\r\n0\r\n\r\n", "a".repeat(40_000))),
            Refused,
        ),
        ("a chunk ended by a bare LF", head(&chunked, &format!("{length:x}\n{body}\n0\n\n")), Refused),
        ("a chunk longer than it says", head(&chunked, &format!("{:x}\r\n{body}\r\n0\r\n\r\n", length - 1)), Refused),
        ("a chunk shorter than it says", head(&chunked, &format!("{:x}\r\n{body}\r\n0\r\n\r\n", length + 1)), Refused),
        ("a signed chunk", head(&chunked, &format!("+{length:x}\r\n{body}\r\n0\r\n\r\n")), Refused),
        ("a hexadecimal chunk", head(&chunked, &format!("0x{length:x}\r\n{body}\r\n0\r\n\r\n")), Refused),
        ("a chunk beyond all numbers", head(&chunked, &format!("fffffffffffffffff\r\n{body}\r\n0\r\n\r\n")), Refused),
        ("a chunk that wraps around", head(&chunked, &format!("1{length:016x}\r\n{body}\r\n0\r\n\r\n")), Refused),
        (
            "a trailer that is a length",
            head(&chunked, &format!("{length:x}\r\n{body}\r\n0\r\ncontent-length: 3\r\n\r\n")),
            Plain,
        ),
        (
            "trailers without end",
            head(&chunked, &format!("{length:x}\r\n{body}\r\n0\r\n{}\r\n", "x: y\r\n".repeat(20_000))),
            Refused,
        ),
        (
            "a target with a space",
            format!("POST /events /x HTTP/1.1\r\nhost: localhost\r\n{}\r\n{body}", lengths(&length.to_string()))
                .into_bytes(),
            Refused,
        ),
        (
            "a NUL in the target",
            format!("POST /events\0 HTTP/1.1\r\nhost: localhost\r\n{}\r\n{body}", lengths(&length.to_string()))
                .into_bytes(),
            Refused,
        ),
        ("an HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), Refused),
        ("a TLS handshake", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 512]].concat(), Refused),
    ]
}

/// Each caller of `bytes` sends so many of them, and leaves.
async fn sent_in_part(rig: &Rig, bytes: &[u8]) {
    for length in 0..=bytes.len() {
        let mut wire = Wire::connect(rig.at).await;
        wire.send(&bytes[..length]).await;
        drop(wire);
    }
    for length in 0..bytes.len() {
        let mut wire = Wire::connect(rig.at).await;
        wire.send(&bytes[..length]).await;
        wire.reset();
    }
}

#[tokio::test]
async fn a_caller_who_leaves_at_any_byte_has_stored_all_or_nothing() {
    let whole = |user: &str| {
        let event = event_of(user);
        let chunks = format!("20\r\n{}\r\n{:x}\r\n{}\r\n0\r\n\r\n", &event[..32], event.len() - 32, &event[32..]);
        let head = |headers: &[(&str, &str)]| request("POST", "/events", headers, b"");
        let batch = format!("[{event},{event}]");
        [
            post_of(user),
            [head(&[("transfer-encoding", "chunked")]), chunks.into_bytes()].concat(),
            request("POST", "/events", &[("content-encoding", "gzip")], &gzip(event.as_bytes())),
            request("POST", "/events/batch", &[], batch.as_bytes()),
            request(
                "POST",
                "/events/batch",
                &[("content-type", "application/x-ndjson")],
                format!("{event}\n{event}").as_bytes(),
            ),
        ]
    };
    for (shape, bytes) in whole("u").into_iter().enumerate() {
        let rig = Rig::start();
        sent_in_part(&rig, &bytes).await;
        // Connections are accepted in order, so all of the above were before this one.
        assert_eq!(rig.post(&event_of("last")).await.0, 200);
        let mut stored = rig.end().await;
        stored.sort();
        let events = if shape < 3 { 1 } else { 2 };
        let expected: Vec<_> = std::iter::once("last").chain(vec!["u"; events]).collect();
        assert_eq!(stored, expected, "shape {shape} of {} bytes", bytes.len());
    }
}
