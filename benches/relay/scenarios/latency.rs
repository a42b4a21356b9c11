//! How long one event takes, when the machine has time.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tokio::time::Instant;

use super::{Bench, disk};
use crate::load::{Answers, content_length, percentile_ms};
use crate::open_loop;
use crate::process::{Server, UNREACHABLE, folder};
use crate::requests::{Template, find_end};

/// Events a second of the open loop.
const RATE: u32 = 1000;
/// Between two events of a relay that is idle.
const PAUSE: Duration = Duration::from_millis(20);

/// The acknowledgement at a fixed rate, beside what the disk alone takes in the same round.
pub(super) fn open_loop(bench: &mut Bench) {
    let mut template = Template::event();
    let bytes = template.next_body().len();
    rustix::fs::sync();
    let (appends, _) = disk::appends(bytes, bench.plan.watched / 2);
    let probe = |share| percentile_ms(&appends, share);
    let figures = [("p99 ms", probe(0.99)), ("p50 ms", probe(0.5)), ("p99.9 ms", probe(0.999)), ("max ms", probe(1.0))];
    bench.results.add("open-loop", "append + fdatasync alone", &figures);

    let upstream = Server::role("bare", None);
    for (who, upstream) in [("ingest", UNREACHABLE.to_owned()), ("in and out", upstream.base_url())] {
        rustix::fs::sync();
        let relay = Server::relay(&folder(), &upstream, &[]);
        open_loop::run(relay.address, RATE, bench.plan.warm_up, &template);
        let checkpoint = |relay: &Server| {
            relay.metric("cello_relay_outbox_checkpoint_last_success_timestamp_seconds", |line| !line.is_empty())
        };
        let (before, checkpointed) = (relay.usage(), checkpoint(&relay));
        let load = open_loop::run(relay.address, RATE, bench.plan.watched, &template);
        let after = relay.usage();
        let figures = [
            ("p99 ms", load.latency_ms(0.99)),
            ("p50 ms", load.latency_ms(0.5)),
            ("p99.9 ms", load.latency_ms(0.999)),
            ("max ms", load.latency_ms(1.0)),
            ("CPU s/M", (after.cpu_seconds - before.cpu_seconds) / load.answered as f64 * 1e6),
            ("B/event", (after.written_bytes - before.written_bytes) / load.answered as f64),
            ("peak MiB", after.peak_mib),
            ("load CPU %", load.own_cpu * 100.0),
        ];
        bench.results.add("open-loop", &format!("relay, {who}, {RATE}/s"), &figures);
        let ran = if checkpoint(&relay) > checkpointed { "" } else { "NO " };
        bench.results.note(format!("open-loop, {who}: {ran}checkpoint ran meanwhile: the p99.9 is a tail under one"));
    }
}

/// From an app's request to Cello's 2xx, one event at a time, beside its two parts.
pub(super) fn delivery(bench: &mut Bench) {
    let (upstream, answered) = stand_in();
    let relay = Server::relay(&folder(), &format!("http://{upstream}"), &[]);
    let mut template = Template::event();
    let mut app = App::connect(relay.address);
    let mut times = Vec::new();
    let rounds = (bench.plan.watched.as_millis() / PAUSE.as_millis() / 2).max(20);
    for round in 0..rounds + 5 {
        std::thread::park_timeout(PAUSE);
        let sent = Instant::now();
        app.post(template.next());
        let delivered = answered.recv_timeout(Duration::from_secs(30)).expect("a delivery");
        // The first ones open connections.
        if round >= 5 {
            times.push(delivered.saturating_duration_since(sent));
        }
    }
    times.sort_unstable();
    let mut direct = App::connect(upstream);
    let mut alone: Vec<Duration> = Vec::new();
    for _ in 0..rounds {
        std::thread::park_timeout(PAUSE);
        let sent = Instant::now();
        direct.post(template.next());
        alone.push(sent.elapsed());
    }
    alone.sort_unstable();
    let (mut commits, _) = disk::paced_appends(template.next_body().len(), rounds as usize, PAUSE);
    commits.sort_unstable();
    for (who, times) in [("accept to Cello's 2xx", times), ("upstream alone", alone), ("one commit alone", commits)] {
        let figures = [("median ms", percentile_ms(&times, 0.5)), ("p99 ms", percentile_ms(&times, 0.99))];
        bench.results.add("delivery", who, &figures);
    }
}

/// One kept-alive connection of an app.
struct App {
    stream: TcpStream,
    answers: Answers,
}

impl App {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a listener");
        stream.set_nodelay(true).expect("a socket option");
        Self { stream, answers: Answers::default() }
    }

    fn post(&mut self, request: &[u8]) {
        self.stream.write_all(request).expect("a request written");
        loop {
            let read = self.stream.read(self.answers.room()).expect("an answer");
            if self.answers.is_whole(read) {
                return;
            }
        }
    }
}

/// A Cello that tells when it answered. Ends with the bench.
fn stand_in() -> (SocketAddr, Receiver<Instant>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (sender, answered) = sync_channel(1024);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sender = sender.clone();
            std::thread::spawn(move || serve(stream, &sender));
        }
    });
    (address, answered)
}

fn serve(mut stream: TcpStream, answered: &SyncSender<Instant>) {
    stream.set_nodelay(true).expect("a socket option");
    let mut buffer = vec![0; 16 * 1024];
    let mut filled = 0;
    while let Ok(read @ 1..) = stream.read(&mut buffer[filled..]) {
        filled += read;
        let Some(head) = find_end(&buffer[..filled]) else { continue };
        if filled < head + 4 + content_length(&buffer[..head]) {
            continue;
        }
        filled = 0;
        let answer =
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"success\":true}";
        if stream.write_all(answer).is_err() {
            return;
        }
        // Nobody asks about what was posted directly: then the channel fills up.
        answered.try_send(Instant::now()).ok();
    }
}
