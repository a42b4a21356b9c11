//! A relay with nothing to do leaves the machine alone.

use std::time::{Duration, Instant};

use crate::load::{Book, write};
use crate::relay::{PATIENCE, Relay, Setup};
use crate::upstream::Upstream;

/// How long is measured.
const SECONDS: u64 = 10;

/// How often all threads together went to sleep so far, each time after having been woken.
fn sleeps(relay: &Relay) -> u64 {
    let threads = std::fs::read_dir(format!("/proc/{}/task", relay.pid())).expect("a running process");
    let status = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
    let count = |status: String| {
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.and_then(|count| count.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    threads.map_while(Result::ok).map(status).map(count).sum()
}

#[test]
fn an_idle_relay_wakes_at_most_five_times_a_second() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    write(&Book::default(), relay.ingest, 0, 5, 50);
    relay.wait_until_empty(PATIENCE);
    // What follows the last event (a checkpoint, settles, space given back) is no idleness yet.
    let deadline = Instant::now() + PATIENCE;
    let mut before = sleeps(&relay);
    loop {
        std::thread::park_timeout(Duration::from_secs(2));
        let now = sleeps(&relay);
        if now - std::mem::replace(&mut before, now) <= 2 * 5 {
            break;
        }
        assert!(Instant::now() < deadline, "it never comes to rest");
    }
    std::thread::park_timeout(Duration::from_secs(SECONDS));
    let woken = sleeps(&relay) - before;
    println!("idle: {woken} wake-ups in {SECONDS} s");
    assert!(woken <= 5 * SECONDS, "{woken} wake-ups in {SECONDS} s");
}
