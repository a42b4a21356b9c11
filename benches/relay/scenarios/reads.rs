//! Reads through the relay: the hit path, and whether reads and deliveries leave each other room.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{Bench, backlog};
use crate::load;
use crate::open_loop;
use crate::process::{Server, folder};
use crate::requests::Template;

/// Reads a second of pages that are opened while a backlog drains.
const RATE: u32 = 100;
/// Connections of a flood of reads.
const FLOOD: usize = 64;

/// A cached answer against a server that does nothing.
pub(super) fn hits(bench: &mut Bench) {
    rustix::fs::sync();
    let upstream = Server::role("bare", None);
    let template = Template::read();
    let bare = Server::role("bare", None);
    let relay = Server::relay(&folder(), &upstream.base_url(), &[]);
    for (who, server) in [("bare hyper", &bare), ("relay, hit", &relay)] {
        load::run(server.address, FLOOD, bench.plan.warm_up, &template);
        let before = server.usage();
        let load = load::run(server.address, FLOOD, bench.plan.measured, &template);
        let cpu = server.usage().cpu_seconds - before.cpu_seconds;
        let figures = [
            ("reads/s", load.per_second()),
            ("p50 ms", load.latency_ms(0.5)),
            ("p99 ms", load.latency_ms(0.99)),
            ("CPU s/M", cpu / load.answered as f64 * 1e6),
            ("load CPU %", load.own_cpu * 100.0),
        ];
        bench.results.add("reads", who, &figures);
    }
}

/// Both ways, with a Cello that answers at once (all is a matter of CPU) and one that takes its time.
pub(super) fn interference(bench: &mut Bench) {
    for milliseconds in [5, 0] {
        rustix::fs::sync();
        let upstream = Server::role(&format!("bare={milliseconds}"), None);
        // At 5 ms a drain takes that many seconds at eight sends at a time.
        let events = if milliseconds == 0 { bench.plan.drained } else { bench.plan.drained / 4 };
        reads_while_draining(bench, &upstream, milliseconds, events);
        delivery_under_reads(bench, &upstream, milliseconds, events);
    }
}

fn reads_while_draining(bench: &mut Bench, upstream: &Server, milliseconds: u64, events: u64) {
    let relay = backlog::paused_with_backlog(upstream, events.max(100_000));
    let template = Template::new_read();
    open_loop::run(relay.address, RATE, bench.plan.warm_up, &template);
    for (who, action) in [("quiet", "pause"), ("draining", "resume")] {
        relay.steer(action);
        // Nothing may be left to drain when the last read is answered, but then it counts for less.
        let load = open_loop::run(relay.address, RATE, bench.plan.measured, &template);
        let left = relay.waiting();
        let figures = [("p99 ms", load.latency_ms(0.99)), ("p50 ms", load.latency_ms(0.5)), ("still waiting", left)];
        bench.results.add("interference", &format!("reads, {who}, Cello {milliseconds} ms"), &figures);
    }
}

fn delivery_under_reads(bench: &mut Bench, upstream: &Server, milliseconds: u64, events: u64) {
    for (who, flooded) in [("quiet", false), ("flooded", true)] {
        let relay = backlog::paused_with_backlog(upstream, events);
        let address = relay.address;
        let stop = Arc::new(AtomicBool::new(!flooded));
        let flood = {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || load::run_until(address, FLOOD, &Template::new_read(), None, &stop))
        };
        std::thread::park_timeout(Duration::from_millis(200));
        // Not what was asked for, which is somewhat less.
        let events = relay.waiting();
        relay.steer("resume");
        let took = relay.wait_until_forwarded();
        stop.store(true, Ordering::Relaxed);
        let flood = flood.join().expect("a flood that did not panic");
        let figures = [
            ("p99 ms", flood.latency_ms(0.99)),
            ("deliv./s", events / took.as_secs_f64()),
            ("reads/s", flood.per_second()),
        ];
        bench.results.add("interference", &format!("delivery, {who}, Cello {milliseconds} ms"), &figures);
    }
}
