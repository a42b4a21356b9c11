//! What operators and developers do with the binary, end to end.

use std::io::{BufRead, BufReader};
use std::process::Child;

use crate::client::Client;
use crate::load::event;
use crate::relay::{PATIENCE, Setup};
use crate::upstream::{UNREACHABLE, Upstream};

/// The example request of Cello's own document, as it is printed there.
const EXAMPLE: &str = include_str!("../files/cello/example-event.json");

#[test]
fn the_documents_example_arrives_stripped_authenticated_and_otherwise_unchanged() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let answer = relay.client().post("/events", EXAMPLE).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    relay.wait_until_empty(PATIENCE);
    let arrived = upstream.arrivals();
    let arrived: serde_json::Value = serde_json::from_str(arrived.bodies().next().expect("an arrival")).expect("JSON");
    assert_eq!(arrived, serde_json::from_str::<serde_json::Value>(EXAMPLE).expect("JSON"));
    assert_eq!(upstream.stats()["unknownFields"], 0);
}

#[test]
fn a_dead_letter_is_found_shown_and_replayed() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","user":"poisoned","status":400,"message":"no such ucc"}]"#);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let mut client = relay.client();
    for user in ["poisoned", "fine"] {
        assert_eq!(client.post("/events", &event(user, 1)).expect("an answer").status, 200);
    }
    relay.wait_until_empty(PATIENCE);
    let (code, listed, stderr) = setup.call(&["outbox", "list", "--state", "dead", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let dead = &listed["events"][0];
    assert_eq!((dead["reason"].as_str(), dead["user"].as_str()), (Some("http_400"), Some("[redacted]")), "{listed}");
    let id = dead["id"].as_str().expect("an id").to_owned();
    let (code, shown, _) = setup.call(&["outbox", "show", &id, "--reveal"]);
    assert_eq!(code, 0);
    assert!(shown.contains("no such ucc") && shown.contains("poisoned"), "{shown}");
    upstream.heal();
    let (code, _, stderr) = setup.call(&["outbox", "replay", "--reason", "http_400"]);
    assert_eq!(code, 0, "{stderr}");
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 2);
    assert_eq!(relay.metric("cello_relay_outbox_events", "dead"), 0.0);
}

#[test]
fn a_stopped_relays_directory_can_be_listed_and_exported() {
    let mut setup = Setup::new(UNREACHABLE);
    setup.set("SHUTDOWN__DEADLINE", "0s");
    let relay = setup.start();
    assert_eq!(relay.client().post("/events", &event("u", 7)).expect("an answer").status, 200);
    relay.terminate();
    let (code, listed, stderr) = setup.call(&["outbox", "list"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(listed.contains("new-signup"), "{listed}");
    let (code, exported, stderr) = setup.call(&["outbox", "export", "--reveal"]);
    assert_eq!((code, exported.trim()), (0, event("u", 7).as_str()), "{stderr}");
}

#[test]
fn a_file_that_is_sent_twice_arrives_once() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    setup.set("INGEST__LISTEN", &relay.ingest.to_string());
    let file = setup.dir().join("events.ndjson");
    let rejects = setup.dir().join("rejects");
    let lines: Vec<String> = (1..=30).map(|number| event("u", number)).collect();
    std::fs::write(&file, lines.join("\n") + "\n{\"not\": \"an event\"}\n").expect("a file");
    let arguments = ["send", file.to_str().expect("a path"), "--rejects", rejects.to_str().expect("a path")];
    for _ in 0..2 {
        let (_, stdout, stderr) = setup.call(&arguments);
        assert!(std::fs::read_to_string(&rejects).expect("rejects").contains("31"), "{stdout}{stderr}");
        std::fs::remove_file(&rejects).expect("a file");
    }
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 30);
}

#[test]
fn refused_events_never_replace_the_input_or_those_of_an_earlier_run_and_nothing_is_sent_first() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    setup.set("INGEST__LISTEN", &relay.ingest.to_string());
    let (file, earlier) = (setup.dir().join("events.ndjson"), setup.dir().join("rejects"));
    let text = format!("{}\n{{\"not\": \"an event\"}}\n{}\n", event("u", 1), event("u", 2));
    std::fs::write(&file, &text).expect("a file");
    std::fs::write(&earlier, "half mended").expect("a file");
    let file = file.to_str().expect("a path");
    for (rejects, why) in [(file, "the input itself"), (earlier.to_str().expect("a path"), "is not empty")] {
        let (code, stdout, stderr) = setup.call(&["send", file, "--rejects", rejects]);
        assert!(code == 73 && stderr.contains(why), "{code} {stdout}{stderr}");
    }
    // The shell's redirection is the same file, too.
    let mut command = setup.command(&["send", "-", "--rejects", file]);
    let output = command.stdin(std::fs::File::open(file).expect("a file")).output().expect("it runs");
    assert_eq!(output.status.code(), Some(73), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_to_string(file).expect("the input"), text);
    assert_eq!(std::fs::read_to_string(&earlier).expect("a file"), "half mended");
    assert_eq!(relay.ledger("accepted"), 0);
}

#[test]
fn an_event_that_was_discarded_and_is_sent_again_is_not_told_as_delivered() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":400,"message":"no such ucc"}]"#);
    let mut setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    setup.set("INGEST__LISTEN", &relay.ingest.to_string());
    let file = setup.dir().join("events.ndjson");
    std::fs::write(&file, event("u", 1)).expect("a file");
    let arguments = ["send", file.to_str().expect("a path"), "--wait"];
    assert_eq!(setup.call(&arguments).0, 65);
    assert_eq!(setup.call(&["outbox", "discard", "--all", "--yes"]).0, 0);
    upstream.heal();
    let (code, _, stderr) = setup.call(&arguments);
    assert!(
        code == 69 && stderr.contains("0 delivered, 1 sent before") && stderr.contains("without its key"),
        "{stderr}"
    );
    // The way that the hint and the runbook tell.
    let (path, lines) = ("/events/batch", [("Content-Type", "application/x-ndjson")]);
    let answer = relay.client().request("POST", path, &lines, &event("u", 1)).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 1);
}

#[test]
fn waiting_until_it_is_empty_ends_at_once_where_the_token_is_refused() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let (theirs, ours) = (setup.dir().join("theirs"), setup.dir().join("ours"));
    for file in [&theirs, &ours] {
        std::fs::write(file, file.to_str().expect("a path")).expect("a file");
    }
    setup.set("INGEST__TOKEN_FILE", theirs.to_str().expect("a path"));
    let relay = setup.start();
    setup.set("INGEST__LISTEN", &relay.ingest.to_string()).set("INGEST__TOKEN_FILE", ours.to_str().expect("a path"));
    let (code, _, stderr) = setup.call(&["wait", "--empty", "--timeout", "1h"]);
    assert!(
        code == 77 && stderr.contains("asks for a token") && stderr.contains("ingest.token_file"),
        "{code} {stderr}"
    );
}

#[test]
fn drain_ignores_backoff_and_wait_sees_the_end() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("FORWARD__BACKOFF_MIN", "5m");
    upstream.fault(r#"[{"path":"/events","status":500}]"#);
    let relay = setup.start();
    setup.set("INGEST__LISTEN", &relay.ingest.to_string()).set("OPS__LISTEN", &relay.ops.to_string());
    assert_eq!(relay.client().post("/events", &event("u", 1)).expect("an answer").status, 200);
    while relay.metric("cello_relay_outbox_events", "retrying") == 0.0 {
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    assert_eq!(setup.call(&["wait", "--empty", "--timeout", "100ms"]).0, 69);
    upstream.heal();
    assert_eq!(setup.call(&["drain", "--no-wait"]).0, 0);
    assert_eq!(setup.call(&["wait", "--empty", "--timeout", "30s"]).0, 0);
    assert_eq!(
        relay.client().post("/events", &event("u", 2)).expect("an answer").status,
        200,
        "a drain still takes posts"
    );
}

#[test]
fn healthcheck_needs_nothing_but_the_address() {
    let mut setup = Setup::new(UNREACHABLE);
    let relay = setup.start();
    setup.set("OPS__LISTEN", &relay.ops.to_string()).unset("CELLO__BASE_URL").unset("CELLO__ACCESS_KEY_ID");
    assert_eq!(setup.call(&["healthcheck"]).0, 0);
    relay.kill();
    assert_eq!(setup.call(&["healthcheck"]).0, 1);
}

#[test]
fn a_stopped_relay_is_told_with_exit_69_and_a_hint() {
    let setup = Setup::new(UNREACHABLE);
    let (code, _, stderr) = setup.call(&["drain"]);
    assert_eq!(code, 69, "{stderr}");
    assert!(
        stderr.contains("hint:") && stderr.contains("`cello-relay outbox stats|list|show|export|check`"),
        "{stderr}"
    );
}

#[test]
fn the_control_socket_tells_the_ledger() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    for number in 0..5 {
        assert_eq!(relay.client().post("/events", &event("u", number)).expect("an answer").status, 200);
    }
    relay.wait_until_empty(PATIENCE);
    let status =
        Client::socket(&setup.socket()).and_then(|mut client| client.get("/api/status")).expect("an answer").json();
    assert_eq!(
        (status["ledger"]["accepted"].as_u64(), status["ledger"]["delivered"].as_u64()),
        (Some(5), Some(5)),
        "{status}"
    );
    let refused =
        Client::connect(relay.admin).and_then(|mut client| client.post("/api/pause", "{}")).expect("an answer");
    assert_eq!(refused.status, 403, "{}", refused.body);
}

#[test]
fn the_demo_runs_through_once_and_exits_0() {
    let setup = Setup::new(UNREACHABLE);
    let mut demo = setup.command(&["demo", "--once"]);
    let output = demo.output().expect("the binary runs");
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Ends with its test, whatever becomes of that.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn what_the_demo_prints_to_try_works_beside_it() {
    let setup = Setup::new(UNREACHABLE);
    let mut demo = setup.command(&["demo"]);
    // Its own outbox goes with the test too.
    let mut demo = Demo(demo.env("TMPDIR", setup.dir()).spawn().expect("the binary runs"));
    let stdout = BufReader::new(demo.0.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    // The address of the page comes last.
    let said: Vec<String> = stdout.take_while(|line| !line.starts_with("  http://")).collect();
    let after = |part: &str| said.iter().find_map(|line| line.trim().strip_prefix(part)).expect("a line to try");
    let outbox = after("export CELLO_RELAY_OUTBOX__DIR=");
    let (address, body) = after("curl -sS http://").split_once("/events -H").expect("a post");
    let body = body.split_once(" -d '").expect("a body").1.trim_end_matches('\'');
    let mut client = Client::connect(address.parse().expect("an address")).expect("the demo's relay");
    let answer = client.post("/events", body).expect("an answer");
    assert!(answer.status == 200 && !answer.body.contains("warnings"), "{}", answer.body);
    let mut list = setup.command(&["outbox", "list", "--state", "dead"]);
    let listed = list.env("CELLO_RELAY_OUTBOX__DIR", outbox).output().expect("the binary runs");
    let listed = String::from_utf8_lossy(&listed.stdout);
    assert!(listed.contains("http_400"), "{listed}");
}

#[test]
fn missing_keys_hold_the_queue_until_the_files_appear() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let keys = setup.dir().join("keys");
    std::fs::create_dir(&keys).expect("a folder");
    setup.unset("CELLO__ACCESS_KEY_ID").unset("CELLO__SECRET_ACCESS_KEY");
    setup.set("CELLO__CREDENTIALS_DIR", keys.to_str().expect("a path"));
    let relay = setup.start();
    let mut client = relay.client();
    assert_eq!(client.post("/events", &event("u", 1)).expect("an answer").status, 200);
    let state = || relay.client().get("/outbox").expect("an answer").json()["state"].as_str().map(str::to_owned);
    while state().as_deref() != Some("held:credentials") {
        std::thread::park_timeout(std::time::Duration::from_millis(10));
    }
    std::fs::write(keys.join("secret-access-key"), "secret\n").expect("a file");
    std::fs::write(keys.join("access-key-id"), "0123\n").expect("a file");
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 1);
}
