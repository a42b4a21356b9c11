//! Reads through the relay, over real sockets on both sides.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod breaker;
mod cache;
mod depersonalize;
mod failures;
pub(crate) mod world;

use std::sync::Arc;

use cello_relay::clock::SystemClock;
use cello_relay::simulator::{Options, Simulator};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::cello::upstream::Reply;
use crate::ingress::openapi;
use world::{LINK, World, settings};

#[tokio::test]
async fn valid_unknown_and_blocked_codes_come_back_as_cello_gave_them() {
    let cello = Simulator::start(Options::default(), Arc::new(SystemClock)).unwrap();
    let world = World::before(&cello.base_url(), settings());
    for (code, user, valid, campaign) in [
        ("UIPIWa2Hnnr", "12345678", true, "campaign_partners_1"),
        ("unknown-1", "", false, ""),
        ("blocked-1", "12345678", false, ""),
    ] {
        let answer = world.get(&format!("/referral-codes/{code}")).await;
        let expected = json!({"code": code, "productUserId": user, "valid": valid, "campaignId": campaign});
        assert_eq!((answer.status, answer.json()), (200, expected));
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let seen = cello.requests().pop().unwrap();
        assert_eq!(answer.header("apigw-requestid"), Some(&*seen.request_id));
    }
    let link = world.get("/referral-codes/active-link/7").await.json();
    assert!(link["activeUcc"].is_string() && link["link"].is_string(), "{link}");
    assert_eq!(world.get("/new-users/unknown/reward").await.json(), json!({"eligible": false, "reward": null}));
    assert_eq!(world.metric(r#"read_requests_total{code="200",route="referral_code"}"#), 3.0);
    assert_eq!(world.metric("read_request_duration_seconds_count"), 5.0);
}

#[tokio::test]
async fn answers_to_reads_fit_the_published_document() {
    let cello = Simulator::start(Options::default(), Arc::new(SystemClock)).unwrap();
    let world = World::before(&cello.base_url(), settings());
    let document = openapi::document();
    let paths = [
        ("/referral-codes/{code}", "/referral-codes/c"),
        ("/referral-codes/active-link/{productUserId}", "/referral-codes/active-link/7"),
        ("/new-users/{productUserId}/reward", "/new-users/7/reward"),
    ];
    let cellos_own = |status| format!(r#"[{{"status":{status},"message":"boom"}}]"#);
    let own = [400, 403, 404, 418, 429, 500, 502, 503, 504].map(cellos_own);
    for faults in ["[]", r#"[{"reset":"before"}]"#].into_iter().chain(own.iter().map(String::as_str)) {
        cello.faults(faults.parse().unwrap());
        for (template, path) in paths {
            let headers = [("cache-control", "no-cache")];
            openapi::assert_fits(&document, &world.ask("GET", path, &headers).await, "get", template);
            let wrong = world.get(&path.replace(['7'], "%zz").replace("/c", "/%zz")).await;
            openapi::assert_fits(&document, &wrong, "get", template);
        }
    }
    let refused = world.ask("POST", "/referrers/7/depersonalize", &[]).await;
    openapi::assert_fits(&document, &refused, "post", "/referrers/{productUserId}/depersonalize");
}

#[tokio::test]
async fn status_body_and_content_type_are_cellos_own() {
    let world = World::script(settings(), |seen| async move {
        match seen.path.as_str() {
            "/new-users/teapot/reward" => Reply::Typed(418, "text/x-tea", "short and stout".into()),
            "/new-users/gone/reward" => Reply::json(404, r#"{ "message" : "no" }"#),
            "/new-users/busy/reward" => Reply::With(429, "retry-after", "7".to_owned()),
            _ => Reply::json(500, "oops"),
        }
    })
    .await;
    let answer = world.get("/new-users/teapot/reward").await;
    assert_eq!(
        (answer.status, answer.header("content-type"), &*answer.body),
        (418, Some("text/x-tea"), "short and stout")
    );
    let answer = world.get("/new-users/gone/reward").await;
    assert_eq!((answer.status, answer.header("content-type"), &*answer.body), (404, None, r#"{ "message" : "no" }"#));
    let answer = world.get("/new-users/busy/reward").await;
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("7")));
    assert_eq!(world.get("/new-users/x/reward").await.body, "oops");
}

#[tokio::test]
async fn head_is_answered_like_get_without_the_body() {
    let world = World::links().await;
    let head = world.ask("HEAD", "/referral-codes/active-link/7", &[]).await;
    assert_eq!((head.status, head.header("content-length")), (200, Some(&*LINK.len().to_string())));
    assert_eq!(world.cello().calls()[0].method, "GET");
}

#[tokio::test]
async fn an_answer_that_is_compressed_all_the_same_says_so() {
    let world = World::script(settings(), |_| async { Reply::With(200, "content-encoding", "gzip".to_owned()) }).await;
    assert_eq!(world.get("/referral-codes/active-link/7").await.header("content-encoding"), Some("gzip"));
}

#[tokio::test]
async fn a_get_with_a_content_type_and_no_body_is_fine() {
    let world = World::links().await;
    let headers = [("content-type", "application/json"), ("authorization", "Bearer app"), ("cookie", "c")];
    assert_eq!(world.ask("GET", "/referral-codes/active-link/7", &headers).await.status, 200);
    let seen = &world.cello().calls()[0];
    assert_eq!(
        (seen.header("authorization"), seen.header("cookie"), seen.header("content-type")),
        ("Bearer t", "", "")
    );
}

#[tokio::test]
async fn no_request_reaches_another_path_of_cellos() {
    let world = World::links().await;
    for (path, status) in [
        ("/referral-codes/active-link", 404),
        ("/referral-codes/active-link/", 404),
        ("/referral-codes/active%2Dlink", 404),
        ("/referral-codes/active-link%2F7", 404),
        ("/referral-codes/..%2ftoken", 400),
        ("/referral-codes/%2e%2e", 400),
        ("/referral-codes/%252e%252e%252ftoken", 400),
        ("/referral-codes/..", 400),
        ("/referral-codes/../token", 404),
        ("/new-users/../../events/reward", 404),
        ("/new-users/%2e%2e%2f%2e%2e%2fevents%23/reward", 400),
        ("/new-users/7%00/reward", 400),
        ("/new-users/7#/reward", 404),
        ("/new-users/7?/reward", 404),
        ("/new-users/7/reward/..", 404),
        ("//referral-codes/7", 404),
        ("/referral-codes", 404),
    ] {
        let answer = world.get(path).await;
        assert_eq!(answer.status, status, "{path}: {answer:?}");
        assert!(answer.json()["message"].is_string());
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PROPFIND"] {
        assert_eq!(world.ask(method, "/referral-codes/7", &[]).await.status, 405, "{method}");
    }
    assert_eq!(world.cello().calls().len(), 0);
}

#[tokio::test]
async fn an_id_is_encoded_anew_and_a_query_is_dropped() {
    let world = World::links().await;
    for (asked, sent) in [
        ("/new-users/auth0|7/reward?admin=1", "/new-users/auth0%7C7/reward"),
        ("/new-users/a%2Fb%3Fc%23d/reward", "/new-users/a%2Fb%3Fc%23d/reward"),
        ("/new-users/%41%252F/reward", "/new-users/A%252F/reward"),
    ] {
        assert_eq!(world.get(asked).await.status, 200, "{asked}");
        assert_eq!(world.cello().calls().last().unwrap().path, sent);
    }
}

#[tokio::test]
async fn a_thousand_reads_of_the_same_at_once_are_one_call() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let mut settings = settings();
    settings.timeout = std::time::Duration::from_secs(60);
    let world = World::script(settings, move |_| {
        let held = held.clone();
        async move {
            held.acquire().await.unwrap().forget();
            Reply::json(200, r#"{"eligible":true}"#)
        }
    })
    .await;
    let world = Arc::new(world);
    let readers: Vec<_> = (0..1_000)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.get("/new-users/7/reward").await })
        })
        .collect();
    world.until(|metrics| metrics.read_coalesced.get() == 999).await;
    gate.add_permits(1);
    let mut collapsed = 0;
    for reader in readers {
        let answer = reader.await.unwrap();
        assert_eq!((answer.status, &*answer.body), (200, r#"{"eligible":true}"#));
        collapsed += usize::from(answer.header("cache-status").unwrap().ends_with("; collapsed"));
    }
    assert_eq!((world.cello().calls().len(), collapsed), (1, 999));
    assert_eq!(world.metric(r#"upstream_requests_total{operation="read"}"#), 1.0);
}
