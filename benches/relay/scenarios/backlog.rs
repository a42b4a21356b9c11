//! What waits: draining it, and what it costs to have it.

use std::sync::Arc;
use std::time::Duration;

use super::Bench;
use crate::load;
use crate::process::{Server, UNREACHABLE, folder, role_command};
use crate::requests::Template;

/// Sends at the same time: the relay's default.
const CONCURRENCY: u32 = 8;

/// Time to deliver a backlog, beside a client that has nothing to read, to settle or to keep in order.
pub(super) fn drain(bench: &mut Bench) {
    let events = bench.plan.drained;
    rustix::fs::sync();
    let upstream = Server::role("bare", None);
    let order = format!("client={},{events},{CONCURRENCY}", upstream.address);
    let said = role_command(&order).output().expect("a client").stdout;
    let seconds: f64 = String::from_utf8_lossy(&said).trim().parse().expect("seconds");
    bench.results.add("drain", "bare hyper client", &[("events/s", events as f64 / seconds)]);

    let relay = paused_with_backlog(&upstream, events);
    // Somewhat more than asked for.
    let (before, events) = (relay.usage(), relay.waiting());
    relay.steer("resume");
    let took = relay.wait_until_forwarded();
    let after = relay.usage();
    let figures = [
        ("events/s", events / took.as_secs_f64()),
        ("CPU s/M", (after.cpu_seconds - before.cpu_seconds) / events * 1e6),
        ("B/event", (after.written_bytes - before.written_bytes) / events),
        ("peak MiB", after.peak_mib),
    ];
    bench.results.add("drain", "relay", &figures);
}

/// A relay that has so many events to deliver and waits for the word.
pub(super) fn paused_with_backlog(upstream: &Server, events: u64) -> Server {
    let relay = Server::relay(&folder(), &upstream.base_url(), &[]);
    relay.steer("pause");
    fill(&relay, events);
    rustix::fs::sync();
    relay
}

/// Ingest while many events wait, against none; and what a relay with them takes to start and to be.
pub(super) fn pending(bench: &mut Bench) {
    let counts: Vec<u64> = std::iter::once(0).chain(bench.plan.pending.iter().copied()).collect();
    for count in counts {
        let dir = if count == 0 { folder() } else { filled(bench, count) };
        rustix::fs::sync();
        let relay = Server::relay(&dir, UNREACHABLE, &[]);
        let template = Template::event();
        load::run(relay.address, 64, bench.plan.warm_up, &template);
        let before = relay.usage();
        let load = load::run(relay.address, 64, bench.plan.measured, &template);
        let after = relay.usage();
        let figures = [
            ("events/s", load.per_second()),
            ("p99 ms", load.latency_ms(0.99)),
            ("p99.9 ms", load.latency_ms(0.999)),
            ("B/event", (after.written_bytes - before.written_bytes) / load.answered as f64),
            ("RSS MiB", after.resident_mib),
            ("peak MiB", after.peak_mib),
        ];
        bench.results.add("pending", &format!("{count} pending"), &figures);
    }
}

/// An outbox that so many events wait in, filled once a run.
pub(super) fn filled(bench: &mut Bench, count: u64) -> Arc<tempfile::TempDir> {
    let dir = bench.filled.entry(count).or_insert_with(|| {
        let dir = folder();
        fill(&Server::relay(&dir, UNREACHABLE, &[]), count);
        dir
    });
    Arc::clone(dir)
}

/// Posts batches until so many events are stored.
fn fill(relay: &Server, count: u64) {
    let template = Template::batch(1000);
    while relay.waiting() < count as f64 {
        let left = count as f64 - relay.waiting();
        // Short turns near the end, so that not many more are stored than asked for.
        let turn = (left / 400_000.0).clamp(0.005, 2.0);
        load::run(relay.address, 2, Duration::from_secs_f64(turn), &template);
    }
}
