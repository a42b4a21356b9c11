//! A closed-loop load generator: each connection sends, waits for the answer and sends again.
//!
//! It shares the machine with what it measures, so it is cheap: one thread, requests made ahead of time,
//! answers looked at no more than needed, nothing allocated per request.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::process::own_cpu_seconds;
use crate::requests::{Template, find_end};

/// What one run gave.
pub(crate) struct Load {
    /// Events, or reads, answered with 200.
    pub(crate) answered: u64,
    /// How long it really took.
    pub(crate) took: Duration,
    /// The generator's own share of a core.
    pub(crate) own_cpu: f64,
    /// One for each request, sorted.
    latencies: Vec<Duration>,
}

impl Load {
    pub(crate) fn new(mut latencies: Vec<Duration>, events: u64, took: Duration, own_cpu_seconds: f64) -> Self {
        latencies.sort_unstable();
        let own_cpu = own_cpu_seconds / took.as_secs_f64();
        Self { answered: latencies.len() as u64 * events, took, own_cpu, latencies }
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }

    /// Milliseconds within which that share of requests was answered.
    pub(crate) fn latency_ms(&self, share: f64) -> f64 {
        percentile_ms(&self.latencies, share)
    }
}

/// Of sorted times, in milliseconds.
pub(crate) fn percentile_ms(sorted: &[Duration], share: f64) -> f64 {
    let index = ((sorted.len() as f64 * share) as usize).min(sorted.len().saturating_sub(1));
    sorted.get(index).copied().unwrap_or_default().as_secs_f64() * 1e3
}

/// Sends for `time` over so many connections.
pub(crate) fn run(address: SocketAddr, connections: usize, time: Duration, template: &Template) -> Load {
    run_until(address, connections, template, Some(time), &Arc::default())
}

/// Sends until told to stop.
pub(crate) fn run_until(
    address: SocketAddr,
    connections: usize,
    template: &Template,
    time: Option<Duration>,
    stop: &Arc<AtomicBool>,
) -> Load {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let cpu_before = own_cpu_seconds();
    runtime.block_on(async {
        let start = Instant::now();
        let mut posters = JoinSet::new();
        for _ in 0..connections {
            posters.spawn(send(address, template.clone(), time.map(|time| start + time), Arc::clone(stop)));
        }
        let mut latencies = Vec::new();
        while let Some(done) = posters.join_next().await {
            latencies.extend(done.expect("a poster that did not panic"));
        }
        Load::new(latencies, template.events, start.elapsed(), own_cpu_seconds() - cpu_before)
    })
}

async fn send(
    address: SocketAddr,
    mut template: Template,
    until: Option<Instant>,
    stop: Arc<AtomicBool>,
) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.set_nodelay(true).expect("a socket option");
    let mut latencies = Vec::with_capacity(64 * 1024);
    let mut answers = Answers::default();
    let mut sent = Instant::now();
    while until.is_none_or(|until| sent < until) && !stop.load(Ordering::Relaxed) {
        stream.write_all(template.next()).await.expect("a request written");
        loop {
            let read = stream.read(answers.room()).await.expect("an answer");
            if answers.is_whole(read) {
                break;
            }
        }
        let answered = Instant::now();
        latencies.push(answered - sent);
        sent = answered;
    }
    latencies
}

/// Reads answers of one connection; anything but 200 ends the run.
pub(crate) struct Answers {
    buffer: Vec<u8>,
    filled: usize,
    /// Bytes of the last answer: the next one is mostly as long, and then is not parsed.
    usual: usize,
}

impl Default for Answers {
    fn default() -> Self {
        // A batch of a thousand is answered with as many ids: 39 KB.
        Self { buffer: vec![0; 64 * 1024], filled: 0, usual: 0 }
    }
}

impl Answers {
    /// Where the next bytes go.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.buffer[self.filled..]
    }

    /// Takes note of that many bytes; tells whether the answer is complete.
    pub(crate) fn is_whole(&mut self, read: usize) -> bool {
        assert!(read > 0, "the server closed the connection");
        self.filled += read;
        let seen = &self.buffer[..self.filled];
        let Some(head) = find_end(seen) else { return false };
        assert!(
            seen.starts_with(b"HTTP/1.1 200") || seen.starts_with(b"HTTP/1.1 201"),
            "{}",
            String::from_utf8_lossy(seen)
        );
        if self.filled != self.usual {
            let whole = head + 4 + content_length(&seen[..head]);
            if self.filled < whole {
                return false;
            }
            self.usual = whole;
        }
        self.filled = 0;
        true
    }
}

/// What a head says of its body's length; 0 if nothing.
pub(crate) fn content_length(head: &[u8]) -> usize {
    let text = String::from_utf8_lossy(head).to_ascii_lowercase();
    text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok()).unwrap_or(0)
}
