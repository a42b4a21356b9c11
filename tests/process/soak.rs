//! A long time under steady traffic while Cello fails in one way after another: nothing creeps.
//!
//! Twenty seconds at 500 events a second; an hour with CELLO_RELAY_TEST_LONG=1; CELLO_RELAY_SOAK_MINUTES for any
//! other time.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cello_relay::simulator::Options;

use crate::client::Client;
use crate::load::event;
use crate::pressure::{percentile, resident_mib};
use crate::relay::{Relay, Setup, sum};
use crate::upstream::Upstream;

const POSTERS: u32 = 4;
const PER_SECOND: u32 = 500;
/// Users of one poster.
const USERS: u64 = 50;

/// One after the other, a calm of the same length after each. None of them ends an event.
const FAULTS: [&str; 10] = [
    r#"[{"path":"/events","status":500,"every":2}]"#,
    r#"[{"path":"/events","status":503,"retryAfter":1}]"#,
    r#"[{"path":"/events","status":429,"every":3}]"#,
    r#"[{"path":"/events","status":403}]"#,
    r#"[{"path":"/events","reset":"before","every":2}]"#,
    r#"[{"path":"/events","reset":"after","every":5}]"#,
    r#"[{"path":"/events","hang":true,"every":4}]"#,
    r#"[{"path":"/events","garbage":true,"every":3}]"#,
    r#"[{"latency":"50ms","jitter":"50ms"}]"#,
    r#"{"revokeTokens":true,"rules":[{"path":"/token","status":503,"times":2},{"path":"/events","status":401,"every":9}]}"#,
];

/// What is looked at, at the end of each calm.
struct Sample {
    at: Duration,
    memory_mib: f64,
    files_mib: f64,
    descriptors: f64,
    median_ms: f64,
}

/// What the posters know.
#[derive(Default)]
struct Posted {
    acked: AtomicU64,
    times: Mutex<Vec<Duration>>,
    over: AtomicBool,
}

fn length() -> Duration {
    let minutes = std::env::vars().find(|(name, _)| name == "CELLO_RELAY_SOAK_MINUTES");
    match minutes {
        Some((_, minutes)) => Duration::from_secs(60 * minutes.parse::<u64>().expect("whole minutes")),
        None if crate::long() => Duration::from_secs(3600),
        None => Duration::from_secs(20),
    }
}

/// Posts at an even pace, whatever answers take; every one is answered 200.
fn post(posted: &Posted, ingest: SocketAddr, poster: u32) {
    let mut client = Client::connect(ingest).expect("the ingest listener");
    let (began, every) = (Instant::now(), Duration::from_secs(1) * POSTERS / PER_SECOND);
    for number in 1_u64.. {
        if posted.over.load(Ordering::SeqCst) {
            return;
        }
        let due = began + every.mul_f64(number as f64);
        while let Some(left) = due.checked_duration_since(Instant::now()) {
            std::thread::park_timeout(left);
        }
        let user = format!("user-{poster}-{}", number % USERS);
        let sent = Instant::now();
        let answer = client.post("/events", &event(&user, number)).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.body);
        posted.times.lock().unwrap_or_else(PoisonError::into_inner).push(sent.elapsed());
        posted.acked.fetch_add(1, Ordering::SeqCst);
    }
}

fn files_mib(dir: &Path) -> f64 {
    let files = std::fs::read_dir(dir).expect("the outbox").filter_map(Result::ok);
    files.filter_map(|file| file.metadata().ok()).map(|file| file.len() as f64).sum::<f64>() / f64::from(1 << 20)
}

fn sample(posted: &Posted, relay: &Relay, setup: &Setup, at: Duration) -> Sample {
    let mut times = std::mem::take(&mut *posted.times.lock().unwrap_or_else(PoisonError::into_inner));
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", relay.pid())).expect("a running process").count();
    Sample {
        at,
        memory_mib: resident_mib(relay, "VmRSS:"),
        files_mib: files_mib(&setup.outbox()),
        descriptors: descriptors as f64,
        median_ms: if times.is_empty() { 0.0 } else { percentile(&mut times, 0.5) },
    }
}

/// Faults and calms in turn until the time is over; a sample at the end of each calm.
fn weather(posted: &Posted, relay: &Relay, setup: &Setup, upstream: &Upstream) -> Vec<Sample> {
    let (began, length) = (Instant::now(), length());
    let phase = (length / 20).min(Duration::from_secs(30));
    let mut samples = Vec::new();
    for fault in FAULTS.iter().cycle() {
        upstream.fault(fault);
        std::thread::park_timeout(phase);
        upstream.heal();
        std::thread::park_timeout(phase);
        // On a busy machine what the fault left behind takes longer than a short calm.
        relay.wait_until("the backlog stays", |metrics| sum(metrics, "cello_relay_outbox_events", "") < 100.0);
        samples.push(sample(posted, relay, setup, began.elapsed()));
        if began.elapsed() >= length {
            break;
        }
    }
    posted.over.store(true, Ordering::SeqCst);
    samples
}

/// How much a value grew over the samples after the first third (by then everything has been used once):
/// the slope of the least-squares line, times its length.
fn growth(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> f64 {
    let samples = &samples[samples.len() / 3..];
    let count = samples.len() as f64;
    let mean = |of: &dyn Fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let at = |sample: &Sample| sample.at.as_secs_f64();
    let (mean_at, mean_value) = (mean(&at), mean(&value));
    let spread = samples.iter().map(|sample| (at(sample) - mean_at).powi(2)).sum::<f64>();
    let slope =
        samples.iter().map(|sample| (at(sample) - mean_at) * (value(sample) - mean_value)).sum::<f64>() / spread;
    slope * (at(&samples[samples.len() - 1]) - at(&samples[0]))
}

#[test]
fn a_long_time_of_changing_faults_grows_neither_memory_nor_files_nor_descriptors_nor_answers() {
    let upstream = Upstream::keeping(Options::default(), 20_000);
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("FORWARD__TIMEOUT", "500ms").set("FORWARD__BACKOFF_MIN", "100ms").set("FORWARD__BACKOFF_MAX", "1s");
    // Remembered deliveries are allowed to grow for an hour; here they are full soon.
    setup.set("OUTBOX__REMEMBER_MAX", "1000");
    let relay = setup.start();
    let posted = Posted::default();
    let samples = std::thread::scope(|scope| {
        for poster in 0..POSTERS {
            let (posted, ingest) = (&posted, relay.ingest);
            scope.spawn(move || post(posted, ingest, poster));
        }
        weather(&posted, &relay, &setup, &upstream)
    });
    relay.wait_until_empty(Duration::from_secs(120));

    let acked = posted.acked.load(Ordering::SeqCst) as f64;
    // The last delivery is gone from the outbox a moment before it is counted.
    relay.wait_until("conservation", |metrics| {
        ["accepted", "delivered"]
            .iter()
            .all(|way| sum(metrics, &format!("cello_relay_events_{way}_total"), "") == acked)
    });
    let metrics = relay.metrics();
    let value = |name: &str| sum(&metrics, &format!("cello_relay_{name}"), "");
    assert_eq!((value("outbox_events"), value("events_lost_total"), value("panics_total")), (0.0, 0.0, 0.0));
    assert!(upstream.received() >= acked as u64, "Cello got at least what was taken");
    upstream.arrivals().assert_in_order();

    let mib: fn(&Sample) -> f64 = |sample| sample.memory_mib;
    let files: fn(&Sample) -> f64 = |sample| sample.files_mib;
    let descriptors: fn(&Sample) -> f64 = |sample| sample.descriptors;
    let median: fn(&Sample) -> f64 = |sample| sample.median_ms;
    // What a few pages, a write-ahead log that happens to be full, pooled connections and a busy machine make.
    for (what, of, most) in [
        ("memory (MiB)", mib, 4.0),
        ("files (MiB)", files, 8.0),
        ("descriptors", descriptors, 12.0),
        ("median (ms)", median, 25.0),
    ] {
        let (first, last, grew) = (of(&samples[0]), of(&samples[samples.len() - 1]), growth(&samples, of));
        println!("soak: {what} {first:.1} at first, {last:.1} at last, grew by {grew:+.2}");
        assert!(grew <= most, "{what} grew by {grew:.2}");
    }
    let minutes = samples.last().map_or(0.0, |sample| sample.at.as_secs_f64() / 60.0);
    println!("soak: {acked} events in {minutes:.1} min, {} samples, all delivered", samples.len());
    // The client's connection is still good for one more.
    assert_eq!(
        Client::connect(relay.ingest).expect("the listener").post("/events", &event("u", 1)).expect("an answer").status,
        200
    );
}
