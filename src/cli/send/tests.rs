//! `send` against a small server that answers from a script.

use super::*;
use crate::cli::scripted::{Arrived, Scripted};

async fn server(answers: Vec<(u16, &'static str)>) -> (Client, Arrived) {
    let server = Scripted::on_tcp(answers).await;
    (Client::new(server.endpoint), server.arrived)
}

const STORED: (u16, &str) = (200, r#"{"success":true,"id":"0192f0c1-2b3a-7c4d-9e5f-000000000001"}"#);

/// Without a file.
fn untold() -> Rejects {
    Rejects::new(None, None).unwrap()
}

async fn send_text(text: &str, client: Client, rejects: &mut Rejects) -> Result<Summary, Failure> {
    let mut poster = Poster::new(client, Duration::from_secs(300));
    send(Items::read(text.as_bytes())?, &mut poster, rejects, &ProgressBar::hidden(), true).await
}

#[tokio::test]
async fn events_arrive_in_order_byte_for_byte_each_with_its_own_key_and_a_second_run_has_the_same_keys() {
    let (client, arrived) = server(vec![STORED]).await;
    let Endpoint::Tcp(addresses) = client.endpoint().clone() else { unreachable!() };
    let text = "{\"a\": 1}\n{\"a\": 1}\n{\"b\":2}\n";
    let summary = send_text(text, client, &mut untold()).await.unwrap();
    send_text(text, Client::new(Endpoint::Tcp(addresses)), &mut untold()).await.unwrap();
    let arrived = arrived.lock().unwrap();
    let bodies: Vec<&str> = arrived.iter().map(|request| request.body.as_str()).collect();
    assert_eq!(bodies[..3], ["{\"a\": 1}", "{\"a\": 1}", "{\"b\":2}"]);
    assert_eq!(arrived[..3], arrived[3..]);
    assert_ne!(arrived[0].key, arrived[1].key, "equal lines are two events");
    assert_eq!((summary.stored, summary.ids.len()), (3, 3));
}

#[tokio::test]
async fn a_full_relay_is_asked_again_with_the_same_key() {
    let (client, arrived) = server(vec![(503, r#"{"message":"the outbox is full"}"#), STORED]).await;
    let summary = send_text("{}", client, &mut untold()).await.unwrap();
    assert_eq!(summary.stored, 1);
    let arrived = arrived.lock().unwrap();
    assert_eq!((arrived.len(), &arrived[0]), (2, &arrived[1]));
}

#[tokio::test]
async fn patience_ends_with_the_way_to_go_on() {
    let (client, _) = server(vec![(503, r#"{"message":"the outbox is full"}"#)]).await;
    let mut poster = Poster::new(client, Duration::ZERO);
    let failure = poster.post(&input::Item { number: 7, body: b"{}".to_vec() }, "key").await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unavailable);
    assert!(failure.message.contains("the outbox is full") && failure.hint.unwrap().contains("run it again"));
}

#[tokio::test]
async fn refused_events_go_to_the_rejects_with_line_and_reason_and_the_rest_is_sent() {
    let refusal = (400, r#"{"message":"payload.ucc is required"}"#);
    let (client, arrived) = server(vec![refusal, STORED, refusal, STORED]).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rejects.ndjson");
    let mut rejects = Rejects::new(Some(path.clone()), None).unwrap();
    let summary = send_text("{\"a\":1}\n{\"b\":1}\nnot json\n{\"c\":1}", client, &mut rejects).await.unwrap();
    rejects.finish().unwrap();
    assert_eq!((summary.stored, rejects.count(), arrived.lock().unwrap().len()), (2, 2, 4));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], r#"{"line":1,"status":400,"reason":"payload.ucc is required","event":{"a":1}}"#);
    assert_eq!(lines[1], r#"{"line":3,"status":400,"reason":"payload.ucc is required","event":"not json"}"#);
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600, "events hold personal data");
}

#[test]
fn refused_events_go_to_no_file_that_holds_something_and_to_none_that_others_may_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str, text: &str, mode: u32| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    let refusal = |path: &Path, input| {
        let failure = Rejects::new(Some(path.to_owned()), input).err().expect("a refusal");
        assert_eq!(failure.exit, Exit::CannotCreate);
        failure.message
    };
    let earlier = path("earlier", "half mended", 0o600);
    assert!(refusal(&earlier, None).contains("not empty"));
    assert_eq!(std::fs::read_to_string(&earlier).unwrap(), "half mended");
    let input = path("input", "{}\n", 0o600);
    let (link, metadata) = (dir.path().join("link"), std::fs::metadata(&input).unwrap());
    std::os::unix::fs::symlink(&input, &link).unwrap();
    assert!(refusal(&link, Some(metadata)).contains("the input itself"));
    let open_to_all = path("empty", "", 0o644);
    Rejects::new(Some(open_to_all.clone()), None).unwrap();
    assert_eq!(std::fs::metadata(&open_to_all).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(Rejects::new(Some("/dev/null".into()), None).is_ok());
}

#[tokio::test]
async fn a_refusal_names_the_line_of_the_file_and_no_other() {
    let refusal = (400, r#"{"message":"body is not JSON: expected value at line 1 column 1"}"#);
    let odd = (400, r#"{"message":"no user at line 7 column x"}"#);
    let (client, _) = server(vec![STORED, refusal, odd]).await;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("rejects.ndjson");
    let mut rejects = Rejects::new(Some(path.clone()), None).unwrap();
    send_text("{\"a\":1}\nnot json\n{\"b\":1}", client, &mut rejects).await.unwrap();
    rejects.finish().unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(
        text.starts_with(r#"{"line":2,"status":400,"reason":"body is not JSON: expected value","event""#),
        "{text}"
    );
    assert!(text.contains("at line 7 column x"), "{text}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for path in [dir.path(), &dir.path().join("missing")] {
        let failure = open(path).err().expect("no file");
        assert!(failure.message.starts_with(&format!("{} cannot be read", path.display())), "{}", failure.message);
    }
}

#[tokio::test]
async fn without_a_relay_it_ends_at_once_and_says_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let client = Client::new(Endpoint::Tcp(vec![address]));
    let failure = send_text("{}", client, &mut untold()).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unavailable);
    assert!(failure.message.contains(&address.to_string()), "{}", failure.message);
}

#[tokio::test]
async fn waiting_ends_when_each_is_delivered_or_dead() {
    let answers = vec![
        (200, r#"{"state":"pending"}"#),
        (200, r#"{"state":"delivered"}"#),
        (404, "{}"),
        (200, r#"{"state":"dead"}"#),
    ];
    let (mut client, _) = server(answers).await;
    let failure = settle::wait(&mut client, &[sent(false); 3], Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Data);
    assert!(failure.message.contains("1 of 3"), "{}", failure.message);
}

fn sent(known: bool) -> Sent {
    Sent { id: "0192f0c1-2b3a-7c4d-9e5f-000000000001".parse().unwrap(), known }
}

#[tokio::test]
async fn what_was_sent_before_and_is_not_known_any_more_does_not_pass_for_delivered() {
    let wait = async |events: &[Sent]| {
        let (mut client, _) = server(vec![(200, r#"{"state":"delivered"}"#), (404, "{}")]).await;
        settle::wait(&mut client, events, Duration::from_secs(60)).await
    };
    let failure = wait(&[sent(true), sent(true)]).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Unavailable);
    assert!(failure.message.contains("not sent again: 1 of 2 events"), "{}", failure.message);
    // What this run had stored was delivered before it was forgotten.
    wait(&[sent(true), sent(false)]).await.unwrap();
}
