//! Every fault does what it says, at run time, and only where it should.

use std::error::Error;
use std::io;
use std::time::Duration;

use cello_relay::simulator::{Faults, Options};
use serde_json::json;
use tokio::time::{Instant, timeout};

use super::client::{KEYS, Stage};

fn is_reset(error: &(dyn Error + 'static)) -> bool {
    let reset = error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionReset);
    reset || error.source().is_some_and(is_reset)
}

#[tokio::test]
async fn a_reset_before_loses_the_event_and_a_reset_after_only_the_answer() {
    let stage = Stage::new().await;
    for (when, counts) in [("before", false), ("after", true)] {
        stage.set_faults(json!({"path": "/events", "reset": when, "times": 1})).await;
        let error = stage.event(when).await.expect_err("a reset");
        assert!(is_reset(&error), "{when}: {error:?}");
        let arrival = stage.simulator.events().pop().expect("an arrival");
        assert_eq!((arrival.user.as_deref(), arrival.counts, arrival.status), (Some(when), counts, None));
        assert_eq!(stage.event("after the fault").await.expect("an answer").status, 200);
    }
    assert_eq!(stage.simulator.stats().counted, 3);
}

#[tokio::test]
async fn a_status_comes_with_its_headers_and_body_and_the_event_does_not_count() {
    let stage = Stage::new().await;
    stage
        .set_faults(json!([
            {"status": 429, "retryAfter": 7, "times": 1},
            {"status": 503, "retryAfter": "Wed, 21 Oct 2026 07:28:00 GMT", "body": "busy", "times": 1},
            {"status": 302, "headers": {"location": "http://elsewhere.invalid/"}, "times": 1},
            {"message": "no such campaign", "times": 1},
        ]))
        .await;
    let mut answers = Vec::new();
    for _ in 0..5 {
        answers.push(stage.event("u").await.expect("an answer"));
    }
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [429, 503, 302, 400, 200]);
    assert_eq!(
        (&answers[0].headers["retry-after"], answers[0].text.as_str()),
        (&"7".parse().expect("a header"), r#"{"message":"Too Many Requests"}"#)
    );
    assert_eq!(
        (answers[1].headers["retry-after"].to_str().ok(), answers[1].text.as_str()),
        (Some("Wed, 21 Oct 2026 07:28:00 GMT"), "busy")
    );
    assert_eq!(answers[2].headers["location"], "http://elsewhere.invalid/");
    assert_eq!(answers[3].json(), json!({"message": "no such campaign"}));
    assert!(answers.iter().all(|answer| answer.headers.contains_key("apigw-requestid")));
    assert_eq!(stage.simulator.stats().counted, 1);
}

#[tokio::test]
async fn garbage_and_empty_answers_count_and_success_false_does_not() {
    let stage = Stage::new().await;
    let mut answers = Vec::new();
    for (fault, counted) in [("garbage", 1), ("empty", 2), ("successFalse", 2)] {
        stage.set_faults(json!({fault: true})).await;
        answers.push(stage.event("u").await.expect("an answer"));
        assert_eq!(stage.simulator.stats().counted, counted, "{fault}");
    }
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert!(answers[0].text.starts_with("<!DOCTYPE html>"));
    assert_eq!(answers[1].text, "");
    assert_eq!(answers[2].json(), json!({"success": false}));
}

#[tokio::test]
async fn an_event_that_cello_would_refuse_does_not_count_by_a_fault_either() {
    let mut stage = Stage::new().await;
    stage.set_faults(json!({"path": "/events", "status": 502, "counts": true})).await;
    assert_eq!(stage.post("/events", "{}").await.status, 502);
    assert_eq!(stage.simulator.stats().counted, 0);
    assert_eq!(stage.event("u").await.expect("an answer").status, 502);
    assert_eq!(stage.simulator.stats().counted, 1);
    stage.token = "wrong".into();
    assert_eq!(stage.event("u").await.expect("an answer").status, 502);
    assert_eq!(stage.simulator.stats().counted, 1);
}

#[tokio::test]
async fn a_hang_gives_no_answer_while_others_get_theirs_and_ends_with_the_stand_in() {
    let stage = Stage::new().await;
    stage.set_faults(json!({"user": "stuck", "hang": true, "counts": true})).await;
    let mut hanging = Box::pin(stage.event("stuck"));
    tokio::select! {
        answer = &mut hanging => panic!("{answer:?}"),
        _ = stage.simulator.until(|stats| stats.counted == 1) => {}
    }
    let answer = tokio::select! {
        answer = &mut hanging => panic!("{answer:?}"),
        answer = stage.event("other") => answer.expect("an answer"),
    };
    assert_eq!(answer.status, 200);
    drop(hanging);
    stage.simulator.stop().await;
}

#[tokio::test]
async fn stopping_ends_a_request_that_hangs() {
    let stage = Stage::new().await;
    stage.set_faults(json!({"hang": true})).await;
    let addr = stage.addr();
    let hanging = tokio::spawn(async move {
        let mut socket = tokio::net::TcpStream::connect(addr).await.expect("a connection");
        let request = b"POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}";
        tokio::io::AsyncWriteExt::write_all(&mut socket, request).await.expect("sent");
        let mut rest = Vec::new();
        tokio::io::AsyncReadExt::read_to_end(&mut socket, &mut rest).await.map(|_| rest)
    });
    stage.simulator.until(|stats| stats.received == 1).await;
    timeout(Duration::from_secs(30), stage.simulator.stop()).await.expect("a hang does not keep it");
    assert!(hanging.await.expect("no panic").map_or(true, |rest| rest.is_empty()));
}

#[tokio::test]
async fn latency_delays_the_answer_and_the_event_counts_only_when_it_is_over() {
    let stage = Stage::new().await;
    stage.set_faults(json!({"path": "/events", "latency": "150ms", "jitter": "20ms"})).await;
    let start = Instant::now();
    assert_eq!(stage.event("u").await.expect("an answer").status, 200);
    assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());

    stage.set_faults(json!({"path": "/events", "latency": "1h"})).await;
    let waiting = stage.event("v");
    tokio::select! {
        answer = waiting => panic!("{answer:?}"),
        _ = stage.simulator.until(|stats| stats.received == 2) => {}
    }
    assert_eq!(stage.simulator.stats().counted, 1);
}

#[tokio::test]
async fn faults_are_shown_and_cleared_at_run_time_and_bad_ones_change_nothing() {
    let stage = Stage::with(Options {
        faults: r#"{"path":"/events","status":503,"every":2}"#.parse::<Faults>().expect("faults"),
        ..Options::default()
    })
    .await;
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(stage.event("u").await.expect("an answer").status);
    }
    assert_eq!(statuses, [200, 503, 200, 503]);
    assert_eq!(stage.send("PUT", "/_sim/faults", r#"[{"status":1}]"#).await.status, 400);
    let shown = stage.get("/_sim/faults").await.json();
    let rule = json!({"path": "/events", "status": 503, "every": 2, "matched": 4, "fired": 2});
    assert_eq!(shown, json!({"rules": [rule], "refuseKeys": false}));
    assert_eq!(stage.send("DELETE", "/_sim/faults", "").await.status, 204);
    assert_eq!(stage.get("/_sim/faults").await.json(), json!({"rules": [], "refuseKeys": false}));
    stage.event("u").await.expect("an answer");
    assert_eq!(stage.event("u").await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_fault_for_some_time_ends_with_it() {
    let stage = Stage::new().await;
    stage.set_faults(json!({"path": "/events", "status": 503, "for": "10s"})).await;
    assert_eq!(stage.event("u").await.expect("an answer").status, 503);
    stage.clock.advance(Duration::from_secs(10));
    assert_eq!(stage.event("u").await.expect("an answer").status, 200);
}

#[tokio::test]
async fn revoked_tokens_die_once_and_refused_keys_stay_refused_until_cleared() {
    let mut stage = Stage::new().await;
    let refresh = json!({"refreshToken": stage.post("/token", KEYS).await.json()["refreshToken"]}).to_string();
    stage.set_faults(json!({"refuseKeys": true})).await;
    assert_eq!(stage.post("/token", KEYS).await.status, 400);
    assert_eq!(stage.event("u").await.expect("an answer").status, 200);
    assert_eq!(stage.post("/token", &refresh).await.status, 201);

    stage.set_faults(json!({"revokeTokens": true})).await;
    assert_eq!(stage.event("u").await.expect("an answer").status, 401);
    assert_eq!(stage.post("/token", &refresh).await.status, 400);
    let fresh = stage.post("/token", KEYS).await.json();
    stage.token = fresh["accessToken"].as_str().expect("a token").into();
    assert_eq!(stage.event("u").await.expect("an answer").status, 200);
}

#[tokio::test]
async fn faults_strike_tokens_and_reads_too_but_never_the_control_calls() {
    let stage = Stage::new().await;
    stage.set_faults(json!([{"status": 500}])).await;
    assert_eq!(stage.post("/token", KEYS).await.status, 500);
    assert_eq!(stage.get("/new-users/u/reward").await.status, 500);
    assert_eq!(stage.get("/_sim/stats").await.status, 200);
    stage.set_faults(json!([{"user": "u", "status": 500}])).await;
    assert_eq!(stage.get("/new-users/u/reward").await.status, 500);
    assert_eq!(stage.get("/new-users/v/reward").await.status, 200);
}
