//! An open-loop load generator: events leave when their time has come, whether or not earlier ones were answered.
//!
//! Latency counts from the scheduled time, so that a stall is paid for by everyone who would have met it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use tokio::time::Instant;

use crate::load::{Answers, Load};
use crate::process::own_cpu_seconds;
use crate::requests::Template;

/// Blocking threads, one connection each: a thread that sleeps wakes within microseconds of its time, where
/// a runtime's timer counts milliseconds.
const SENDERS: u32 = 32;

/// Sends `per_second` for `time`.
pub(crate) fn run(address: SocketAddr, per_second: u32, time: Duration, template: &Template) -> Load {
    let cpu_before = own_cpu_seconds();
    // Connecting is not measured.
    let start = Instant::now() + Duration::from_millis(100);
    let every = Duration::from_secs(1) / per_second;
    let latencies = std::thread::scope(|scope| {
        let senders: Vec<_> = (0..SENDERS)
            .map(|sender| scope.spawn(move || send(address, start + every * sender, start + time, every, template)))
            .collect();
        senders.into_iter().flat_map(|sender| sender.join().expect("a sender that did not panic")).collect()
    });
    Load::new(latencies, template.events, start.elapsed(), own_cpu_seconds() - cpu_before)
}

fn send(address: SocketAddr, first: Instant, end: Instant, every: Duration, template: &Template) -> Vec<Duration> {
    let mut template = template.clone();
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_nodelay(true).expect("a socket option");
    let mut answers = Answers::default();
    let mut latencies = Vec::new();
    let mut scheduled = first;
    while scheduled < end {
        wait_until(scheduled);
        stream.write_all(template.next()).expect("a request written");
        loop {
            let read = stream.read(answers.room()).expect("an answer");
            if answers.is_whole(read) {
                break;
            }
        }
        latencies.push(scheduled.elapsed());
        scheduled += every * SENDERS;
    }
    latencies
}

/// Sleeps until then.
pub(crate) fn wait_until(moment: Instant) {
    loop {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}
