//! The ground moves under a running relay: the machine's clock is set, the upstream changes its address.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use cello_relay::simulator::Options;

use crate::client::Client;
use crate::disk::preload_library;
use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup, sum};
use crate::upstream::Upstream;

const DAY: i64 = 86_400;

fn post(relay: &Relay, user: &str, number: u64) {
    let answer = relay.client().post("/events", &event(user, number)).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Replaces the file at once: a reader finds the old or the new content.
fn replace(path: &Path, content: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, content).and_then(|()| std::fs::rename(&next, path)).expect("a file");
}

/// What the relay takes for the time, in seconds.
fn time_of(relay: &Relay) -> i64 {
    let status = Client::connect(relay.admin).and_then(|mut client| client.get("/api/status")).expect("a status");
    let now = status.json()["now"].as_str().expect("a time").parse::<jiff::Timestamp>().expect("RFC 3339");
    now.as_second()
}

#[test]
fn a_clock_that_jumps_in_backoff_and_token_life_delays_nothing_and_costs_no_tokens() {
    let life = Duration::from_secs(2);
    let upstream = Upstream::with_token_life(life);
    let mut setup = Setup::new(&upstream.base_url());
    let clock = setup.dir().join("clock");
    replace(&clock, "0");
    setup.raw("LD_PRELOAD", preload_library("clock").to_str().expect("a plain path"));
    setup.raw("CLOCK_FILE", clock.to_str().expect("a plain path"));
    setup.set("FORWARD__BACKOFF_MIN", "1s").set("FORWARD__BACKOFF_MAX", "2s").set("SHUTDOWN__DEADLINE", "0s");
    let relay = setup.start();
    let began = std::time::Instant::now();
    let true_time = time_of(&relay);

    let (mut number, mut failures) = (0, 0.0);
    for wrong_by in [DAY, -DAY, 400 * DAY, 0, -400 * DAY, 1] {
        // One event waits for its retry while the clock jumps, others come after.
        upstream.fault(r#"[{"path":"/events","user":"waits","status":500}]"#);
        number += 1;
        post(&relay, "waits", number);
        relay.wait_until("no retry", |metrics| {
            sum(metrics, "cello_relay_delivery_retries_total", "http_5xx") > failures
        });
        replace(&clock, &wrong_by.to_string());
        let jumped = time_of(&relay) - true_time;
        assert!((wrong_by..wrong_by + 600).contains(&jumped), "the clock is wrong by {jumped} s, not {wrong_by}");
        post(&relay, "other", number);
        upstream.heal();
        relay.wait_until_empty(Duration::from_secs(20));
        failures = relay.metric("cello_relay_delivery_retries_total", "http_5xx");
    }
    let lives = began.elapsed().as_secs_f64() / (life.as_secs_f64() * 0.7);
    let tokens = upstream.token_calls();
    assert!(tokens as f64 <= lives + 2.0, "{tokens} token calls in {lives:.1} spans of a token's use");

    // A retry that a wrong clock dated far ahead does not wait for that date after a restart.
    replace(&clock, &(400 * DAY).to_string());
    upstream.fault(r#"[{"path":"/events","user":"waits","status":500}]"#);
    number += 1;
    post(&relay, "waits", number);
    relay.wait_until("no retry", |metrics| sum(metrics, "cello_relay_delivery_retries_total", "http_5xx") > failures);
    relay.terminate();
    replace(&clock, "0");
    upstream.heal();
    let relay = setup.start();
    relay.wait_until_empty(Duration::from_secs(20));
    assert_eq!(relay.metric("cello_relay_outbox_events", "dead"), 0.0);
    upstream.arrivals().assert_in_order();
    assert_eq!(upstream.arrivals().count() as u64, 2 * number - 1, "each once");
}

/// The relay in a mount namespace of its own, where `hosts` lies over `/etc/hosts`; `None` where that cannot be had.
fn with_hosts(setup: &Setup, hosts: &Path) -> Option<Command> {
    const ENTER: &str = r#"mount --bind "$1" /etc/hosts && shift && exec "$@""#;
    let entering = |command: &mut Command| {
        command.args(["-rm", "sh", "-c", ENTER, "sh"]).arg(hosts).env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    };
    let mut probe = Command::new("unshare");
    entering(&mut probe);
    let works = probe.arg("true").stderr(Stdio::null()).status().is_ok_and(|status| status.success());
    let relay = setup.command(&["run"]);
    let mut command = Command::new("unshare");
    command.env_clear().current_dir(setup.dir()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    entering(&mut command);
    command.arg(relay.get_program()).args(relay.get_args());
    command.envs(relay.get_envs().filter_map(|(name, value)| Some((name, value?))));
    works.then_some(command)
}

fn upstream_at(address: &str) -> Upstream {
    Upstream::with(Options { listen: address.parse().expect("an address"), ..Options::default() })
}

#[test]
fn an_upstream_that_cannot_be_resolved_or_moves_to_another_address_is_found_without_a_restart() {
    let first = upstream_at("127.0.0.1:0");
    let port = first.base_url().rsplit(':').next().expect("a port").to_owned();
    let second = upstream_at(&format!("127.0.0.2:{port}"));
    let mut setup = Setup::new(&format!("http://cello.test:{port}"));
    setup.set("CELLO__ALLOW_PLAINTEXT", "true").set("FORWARD__CONNECT_TIMEOUT", "1s");
    let hosts: PathBuf = setup.dir().join("hosts");
    // In place: what lies over /etc/hosts is the file, not its name.
    let resolves_to = |line: &str| std::fs::write(&hosts, format!("127.0.0.1 localhost\n{line}\n")).expect("a file");
    resolves_to("");
    let Some(command) = with_hosts(&setup, &hosts) else {
        println!("skipped: a mount namespace (unshare -rm) cannot be had here");
        return;
    };
    let relay = Relay::start(command);
    post(&relay, "u", 1);
    relay.wait_until("no failure of DNS", |metrics| {
        sum(metrics, "cello_relay_upstream_request_failures_total", "reason=\"dns\"") >= 1.0
    });
    assert_eq!(relay.metric("cello_relay_delivery_ambiguous_total", ""), 0.0, "nothing was sent");

    resolves_to("127.0.0.1 cello.test");
    relay.wait_until_empty(PATIENCE);
    assert_eq!((first.arrivals().count(), second.arrivals().count()), (1, 0));

    resolves_to("127.0.0.2 cello.test");
    drop(first);
    post(&relay, "u", 2);
    relay.wait_until_empty(PATIENCE);
    assert_eq!(second.arrivals().count(), 1);
}
