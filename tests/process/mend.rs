//! Mending with the real binary: replays that make nothing worse, and a person who is erased.

use crate::client::Client;
use crate::load::event;
use crate::relay::{PATIENCE, Setup};
use crate::upstream::{UNREACHABLE, Upstream};

const REFUSES: &str = r#"[{"path":"/events","status":400,"message":"no such ucc"}]"#;

#[test]
fn a_canary_that_dies_again_leaves_the_rest_dead_and_one_that_is_delivered_brings_them() {
    let upstream = Upstream::start();
    upstream.fault(REFUSES);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    for user in ["a", "b", "c"] {
        assert_eq!(relay.client().post("/events", &event(user, 1)).expect("an answer").status, 200);
    }
    relay.wait_until_empty(PATIENCE);
    let (code, _, stderr) = setup.call(&["outbox", "replay", "--all", "--canary"]);
    assert!(code == 69 && stderr.contains("rest stays dead"), "{code} {stderr}");
    assert_eq!(relay.metric("cello_relay_outbox_events", "dead"), 3.0);
    upstream.heal();
    let (code, stdout, stderr) = setup.call(&["outbox", "replay", "--all", "--canary", "--per-second", "1"]);
    assert!(code == 0 && stdout.starts_with("3 dead letters"), "{code} {stdout} {stderr}");
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 3);
}

#[test]
fn an_event_is_shown_with_a_text_for_support_that_names_nobody() {
    let upstream = Upstream::start();
    upstream.fault(REFUSES);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    assert_eq!(relay.client().post("/events", &event("somebody", 1)).expect("an answer").status, 200);
    relay.wait_until_empty(PATIENCE);
    let (_, listed, _) = setup.call(&["outbox", "list", "--older-than", "1ms", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&listed).expect("JSON");
    let id = listed["events"][0]["id"].as_str().expect("an id").to_owned();
    let (code, shown, stderr) = setup.call(&["outbox", "show", &id]);
    assert_eq!(code, 0, "{stderr}");
    assert!(shown.contains("status 400 (http_400), apigw-requestid") && !shown.contains("somebody"), "{shown}");
    let (code, _, _) = setup.call(&["outbox", "list", "--newer-than", "1d", "--state", "lost"]);
    assert_eq!(code, 64);
}

#[test]
fn an_event_is_shown_as_it_was_sent_to_the_last_digit_and_in_its_order() {
    let upstream = Upstream::start();
    upstream.fault(REFUSES);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
    let context = format!(r#"{{"z":12345678901234567890.00,"a":"\u0041\" [1]: {{","a":[ ],"deep":{deep}}}"#);
    let posted = format!(
        r#"{{"eventName":"ReferralUpdated","payload":{{"ucc":"c","newUserId":"u","price":12345678901234567890.00}},"context":{context}}}"#
    );
    assert_eq!(relay.client().post("/events", &posted).expect("an answer").status, 200);
    relay.wait_until_empty(PATIENCE);
    let id =
        setup.call(&["outbox", "list"]).1.lines().nth(1).expect("a line").split(' ').next().expect("id").to_owned();
    let as_it_is = |text: &str| assert!(text.contains(&format!(r#""body":{posted}"#)), "{text}");
    let all_ways = || {
        let (code, shown, stderr) = setup.call(&["outbox", "show", &id, "--reveal", "--json"]);
        assert_eq!(code, 0, "{stderr}");
        as_it_is(&shown);
        let (code, shown, stderr) = setup.call(&["outbox", "show", &id, "--reveal"]);
        assert_eq!(code, 0, "{stderr}");
        let words = |text: &str| text.split_whitespace().collect::<String>();
        assert!(words(&shown).ends_with(&words(&posted)) && shown.contains("\n    \"ucc\": \"c\",\n"), "{shown}");
        assert_eq!(setup.call(&["outbox", "export", "--reveal"]).1.trim(), posted);
    };
    all_ways();
    let mut socket = Client::socket(&setup.socket()).expect("the control socket");
    as_it_is(&socket.get(&format!("/api/events/{id}?reveal=true")).expect("an answer").body);
    relay.terminate();
    all_ways();
}

#[test]
fn what_waits_is_erased_only_if_that_is_said_running_or_stopped() {
    let mut setup = Setup::new(UNREACHABLE);
    setup.set("SHUTDOWN__DEADLINE", "0s");
    let relay = setup.start();
    for user in ["somebody", "else", "another"] {
        assert_eq!(relay.client().post("/events", &event(user, 1)).expect("an answer").status, 200);
    }
    let (code, stdout, _) = setup.call(&["outbox", "erase", "--user", "somebody", "--dry-run"]);
    assert!(code == 0 && stdout.starts_with("1 event would be erased"), "{stdout}");
    let (code, _, stderr) = setup.call(&["outbox", "erase", "--user", "somebody"]);
    assert!(code == 64 && stderr.contains("reward may go unpaid") && stderr.contains("--yes"), "{code} {stderr}");
    let (code, stdout, stderr) = setup.call(&["outbox", "erase", "--user", "somebody", "--yes"]);
    assert!(code == 0 && stdout.starts_with("1 event erased"), "{code} {stdout} {stderr}");
    let (_, log) = relay.terminate();
    assert!(log.contains(r#""action":"erase""#) && log.contains(r#""via":"socket""#), "{log}");
    assert!(!log.contains("somebody"), "{log}");

    let (code, _, stderr) = setup.call(&["outbox", "erase", "--user", "else"]);
    assert!(code == 64 && stderr.contains("--yes"), "{code} {stderr}");
    let (code, stdout, stderr) = setup.call(&["outbox", "erase", "--user", "else", "--yes", "--json"]);
    assert!(code == 0 && stdout.contains(r#""overwritten":true"#), "{code} {stdout} {stderr}");
    assert!(stderr.contains(r#""event":"operator_action","action":"erase","via":"directory","count":1"#), "{stderr}");
    assert!(!stderr.contains("else"), "{stderr}");
    let (code, checked, stderr) = setup.call(&["outbox", "check", "--json"]);
    assert_eq!((code, checked.trim()), (0, r#"{"findings":[],"sound":true}"#), "{stderr}");
    let (_, listed, _) = setup.call(&["outbox", "list", "--reveal"]);
    assert!(listed.contains("another") && !listed.contains("else"), "{listed}");
}
