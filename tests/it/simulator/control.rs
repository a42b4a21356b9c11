//! What arrived can be looked at, and forgotten.

use std::net::SocketAddr;

use cello_relay::simulator::Options;
use serde_json::json;

use super::client::{Stage, event, numbered};

#[tokio::test]
async fn an_arrival_is_recorded_with_all_that_came_with_it() {
    let stage = Stage::new().await;
    let body = r#"{"eventName":"ReferralUpdated","source":"x","payload":{"ucc":"c","newUserId":"u+1@e.org","coupon":9},
        "context":{"event":{"trigger":"new-signup"},"own":1}}"#;
    let headers = [("user-agent", "ua/1"), ("idempotency-key", "k1"), ("x-app", "leaked")];
    let answer = stage.try_send("POST", "/events", &headers, body).await.expect("an answer");
    assert_eq!(answer.status, 200);

    let shown = stage.get("/_sim/events?user=u+1@e.org").await.json();
    let request_id = answer.headers["apigw-requestid"].to_str().expect("text");
    let expected = json!({
        "seq": 1, "user": "u+1@e.org", "trigger": "new-signup", "userAgent": "ua/1", "idempotencyKey": "k1",
        "authorization": true, "otherHeaders": {"x-app": "leaked"}, "unknown": ["source", "payload.coupon"],
        "counts": true, "status": 200, "requestId": request_id, "body": body, "at": shown["events"][0]["at"],
    });
    assert_eq!(shown["events"], json!([expected]));
    assert_eq!(stage.simulator.stats().unknown_fields, 2);
    let debug = format!("{:?} {:?}", stage.simulator.events(), stage.simulator.requests());
    assert!(!debug.contains("u+1@e.org") && !debug.contains("coupon\":9"), "{debug}");
}

#[tokio::test]
async fn arrivals_are_paged_by_number_and_filtered_by_user() {
    let stage = Stage::new().await;
    for user in ["a", "b", "a", "a"] {
        stage.event(user).await.expect("an answer");
    }
    let page = stage.get("/_sim/events?user=a&limit=2").await.json();
    assert_eq!((&page["events"][1]["seq"], &page["next"]), (&json!(3), &json!(3)));
    let page = stage.get("/_sim/events?user=a&limit=2&after=3").await.json();
    assert_eq!((&page["events"][0]["seq"], &page["next"]), (&json!(4), &json!(null)));
    assert_eq!(stage.get("/_sim/events?usr=a").await.status, 400);
    assert_eq!(stage.get("/_sim/events?after=x").await.status, 400);
}

#[tokio::test]
async fn stats_count_duplicates_by_idempotency_key_and_disorder_by_sequence() {
    let stage = Stage::with(Options { keep: 0, ..Options::default() }).await;
    for (user, sequence, key) in [("u", 1, "a"), ("u", 2, "b"), ("u", 2, "b"), ("v", 1, "c"), ("u", 1, "d")] {
        let body = numbered(user, json!({"sequence": sequence}));
        stage.try_send("POST", "/events", &[("idempotency-key", key)], &body).await.expect("an answer");
    }
    stage.get("/referral-codes/c").await;
    let stats = stage.get("/_sim/stats").await.json();
    let expected = json!({
        "received": 5, "counted": 5, "byStatus": {"200": 5}, "reads": 1, "duplicates": 1, "outOfOrder": 1,
        "tokenCalls": {"accessKey": 1, "refreshToken": 0, "malformed": 0, "refused": 0},
        "unknownFields": 0, "users": 2, "notKept": 5,
    });
    assert_eq!(stats, expected);
    assert_eq!(stage.get("/_sim/events").await.json()["events"], json!([]));
}

#[tokio::test]
async fn what_arrived_can_be_forgotten() {
    let stage = Stage::new().await;
    stage.event("u").await.expect("an answer");
    assert_eq!(stage.send("DELETE", "/_sim/events", "").await.status, 204);
    assert_eq!((stage.simulator.stats().received, stage.simulator.events().len()), (0, 0));
    stage.event("u").await.expect("an answer");
    assert_eq!(stage.simulator.events()[0].seq, 2);
    assert_eq!(stage.simulator.stats().users, 1);
}

#[tokio::test]
async fn requests_of_all_routes_but_its_own_are_listed() {
    let stage = Stage::new().await;
    stage.get("/referral-codes/c?x=1").await;
    stage.get("/_sim/stats").await;
    stage.get("/nowhere").await;
    let listed = stage.get("/_sim/requests").await.json();
    let lines: Vec<_> = listed["requests"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| format!("{} {} {}", line["method"], line["path"], line["status"]).replace('"', ""))
        .collect();
    assert_eq!(lines, ["POST /token 201", "GET /referral-codes/c?x=1 200", "GET /nowhere 404"]);
}

#[tokio::test]
async fn control_calls_need_no_token_and_wrong_ones_say_what_there_is() {
    let mut stage = Stage::new().await;
    stage.token.clear();
    assert_eq!(stage.get("/_sim/stats").await.status, 200);
    assert_eq!(stage.get("/_sim/nothing").await.status, 404);
    let wrong = stage.post("/_sim/faults", "{}").await;
    assert_eq!((wrong.status, wrong.headers["allow"].to_str().ok()), (405, Some("GET, PUT, DELETE")));
}

#[tokio::test]
async fn a_body_beyond_the_gateways_limit_is_refused() {
    let stage = Stage::new().await;
    let body = event(&"u".repeat(10 << 20));
    // The connection may break while the rest is still being sent.
    if let Ok(answer) = stage.try_send("POST", "/events", &[], &body).await {
        assert_eq!(answer.status, 413);
    }
    assert_eq!(stage.simulator.stats().received, 0);
}

#[tokio::test]
async fn after_a_stop_the_port_is_free_at_once_and_a_taken_port_is_an_error() {
    let stage = Stage::new().await;
    stage.event("u").await.expect("an answer");
    let addr: SocketAddr = stage.addr();
    let options = Options { listen: addr, ..Options::default() };
    let clock = stage.clock.clone();
    let taken = cello_relay::simulator::Simulator::start(options.clone(), clock.clone()).expect_err("a taken port");
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
    stage.simulator.stop().await;
    let again = cello_relay::simulator::Simulator::start(options, clock).expect("a free port");
    assert_eq!(again.addr(), addr);
    again.stop().await;
}
