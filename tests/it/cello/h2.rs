//! HTTP/2 peers that retire connections, reset streams, or never come to an end.

use std::time::Duration;

use cello_relay::cello::{Auth, Call, CallError, Settings, TransportError, Verdict};
use cello_relay::metrics::Operation;
use cello_relay::reason::Reason;
use hyper::Method;
use hyper::http::uri::PathAndQuery;

use super::raw::{MORE_OF_A_HEAD, Peer, Say, Then, endless_head, go_away, interim, ok, reset, say};
use super::tls::Identity;
use super::transport::failed;
use super::{EVENT, Running, run, settings};

const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

async fn start(script: impl Fn(usize, u32) -> Say + Send + Sync + 'static) -> (Peer, Running) {
    let identity = Identity::good();
    let peer = Peer::http2(identity.acceptor(), script).await;
    let url = format!("https://localhost:{}", peer.address.port());
    let ca_file = Some(identity.ca_file.path().to_owned());
    let running = run(Settings { ca_file, ..settings(&url, Auth::None) });
    (peer, running)
}

#[tokio::test]
async fn what_a_peer_says_it_did_not_work_on_is_sent_again_at_once() {
    for first in [go_away(0, NO_ERROR), go_away(0, ENHANCE_YOUR_CALM), reset(1, REFUSED_STREAM)] {
        let shown = format!("{first:?}");
        let (peer, running) = start(move |number, stream| match number {
            1 => say(&first, Then::Listen),
            _ => say(ok(stream), Then::Listen),
        })
        .await;
        assert_eq!(running.deliver().await.verdict, Verdict::Delivered, "{shown}");
        assert_eq!(peer.requests(), 2, "{shown}");
        assert_eq!(running.metric(r#"upstream_request_failures_total{reason="reset"}"#), 0.0, "{shown}");
    }
}

#[tokio::test]
async fn what_a_peer_never_works_on_is_tried_twice_and_is_known_not_to_have_arrived() {
    for error in [go_away(0, NO_ERROR), go_away(0, PROTOCOL_ERROR)] {
        let (peer, running) = start(move |_, _| say(&error, Then::Close)).await;
        assert_eq!(failed(&running.deliver().await), (Verdict::Retry, Reason::Reset, false));
        assert_eq!(peer.requests(), 2);
    }
    let (peer, running) = start(|_, stream| say(reset(stream, REFUSED_STREAM), Then::Listen)).await;
    assert_eq!(failed(&running.deliver().await), (Verdict::Retry, Reason::Reset, false));
    assert_eq!(peer.requests(), 2);
}

#[tokio::test]
async fn what_may_be_sent_once_is_not_even_sent_again_if_it_was_not_worked_on() {
    let (peer, running) = start(|_, stream| say(reset(stream, REFUSED_STREAM), Then::Listen)).await;
    let path = PathAndQuery::from_static("/referrers/u/depersonalize");
    let call = Call::new(Operation::Read, Method::POST, path, Duration::from_secs(9)).with_json(EVENT.into()).once();
    let error = running.cello.call(call).await.unwrap_err();
    assert!(matches!(error, CallError::Transport(TransportError { sent: false, .. })), "{error:?}");
    assert_eq!(peer.requests(), 1);
}

#[tokio::test]
async fn what_a_peer_may_have_worked_on_is_not_sent_again_and_its_outcome_is_unknown() {
    let ends: [fn(u32) -> Vec<u8>; 6] = [
        |stream| go_away(stream, NO_ERROR),
        |stream| go_away(stream, INTERNAL_ERROR),
        |_| go_away(0x7fff_ffff, NO_ERROR),
        |stream| reset(stream, INTERNAL_ERROR),
        |stream| reset(stream, CANCEL),
        |_| Vec::new(),
    ];
    for (place, end) in ends.into_iter().enumerate() {
        let (peer, running) = start(move |_, stream| say(end(stream), Then::Close)).await;
        assert_eq!(failed(&running.deliver().await), (Verdict::Retry, Reason::Reset, true), "{place}");
        assert_eq!(peer.requests(), 1, "{place}");
    }
}

#[tokio::test]
async fn a_connection_that_is_retired_still_answers_what_it_took_and_the_next_call_uses_another() {
    let (peer, running) = start(|_, stream| say([go_away(stream, NO_ERROR), ok(stream)].concat(), Then::Listen)).await;
    for sent in 1..=3 {
        assert_eq!(running.deliver().await.verdict, Verdict::Delivered);
        assert_eq!(peer.requests(), sent);
    }
}

#[tokio::test]
async fn interim_answers_are_passed_over() {
    let (_peer, running) = start(|_, stream| {
        say([interim(stream, "100"), interim(stream, "103"), interim(stream, "103"), ok(stream)].concat(), Then::Listen)
    })
    .await;
    assert_eq!(running.deliver().await.verdict, Verdict::Delivered);
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let (_peer, running) = start(|_, stream| say(endless_head(stream), Then::Repeat(MORE_OF_A_HEAD))).await;
    let judgement = tokio::time::timeout(Duration::from_secs(8), running.deliver()).await;
    assert_eq!(
        failed(&judgement.expect("long before the call's own time is over")),
        (Verdict::Retry, Reason::Reset, true)
    );
}

/// As when the path to Cello goes dead under an open connection: nothing comes back, not even a reset.
#[tokio::test]
async fn a_connection_that_gives_no_sign_of_life_is_left_for_another() {
    let identity = Identity::good();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (acceptor, ca_file) = (identity.acceptor(), Some(identity.ca_file.path().to_owned()));
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let silent = tokio::spawn(async move {
        let (first, _) = listener.accept().await.unwrap();
        let held = acceptor.accept(first).await.unwrap();
        let peer = listener.accept().await.map(drop);
        (held, peer)
    });
    let running = run(Settings { ca_file, timeout: Duration::from_secs(60), ..settings(&url, Auth::None) });
    assert_eq!(failed(&running.deliver().await), (Verdict::Retry, Reason::Reset, true));
    // The next call comes over a connection of its own.
    drop(running.deliver().await);
    assert!(silent.await.unwrap().1.is_ok());
}
