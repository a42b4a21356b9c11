//! It accepts what Cello accepts, refuses what Cello refuses, and answers in Cello's shapes.

use std::time::Duration;

use cello_relay::simulator::{AccessKeys, ErrorShape, Options, TokenRules, TokenShape};
use serde_json::{Value, json};

use super::client::{Answer, KEYS, Stage, event};

fn openapi() -> Value {
    serde_json::from_str(include_str!("../../files/cello/openapi-v1.json")).expect("Cello's OpenAPI")
}

/// Asserts that an answer is what Cello's OpenAPI promises for its route and status.
fn assert_documented(answer: &Answer, path: &str, method: &str) {
    let api = openapi();
    let documented = &api["paths"][path][method]["responses"][answer.status.to_string()];
    assert!(documented.is_object(), "{method} {path} must not answer {}: {answer:?}", answer.status);
    assert!(answer.headers.contains_key("apigw-requestid"), "{answer:?}");
    let schema = documented["content"]["application/json"]["schema"].clone();
    if schema.is_null() {
        assert_eq!(answer.text, "");
        return;
    }
    assert_matches_schema(answer, schema);
    assert_eq!(answer.headers["content-type"], "application/json");
}

fn assert_matches_schema(answer: &Answer, mut schema: Value) {
    schema["components"] = openapi()["components"].clone();
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let faults: Vec<_> = validator.iter_errors(&answer.json()).map(|error| error.to_string()).collect();
    assert!(faults.is_empty(), "{faults:?} in {}", answer.text);
}

/// Tokens are held against the schema of their grant: the document's `oneOf` of the two is ambiguous,
/// because an answer to keys matches both.
fn assert_tokens(answer: &Answer, schema: &str) {
    assert_eq!(answer.status, 201, "{answer:?}");
    assert!(answer.headers.contains_key("apigw-requestid"));
    assert_matches_schema(answer, json!({ "$ref": format!("#/components/schemas/{schema}") }));
}

#[tokio::test]
async fn every_documented_event_is_accepted_and_counts() {
    let stage = Stage::new().await;
    let api = openapi();
    let examples = &api["paths"]["/events"]["post"]["requestBody"]["content"]["application/json"]["examples"];
    let examples = examples.as_object().expect("examples").values().map(|example| example["value"].to_string());
    let mut sent: Vec<_> = examples.collect();
    sent.push(include_str!("../../files/cello/api-v1-new-signup.json").to_owned());
    assert_eq!(sent.len(), 5);
    for body in &sent {
        let answer = stage.post("/events", body).await;
        assert_eq!((answer.status, answer.json()), (200, json!({"success": true})), "{body}");
        assert_documented(&answer, "/events", "post");
    }
    let arrived: Vec<_> = stage.simulator.events().iter().map(|arrival| arrival.body.to_vec()).collect();
    assert_eq!(arrived, sent.iter().map(|body| body.clone().into_bytes()).collect::<Vec<_>>());
    assert_eq!((stage.simulator.stats().counted, stage.simulator.stats().unknown_fields), (5, 0));
}

#[tokio::test]
async fn every_read_is_answered_in_its_documented_shape() {
    let stage = Stage::new().await;
    let code = "/referral-codes/{code}";
    for (path, valid, user) in [("good", true, "12345678"), ("unknown1", false, ""), ("blocked1", false, "12345678")] {
        let answer = stage.get(&format!("/referral-codes/{path}")).await;
        assert_documented(&answer, code, "get");
        assert_eq!((&answer.json()["valid"], &answer.json()["productUserId"]), (&json!(valid), &json!(user)));
        assert_eq!(answer.json()["code"], path);
    }
    let link = stage.get("/referral-codes/active-link/u%201").await;
    assert_documented(&link, "/referral-codes/active-link/{productUserId}", "get");
    for (user, eligible) in [("u", true), ("unknown", false)] {
        let reward = stage.get(&format!("/new-users/{user}/reward")).await;
        assert_documented(&reward, "/new-users/{productUserId}/reward", "get");
        assert_eq!(reward.json()["eligible"], eligible);
    }
    for (user, status) in [("u", 204), ("unknown", 404)] {
        let answer = stage.post(&format!("/referrers/{user}/depersonalize"), "").await;
        assert_documented(&answer, "/referrers/{productUserId}/depersonalize", "post");
        assert_eq!(answer.status, status);
    }
}

#[tokio::test]
async fn paths_and_methods_that_cello_has_not_are_not_found() {
    let stage = Stage::new().await;
    for (method, path) in
        [("GET", "/"), ("GET", "/events"), ("POST", "/event"), ("PUT", "/token"), ("GET", "/v2/events")]
    {
        let answer = stage.send(method, path, "").await;
        assert_eq!((answer.status, answer.json()), (404, json!({"message": "Not Found"})), "{method} {path}");
        assert!(answer.headers.contains_key("apigw-requestid"));
    }
}

#[tokio::test]
async fn an_invalid_event_is_refused_with_a_message_and_does_not_count() {
    let stage = Stage::new().await;
    let good: Value = serde_json::from_str(&event("u")).expect("an event");
    let mut bad: Vec<String> = vec![String::new(), "[]".into(), "{".into()];
    for pointer in ["/eventName", "/payload", "/context", "/payload/ucc", "/payload/newUserId"] {
        let mut wrong = good.clone();
        *wrong.pointer_mut(pointer).expect("a field") = json!(7);
        bad.push(wrong.to_string());
        let (parent, name) = pointer.rsplit_once('/').expect("a pointer");
        let mut missing = good.clone();
        let parent = missing.pointer_mut(parent).and_then(Value::as_object_mut).expect("an object");
        parent.remove(name).expect("a field");
        bad.push(missing.to_string());
    }
    for body in &bad {
        let answer = stage.post("/events", body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert_documented(&answer, "/events", "post");
    }
    let stats = stage.simulator.stats();
    assert_eq!((stats.received, stats.counted, stats.by_status[&400]), (bad.len() as u64, 0, bad.len() as u64));
}

#[tokio::test]
async fn a_missing_or_unknown_token_is_unauthorized_everywhere() {
    let mut stage = Stage::new().await;
    for token in ["", "sim-access-made-up"] {
        stage.token = token.into();
        let answers = [
            (stage.event("u").await.expect("an answer"), "/events", "post"),
            (stage.get("/referral-codes/c").await, "/referral-codes/{code}", "get"),
            (stage.get("/new-users/u/reward").await, "/new-users/{productUserId}/reward", "get"),
            (stage.post("/referrers/u/depersonalize", "").await, "/referrers/{productUserId}/depersonalize", "post"),
        ];
        for (answer, path, method) in &answers {
            assert_eq!((answer.status, answer.json()), (401, json!({"message": "Unauthorized"})), "{path}");
            assert_documented(answer, path, method);
        }
    }
    assert_eq!(stage.simulator.stats().counted, 0);
    assert!(!stage.simulator.events()[0].headers.authorization && stage.simulator.events()[1].headers.authorization);
}

#[tokio::test]
async fn a_token_works_until_it_expires_and_can_be_refreshed_until_the_refresh_token_does() {
    let mut stage = Stage::new().await;
    let tokens = stage.post("/token", KEYS).await;
    assert_tokens(&tokens, "TokenResponse");
    assert_eq!(
        (&tokens.json()["expiresIn"], &tokens.json()["refreshTokenExpiresIn"]),
        (&json!(18_000), &json!(432_000))
    );
    let refresh = json!({"refreshToken": tokens.json()["refreshToken"]}).to_string();

    stage.clock.advance(Duration::from_secs(17_900));
    assert_eq!(stage.event("u").await.expect("an answer").status, 200);
    stage.clock.advance(Duration::from_secs(101));
    assert_eq!(stage.event("u").await.expect("an answer").status, 401);

    let refreshed = stage.post("/token", &refresh).await;
    assert_tokens(&refreshed, "RefreshTokenResponse");
    let keys: Vec<_> = refreshed.json().as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys, ["accessToken", "expiresIn"]);
    stage.token = refreshed.json()["accessToken"].as_str().expect("a token").into();
    assert_eq!(stage.event("u").await.expect("an answer").status, 200);

    stage.clock.advance(Duration::from_secs(432_000));
    let refused = stage.post("/token", &refresh).await;
    assert_eq!(refused.status, 400);
    assert_documented(&refused, "/token", "post");
    let calls = stage.simulator.stats().token_calls;
    assert_eq!((calls.access_key, calls.refresh_token, calls.refused), (2, 2, 1));
}

#[tokio::test]
async fn old_token_and_seen_error_shapes_are_given_on_request() {
    let keys = AccessKeys { access_key_id: "id".into(), secret_access_key: "secret".into() };
    let tokens =
        TokenRules { keys: Some(keys), shape: TokenShape::Old, error_shape: ErrorShape::Seen, ..TokenRules::default() };
    let stage = Stage::with(Options { tokens, ..Options::default() }).await;
    let given = stage.post("/token", KEYS).await.json();
    let keys: Vec<_> = given.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys, ["accessToken", "expiresIn", "refreshToken"]);

    let refused = stage.post("/token", r#"{"accessKeyId":"id","secretAccessKey":"other"}"#).await;
    assert_eq!(refused.status, 401);
    let mut body = refused.json();
    let timestamp = body.as_object_mut().and_then(|body| body.remove("timestamp")).expect("a timestamp");
    assert!(timestamp.as_str().is_some_and(|text| text.starts_with("2025-11-24T")), "{timestamp}");
    assert_eq!(body, json!({"statusCode": 401, "path": "/api/token", "message": "Invalid API Credentials"}));
}
