//! Each way in which Cello can stop taking events: how it shows in metrics and API, and that it ends by itself.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup, sum};
use crate::upstream::Upstream;

/// Longer than the first probes and retries take.
const A_WHILE: Duration = Duration::from_secs(6);

fn post(relay: &Relay, user: &str, number: u64) -> String {
    let answer = relay.client().post("/events", &event(user, number)).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn post_for(relay: &Relay, users: usize) -> Vec<String> {
    (0..users).map(|user| post(relay, &format!("user-{user}"), 1)).collect()
}

fn get(relay: &Relay, path: &str) -> Value {
    relay.client().get(path).expect("an answer").json()
}

fn outbox_state(relay: &Relay) -> String {
    get(relay, "/outbox")["state"].as_str().expect("a state").to_owned()
}

/// Waits for the hold, and checks every place where it shows.
fn assert_held(relay: &Relay, reason: &str, id: &str) {
    let label = format!("reason=\"{reason}\"");
    relay.wait_until(&format!("not held for {reason}"), |metrics| {
        sum(metrics, "cello_relay_forward_held", &label) == 1.0
    });
    assert_eq!(relay.metric("cello_relay_forward_held", ""), 1.0, "one reason at a time");
    let deadline = Instant::now() + PATIENCE;
    // A probe may be under way at any moment; between two, the event is held.
    while get(relay, &format!("/events/{id}"))["state"] != "held" {
        assert!(Instant::now() < deadline, "{}", get(relay, &format!("/events/{id}")));
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert_eq!(outbox_state(relay), format!("held:{reason}"));
}

/// Waits for the recovery, and checks that nothing tells of trouble any more.
fn assert_recovers(relay: &Relay, ids: &[String]) {
    relay.wait_until_empty(PATIENCE);
    relay.wait_until("trouble still shows", |metrics| {
        ["forward_held", "upstream_circuit_open"]
            .iter()
            .all(|name| sum(metrics, &format!("cello_relay_{name}"), "") == 0.0)
    });
    assert_eq!(outbox_state(relay), "ok");
    for id in ids {
        assert_eq!(get(relay, &format!("/events/{id}"))["state"], "delivered");
    }
}

#[test]
fn refused_keys_hold_delivery_until_the_key_files_change() {
    let upstream = Upstream::start();
    upstream.refuse_keys();
    let mut setup = Setup::new(&upstream.base_url());
    setup.unset("CELLO__ACCESS_KEY_ID").unset("CELLO__SECRET_ACCESS_KEY");
    let keys = setup.dir().join("keys");
    std::fs::create_dir(&keys).expect("a folder");
    let write = |name: &str, content: &str| {
        std::fs::write(keys.join("next"), content).and_then(|()| std::fs::rename(keys.join("next"), keys.join(name)))
    };
    write("access-key-id", "key-id\n").expect("a file");
    write("secret-access-key", "old\n").expect("a file");
    setup.set("CELLO__CREDENTIALS_DIR", keys.to_str().expect("a path"));
    let relay = setup.start();
    let ids = post_for(&relay, 3);
    assert_held(&relay, "credentials", &ids[0]);
    assert_eq!(get(&relay, &format!("/events/{}", ids[0]))["reason"], "credentials");
    assert!(relay.metric("cello_relay_token_refresh_failures_total", "rejected") >= 1.0);
    assert_eq!(relay.metric("cello_relay_credentials_last_reload_successful", ""), 0.0);
    assert_eq!(relay.metric("cello_relay_token_expiry_timestamp_seconds", ""), 0.0);
    std::thread::park_timeout(A_WHILE);
    assert_eq!((upstream.received(), upstream.token_calls()), (0, 1), "refused keys are not shown again and again");
    upstream.heal();
    write("secret-access-key", "new\n").expect("a file");
    assert_recovers(&relay, &ids);
    assert_eq!(relay.metric("cello_relay_credentials_last_reload_successful", ""), 1.0);
    assert!(relay.metric("cello_relay_token_expiry_timestamp_seconds", "") > 0.0);
    assert_eq!(relay.metric("cello_relay_token_refreshes_total", ""), 1.0);
}

#[test]
fn a_403_of_two_users_holds_delivery_until_it_ends() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":403}]"#);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let ids = post_for(&relay, 12);
    assert_held(&relay, "http_403", &ids[11]);
    std::thread::park_timeout(A_WHILE);
    let calls = upstream.received();
    assert!(calls < 20, "{calls} calls: a hold only probes");
    upstream.heal();
    assert_recovers(&relay, &ids);
    assert_eq!(relay.metric("cello_relay_events_dead_lettered_total", ""), 0.0);
}

#[test]
fn refusals_of_many_users_hold_delivery_and_what_died_before_can_be_replayed() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":400,"message":"a bad release"}]"#);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let ids = post_for(&relay, 25);
    assert_held(&relay, "mass_refusal", &ids[24]);
    assert_eq!(relay.metric("cello_relay_outbox_events", "dead"), 19.0, "the twentieth refusal holds");
    assert_eq!(get(&relay, &format!("/events/{}", ids[0]))["state"], "dead");
    upstream.heal();
    relay.wait_until_empty(PATIENCE);
    assert_eq!(outbox_state(&relay), "ok");
    let (code, _, stderr) = setup.call(&["outbox", "replay", "--reason", "http_400"]);
    assert_eq!(code, 0, "{stderr}");
    assert_recovers(&relay, &ids);
    assert_eq!(upstream.arrivals().count(), 25);
}

#[test]
fn failures_of_five_users_open_the_breaker_which_makes_few_calls() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":500},{"path":"/new-users/*","hang":true}]"#);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let ids = post_for(&relay, 30);
    relay.wait_until("the breaker is closed", |metrics| sum(metrics, "cello_relay_upstream_circuit_open", "") == 1.0);
    assert_eq!(outbox_state(&relay), "retrying");
    assert_eq!(reasons_of_reads(&relay), ["breaker_open", "timeout"], "one read waits for Cello, the other is told");
    // Sends that were on their way still arrive.
    let mut before = upstream.received();
    loop {
        std::thread::park_timeout(Duration::from_millis(500));
        let now = upstream.received();
        if now == std::mem::replace(&mut before, now) {
            break;
        }
    }
    std::thread::park_timeout(A_WHILE);
    let calls = upstream.received() - before;
    assert!((1..=5).contains(&calls), "{calls} calls in {A_WHILE:?}: one probe at a time, more and more rarely");
    upstream.heal();
    assert_recovers(&relay, &ids);
}

/// Why each of two reads at the same time has no answer of Cello's.
fn reasons_of_reads(relay: &Relay) -> [String; 2] {
    let read = |user: u32| {
        let mut client = relay.client();
        std::thread::spawn(move || client.get(&format!("/new-users/{user}/reward")).expect("an answer").json())
    };
    let mut reasons = [read(1), read(2)].map(|reader| {
        let answer = reader.join().expect("a reader");
        answer["reason"].as_str().expect("a reason").to_owned()
    });
    reasons.sort();
    reasons
}

#[test]
fn retry_after_stops_all_sends_for_as_long_as_it_says() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":429,"retryAfter":3,"times":1}]"#);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let mut ids = vec![post(&relay, "throttled", 1)];
    relay.wait_until("no 429", |metrics| sum(metrics, "cello_relay_delivery_retries_total", "http_429") == 1.0);
    assert_eq!(outbox_state(&relay), "retrying");
    ids.extend(post_for(&relay, 10));
    assert_recovers(&relay, &ids);
    let arrivals = upstream.events();
    let waited = arrivals[1].at.since(arrivals[0].at);
    assert!(waited >= Duration::from_millis(2_990), "the next came after {waited:?}");
}

#[test]
fn one_users_failing_event_delays_nobody_else() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","user":"stuck","status":500}]"#);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let stuck = [post(&relay, "stuck", 1), post(&relay, "stuck", 2)];
    let others = post_for(&relay, 40);
    relay.wait_until("others wait", |metrics| sum(metrics, "cello_relay_events_delivered_total", "") == 40.0);
    for id in &others {
        assert_eq!(get(&relay, &format!("/events/{id}"))["state"], "delivered");
    }
    relay.wait_until("not retried", |metrics| sum(metrics, "cello_relay_delivery_retries_total", "http_5xx") >= 2.0);
    let first = get(&relay, &format!("/events/{}", stuck[0]));
    assert!(first["attempts"].as_u64() >= Some(1), "{first}");
    assert_eq!(
        (first["reason"].as_str(), relay.metric("cello_relay_upstream_circuit_open", "")),
        (Some("http_5xx"), 0.0)
    );
    assert_eq!(get(&relay, &format!("/events/{}", stuck[1]))["state"], "pending", "order is kept");
    upstream.heal();
    assert_recovers(&relay, &stuck);
    upstream.arrivals().assert_in_order();
}

#[test]
fn a_storm_of_401_asks_for_few_tokens_and_burns_nothing() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":401}]"#);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let ids = post_for(&relay, 30);
    assert_held(&relay, "credentials", &ids[29]);
    std::thread::park_timeout(A_WHILE);
    assert!(upstream.token_calls() <= 6, "{} token calls", upstream.token_calls());
    assert!(upstream.received() <= 40, "{} sends", upstream.received());
    assert!(relay.metric("cello_relay_token_invalidations_total", "http_401") >= 1.0);
    for id in &ids {
        assert_eq!(get(&relay, &format!("/events/{id}"))["attempts"], 0, "nothing is burned");
    }
    upstream.heal();
    assert_recovers(&relay, &ids);
}

#[test]
fn with_ambiguous_dead_nothing_is_sent_twice_not_even_after_kill_9() {
    let upstream = Upstream::start();
    upstream.fault(
        r#"[{"path":"/events","user":"cut-off","hang":true},{"path":"/events","user":"reset","reset":"after"}]"#,
    );
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("FORWARD__AMBIGUOUS", "dead");
    let relay = setup.start();
    let reset = post(&relay, "reset", 1);
    relay.wait_until("not dead", |metrics| sum(metrics, "cello_relay_outbox_events", "dead") == 1.0);
    assert_eq!(relay.metric("cello_relay_delivery_ambiguous_total", "reset"), 1.0);
    let cut_off = post(&relay, "cut-off", 1);
    upstream.wait_until_received(2);
    relay.kill();
    upstream.heal();
    let relay = setup.start();
    let next = post(&relay, "cut-off", 2);
    assert_recovers(&relay, &[next]);
    for id in [reset, cut_off] {
        let event = get(&relay, &format!("/events/{id}"));
        assert_eq!((event["state"].as_str(), event["reason"].as_str()), (Some("dead"), Some("ambiguous")), "{event}");
    }
    assert_eq!(upstream.received(), 3, "each was sent once");
}
