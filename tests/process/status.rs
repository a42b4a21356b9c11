//! `GET /api/status`, the reasons in it, a pause that lasts, and the document of the control API.

use cello_relay::admin::{OPENAPI, ROUTES};
use serde_json::{Value, json};

use crate::client::Client;
use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup, sum};
use crate::upstream::{UNREACHABLE, Upstream};

fn status(setup: &Setup) -> Value {
    Client::socket(&setup.socket()).and_then(|mut client| client.get("/api/status")).expect("an answer").json()
}

/// Looks until it is so; gives the status that says it.
fn wait_until(setup: &Setup, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        let status = status(setup);
        if holds(&status) {
            return status;
        }
        assert!(std::time::Instant::now() < deadline, "never {what}: {status:#}");
        std::thread::park_timeout(std::time::Duration::from_millis(20));
    }
}

fn codes(status: &Value) -> Vec<&str> {
    let reasons = status["reasons"].as_array().expect("reasons").iter();
    reasons.map(|reason| reason["code"].as_str().expect("a code")).collect()
}

fn order(setup: &Setup, name: &str, body: &str) -> (u16, Value) {
    let mut client = Client::socket(&setup.socket()).expect("the control socket");
    let answer = client.post(&format!("/api/{name}"), body).expect("an answer");
    (answer.status, answer.json())
}

fn post(relay: &Relay, body: &str) -> u16 {
    relay.client().post("/events", body).expect("an answer").status
}

fn document() -> Value {
    serde_json::from_str(OPENAPI).expect("JSON")
}

fn assert_fits(schema: &str, instance: &Value) {
    let document = document();
    let whole = json!({"$ref": format!("#/components/schemas/{schema}"), "components": document["components"]});
    let validator = jsonschema::validator_for(&whole).expect("a schema");
    let errors: Vec<String> =
        validator.iter_errors(instance).map(|error| format!("{}: {error}", error.instance_path())).collect();
    assert!(errors.is_empty(), "{errors:#?} in {instance:#}");
}

/// A relay whose one event Cello has refused for good.
fn with_a_dead_letter() -> (Upstream, Setup, Relay) {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":400,"message":"no"}]"#);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    assert_eq!(post(&relay, &event("u", 1)), 200);
    wait_until(&setup, "dead", |status| status["ledger"]["dead"] == 1);
    (upstream, setup, relay)
}

#[test]
fn a_wrong_path_in_the_base_url_is_told_of_as_such_though_the_token_fails_first() {
    let upstream = Upstream::start();
    let setup = Setup::new(&format!("{}/wrong", upstream.base_url()));
    let relay = setup.start();
    assert_eq!(relay.client().post("/events", &event("u", 1)).expect("an answer").status, 200);
    relay.wait_until("the token failed", |metrics| {
        sum(metrics, "cello_relay_token_refresh_failures_total", "reason=\"other\"") >= 1.0
    });
    let (_, stats, stderr) = setup.call(&["outbox", "stats"]);
    let said = ["status 404", "cello.base_url", "retrying"];
    assert!(said.iter().all(|part| stats.contains(part)), "{stats}{stderr}");
    let (code, _, stderr) = setup.call(&["check-config", "--online"]);
    assert!(code == 69 && stderr.contains("status 404") && stderr.contains("hint: look at cello.base_url"), "{stderr}");
    assert!(!stderr.contains("is the network open"), "{stderr}");
}

#[test]
fn an_order_that_is_not_understood_word_for_word_changes_nothing() {
    let (_upstream, setup, _relay) = with_a_dead_letter();
    for (name, body) in [
        ("discard", r#"{"filter":{},"dry_run":"true"}"#),
        ("discard", r#"{"filter":{},"dryRun":true}"#),
        ("discard", r#"[{"filter":{}}]"#),
        ("replay", r#"{"filter":{},"canary":1}"#),
        ("replay", r#"{"filter":{},"per_second":1.5}"#),
        ("erase", r#"{"user":"u","dry_run":"yes"}"#),
        ("erase", r#"{"user":"u","dryRun":true}"#),
        ("pause", "[null]"),
        ("pause", r#"{"for":60}"#),
        ("drain", r#"{"dry_run":true}"#),
    ] {
        assert_eq!(order(&setup, name, body).0, 400, "{name} {body}");
    }
    let mut client = Client::socket(&setup.socket()).expect("the control socket");
    assert_eq!(client.get("/api/events?reveal=yes").expect("an answer").status, 400);
    let trace = client.request("TRACE", "/api/events?limit=0", &[], "").expect("an answer");
    assert_eq!((trace.status, trace.header("allow")), (405, Some("GET, HEAD")));
    let after = status(&setup);
    assert_eq!((&after["ledger"]["dead"], after["state"].as_str()), (&json!(1), Some("ok")), "{after:#}");
}

#[test]
fn a_query_parameter_that_a_call_does_not_know_is_refused_and_nothing_is_done() {
    let (_upstream, setup, _relay) = with_a_dead_letter();
    let mut client = Client::socket(&setup.socket()).expect("the control socket");
    let listed = client.get("/api/events?limit=1").expect("an answer").json();
    let id = listed["events"][0]["id"].as_str().expect("an id").to_owned();
    for (method, path, body) in [
        ("POST", "/api/discard?user=other".to_owned(), r#"{"filter":{}}"#),
        ("POST", "/api/replay?dry_run=true".to_owned(), r#"{"filter":{}}"#),
        ("POST", format!("/api/events/{id}/discard?dry_run=true"), "{}"),
        ("POST", "/api/erase?dry_run=true".to_owned(), r#"{"user":"u","yes":true}"#),
        ("POST", "/api/pause?seconds=5".to_owned(), "{}"),
        ("PUT", "/api/log-level?seconds=5".to_owned(), r#"{"level":"info"}"#),
        ("GET", "/api/status?reveal=true".to_owned(), ""),
        ("GET", "/api/dead?user=u".to_owned(), ""),
        ("GET", format!("/api/events/{id}?limit=5"), ""),
        ("GET", "/api/events?ids=1".to_owned(), ""),
        ("GET", "/api/export?dry_run=true".to_owned(), ""),
        ("GET", "/api/export?limit=0".to_owned(), ""),
        ("GET", "/openapi.json?a".to_owned(), ""),
    ] {
        let answer = client.request(method, &path, &[("Content-Type", "application/json")], body).expect("an answer");
        assert_eq!(answer.status, 400, "{method} {path}: {}", answer.body);
        assert!(answer.body.contains("parameter") || answer.body.contains("limit must be"), "{}", answer.body);
    }
    let after = status(&setup);
    assert_eq!((&after["ledger"]["dead"], after["state"].as_str()), (&json!(1), Some("ok")), "{after:#}");
}

#[test]
fn head_is_answered_wherever_get_is_without_a_body() {
    let setup = Setup::new(UNREACHABLE);
    let relay = setup.start();
    assert_eq!(post(&relay, &event("u", 1)), 200);
    let mut client = Client::socket(&setup.socket()).expect("the control socket");
    let listed = client.get("/api/events").expect("an answer").json();
    let id = listed["events"][0]["id"].as_str().expect("an id").to_owned();
    for (_, template) in ROUTES.iter().filter(|(method, _)| *method == "GET") {
        let path = template.replace("{id}", &id);
        let mut stream = std::os::unix::net::UnixStream::connect(setup.socket()).expect("the control socket");
        let request = format!("HEAD {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("a request");
        let answer = std::io::read_to_string(stream).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("\r\n\r\n"), "{path}: {answer}");
    }
}

#[test]
fn a_last_page_says_that_it_is_the_last_also_when_it_is_full() {
    let setup = Setup::new(UNREACHABLE);
    let relay = setup.start();
    for number in 1..=4 {
        assert_eq!(post(&relay, &event("u", number)), 200);
    }
    let mut client = Client::socket(&setup.socket()).expect("the control socket");
    let first = client.get("/api/events?limit=2").expect("an answer").json();
    let next = first["next"].as_str().expect("there are more");
    let last = client.get(&format!("/api/events?limit=2&after={next}")).expect("an answer").json();
    assert_eq!((last["events"].as_array().map(Vec::len), &last["next"]), (Some(2), &Value::Null), "{last:#}");
}

#[test]
fn a_pause_is_kept_when_the_process_is_killed_and_ends_only_with_resume() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    assert_eq!(order(&setup, "pause", "{}").0, 200);
    let since = status(&setup)["upstream"]["paused"]["since"].clone();
    relay.kill();
    let (code, shown, stderr) = setup.call(&["outbox", "stats"]);
    assert!(code == 0 && shown.contains("An operator paused delivery"), "{shown}{stderr}");
    let relay = setup.start();
    assert_eq!(post(&relay, &event("u", 1)), 200);
    let paused = status(&setup);
    assert_eq!((paused["state"].as_str(), &paused["upstream"]["paused"]["since"]), (Some("paused"), &since));
    assert_eq!(codes(&paused), ["paused"]);
    assert_eq!(paused["reasons"][0]["command"], "cello-relay resume");
    assert_eq!(order(&setup, "resume", "{}").0, 200);
    relay.wait_until_empty(PATIENCE);
    relay.kill();
    let _relay = setup.start();
    assert_eq!(status(&setup)["state"], "ok", "a pause that was ended does not come back");
}

#[test]
fn a_pause_for_a_while_keeps_its_end_over_a_restart() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    order(&setup, "pause", r#"{"seconds":3600}"#);
    let before = status(&setup)["upstream"]["paused"].clone();
    assert!(before["until"].is_string(), "{before}");
    relay.kill();
    let relay = setup.start();
    assert_eq!(status(&setup)["upstream"]["paused"], before);
    relay.kill();
    // As if an hour had passed.
    std::fs::write(setup.outbox().join("paused"), r#"{"sinceMs":1000,"untilMs":3601000}"#).expect("a file");
    let relay = setup.start();
    assert_eq!((status(&setup)["state"].as_str(), post(&relay, &event("u", 1))), (Some("ok"), 200));
    relay.wait_until_empty(PATIENCE);
}

#[test]
fn a_pause_that_cannot_be_kept_is_refused_and_changes_nothing() {
    let setup = Setup::new(UNREACHABLE);
    let _relay = setup.start();
    std::fs::create_dir(setup.outbox().join("paused.new")).expect("a folder in the way");
    let (code, answer) = order(&setup, "pause", "{}");
    assert_eq!(code, 503, "{answer}");
    assert!(answer["message"].as_str().expect("a message").contains("nothing was changed"), "{answer}");
    assert_eq!(status(&setup)["upstream"]["paused"], Value::Null);
}

#[test]
fn the_status_of_a_relay_at_work_is_whole_healthy_and_fits_its_schema() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    assert_eq!(post(&relay, &event("u", 1)), 200);
    relay.wait_until_empty(PATIENCE);
    let status = wait_until(&setup, "a step of the rates", |status| status["rates"]["until"].is_string());
    assert_fits("Status", &status);
    assert_eq!((&status["healthy"], &status["upstream"]["breaker"]), (&json!(true), &json!("closed")), "{status:#}");
    assert_eq!((&status["token"]["state"], &status["environment"]), (&json!("valid"), &json!("custom")));
    assert_eq!(status["upstream"]["clockSkewSeconds"].as_i64().map(i64::abs).map(|skew| skew < 60), Some(true));
    let sum = |name: &str| -> u64 {
        status["rates"][name].as_array().expect("counts").iter().filter_map(Value::as_u64).sum()
    };
    assert_eq!((sum("accepted"), sum("delivered"), sum("failed")), (1, 1, 0), "{status:#}");
    for time in ["obtainedAt", "expiresAt", "refreshAt"] {
        assert!(status["token"][time].is_string(), "{time}: {}", status["token"]);
    }
    assert!(status["upstream"]["lastDeliveredAt"].is_string());
}

#[test]
fn a_hold_a_dead_letter_and_refusals_at_the_door_are_told_without_personal_data() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let mut relay = setup.start();
    let wrong = r#"{"eventName":"ReferralUpdated","payload":{"newUserId":"canary-user","price":"canary-price"}}"#;
    assert_eq!((post(&relay, wrong), post(&relay, wrong)), (400, 400));
    let twice = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"c","newUserId":"u"},"canary@x":1,"canary@x":2}"#;
    assert_eq!(post(&relay, twice), 400);
    let odd = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"c","newUserId":"canary-user","currency":"canary"}}"#;
    upstream.fault(r#"[{"path":"/events","status":403,"message":"canary-words"}]"#);
    assert_eq!((post(&relay, odd), post(&relay, &event("other", 1))), (200, 200));
    let held = wait_until(&setup, "held", |status| codes(status).contains(&"held_http_403"));
    assert_fits("Status", &held);
    assert_eq!((&held["healthy"], &held["upstream"]["hold"]["reason"]), (&json!(false), &json!("http_403")));
    let last = &held["upstream"]["lastFailure"];
    assert!(last["status"] == 403 && last["requestId"].is_string(), "{last}");
    let door = held["door"].as_array().expect("notes");
    let find = |what: &str, field: &str| {
        let same = |note: &&Value| note["what"] == what && note["fields"].to_string().contains(field);
        door.iter().find(same).unwrap_or_else(|| panic!("{what} {field} is not in {door:#?}"))
    };
    assert_eq!(find("http_400", "payload.ucc")["count"], 2);
    assert_eq!(find("http_400", "an unknown field")["kind"], "refusal");
    assert_eq!(find("currency", "payload.currency")["kind"], "warning");
    let (code, shown, _) = setup.call(&["outbox", "stats"]);
    assert_eq!(code, 0);
    assert!(shown.starts_with("CRITICAL  Delivery is held since "), "{shown}");
    let began = relay.wait_for_event("reason_began");
    upstream.heal();
    let ended = relay.wait_for_event("reason_ended");
    let said = format!("{held}{shown}{began}{ended}{}", status(&setup));
    assert!(!said.contains("canary"), "{said}");
}

#[test]
fn an_event_is_served_with_the_fields_of_the_document_and_no_others() {
    let (_upstream, setup, _relay) = with_a_dead_letter();
    let mut client = Client::socket(&setup.socket()).expect("the control socket");
    let page = client.get("/api/events").expect("an answer").json();
    assert_fits("Events", &page);
    let listed = &page["events"][0];
    let shown =
        client.get(&format!("/api/events/{}", listed["id"].as_str().expect("an id"))).expect("an answer").json();
    assert_fits("EventDetail", &shown);
    let schemas = &document()["components"]["schemas"];
    let fields = |object: &Value| object.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    let required = |schema: &Value| schema["required"].as_array().expect("names").clone();
    let (event, detail) = (&schemas["Event"], &schemas["EventDetail"]["allOf"][1]);
    let mut all = fields(&event["properties"]);
    assert_eq!((fields(listed), required(event).len()), (all.clone(), all.len()));
    assert_eq!(fields(&shown["history"][0]), fields(&schemas["Attempt"]["properties"]));
    all.extend(fields(&detail["properties"]));
    all.sort();
    assert_eq!((fields(&shown), required(event).len() + required(detail).len()), (all.clone(), all.len()));
}

#[test]
fn every_call_of_the_document_is_answered_and_every_call_there_is_is_in_it() {
    let mut setup = Setup::new(UNREACHABLE);
    setup.set("ADMIN__ALLOW_QUIT", "true");
    let _relay = setup.start();
    let document = document();
    let mut listed: Vec<(String, String)> = Vec::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        listed.extend(methods.as_object().expect("methods").keys().map(|name| (name.to_uppercase(), path.clone())));
    }
    let mut known: Vec<(String, String)> =
        ROUTES.iter().map(|(method, path)| ((*method).to_owned(), (*path).to_owned())).collect();
    // Ending comes last.
    listed.sort_by_key(|(method, path)| (path == "/api/quit", path.clone(), method.clone()));
    known.sort_by_key(|(method, path)| (path == "/api/quit", path.clone(), method.clone()));
    assert_eq!(listed, known);
    for (method, template) in &listed {
        let path = template.replace("{id}", "0192f0c1-2b3a-7c4d-9e5f-000000000001");
        let client = || Client::socket(&setup.socket()).expect("the control socket");
        let json = [("Content-Type", "application/json")];
        let other = client().request("PATCH", &path, &json, "{}").expect("an answer");
        assert_eq!(other.status, 405, "PATCH {path}: {}", other.body);
        assert!(other.header("allow").expect("allow").contains(method.as_str()), "{path}");
        let body = if method == "GET" { "" } else { "{}" };
        let answer = client().request(method, &path, &json, body).expect("an answer");
        let operation = &document["paths"][template.as_str()][method.to_lowercase()];
        let response = &operation["responses"][answer.status.to_string()];
        assert!(response.is_object(), "{method} {path}: {} is not in the document: {}", answer.status, answer.body);
        assert!(!answer.body.contains("no such call"), "{method} {path}");
        if let Some(schema) = response["content"]["application/json"]["schema"]["$ref"].as_str() {
            assert_fits(schema.rsplit('/').next().expect("a name"), &answer.json());
        }
    }
    let (code, printed, _) = setup.call(&["openapi", "--admin"]);
    assert_eq!((code, printed.as_str()), (0, OPENAPI));
}

#[test]
fn a_relay_whose_outbox_lies_in_memory_though_it_should_last_says_so() {
    let memory = std::path::Path::new("/dev/shm");
    let kind =
        std::process::Command::new("stat").args(["-f", "-c", "%T"]).arg(memory).output().expect("it runs").stdout;
    if kind != b"tmpfs\n" {
        println!("skipped: an outbox in memory: {} is none", memory.display());
        return;
    }
    let dir = tempfile::tempdir_in(memory).expect("a folder");
    for (durability, is_told) in [("persistent", true), ("pod", false)] {
        let mut setup = Setup::new(UNREACHABLE);
        setup.set("OUTBOX__DIR", dir.path().to_str().expect("a plain path"));
        setup.set("OUTBOX__DURABILITY", durability).set("SHUTDOWN__DEADLINE", "0s");
        let relay = setup.start();
        assert_eq!(relay.metric("cello_relay_outbox_info", "fs=\"tmpfs\""), 1.0);
        let (_, log) = relay.terminate();
        assert_eq!(log.contains("\"outbox_not_kept\""), is_told, "{durability}: {log}");
    }
}
