//! The published document: complete, and true of what is answered.

use cello_relay::event::Trigger;
use cello_relay::ingress::OPENAPI;
use cello_relay::outbox::AppendError;
use serde_json::{Value, json};

use super::support::{EVENT, Rig};
use crate::wire::Answer;

pub(crate) fn document() -> Value {
    serde_json::from_str(OPENAPI).expect("JSON")
}

/// Follows a `$ref`, if there is one.
fn resolved<'d>(document: &'d Value, node: &'d Value) -> &'d Value {
    match node["$ref"].as_str() {
        Some(path) => document.pointer(path.trim_start_matches('#')).unwrap_or_else(|| panic!("{path} is missing")),
        None => node,
    }
}

fn check(document: &Value, schema: &Value, instance: &Value, what: &str) {
    let whole = json!({"allOf": [schema], "components": document["components"]});
    let validator = jsonschema::validator_for(&whole).unwrap_or_else(|error| panic!("{what}: {error}"));
    let errors: Vec<String> = validator.iter_errors(instance).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{what}: {errors:?} in {instance}");
}

/// All examples of a `content` object.
fn examples(content: &Value) -> Vec<(&Value, &Value)> {
    let media = content.as_object().into_iter().flat_map(|types| types.values());
    media
        .flat_map(|media| {
            let named = media["examples"].as_object().into_iter().flat_map(|all| all.values().map(|one| &one["value"]));
            let plain = media.get("example");
            named.chain(plain).map(move |example| (&media["schema"], example))
        })
        .collect()
}

#[test]
fn every_route_is_in_the_document_and_every_example_fits_its_schema() {
    let document = document();
    let paths = document["paths"].as_object().expect("paths");
    let expected = [
        "/events",
        "/events/batch",
        "/events/{id}",
        "/outbox",
        "/token",
        "/referral-codes/{code}",
        "/referral-codes/active-link/{productUserId}",
        "/new-users/{productUserId}/reward",
        "/referrers/{productUserId}/depersonalize",
        "/openapi.json",
    ];
    assert_eq!(paths.len(), expected.len());
    let mut seen = 0;
    for path in expected {
        for (method, operation) in paths[path].as_object().expect("operations") {
            let responses = operation["responses"].as_object().expect("responses");
            let answers = responses.values().map(|answer| &resolved(&document, answer)["content"]);
            for content in answers.chain([&operation["requestBody"]["content"]]) {
                for (schema, example) in examples(content) {
                    check(&document, schema, example, &format!("{method} {path}"));
                    seen += 1;
                }
            }
        }
    }
    assert!(seen > 40, "{seen}");
}

/// An answer has the shape that the document gives it.
pub(crate) fn assert_fits(document: &Value, answer: &Answer, method: &str, path: &str) {
    let responses = &document["paths"][path][method]["responses"];
    let named = responses.get(answer.status.to_string()).or_else(|| responses.get("default"));
    let response = resolved(document, named.unwrap_or(&Value::Null));
    assert!(response.is_object(), "{method} {path} {} is not documented", answer.status);
    let schema = &response["content"]["application/json"]["schema"];
    if schema.is_null() {
        // Only what is not the relay's own may have any shape.
        assert!(responses.get("default").is_some(), "{method} {path} {} has no schema", answer.status);
        return;
    }
    check(document, schema, &answer.json(), &format!("{method} {path} {}", answer.status));
}

#[test]
fn the_document_names_every_known_trigger_and_no_other() {
    let event = &document()["components"]["schemas"]["Event"]["properties"]["context"]["properties"]["event"];
    let text = event["description"].as_str().expect("a text").split(')').next().expect("a first part").to_owned();
    let named: Vec<&str> = text.split('`').skip(3).step_by(2).collect();
    let known: Vec<&str> = Trigger::ALL.iter().map(|trigger| trigger.as_str()).collect();
    let known = &known[..known.len() - 2];
    assert_eq!(named, known, "`other` and `none` are no triggers");
}

#[tokio::test]
async fn real_answers_fit_the_document() {
    let (rig, document) = (Rig::start(), document());
    let fits = |answer: &Answer, method: &str, path: &str| assert_fits(&document, answer, method, path);
    let odd = EVENT.replace("\"ucc\"", "\"x\":1,\"ucc\"").replace("new-signup", "new-sigup");
    let key = ("idempotency-key", "k");
    for (headers, body) in [
        (vec![], EVENT),
        (vec![key], odd.as_str()),
        (vec![key], EVENT),
        (vec![], "{}"),
        (vec![], "{"),
        (vec![("content-type", "text/plain")], "x"),
        (vec![("host", "evil")], "x"),
    ] {
        fits(&rig.ask("POST", "/events", &headers, body.as_bytes()).await, "post", "/events");
        let batch = format!("[{EVENT},{body}]");
        fits(&rig.ask("POST", "/events/batch", &headers, batch.as_bytes()).await, "post", "/events/batch");
    }
    fits(&rig.ask("GET", "/outbox", &[], b"").await, "get", "/outbox");
    fits(&rig.ask("GET", "/events/7", &[], b"").await, "get", "/events/{id}");
    for body in [r#"{"accessKeyId":"a","secretAccessKey":"s"}"#, r#"{"refreshToken":"r"}"#, "{}"] {
        fits(&rig.ask("POST", "/token", &[], body.as_bytes()).await, "post", "/token");
    }
    *rig.outbox.refusing.lock().expect("no panic") = Some(AppendError::Closed);
    fits(&rig.ask("POST", "/events", &[], EVENT.as_bytes()).await, "post", "/events");
    assert_eq!(rig.ask("GET", "/openapi.json", &[], b"").await.json(), document);
}
