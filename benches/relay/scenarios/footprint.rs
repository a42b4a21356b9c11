//! What the relay takes when little or nothing happens.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use tokio::time::Instant;

use super::{Bench, backlog};
use crate::open_loop;
use crate::process::{Server, UNREACHABLE, folder, relay_binary};
use crate::requests::Template;

/// CPU, wake-ups and memory of a relay that has nothing to do.
pub(super) fn idle(bench: &mut Bench) {
    let upstream = Server::role("bare", None);
    let relay = Server::relay(&folder(), &upstream.base_url(), &[]);
    relay.wait_until_ready();
    // What follows a start is no idleness yet.
    std::thread::park_timeout(Duration::from_secs(2));
    watch(bench, "idle", "relay, never used", &relay);
    open_loop::run(relay.address, 100, bench.plan.warm_up, &Template::event());
    relay.wait_until_forwarded();
    std::thread::park_timeout(Duration::from_secs(2));
    watch(bench, "idle", "relay, after some events", &relay);
}

fn watch(bench: &mut Bench, scenario: &'static str, who: &str, relay: &Server) {
    let before = relay.usage();
    let start = Instant::now();
    std::thread::park_timeout(bench.plan.watched);
    let seconds = start.elapsed().as_secs_f64();
    let after = relay.usage();
    let figures = [
        ("CPU %", (after.cpu_seconds - before.cpu_seconds) / seconds * 100.0),
        ("wakeups/s", (after.sleeps - before.sleeps) / seconds),
        ("RSS MiB", after.resident_mib),
    ];
    bench.results.add(scenario, who, &figures);
}

/// Memory of a relay with as many connections as it takes by default: nothing has come on any, then one event on each.
pub(super) fn connections(bench: &mut Bench) {
    const OPEN: usize = 9_990;
    if getrlimit(Resource::Nofile).current.is_some_and(|most| most < OPEN as u64 + 100) {
        eprintln!("skipped: connections: this process may not open so many files (ulimit -n)");
        return;
    }
    let relay = Server::relay(&folder(), UNREACHABLE, &[]);
    let mut template = Template::event();
    let connect = |_| TcpStream::connect(relay.address).expect("a connection");
    let mut open: Vec<TcpStream> = (0..OPEN).map(connect).collect();
    let mut post = |stream: &mut TcpStream| {
        stream.write_all(template.next()).expect("a request");
        let read = stream.read(&mut [0; 4096]).expect("an answer");
        assert!(read > 0, "it was hung up on");
    };
    // The last in the kernel's queue: when it is answered, all others were accepted.
    post(open.last_mut().expect("the last"));
    let silent = relay.usage().resident_mib;
    open.iter_mut().for_each(post);
    let used = relay.usage().resident_mib;
    bench.results.add("connections", "relay, 9,990 that are silent", &[("RSS MiB", silent)]);
    bench.results.add("connections", "relay, 9,990 with an event each", &[("RSS MiB", used)]);
}

/// CPU at a rate that a busy product has.
pub(super) fn trickle(bench: &mut Bench) {
    let upstream = Server::role("bare", None);
    let relay = Server::relay(&folder(), &upstream.base_url(), &[]);
    let template = Template::event();
    open_loop::run(relay.address, 100, bench.plan.warm_up, &template);
    let before = relay.usage();
    let load = open_loop::run(relay.address, 100, bench.plan.watched, &template);
    relay.wait_until_forwarded();
    let after = relay.usage();
    let figures = [
        ("CPU %", (after.cpu_seconds - before.cpu_seconds) / load.took.as_secs_f64() * 100.0),
        ("CPU s/M", (after.cpu_seconds - before.cpu_seconds) / load.answered as f64 * 1e6),
        ("wakeups/s", (after.sleeps - before.sleeps) / load.took.as_secs_f64()),
        ("B/event", (after.written_bytes - before.written_bytes) / load.answered as f64),
        ("p99 ms", load.latency_ms(0.99)),
        ("RSS MiB", after.resident_mib),
    ];
    bench.results.add("trickle", "relay, in and out, 100/s", &figures);
}

/// Fifty events a second with a tenth of a core: the relay is let run 10 ms of every 100.
pub(super) fn tenth(bench: &mut Bench) {
    let upstream = Server::role("bare", None);
    let relay = Server::relay(&folder(), &upstream.base_url(), &[]);
    let process = i32::try_from(relay.pid()).ok().and_then(Pid::from_raw).expect("a process id");
    let over = AtomicBool::new(false);
    let load = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                kill_process(process, Signal::STOP).expect("a running process");
                std::thread::park_timeout(Duration::from_millis(90));
                kill_process(process, Signal::CONT).expect("a running process");
                std::thread::park_timeout(Duration::from_millis(10));
            }
        });
        let load = open_loop::run(relay.address, 50, bench.plan.watched * 2, &Template::event());
        over.store(true, Ordering::Relaxed);
        load
    });
    let figures =
        [("p99 ms", load.latency_ms(0.99)), ("p50 ms", load.latency_ms(0.5)), ("peak MiB", relay.usage().peak_mib)];
    bench.results.add("tenth of a core", "relay, in and out, 50/s", &figures);
}

/// From the start of the process to `/readyz`.
pub(super) fn start(bench: &mut Bench) {
    let mut counts = vec![0];
    counts.extend(bench.plan.pending.first());
    for count in counts {
        let dir = if count == 0 { folder() } else { backlog::filled(bench, count) };
        for _ in 0..3 {
            rustix::fs::sync();
            let start = Instant::now();
            let relay = Server::relay(&dir, UNREACHABLE, &[]);
            relay.wait_until_ready();
            let took = start.elapsed().as_secs_f64() * 1e3;
            let figures = [("ready ms", took), ("RSS MiB", relay.usage().resident_mib)];
            bench.results.add("start", &format!("relay, {count} pending"), &figures);
        }
    }
}

/// Bytes of the program.
pub(super) fn size(bench: &mut Bench) {
    let bytes = std::fs::metadata(relay_binary()).expect("the program").len();
    bench.results.add("size", "binary as built here", &[("MiB", bytes as f64 / 1048576.0)]);
}
