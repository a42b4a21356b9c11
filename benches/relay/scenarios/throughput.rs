//! Closed loop: how many events a second, at what price.

use std::sync::Arc;
use std::time::Duration;

use super::Bench;
use crate::load::{self, Load};
use crate::peers::Peer;
use crate::process::{Server, UNREACHABLE, Usage, folder};
use crate::requests::Template;

/// Keep-alive connections of the load generator.
const CONNECTIONS: &[usize] = &[1, 64, 256];

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Contender {
    /// A hyper server that reads and answers, nothing else.
    Bare,
    /// Parse, insert, group commit, answer.
    Simple,
    /// The relay, with an upstream that cannot be reached: ingest alone.
    Ingest,
    /// The relay, delivering as it takes.
    InAndOut,
    /// Another forwarder with a buffer on disk.
    Peer(Peer),
}

impl Contender {
    fn all() -> Vec<Self> {
        let own = [Self::Bare, Self::Simple, Self::Ingest, Self::InAndOut];
        own.into_iter().chain(Peer::found().into_iter().map(Self::Peer)).collect()
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare hyper",
            Self::Simple => "simplest honest",
            Self::Ingest => "relay, ingest",
            Self::InAndOut => "relay, in and out",
            Self::Peer(peer) => peer.name(),
        }
    }

    fn start(self, upstream: &Server) -> Option<Server> {
        let dir = folder();
        match self {
            Self::Bare => Some(Server::role("bare", None)),
            Self::Simple => Some(Server::role(&format!("simple={}", dir.path().display()), Some(Arc::clone(&dir)))),
            Self::Ingest => Some(Server::relay(&dir, UNREACHABLE, &[])),
            Self::InAndOut => Some(Server::relay(&dir, &upstream.base_url(), &[])),
            Self::Peer(peer) => peer.start(&dir, upstream.address),
        }
    }
}

/// Events of usual size, all contenders.
pub(super) fn run(bench: &mut Bench) {
    let template = Template::event();
    for connections in CONNECTIONS {
        for contender in Contender::all() {
            measure(bench, "throughput", contender, *connections, "", &template);
        }
    }
}

/// Large events and batches.
pub(super) fn sizes(bench: &mut Bench) {
    for contender in [Contender::Bare, Contender::Simple, Contender::Ingest, Contender::InAndOut] {
        measure(bench, "sizes", contender, 64, ", 8 KiB", &Template::large_event());
    }
    for contender in [Contender::Bare, Contender::Ingest, Contender::InAndOut] {
        measure(bench, "sizes", contender, 64, ", batches of 100", &Template::batch(100));
    }
}

fn measure(
    bench: &mut Bench,
    scenario: &'static str,
    contender: Contender,
    connections: usize,
    kind: &str,
    template: &Template,
) {
    // Dirty pages of what was before must not be written in this one's time.
    rustix::fs::sync();
    let upstream = Server::role("bare", None);
    let Some(server) = contender.start(&upstream) else {
        bench.results.note(format!("skipped: {} does not start", contender.name()));
        return;
    };
    if let Contender::Peer(peer) = contender {
        bench.results.note(format!("{}: {}", peer.name(), peer.guarantee()));
    }
    let forwarded = || if contender == Contender::InAndOut { server.wait_until_forwarded() } else { Duration::ZERO };
    load::run(server.address, connections, bench.plan.warm_up, template);
    // What the warm-up left behind is no part of it …
    forwarded();
    let before = server.usage();
    let load = load::run(server.address, connections, bench.plan.measured, template);
    // … what the load's end left behind is.
    let left = forwarded();
    let figures = figures(&load, &before, &server.usage(), left);
    bench.results.add(scenario, &format!("{}{kind}, {connections} conn", contender.name()), &figures);
}

/// The columns of a closed loop.
fn figures(load: &Load, before: &Usage, after: &Usage, left: Duration) -> [(&'static str, f64); 9] {
    let events = load.answered.max(1) as f64;
    [
        ("events/s", events / (load.took + left).as_secs_f64()),
        ("p50 ms", load.latency_ms(0.50)),
        ("p99 ms", load.latency_ms(0.99)),
        ("p99.9 ms", load.latency_ms(0.999)),
        ("CPU s/M", (after.cpu_seconds - before.cpu_seconds) / events * 1e6),
        ("RSS MiB", after.resident_mib),
        ("peak MiB", after.peak_mib),
        ("B/event", (after.written_bytes - before.written_bytes) / events),
        ("load CPU %", load.own_cpu * 100.0),
    ]
}
