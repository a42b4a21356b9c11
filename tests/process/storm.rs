//! A storm of faults under load: nothing is lost, order holds, and the metrics add up at every calm moment.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::client::Client;
use crate::load::{Book, write};
use crate::relay::{PATIENCE, Relay, Setup, sum};
use crate::upstream::Upstream;

/// Threads that post at the same time.
const WRITERS: usize = 4;
/// Users of one writer; with all writers more than `forward.refusals_in_a_row`.
const USERS: usize = 10;
/// Events that a writer posts before it takes a breath, so that faults meet a short queue as well as a long one.
const BURST: usize = 10;

/// One after the other; each for a while, under load.
const FAULTS: [&str; 15] = [
    r#"[{"path":"/events","status":500,"every":2}]"#,
    r#"[{"path":"/events","status":503,"retryAfter":1}]"#,
    r#"[{"path":"/events","status":429,"every":3}]"#,
    r#"[{"path":"/events","user":"user-0-1","status":400,"message":"no such ucc"},
        {"path":"/events","user":"user-1-2","status":422,"message":"no such user"}]"#,
    r#"[{"path":"/events","status":403}]"#,
    r#"[{"path":"/events","status":404,"every":2}]"#,
    r#"[{"path":"/events","reset":"before","every":2}]"#,
    r#"[{"path":"/events","reset":"after","every":5}]"#,
    r#"[{"path":"/events","hang":true,"every":4}]"#,
    r#"[{"path":"/events","garbage":true,"every":3}]"#,
    r#"[{"path":"/events","empty":true,"every":2}]"#,
    r#"[{"path":"/events","successFalse":true,"every":7}]"#,
    r#"[{"path":"/events","successFalse":true}]"#,
    r#"[{"latency":"50ms","jitter":"50ms"}]"#,
    r#"{"revokeTokens":true,"rules":[{"path":"/token","status":503,"times":2},{"path":"/events","status":401,"every":9}]}"#,
];

/// Metrics that dashboards and alerts build on.
const METRICS: &str = "build_info config_info state log_messages_total panics_total ingest_requests_total \
    ingest_request_duration_seconds ingest_requests_in_flight ingest_received_bytes_total events_accepted_total \
    events_rejected_total events_deduplicated_total event_fields_stripped_total outbox_events outbox_size_bytes \
    outbox_capacity_bytes outbox_oldest_event_timestamp_seconds outbox_recovered_events \
    outbox_commit_duration_seconds outbox_commit_batch_events outbox_errors_total outbox_wal_size_bytes \
    outbox_checkpoint_last_success_timestamp_seconds outbox_volume_size_bytes outbox_volume_available_bytes \
    outbox_info upstream_requests_total upstream_request_failures_total upstream_request_duration_seconds \
    upstream_requests_in_flight upstream_concurrency_limit events_delivered_total delivery_latency_seconds \
    delivery_last_success_timestamp_seconds delivery_retries_total delivery_ambiguous_total \
    events_dead_lettered_total events_discarded_total events_lost_total upstream_circuit_open forward_held \
    ingest_warnings_total token_expiry_timestamp_seconds token_refreshes_total token_refresh_failures_total \
    token_refresh_duration_seconds token_refresh_last_success_timestamp_seconds token_invalidations_total \
    credentials_last_reload_successful credentials_last_reload_success_timestamp_seconds";

#[test]
fn a_storm_of_faults_loses_nothing_keeps_order_and_the_metrics_add_up() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("FORWARD__TIMEOUT", "500ms").set("FORWARD__BACKOFF_MIN", "100ms").set("FORWARD__BACKOFF_MAX", "1s");
    setup.set("SHUTDOWN__DEADLINE", "0s");
    let relay = setup.start();
    let book = Book::default();
    rage(&upstream, &relay, &book);
    upstream.fault(r#"[{"path":"/events","status":500}]"#);
    let calm = calm_metrics(&relay, 0.0);
    assert_eq!(sum(&calm, "cello_relay_events_accepted_total", ""), book.count() as f64);
    relay.terminate();

    // What a restart finds is in the sum too; dead letters are not counted as recovered.
    let relay = setup.start();
    let dead_before = relay.metric("cello_relay_outbox_events", "dead");
    calm_metrics(&relay, dead_before);
    upstream.heal();
    relay.wait_until_empty(PATIENCE * 2);
    calm_metrics(&relay, dead_before);
    upstream.arrivals().assert_in_order();

    assert!(dead_before > 0.0, "the storm refused some for good");
    for reason in ["http_400", "http_422", "success_false"] {
        setup.call(&["outbox", "replay", "--reason", reason]);
    }
    relay.wait_until_empty(PATIENCE);
    let metrics = calm_metrics(&relay, dead_before);
    for (name, part) in [("outbox_events", ""), ("events_lost_total", ""), ("panics_total", "")] {
        assert_eq!(sum(&metrics, &format!("cello_relay_{name}"), part), 0.0, "{name}");
    }
    upstream.arrivals().assert_complete(&book.acked());
    println!("a storm of {} faults, {} events: lost 0, out of order 0", FAULTS.len(), book.count());
}

/// All writers post while one fault follows the other.
fn rage(upstream: &Upstream, relay: &Relay, book: &Book) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (over, ingest) = (&over, relay.ingest);
            scope.spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    write(book, ingest, writer, USERS, BURST);
                    std::thread::park_timeout(Duration::from_millis(50));
                }
            });
        }
        for fault in FAULTS {
            upstream.fault(fault);
            std::thread::park_timeout(Duration::from_millis(700));
            if fault.contains("\"status\":400") {
                relay.wait_until("nothing dies", |metrics| sum(metrics, "cello_relay_outbox_events", "dead") > 0.0);
            }
            // Deliveries between faults, so that each is met by the relay at full speed.
            upstream.heal();
            std::thread::park_timeout(Duration::from_millis(300));
        }
        over.store(true, Ordering::SeqCst);
    });
}

/// The metrics when they add up. What Cello has just taken is gone from the outbox a moment before it is counted.
fn calm_metrics(relay: &Relay, dead_before: f64) -> String {
    relay.wait_until("it does not add up when it is calm", |metrics| adds_up(metrics, dead_before));
    relay.metrics()
}

/// `recovered + accepted = delivered + pending + in flight + retrying + Δdead + discarded + lost`
fn adds_up(metrics: &str, dead_before: f64) -> bool {
    let value = |name: &str| sum(metrics, &format!("cello_relay_{name}"), "");
    let came = value("outbox_recovered_events") + value("events_accepted_total");
    let went = value("events_delivered_total") + value("events_discarded_total") + value("events_lost_total");
    came == went + value("outbox_events") - dead_before
}

/// Names and labels of all series, the values cut off.
fn series(metrics: &str) -> BTreeSet<String> {
    let samples = metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    samples.map(|line| line.rsplit_once(' ').expect("a value").0.to_owned()).collect()
}

#[test]
fn every_series_is_there_before_the_first_event_and_none_appears_later() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("FORWARD__TIMEOUT", "300ms").set("FORWARD__BACKOFF_MAX", "1s");
    let relay = setup.start();
    let before = Client::connect(relay.ops).and_then(|mut client| client.get("/metrics")).expect("metrics");
    assert_eq!(before.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let first = series(&before.body);
    assert!(first.len() <= 300, "{} series", first.len());
    for name in METRICS.split_whitespace() {
        let typed = before.body.contains(&format!("# TYPE cello_relay_{name} "));
        assert!(typed, "cello_relay_{name} is missing");
        assert_eq!(name.ends_with("_total"), before.body.contains(&format!("# TYPE cello_relay_{name} counter")));
    }
    for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "max_fds", "start_time_seconds"] {
        assert!(first.contains(&format!("process_{name}")), "process_{name} is missing");
    }
    rage(&upstream, &relay, &Book::default());
    read_and_err(&upstream, &relay);
    let after = relay.metrics();
    let appeared: Vec<String> = series(&after).difference(&first).cloned().collect();
    assert!(appeared.is_empty(), "{appeared:?}");
    check_with_promtool(&after);
}

/// A read, one that fails, one that Cello refuses, one that is not allowed, and some that are no good.
fn read_and_err(upstream: &Upstream, relay: &Relay) {
    let mut client = relay.client();
    let mut ask = |method: &str, path: &str, headers: &[(&str, &str)]| {
        client.request(method, path, headers, "").expect("an answer").status
    };
    upstream.heal();
    let is_read = || relay.client().get("/new-users/7/reward").expect("an answer").status == 200;
    relay.wait_until("reads go again", |_| is_read());
    for (fault, status) in [(r#""status":429"#, 429), (r#""status":404"#, 404), (r#""reset":"before""#, 502)] {
        upstream.fault(&format!(r#"[{{"path":"/new-users/*",{fault}}}]"#));
        assert_eq!(ask("GET", "/new-users/7/reward", &[]), status);
    }
    upstream.heal();
    assert_eq!(ask("POST", "/new-users/7/reward", &[]), 405);
    assert_eq!(ask("GET", "/new-users/%zz/reward", &[]), 400);
    assert_eq!(ask("POST", "/referrers/7/depersonalize", &[]), 403);
    assert_eq!(ask("PUT", "/events", &[]), 405);
    assert_eq!(ask("PUT", "/outbox", &[]), 405);
    assert_eq!(ask("GET", "/events/7", &[("Origin", "https://evil")]), 403);
    assert_eq!(ask("POST", "/events", &[("Origin", "https://evil")]), 403);
}

/// Prometheus' own linter, where it is installed.
fn check_with_promtool(metrics: &str) {
    let promtool =
        Command::new("promtool").args(["check", "metrics"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut promtool) = promtool else {
        println!("skipped: promtool (Debian package prometheus) is not installed");
        return;
    };
    promtool.stdin.take().expect("a pipe").write_all(metrics.as_bytes()).expect("promtool reads");
    let said = promtool.wait_with_output().expect("promtool ends");
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
}
