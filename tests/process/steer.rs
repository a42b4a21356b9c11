//! Steering a running relay, and what apps and operators see of it.

use serde_json::Value;

use crate::client::Client;
use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup};
use crate::upstream::{UNREACHABLE, Upstream};

/// Looks until it is so.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "never {what}");
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
}

fn see(relay: &Relay, path: &str) -> Value {
    let answer = relay.client().get(path).expect("an answer");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

fn state(relay: &Relay) -> String {
    see(relay, "/outbox")["state"].as_str().expect("a state").to_owned()
}

/// Posts an event; gives the path that tells its state.
fn post(relay: &Relay, user: &str) -> String {
    let answer = relay.client().post("/events", &event(user, 1)).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.header("location").expect("a location").to_owned()
}

fn call(setup: &Setup, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = setup.call(arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

/// The state by the operator's command, which must be the same.
fn stats(setup: &Setup) -> Value {
    serde_json::from_str(&call(setup, &["outbox", "stats", "--json"])).expect("JSON")
}

#[test]
fn a_paused_relay_takes_events_says_so_and_delivers_after_resume() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    call(&setup, &["pause"]);
    let event = post(&relay, "u");
    assert_eq!((state(&relay).as_str(), stats(&setup)["state"].as_str()), ("paused", Some("paused")));
    assert_eq!(see(&relay, "/outbox")["pending"], 1);
    assert_eq!(see(&relay, &event)["state"], "pending");
    call(&setup, &["resume"]);
    relay.wait_until_empty(PATIENCE);
    assert_eq!((state(&relay).as_str(), &see(&relay, &event)["state"]), ("ok", &Value::from("delivered")));
    assert_eq!(upstream.arrivals().count(), 1);
}

#[test]
fn an_order_holds_when_it_is_answered() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let mut control = Client::socket(&setup.socket()).expect("the control socket");
    for (order, expected) in
        [("pause", "paused"), ("resume", "ok")].repeat(10).into_iter().chain([("drain", "draining")])
    {
        let answer = control.post(&format!("/api/{order}"), "{}").expect("an answer");
        assert_eq!((answer.json()["state"].as_str(), state(&relay).as_str()), (Some(expected), expected), "{order}");
    }
}

#[test]
fn a_pause_for_a_while_ends_by_itself() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    call(&setup, &["pause", "--for", "1s"]);
    post(&relay, "u");
    relay.wait_until_empty(PATIENCE);
    assert_eq!(setup.call(&["pause", "--for", "500ms"]).0, 64, "the relay counts in seconds");
}

#[test]
fn a_held_relay_and_each_event_that_waits_say_why() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":403}]"#);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let events = [post(&relay, "first"), post(&relay, "second")];
    wait_until("held", || state(&relay) == "held:http_403");
    assert_eq!(stats(&setup)["state"], "held:http_403");
    // While one of them is probed it is in flight.
    for event in &events {
        wait_until("held", || {
            let seen = see(&relay, event);
            (seen["state"].as_str(), seen["reason"].as_str()) == (Some("held"), Some("http_403"))
        });
    }
    upstream.heal();
    relay.wait_until_empty(PATIENCE);
    assert_eq!((state(&relay).as_str(), &see(&relay, &events[0])["state"]), ("ok", &Value::from("delivered")));
}

#[test]
fn a_draining_relay_says_so_and_sends_what_fails_again_at_once_without_burning_it() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":500}]"#);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let event = post(&relay, "u");
    wait_until("retrying", || see(&relay, &event)["attempts"].as_u64() >= Some(1));
    call(&setup, &["drain", "--no-wait"]);
    assert_eq!((state(&relay).as_str(), stats(&setup)["state"].as_str()), ("draining", Some("draining")));
    // A send follows the commit of what the one before it came to.
    upstream.wait_until_received(upstream.received() + 1);
    let burned = see(&relay, &event)["attempts"].clone();
    upstream.wait_until_received(upstream.received() + 2);
    let seen = see(&relay, &event);
    assert!(seen["state"] == "retrying" || seen["state"] == "in_flight", "{seen}");
    assert_eq!(seen["attempts"], burned, "what fails in a drain says nothing of the event");
    upstream.heal();
    relay.wait_until_empty(PATIENCE);
    assert_eq!((state(&relay).as_str(), &see(&relay, &event)["state"]), ("draining", &Value::from("delivered")));
}

#[test]
fn the_log_level_changes_while_the_relay_runs_and_what_operators_order_is_logged_at_every_level() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("LOG__LEVEL", "error").set("LOG__DELIVERIES", "true");
    let mut relay = Relay::start_quiet(setup.command(&["run"]), &setup.socket());
    call(&setup, &["pause", "--for", "1h"]);
    call(&setup, &["resume"]);
    call(&setup, &["outbox", "discard", "--all", "--yes"]);
    call(&setup, &["log-level", "info", "--for", "10m"]);
    call(&setup, &["drain", "--no-wait"]);
    assert_eq!(setup.call(&["log-level", "loud"]).0, 64);
    let orders = ["pause", "resume", "discard", "discard", "log-level", "drain"].map(|action| {
        let line = relay.wait_for_event("operator_action");
        assert_eq!((&line["action"], &line["via"]), (&Value::from(action), &Value::from("socket")), "{line}");
        line
    });
    assert_eq!(orders[0]["seconds"], 3600, "{}", orders[0]);
    assert!(orders[0]["until"].as_str().is_some_and(|until| until.ends_with('Z')), "{}", orders[0]);
    assert_eq!((&orders[4]["log_level"], &orders[4]["seconds"]), (&Value::from("info"), &Value::from(600)));
    let (_, log) = relay.terminate();
    assert!(!log.contains("\"started\""), "{log}");
    assert!(log.contains("\"shutdown_summary\""), "at info by now: {log}");
}

#[test]
fn changes_by_tcp_need_a_token_also_of_the_log_level() {
    let setup = Setup::new(UNREACHABLE);
    let relay = setup.start();
    let mut client = Client::connect(relay.admin).expect("the admin listener");
    let json = [("Content-Type", "application/json")];
    let refused = client.request("PUT", "/api/log-level", &json, r#"{"level":"trace"}"#).expect("an answer");
    assert_eq!(refused.status, 403, "{}", refused.body);
}

#[test]
fn changes_by_tcp_are_json_or_refused_whatever_the_token() {
    let mut setup = Setup::new(UNREACHABLE);
    let token = setup.dir().join("token");
    std::fs::write(&token, "secret").expect("a file");
    setup.set("ADMIN__TOKEN_FILE", token.to_str().expect("a path"));
    let relay = setup.start();
    let mut client = Client::connect(relay.admin).expect("the admin listener");
    for (media_type, expected) in [
        (None, 403),
        (Some("text/plain"), 403),
        (Some("application/x-www-form-urlencoded"), 403),
        (Some("application/jsonp"), 403),
        (Some("application/json"), 200),
        (Some("Application/JSON; charset=utf-8"), 200),
    ] {
        let bearer = ("Authorization", "Bearer secret");
        let headers: Vec<_> = [bearer].into_iter().chain(media_type.map(|value| ("Content-Type", value))).collect();
        for path in ["/api/pause", "/api/resume"] {
            let answer = client.request("POST", path, &headers, "{}").expect("an answer");
            assert_eq!(answer.status, expected, "{path} {media_type:?}: {}", answer.body);
            if expected == 403 {
                assert_eq!(state(&relay), "ok", "{path} {media_type:?}");
            }
        }
    }
    let mut socket = Client::socket(&setup.socket()).expect("the control socket");
    assert_eq!(socket.request("POST", "/api/pause", &[], "").expect("an answer").status, 200, "as curl sends it");
}

/// A stopped relay with an event that waits, configured for another upstream since.
fn moved() -> (Setup, Upstream) {
    let mut setup = Setup::new(UNREACHABLE);
    setup.set("SHUTDOWN__DEADLINE", "0s");
    let relay = setup.start();
    post(&relay, "u");
    relay.terminate();
    let upstream = Upstream::start();
    setup.set("CELLO__BASE_URL", &upstream.base_url());
    (setup, upstream)
}

#[test]
fn rebind_names_what_changes_and_lets_the_events_go_to_the_configured_upstream() {
    let (mut setup, upstream) = moved();
    setup.unset("CELLO__ACCESS_KEY_ID");
    let (code, _, stderr) = setup.call(&["outbox", "rebind"]);
    assert_eq!(code, 64, "without a terminal nobody can be asked: {stderr}");
    setup.set("CELLO__ACCESS_KEY_ID", "key-id");
    assert_eq!(setup.call(&["run"]).0, 78, "nothing was changed");
    let (code, said, stderr) = setup.call(&["outbox", "rebind", "--yes"]);
    assert!(code == 0 && stderr.contains(r#""action":"rebind","via":"directory","undelivered":1"#), "{stderr}");
    for part in ["1 undelivered", "0 dead", UNREACHABLE, &upstream.base_url()] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    let relay = setup.start();
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 1);
    relay.terminate();
    let (code, stdout, stderr) = setup.call(&["outbox", "rebind", "--yes"]);
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
}

#[test]
fn rebind_is_refused_while_a_relay_runs_and_where_there_is_no_outbox() {
    let mut setup = Setup::new(UNREACHABLE);
    assert_eq!(setup.call(&["outbox", "rebind", "--yes"]).0, 69);
    let relay = setup.start();
    setup.set("CELLO__BASE_URL", "http://127.0.0.1:10");
    let (code, _, stderr) = setup.call(&["outbox", "rebind", "--yes"]);
    assert_eq!(code, 75, "{stderr}");
    assert!(stderr.contains(&relay.pid().to_string()), "{stderr}");
}

#[test]
fn an_export_can_be_of_one_user_from_a_running_and_a_stopped_relay() {
    let mut setup = Setup::new(UNREACHABLE);
    setup.set("SHUTDOWN__DEADLINE", "0s");
    let relay = setup.start();
    for user in ["one", "other"] {
        post(&relay, user);
    }
    let export = ["outbox", "export", "--reveal", "--user", "other"];
    assert_eq!(call(&setup, &export).trim(), event("other", 1));
    relay.terminate();
    assert_eq!(call(&setup, &export).trim(), event("other", 1));
}

#[test]
fn the_printed_document_is_the_served_one() {
    let setup = Setup::new(UNREACHABLE);
    let relay = setup.start();
    let served = relay.client().get("/openapi.json").expect("an answer").body;
    assert_eq!(call(&setup, &["openapi"]), served);
}
