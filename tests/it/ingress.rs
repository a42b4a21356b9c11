//! The app-facing listener over real sockets: every answer of the contract.

mod bodies;
mod door;
mod hostile;
mod neighbours;
pub(crate) mod openapi;
pub(crate) mod support;

use std::sync::Arc;

use bytes::Bytes;
use cello_relay::clock::Timestamp;
use cello_relay::event::EventId;
use cello_relay::ingress::Settings;
use cello_relay::ingress::door::Kind;
use cello_relay::outbox::{AppendError, Bound, Flow, Report, State};
use cello_relay::reason::Reason;
use http_body_util::Full;
use hyper::{Request, Response};
use serde_json::{Map, Value, json};

use crate::logged::Logged;
use crate::wire::{Wire, request};
use support::{EVENT, Rig, settings};

#[tokio::test]
async fn an_event_is_answered_with_its_id_and_where_to_ask_for_it() {
    let rig = Rig::start();
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let answer = rig.ask("POST", "/events", &[("traceparent", trace)], EVENT.as_bytes()).await;
    let id = answer.json()["id"].as_str().expect("an id").to_owned();
    assert_eq!((answer.status, answer.json()), (200, json!({"success": true, "id": id})));
    assert_eq!(answer.header("location"), Some(&*format!("/events/{id}")));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(rig.outbox.batches.lock().expect("no panic")[0].events[0].trace.as_deref(), Some(trace));
    assert_eq!(rig.metric("events_accepted_total{trigger=\"new-signup\"}"), 1.0);
    assert_eq!(rig.metric("ingest_requests_total{code=\"200\",route=\"events\"}"), 1.0);
    assert_eq!(rig.metric("ingest_received_bytes_total"), EVENT.len() as f64);
}

#[tokio::test]
async fn every_example_of_cellos_documents_is_taken_and_stored_unchanged() {
    let rig = Rig::start();
    let examples: Map<String, Value> = serde_json::from_str(include_str!("../files/cello-events.json")).expect("JSON");
    for (name, example) in &examples {
        let (status, answer) = rig.post(&example.to_string()).await;
        assert_eq!((status, &answer["success"]), (200, &json!(true)), "{name}: {answer}");
    }
    assert_eq!(rig.outbox.bodies(), examples.values().cloned().collect::<Vec<_>>());
}

/// The lines of that event, each with what it says.
fn lines(log: &Logged, event: &str) -> Vec<Value> {
    let lines = log.text().lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect::<Vec<_>>();
    lines.into_iter().map(|mut line| line["fields"].take()).filter(|line| line["event"] == event).collect()
}

#[tokio::test]
async fn at_debug_level_each_refused_request_and_each_doubtful_event_has_its_line_without_values() {
    let rig = Rig::start();
    let (bad, doubtful) = (EVENT.replace("\"ucc\":\"c\"", "\"ucc\":1"), EVENT.replace("new-signup", "new-sigup"));
    let doubtful =
        doubtful.replace("\"newUserId\":\"u\"", "\"newUserId\":\"canary\",\"currency\":\"canary\",\"price\":1");
    let trace = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let log = Logged::from_now();
    for _ in 0..3 {
        assert_eq!(rig.ask("POST", "/events", &[trace], bad.as_bytes()).await.status, 400);
    }
    let batch = format!("[{EVENT},{doubtful}]");
    let ids = rig.ask("POST", "/events/batch", &[trace], batch.as_bytes()).await.json()["ids"].take();
    assert_eq!(rig.ask("GET", "/canary", &[], b"").await.status, 404);

    let refused = lines(&log, "refusal_detail");
    let [first, .., path] = &refused[..] else { panic!("{refused:?}") };
    assert_eq!(refused.len(), 4, "each has its own: {refused:?}");
    assert_eq!(
        (&first["reason"], &first["status"], &first["route"]),
        (&json!("schema"), &json!(400), &json!("events"))
    );
    assert_eq!(
        (&first["fields"], &first["trace_id"]),
        (&json!("payload.ucc"), &json!("0af7651916cd43dd8448eb211c80319c"))
    );
    assert_eq!((&path["status"], &path["route"], &path["reason"]), (&json!(404), &json!("other"), &Value::Null));
    let warned = lines(&log, "warning_detail");
    assert_eq!(warned.len(), 1, "{warned:?}");
    assert_eq!((&warned[0]["event_id"], &warned[0]["trace_id"]), (&ids[1], &first["trace_id"]));
    assert_eq!(warned[0]["reason"], "currency, trigger", "{warned:?}");
    assert_eq!(warned[0]["fields"], "payload.currency, context.event.trigger", "{warned:?}");
    assert!(!log.text().contains("canary") && !log.text().contains("sigup"), "{}", log.text());
}

#[tokio::test]
async fn stripped_fields_and_warnings_are_named_and_counted() {
    let rig = Rig::start();
    let body = EVENT.replace("\"newUserId\"", "\"coupon\":1,\"newUserId\"").replace("new-signup", "new-sigup");
    let (_, answer) = rig.post(&body.replacen('{', "{\"extra\":2,", 1)).await;
    assert_eq!(answer["stripped"], json!(["payload.coupon", "extra"]));
    assert_eq!(
        answer["warnings"],
        json!([r#"context.event.trigger: unknown "new-sigup", did you mean "new-signup"?"#])
    );
    assert_eq!(rig.metric("event_fields_stripped_total{reason=\"unknown\"}"), 2.0);
    assert_eq!(rig.metric("ingest_warnings_total{kind=\"trigger\"}"), 1.0);
    assert_eq!(rig.metric("events_accepted_total{trigger=\"other\"}"), 1.0);
}

#[tokio::test]
async fn of_warnings_only_those_are_told_whose_events_were_accepted_and_once() {
    let rig = Rig::start();
    let log = Logged::from_now();
    let doubtful = EVENT.replace("new-signup", "new-sigup");
    let told = || (log.count("event_looks_wrong"), log.count("warning_detail"), warnings(&rig));
    *rig.outbox.refusing.lock().expect("no panic") = Some(AppendError::Unavailable);
    assert_eq!(rig.post(&doubtful).await.0, 503);
    assert_eq!(told(), (0, 0, 0));
    *rig.outbox.refusing.lock().expect("no panic") = None;
    for again in [None, Some("true")] {
        let answer = rig.ask("POST", "/events", &[("idempotency-key", "k")], doubtful.as_bytes()).await;
        assert_eq!((answer.status, answer.header("idempotent-replayed")), (200, again));
        assert!(answer.json()["warnings"].is_array(), "{}", answer.body);
        assert_eq!(told(), (1, 1, 1));
    }
}

/// How many warnings operators are told of.
fn warnings(rig: &Rig) -> u64 {
    let notes = rig.door.notes();
    notes.iter().filter(|note| note.kind == Kind::Warning).map(|note| note.count).sum()
}

#[tokio::test]
async fn an_invalid_event_gets_all_its_faults_and_nothing_is_stored() {
    let rig = Rig::start();
    let (status, answer) = rig.post(r#"{"eventName":"ReferralUpdated","payload":{"newUserId":7}}"#).await;
    let message = "payload.ucc is required; payload.newUserId must be a string (got a number: quote it)";
    let errors = json!([
        {"field": "payload.ucc", "message": "is required"},
        {"field": "payload.newUserId", "message": "must be a string (got a number: quote it)"},
    ]);
    assert_eq!((status, answer), (400, json!({"message": message, "errors": errors})));
    let (status, answer) = rig.post("{\n  \"eventName\" 1}").await;
    assert_eq!((status, &answer["message"]), (400, &json!("body is not JSON: expected `:` at line 2 column 15")));
    assert_eq!((&answer["errors"][0]["line"], &answer["errors"][0]["column"]), (&json!(2), &json!(15)));
    assert!(rig.outbox.bodies().is_empty());
    assert_eq!(rig.metric("events_rejected_total{reason=\"schema\"}"), 1.0);
    assert_eq!(rig.metric("events_rejected_total{reason=\"invalid_json\"}"), 1.0);
}

#[tokio::test]
async fn a_batch_is_stored_whole_or_not_at_all() {
    let rig = Rig::start();
    let bad = EVENT.replace("\"ucc\":\"c\",", "");
    let answer = rig.ask("POST", "/events/batch", &[], format!("[{EVENT},{bad},7]").as_bytes()).await;
    assert_eq!(answer.status, 400);
    assert_eq!(
        answer.json()["errors"],
        json!([
            {"index": 1, "field": "payload.ucc", "message": "is required"},
            {"index": 2, "field": "body", "message": "must be an object (got a number)"},
        ])
    );
    assert!(rig.outbox.batches.lock().expect("no panic").is_empty());

    let odd = EVENT.replace("\"ucc\"", "\"x\":1,\"ucc\"").replace("new-signup", "new-sigup");
    let answer = rig.ask("POST", "/events/batch", &[], format!(" [{EVENT} , {odd}]\n").as_bytes()).await;
    assert_eq!((answer.status, answer.json()["ids"].as_array().map(Vec::len)), (200, Some(2)));
    assert_eq!(answer.json()["stripped"], json!([{"index": 1, "field": "payload.x"}]));
    assert_eq!(answer.json()["warnings"][0]["index"], 1);
    assert_eq!(rig.outbox.batches.lock().expect("no panic").len(), 1);
    assert_eq!(answer.header("location"), None);
}

#[tokio::test]
async fn lines_are_a_batch_too_and_faults_name_their_line() {
    let rig = Rig::start();
    let ndjson = [("content-type", "application/x-ndjson")];
    let answer = rig.ask("POST", "/events/batch", &ndjson, format!("{EVENT}\n\r\n{EVENT}\r\n").as_bytes()).await;
    assert_eq!((answer.status, answer.json()["ids"].as_array().map(Vec::len)), (200, Some(2)));
    let answer = rig.ask("POST", "/events/batch", &ndjson, format!("{EVENT}\n\n{{]\n").as_bytes()).await;
    let error = &answer.json()["errors"][0];
    assert_eq!((answer.status, &error["index"], &error["line"]), (400, &json!(1), &json!(3)), "{error}");
    let answer = rig.ask("POST", "/events", &ndjson, EVENT.as_bytes()).await;
    assert_eq!(answer.status, 415);
}

#[tokio::test]
async fn a_batch_has_its_limits() {
    let rig = Rig::start();
    let answer = rig.ask("POST", "/events/batch", &[], format!("[{}]", [EVENT; 4].join(",")).as_bytes()).await;
    assert_eq!(answer.status, 413);
    assert!(answer.body.contains("3 events (ingest.max_batch)"), "{}", answer.body);
    for (body, status) in [("[]", 400), ("{}", 400), ("", 400), ("[1", 400)] {
        assert_eq!(rig.ask("POST", "/events/batch", &[], body.as_bytes()).await.status, status, "{body}");
    }
    let large = EVENT.replace("\"c\"", &format!("\"{}\"", "c".repeat(5000)));
    let answer = rig.ask("POST", "/events/batch", &[], format!("[{large}]").as_bytes()).await;
    assert!(answer.status == 400 && answer.body.contains("ingest.max_body_bytes"), "{}", answer.body);
    let answer = rig.ask("POST", "/events/batch", &[], " ".repeat(8193).as_bytes()).await;
    assert!(answer.status == 413 && answer.body.contains("8192 bytes (ingest.max_batch_bytes)"), "{}", answer.body);
}

#[tokio::test]
async fn the_same_key_gives_the_first_answer_again_even_when_full_and_another_body_422() {
    let rig = Rig::start();
    let key = [("idempotency-key", "k-1")];
    let odd = EVENT.replace("\"ucc\"", "\"x\":1,\"ucc\"");
    let first = rig.ask("POST", "/events", &key, odd.as_bytes()).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, None));
    *rig.outbox.refusing.lock().expect("no panic") = Some(AppendError::Full(Bound::Bytes));
    let again = rig.ask("POST", "/events", &key, odd.as_bytes()).await;
    assert_eq!((again.status, again.header("idempotent-replayed")), (200, Some("true")));
    assert_eq!((again.json(), again.header("location")), (first.json(), first.header("location")));
    assert_eq!(again.json()["stripped"], json!(["payload.x"]));
    assert_eq!(rig.ask("POST", "/events", &key, EVENT.as_bytes()).await.status, 422);
    assert_eq!(rig.metric("events_deduplicated_total"), 1.0);
    assert_eq!(rig.metric("events_accepted_total{trigger=\"new-signup\"}"), 1.0);
    assert_eq!(rig.metric("events_rejected_total{reason=\"key_reused\"}"), 1.0);
    for bad in ["", &"k".repeat(256)] {
        let answer = rig.ask("POST", "/events", &[("idempotency-key", bad)], EVENT.as_bytes()).await;
        assert_eq!(answer.status, 400, "{bad:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_stored_is_answered_503_with_a_reason_and_when_to_come_back() {
    let rig = Rig::start();
    for (error, reason) in [
        (AppendError::Full(Bound::Bytes), "outbox_full"),
        (AppendError::Full(Bound::Events), "outbox_full"),
        (AppendError::Full(Bound::Disk), "disk"),
        (AppendError::Unavailable, "disk"),
        (AppendError::Closed, "draining"),
    ] {
        *rig.outbox.refusing.lock().expect("no panic") = Some(error);
        let answer = rig.ask("POST", "/events", &[], EVENT.as_bytes()).await;
        assert_eq!((answer.status, &answer.json()["reason"]), (503, &json!(reason)), "{error}");
        let retry_after: u64 = answer.header("retry-after").expect("a header").parse().expect("seconds");
        assert!((1..=60).contains(&retry_after));
        let message = answer.json()["message"].to_string();
        // After a sync that failed the disk may have kept it.
        let is_unknown = error == AppendError::Unavailable;
        assert_eq!(message.contains("not known whether") && message.contains("same Idempotency-Key"), is_unknown);
    }
    *rig.outbox.refusing.lock().expect("no panic") = None;
    rig.flow.send(Flow::Draining).expect("read");
    assert_eq!(rig.post(EVENT).await.0, 200, "a drain alone refuses nothing");
    assert_eq!(rig.metric("events_rejected_total{reason=\"draining\"}"), 1.0);
}

#[tokio::test]
async fn a_batch_that_no_empty_outbox_could_hold_is_413_with_the_bound_and_not_to_be_tried_again() {
    let rig = Rig::with(Settings { outbox_max_events: 2, ..settings() }, None);
    let batch = |events: usize| format!("[{}]", [EVENT].repeat(events).join(","));
    let answer = rig.ask("POST", "/events/batch", &[], batch(3).as_bytes()).await;
    assert!(answer.status == 413 && answer.body.contains("2 events (outbox.max_events)"), "{}", answer.body);
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(rig.metric("events_rejected_total{reason=\"too_large\"}"), 1.0);
    assert_eq!(rig.ask("POST", "/events/batch", &[], batch(2).as_bytes()).await.status, 200);
    let answer = rig.ask("POST", "/events/batch", &[], batch(4).as_bytes()).await;
    assert!(answer.status == 413 && answer.body.contains("3 events (ingest.max_batch)"), "{}", answer.body);
}

#[tokio::test]
async fn an_event_of_a_caller_who_has_left_is_committed_and_counted() {
    let rig = Rig::start();
    rig.outbox.closed_gate.send_replace(true);
    let mut wire = Wire::connect(rig.at).await;
    wire.send(request("POST", "/events", &[], EVENT.as_bytes())).await;
    while rig.outbox.closed_gate.receiver_count() == 0 {
        tokio::task::yield_now().await;
    }
    wire.reset();
    // The server has had the time to notice when it has answered somebody else.
    assert_eq!(rig.ask("GET", "/outbox", &[], b"").await.status, 200);
    rig.outbox.closed_gate.send_replace(false);
    rig.until_metric("events_accepted_total{trigger=\"new-signup\"}", 1.0).await;
    assert_eq!(rig.outbox.bodies().len(), 1);
}

#[tokio::test]
async fn an_events_state_is_told_without_its_payload() {
    let rig = Rig::start();
    let id = EventId::new(Timestamp::from_millis(1_664_979_274_007), 5, 5);
    let report = Report {
        state: State::Retrying,
        attempts: 2,
        next_attempt_at: Some(Timestamp::from_millis(1_664_979_275_000)),
        delivered_at: None,
        reason: Some(Reason::Http5xx),
        message: Some("busy".into()),
        request_id: Some("req".into()),
    };
    rig.outbox.reports.lock().expect("no panic").insert(id, report.clone());
    let path = format!("/events/{id}");
    let answer = rig.ask("GET", &path, &[], b"").await;
    let mut expected = json!({
        "id": id.to_string(), "state": "retrying", "attempts": 2, "acceptedAt": "2022-10-05T14:14:34.007Z",
        "nextAttemptAt": "2022-10-05T14:14:35.000Z", "deliveredAt": null, "reason": "http_5xx", "message": "busy",
        "requestId": "req",
    });
    assert_eq!((answer.status, answer.json()), (200, expected.clone()));
    rig.flow.send(Flow::Held(Reason::Credentials)).expect("read");
    expected["state"] = json!("held");
    assert_eq!(rig.ask("GET", &path, &[], b"").await.json(), expected);
    let pending = Report { state: State::Pending, reason: None, ..report };
    rig.outbox.reports.lock().expect("no panic").insert(id, pending);
    assert_eq!(rig.ask("GET", &path, &[], b"").await.json()["reason"], "credentials");
    for unknown in ["/events/0199f0a4-6b1c-7c3e-8d21-5a4b3c2d1e0f", "/events/7"] {
        assert_eq!(rig.ask("GET", unknown, &[], b"").await.status, 404);
    }
    let head = rig.ask("HEAD", &path, &[], b"").await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn the_outbox_tells_what_is_not_at_an_end_yet() {
    let rig = Rig::start();
    rig.flow.send(Flow::Held(Reason::Http403)).expect("read");
    let answer = rig.ask("GET", "/outbox", &[], b"").await.json();
    let expected = json!({"pending": 4, "dead": 2, "oldestSeconds": 90, "state": "held:http_403"});
    assert_eq!(answer, expected);
}

#[tokio::test]
async fn token_requests_are_answered_locally_in_cellos_two_shapes() {
    let rig = Rig::start();
    let keys = rig.ask("POST", "/token", &[], br#"{"accessKeyId":"a","secretAccessKey":"s","more":1}"#).await;
    let expires = &keys.json()["expiresIn"];
    assert_eq!((keys.status, expires, keys.json()["refreshToken"].is_string()), (201, &json!(18000), true));
    let refreshed = rig.ask("POST", "/token", &[], br#"{"refreshToken":"r"}"#).await;
    let names: Vec<String> = refreshed.json().as_object().expect("an object").keys().cloned().collect();
    assert_eq!((refreshed.status, names), (201, vec!["accessToken".to_owned(), "expiresIn".to_owned()]));
    for body in ["{}", "[]", "x", r#"{"accessKeyId":"secret-7"}"#, r#"{"refreshToken":7}"#] {
        let answer = rig.ask("POST", "/token", &[], body.as_bytes()).await;
        assert!(answer.status == 400 && !answer.body.contains("secret-7"), "{body}: {}", answer.body);
    }
}

#[tokio::test]
async fn reads_get_method_path_and_cache_control_and_nothing_else_of_the_request() {
    let reads: cello_relay::ingress::Reads = Arc::new(|request: Request<()>| {
        let names: Vec<_> = request.headers().keys().map(|name| name.as_str()).collect();
        assert!(names.is_empty() || names == ["cache-control"], "{names:?}");
        let echo = Bytes::from(format!("{} {}", request.method(), request.uri()));
        Box::pin(async move { Response::new(Full::new(echo)) })
    });
    let rig = Rig::with(settings(), Some(reads));
    let headers = [("authorization", "Bearer app"), ("cache-control", "no-cache")];
    let code = rig.ask("GET", "/referral-codes/a%2Fb?x=1", &headers, b"").await;
    assert_eq!(code.body, "GET /referral-codes/a%2Fb?x=1");
    let erase = rig.ask("POST", "/referrers/7/depersonalize", &headers, b"{}").await;
    assert_eq!(erase.body, "POST /referrers/7/depersonalize");
    let wrong = rig.ask("DELETE", "/new-users/7/reward", &headers, b"").await;
    assert_eq!((wrong.status, wrong.header("allow")), (405, Some("GET, HEAD")));
    assert_eq!(rig.metric("ingest_requests_total{code=\"200\",route=\"read\"}"), 2.0);
}
