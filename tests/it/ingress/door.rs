//! Who is let in, and what is not there.

use std::io::Write;
use std::time::Duration;

use cello_relay::ingress::check_bind;
use serde_json::json;

use super::support::{EVENT, Rig, settings};
use crate::logged::Logged;
use crate::wire::Wire;

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405_with_what_is_allowed() {
    let rig = Rig::start();
    for path in ["/", "/nothing", "/events/", "/events/a/b", "/referral-codes/active-link"] {
        let answer = rig.ask("GET", path, &[], b"").await;
        assert!(answer.status == 404 && answer.json()["message"].is_string(), "{path}: {}", answer.body);
    }
    for (method, path, allow) in [
        ("GET", "/events", "POST"),
        ("PUT", "/events/batch", "POST"),
        ("DELETE", "/events/0199f0a4-6b1c-7c3e-8d21-5a4b3c2d1e0f", "GET, HEAD"),
        ("POST", "/outbox", "GET, HEAD"),
        ("OPTIONS", "/token", "POST"),
        ("POST", "/openapi.json", "GET, HEAD"),
    ] {
        let answer = rig.ask(method, path, &[], b"").await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some(allow)), "{method} {path}");
    }
}

#[tokio::test]
async fn a_web_page_or_a_rebound_name_does_not_reach_the_relay() {
    let rig = Rig::start();
    for host in ["evil.example", "localhost.evil.example:8745", "10.1.2.3"] {
        let answer = rig.ask("POST", "/events", &[("host", host)], EVENT.as_bytes()).await;
        assert!(answer.status == 403 && answer.body.contains("ingest.allowed_hosts"), "{host}: {}", answer.body);
    }
    for host in ["localhost:1", "127.0.0.1", "[::1]:8745", "relay.example:99", "RELAY.example"] {
        assert_eq!(rig.ask("POST", "/events", &[("host", host)], EVENT.as_bytes()).await.status, 200, "{host}");
    }
    let answer = rig.ask("POST", "/events", &[("origin", "http://localhost")], EVENT.as_bytes()).await;
    assert!(answer.status == 403 && answer.body.contains("ingest.allowed_hosts"), "{}", answer.body);
    assert_eq!(rig.metric("events_rejected_total{reason=\"host\"}"), 4.0);
    let mut absolute = Wire::connect(rig.at).await;
    absolute.send("GET http://evil.example/outbox HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    assert_eq!(absolute.answer().await.status, 403);
}

#[tokio::test]
async fn a_request_has_exactly_one_host_unless_it_is_http_1_0() {
    let rig = Rig::start();
    for (head, status) in [
        ("GET /outbox HTTP/1.1\r\n\r\n", 400),
        ("GET /outbox HTTP/1.1\r\nhost: localhost\r\nhost: evil\r\n\r\n", 400),
        ("GET /outbox HTTP/1.0\r\n\r\n", 200),
    ] {
        let mut wire = Wire::connect(rig.at).await;
        wire.send(head).await;
        assert_eq!(wire.answer().await.status, status, "{head:?}");
    }
}

#[tokio::test]
async fn with_a_token_every_route_but_the_document_asks_for_it_and_the_host_does_not_matter() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(b"s3cret\n").expect("written");
    let mut settings = settings();
    settings.token_file = Some(file.path().to_owned());
    let rig = Rig::with(settings, None);
    let host = ("host", "relay.default.svc");
    for wrong in [None, Some("Bearer nope"), Some("Basic s3cret"), Some("Bearer "), Some("s3cret")] {
        let headers: Vec<_> = [host].into_iter().chain(wrong.map(|value| ("authorization", value))).collect();
        for (method, path) in [("POST", "/events"), ("GET", "/outbox"), ("GET", "/nothing")] {
            let answer = rig.ask(method, path, &headers, b"").await;
            assert_eq!(answer.status, 401, "{method} {path} {wrong:?}");
            assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
        }
    }
    let right = [host, ("authorization", "bearer s3cret")];
    assert_eq!(rig.ask("POST", "/events", &right, EVENT.as_bytes()).await.status, 200);
    assert_eq!(rig.ask("GET", "/openapi.json", &[host], b"").await.status, 200);

    let key = |secret: &str| format!(r#"{{"accessKeyId":"any","secretAccessKey":"{secret}"}}"#);
    let answer = rig.ask("POST", "/token", &[host], key("s3cret").as_bytes()).await;
    assert_eq!((answer.status, &answer.json()["accessToken"]), (201, &json!("s3cret")));
    let answer = rig.ask("POST", "/token", &[host], br#"{"refreshToken":"s3cret"}"#).await;
    assert_eq!((answer.status, &answer.json()["accessToken"]), (201, &json!("s3cret")));
    let answer = rig.ask("POST", "/token", &[host], key("guess").as_bytes()).await;
    assert!(answer.status == 401 && !answer.body.contains("s3cret"), "{}", answer.body);
}

#[tokio::test]
async fn a_token_file_that_vanishes_or_is_emptied_is_told_of_once_and_so_is_its_return() {
    let logged = Logged::from_now();
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("token");
    std::fs::write(&path, "s3cret\n").expect("written");
    let mut settings = settings();
    settings.token_file = Some(path.clone());
    let rig = Rig::with(settings, None);
    let told = || (logged.count("ingest_token_unreadable"), logged.count("ingest_token_readable"));
    let ask = async |token: &str| {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(6)).await;
        tokio::time::resume();
        rig.ask("GET", "/outbox", &[("authorization", &format!("Bearer {token}"))], b"").await.status
    };
    assert_eq!((ask("s3cret").await, told()), (200, (0, 0)));
    std::fs::write(&path, "\n").expect("emptied");
    assert_eq!((ask("s3cret").await, told()), (200, (1, 0)), "the old one stands, and that is told");
    std::fs::remove_file(&path).expect("removed");
    assert_eq!((ask("s3cret").await, told()), (200, (1, 0)), "once");
    std::fs::write(&path, "other\n").expect("written");
    assert_eq!((ask("other").await, told()), (200, (1, 1)));
    let text = logged.text();
    assert!(text.contains("ingest.token_file") && text.contains("is empty") && !text.contains("s3cret"), "{text}");
}

#[test]
fn an_address_that_anybody_reaches_needs_a_token_or_the_word_that_it_is_meant() {
    let mut open = settings();
    assert_eq!(check_bind(&open), Ok(()));
    open.listen = vec!["[::ffff:127.0.0.1]:1".parse().expect("an address"), "[::1]:1".parse().expect("an address")];
    assert_eq!(check_bind(&open), Ok(()));
    open.listen.push("0.0.0.0:8745".parse().expect("an address"));
    let refused = check_bind(&open).expect_err("refused");
    assert!(refused.contains("ingest.token_file") && refused.contains("0.0.0.0:8745"), "{refused}");
    open.allow_unauthenticated_remote = true;
    assert_eq!(check_bind(&open), Ok(()));
    open.allow_unauthenticated_remote = false;
    open.token_file = Some("/token".into());
    assert_eq!(check_bind(&open), Ok(()));
}
