//! An operator's pages with a million events waiting and 100,000 dead, while apps post.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cello_relay::clock::SystemClock;
use cello_relay::event::{Event, EventId, Trigger, UserId};
use cello_relay::outbox::sqlite::{Settings, Sqlite};
use cello_relay::outbox::{Attempt, Batch, Outbox, Outcome, Want};
use cello_relay::reason::Reason;
use tempfile::TempDir;
use tokio::time::Instant;

use super::Bench;
use crate::load::{self, percentile_ms};
use crate::process::{Server, UNREACHABLE, folder};
use crate::requests::Template;

const PENDING: usize = 1_000_000;
const DEAD: usize = 100_000;
const BATCH: usize = 1000;
/// Faster than anybody turns pages.
const PAGE_EVERY: Duration = Duration::from_millis(50);

/// Pages of every kind, and what they cost those who post.
pub(super) fn run(bench: &mut Bench) {
    let (dir, deep) = bench.large.get_or_insert_with(fill).clone();
    rustix::fs::sync();
    let relay = Server::relay(&dir, UNREACHABLE, &[("FORWARD__CONCURRENCY", "1")]);
    relay.steer("pause");
    let template = Template::event();
    load::run(relay.address, 64, bench.plan.warm_up, &template);
    let alone = load::run(relay.address, 64, bench.plan.measured, &template);
    bench.results.add("listing", "ingest, nobody lists", &[("events/s", alone.per_second())]);
    let pages = [
        ("all", String::new()),
        ("pending", "state=pending".to_owned()),
        ("dead", "state=dead".to_owned()),
        ("dead of a reason", "state=dead&reason=exhausted".to_owned()),
        ("of a reason", "reason=http_400".to_owned()),
        ("dead of a user", "state=dead&user=dead-99999".to_owned()),
        ("behind a deep cursor", format!("after={deep}")),
    ];
    let (socket, stop) = (dir.path().join("control.sock"), Arc::new(AtomicBool::new(false)));
    let reader = {
        let stop = Arc::clone(&stop);
        std::thread::spawn(move || turn_pages(&socket, &pages, &stop))
    };
    // Each kind is to be seen often enough.
    let beside = load::run(relay.address, 64, bench.plan.measured * 2, &template);
    stop.store(true, Ordering::Relaxed);
    for (kind, mut times) in reader.join().expect("a reader that did not panic") {
        times.sort_unstable();
        let figures = [("p50 ms", percentile_ms(&times, 0.5)), ("most ms", percentile_ms(&times, 1.0))];
        bench.results.add("listing", &format!("page: {kind}"), &figures);
    }
    bench.results.add("listing", "ingest, pages are turned", &[("events/s", beside.per_second())]);
    // Not a page's mark: this user's events are found by looking at all that waits.
    let started = Instant::now();
    page(&dir.path().join("control.sock"), "user=waiting-999999");
    let scan = started.elapsed().as_secs_f64() * 1e3;
    bench.results.add("listing", "a user among all that waits", &[("p50 ms", scan)]);
}

/// The outbox, and an event deep in it.
fn fill() -> (Arc<TempDir>, EventId) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let dir = folder();
    let settings = Settings::keeping_all(dir.path(), UNREACHABLE);
    let deep = runtime.block_on(async {
        let store = Sqlite::open(settings, Arc::new(SystemClock), Arc::default()).expect("an outbox");
        for first in (0..DEAD).step_by(BATCH) {
            append(&store, "dead", first).await;
            let claimed = store.claim(Want { max: BATCH, rotate: false }).await;
            let settled = claimed.into_iter().map(|one| store.settle(one.lease, dead(one.id)));
            for settled in settled.collect::<Vec<_>>() {
                settled.await.expect("a dead letter");
            }
        }
        let mut deep = None;
        for first in (0..PENDING).step_by(BATCH) {
            let id = append(&store, "waiting", first).await;
            deep = deep.or((first >= PENDING * 9 / 10).then_some(id));
        }
        store.close().await;
        deep.expect("an event near the end")
    });
    (dir, deep)
}

async fn append(store: &Sqlite, name: &str, first: usize) -> EventId {
    let mut template = Template::event();
    let events = (first..first + BATCH).map(|number| Event {
        user: UserId::new(&format!("{name}-{number}")),
        trigger: Trigger::InvoicePaid,
        body: bytes::Bytes::copy_from_slice(template.next_body()),
        trace: None,
    });
    let batch = Batch { events: events.collect(), key: None };
    store.append(batch).await.expect("stored").ids[0]
}

/// One of three reasons, in turn.
fn dead(id: EventId) -> Outcome {
    let reason = [Reason::Http422, Reason::Exhausted, Reason::Http400][id.seq() as usize % 3];
    let message = Some("payload.ucc is not known".into());
    let attempt = Attempt { at: id.accepted_at(), reason, status: Some(422), request_id: None, message };
    Outcome::Dead { reason, attempt }
}

type Times = Vec<(&'static str, Vec<Duration>)>;

fn turn_pages(socket: &Path, pages: &[(&'static str, String)], stop: &AtomicBool) -> Times {
    let mut times: Times = pages.iter().map(|(kind, _)| (*kind, Vec::new())).collect();
    while !stop.load(Ordering::Relaxed) {
        for ((_, query), (_, times)) in pages.iter().zip(&mut times) {
            std::thread::park_timeout(PAGE_EVERY);
            let started = Instant::now();
            page(socket, query);
            times.push(started.elapsed());
        }
    }
    times
}

/// One page, which must have something on it.
fn page(socket: &Path, query: &str) {
    let mut stream = UnixStream::connect(socket).expect("the control socket");
    let head = format!("GET /api/events?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"id\":"), "{query}: {answer:.300}");
}
