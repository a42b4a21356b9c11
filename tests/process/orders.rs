//! Orders about dead letters: what they promise while they run, when they are ended, and when two are given.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::client::{Answer, Client};
use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup};
use crate::upstream::Upstream;

const REFUSES: &str = r#"[{"path":"/events","status":400,"message":"no such ucc"}]"#;

/// So many dead letters, each of another user; Cello takes them again by now.
fn with_dead(setup: &Setup, upstream: &Upstream, count: u64) -> Relay {
    upstream.fault(REFUSES);
    let relay = setup.start();
    for number in 1..=count {
        let answer = relay.client().post("/events", &event(&format!("u{number}"), number)).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    relay.wait_until_empty(PATIENCE);
    assert_eq!(dead(&relay), count);
    upstream.heal();
    relay
}

fn dead(relay: &Relay) -> u64 {
    relay.metric("cello_relay_outbox_events", "dead") as u64
}

fn order(setup: &Setup, path: &str, body: &Value) -> Answer {
    let mut client = Client::socket(&setup.socket()).expect("the control socket");
    client.post(path, &body.to_string()).expect("an answer")
}

fn ids(setup: &Setup) -> Vec<String> {
    let listed = Client::socket(&setup.socket()).and_then(|mut client| client.get("/api/events")).expect("an answer");
    let listed = listed.json();
    let events = listed["events"].as_array().expect("events").iter();
    events.map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
}

/// The next line about an order that came to its end.
fn ended(relay: &mut Relay) -> Value {
    loop {
        let line = relay.wait_for_event("operator_action");
        if line["step"] == "ended" {
            return line;
        }
    }
}

#[test]
fn a_paced_replay_ends_with_its_command_and_the_rest_stays_dead() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let mut relay = with_dead(&setup, &upstream, 9);
    let mut command = setup.command(&["outbox", "replay", "--all", "--per-second", "1"]).spawn().expect("it runs");
    relay.wait_until("the first is delivered", |metrics| {
        crate::relay::sum(metrics, "cello_relay_events_delivered_total", "") >= 1.0
    });
    command.kill().expect("a running command");
    command.wait().expect("a status");
    let ended = ended(&mut relay);
    assert_eq!((&ended["outcome"], &ended["via"]), (&json!("reader_left"), &json!("socket")), "{ended}");
    assert_eq!(ended["selector"], "all", "{ended}");
    let count = ended["count"].as_u64().expect("a count");
    assert!(count < 9, "{ended}");
    relay.wait_until_empty(PATIENCE);
    assert_eq!((dead(&relay), upstream.arrivals().count() as u64), (9 - count, count));
}

#[test]
fn a_canary_whose_reader_leaves_brings_nobody_after_it_also_by_tcp() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let token = setup.dir().join("token");
    std::fs::write(&token, "secret").expect("a file");
    setup.set("ADMIN__TOKEN_FILE", token.to_str().expect("a path"));
    let mut relay = with_dead(&setup, &upstream, 3);
    assert_eq!(order(&setup, "/api/pause", &json!({})).status, 200);
    let body = r#"{"filter":{},"canary":true}"#;
    let request = format!(
        "POST /api/replay HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer secret\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut stream = TcpStream::connect(relay.admin).expect("the admin listener");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while !line.contains("\"done\":false") {
        line.clear();
        assert_ne!(stream.read_line(&mut line).expect("an answer"), 0, "it ended");
    }
    drop(stream);
    let ended = ended(&mut relay);
    assert_eq!((&ended["outcome"], &ended["via"]), (&json!("reader_left"), &json!("tcp")), "{ended}");
    assert_eq!(order(&setup, "/api/resume", &json!({})).status, 200);
    relay.wait_until_empty(PATIENCE);
    assert_eq!((dead(&relay), upstream.arrivals().count()), (2, 1));
}

#[test]
fn a_canary_is_known_to_be_delivered_also_where_deliveries_are_not_remembered() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("OUTBOX__REMEMBER", "0s");
    let relay = with_dead(&setup, &upstream, 3);
    let (code, stdout, stderr) = setup.call(&["outbox", "replay", "--all", "--canary", "--json"]);
    assert_eq!(code, 0, "{stdout}{stderr}");
    let done: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((&done["count"], &done["canary"]["outcome"]), (&json!(3), &json!("delivered")), "{done}");
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 3);
}

#[test]
fn a_replay_while_paused_or_draining_is_taken_and_waits_its_turn() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = with_dead(&setup, &upstream, 2);
    let of = ids(&setup);
    assert_eq!(order(&setup, "/api/pause", &json!({})).status, 200);
    let done = order(&setup, "/api/replay", &json!({"ids": [of[0]]})).json();
    assert_eq!(done["count"], 1, "{done}");
    let shown = relay.client().get(&format!("/events/{}", of[0])).expect("an answer").json();
    assert_eq!((&shown["state"], upstream.arrivals().count()), (&json!("pending"), 0));
    assert_eq!(order(&setup, "/api/drain", &json!({})).json()["state"], "paused", "a pause is stronger");
    let done = order(&setup, "/api/replay", &json!({"ids": [of[1]]})).json();
    assert_eq!(done["count"], 1, "{done}");
    assert_eq!(order(&setup, "/api/resume", &json!({})).json()["state"], "draining");
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 2);
}

#[test]
fn two_operators_who_replay_the_same_replay_it_once() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = with_dead(&setup, &upstream, 12);
    let count = || order(&setup, "/api/replay", &json!({"filter": {}})).json()["count"].as_u64().expect("a count");
    let both: u64 = std::thread::scope(|scope| {
        let operators = [scope.spawn(count), scope.spawn(count)];
        operators.into_iter().map(|operator| operator.join().expect("an answer")).sum()
    });
    assert_eq!(both, 12);
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 12);
}

#[test]
fn an_order_about_one_event_does_what_its_body_says_and_nothing_else() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("FORWARD__AMBIGUOUS", "dead");
    upstream.fault(r#"[{"path":"/events","reset":"after"}]"#);
    let relay = setup.start();
    assert_eq!(relay.client().post("/events", &event("u", 1)).expect("an answer").status, 200);
    relay.wait_until("dead", |metrics| crate::relay::sum(metrics, "cello_relay_outbox_events", "dead") == 1.0);
    upstream.heal();
    let path = |action: &str| format!("/api/events/{}/{action}", ids(&setup)[0]);
    let dry = order(&setup, &path("discard"), &json!({"dry_run": true})).json();
    assert_eq!((&dry["count"], &dry["dryRun"], dead(&relay)), (&json!(1), &json!(true), 1), "{dry}");
    for (action, body) in [
        ("discard", json!({"may_duplicate": true})),
        ("discard", json!({"dryRun": true})),
        ("replay", json!({"per_second": 1})),
        ("replay", json!({"ids": []})),
    ] {
        assert_eq!(order(&setup, &path(action), &body).status, 400, "{action} {body}");
    }
    let passed = order(&setup, &path("replay"), &json!({})).json();
    assert_eq!((&passed["count"], &passed["passedOver"], dead(&relay)), (&json!(0), &json!(1), 1), "{passed}");
    assert!(passed["why"].as_str().expect("why").contains("may_duplicate"), "{passed}");
    let done = order(&setup, &path("replay"), &json!({"may_duplicate": true})).json();
    assert_eq!((&done["count"], &done["passedOver"]), (&json!(1), &json!(0)), "{done}");
    relay.wait_until_empty(PATIENCE);
    assert_eq!(dead(&relay), 0);
}

#[test]
fn ids_that_nobody_knows_are_told_and_one_that_is_given_twice_counts_once() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = with_dead(&setup, &upstream, 1);
    let (id, never) = (ids(&setup).remove(0), "0192f0c1-2b3a-7c4d-9e5f-000000000001");
    let dry = order(&setup, "/api/discard", &json!({"ids": [id, never, id], "dry_run": true})).json();
    assert_eq!((&dry["count"], &dry["unknown"], &dry["notDead"]), (&json!(1), &json!([never]), &json!([])), "{dry}");
    let (code, stdout, stderr) = setup.call(&["outbox", "discard", "--dry-run", &id, &id]);
    assert!(code == 0 && stdout.starts_with("1 dead letter matches"), "{code} {stdout} {stderr}");
    assert_eq!(dead(&relay), 1);
    let (code, stdout, stderr) = setup.call(&["outbox", "replay", "--json", &id, never]);
    let done: Value = serde_json::from_str(&stdout).expect("JSON");
    assert_eq!((code, &done["count"]), (69, &json!(1)), "{stdout}{stderr}");
    assert!(stderr.contains(never) && stderr.contains("no such event"), "{stderr}");
    relay.wait_until_empty(PATIENCE);
    let (code, stdout, stderr) = setup.call(&["outbox", "discard", "--json", &id]);
    assert!(code == 69 && stdout.contains("\"count\":0") && stderr.contains("not dead (any more)"), "{stdout}{stderr}");
}

#[test]
fn an_order_about_named_events_that_does_nothing_is_no_success() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("FORWARD__AMBIGUOUS", "dead");
    let relay = with_dead(&setup, &upstream, 1);
    upstream.fault(r#"[{"path":"/events","reset":"after"}]"#);
    assert_eq!(relay.client().post("/events", &event("u2", 1)).expect("an answer").status, 200);
    relay.wait_until_empty(PATIENCE);
    assert_eq!(order(&setup, "/api/pause", &json!({})).status, 200);
    let answer = relay.client().post("/events", &event("u3", 1)).expect("an answer");
    let (of_dead, waiting) = (ids(&setup), answer.json()["id"].as_str().expect("an id").to_owned());
    for action in ["discard", "replay"] {
        for more in [&["--json"][..], &["--dry-run"]] {
            let (code, _, stderr) = setup.call(&[&["outbox", action, &waiting], more].concat());
            assert!(code == 69 && stderr.contains("none of the events named"), "{action} {more:?}: {code} {stderr}");
        }
    }
    let (code, _, stderr) = setup.call(&["outbox", "replay", &of_dead[1]]);
    assert!(code == 69 && stderr.contains("--may-duplicate"), "{code} {stderr}");
    let (code, _, stderr) = setup.call(&["outbox", "replay", &waiting, &of_dead[0]]);
    assert!(code == 0 && stderr.contains(&format!("not dead (any more): {waiting}")), "{code} {stderr}");
    assert_eq!(setup.call(&["outbox", "replay", "--reason", "corrupt"]).0, 0, "a filter may mean none");
}

#[test]
fn an_order_with_a_misspelt_flag_or_variable_reaches_no_relay() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let relay = with_dead(&setup, &upstream, 1);
    let (code, _, stderr) = setup.call(&["outbox", "discard", "--all", "--yes", "--set", "outbox.dirr=/mnt/other"]);
    assert!(code == 78 && stderr.contains("did you mean outbox.dir?"), "{code} {stderr}");
    setup.raw("CELLO_RELAY_ADMIN_SOCKET", "/mnt/other/control.sock");
    let (code, _, stderr) = setup.call(&["outbox", "discard", "--all", "--yes"]);
    assert!(code == 78 && stderr.contains("CELLO_RELAY_ADMIN__SOCKET"), "{code} {stderr}");
    assert_eq!(dead(&relay), 1);
}

#[test]
fn a_discard_of_many_is_whole_and_tells_how_far_it_is() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let mut relay = with_dead(&setup, &upstream, 10);
    let mut client = Client::socket(&setup.socket()).expect("the control socket");
    let headers = [("Content-Type", "application/json"), ("Accept", "application/x-ndjson")];
    let answer = client.request("POST", "/api/discard", &headers, r#"{"filter":{}}"#).expect("an answer");
    let lines: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let last = lines.last().expect("a line");
    assert_eq!((&last["count"], &last["done"]), (&json!(10), &json!(true)), "{lines:?}");
    assert!(lines.iter().rev().skip(1).all(|line| line["done"] == false), "{lines:?}");
    assert_eq!((dead(&relay), &ended(&mut relay)["outcome"]), (0, &json!("done")));
}

#[test]
fn a_relay_that_ends_amid_a_replay_is_not_held_up_and_its_command_tells_that_it_broke_off() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = with_dead(&setup, &upstream, 9);
    let command = setup.command(&["outbox", "replay", "--all", "--per-second", "1"]).spawn().expect("it runs");
    relay.wait_until("the first is delivered", |metrics| {
        crate::relay::sum(metrics, "cello_relay_events_delivered_total", "") >= 1.0
    });
    let (code, log) = relay.terminate();
    assert!(code == Some(0) && log.contains(r#""step":"ended","outcome":"relay_ended","count":"#), "{log}");
    let output = command.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(stderr.contains("broke off") && stderr.contains("stays dead"), "{stderr}");
    let relay = setup.start();
    relay.wait_until_empty(PATIENCE);
    assert_eq!(dead(&relay) + upstream.arrivals().count() as u64, 9);
    assert!(dead(&relay) > 0);
}

#[test]
fn without_a_relay_a_replay_says_how_to_read_its_directory() {
    let setup = Setup::new(crate::upstream::UNREACHABLE);
    let mut command = setup.command(&["outbox", "replay", "--all", "--yes"]);
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(stderr.contains("`cello-relay outbox stats|list|show|export|check`"), "{stderr}");
}
