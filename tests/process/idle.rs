//! A relay with nothing to do leaves the machine alone.

use std::time::{Duration, Instant};

use crate::load::{Book, write};
use crate::relay::{PATIENCE, Relay, Setup};
use crate::upstream::Upstream;

/// How long is measured.
const SECONDS: u64 = 10;

/// What the kernel tells of each thread.
fn threads(relay: &Relay) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{}/task", relay.pid())).expect("a running process");
    let status = |thread: std::fs::DirEntry| std::fs::read_to_string(thread.path().join("status")).unwrap_or_default();
    threads.map_while(Result::ok).map(status).collect()
}

/// One of the lines of that.
fn told<'a>(status: &'a str, name: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

/// How often all threads together went to sleep so far, each time after having been woken.
fn sleeps(relay: &Relay) -> u64 {
    let count = |status: String| told(&status, "voluntary_ctxt_switches:").parse::<u64>().unwrap_or(0);
    threads(relay).into_iter().map(count).sum()
}

/// How many threads there are of one name.
fn named(relay: &Relay, name: &str) -> usize {
    threads(relay).iter().filter(|status| told(status, "Name:") == name).count()
}

#[test]
fn what_is_taken_in_and_what_is_sent_have_a_thread_each_and_on_one_processor_share_one() {
    let upstream = Upstream::start();
    let has_two = std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1);
    for (start, forwarders) in
        [(Setup::start as fn(&Setup) -> Relay, usize::from(has_two)), (Setup::start_on_one_processor, 0)]
    {
        let setup = Setup::new(&upstream.base_url());
        let relay = start(&setup);
        write(&Book::default(), relay.ingest, 0, 5, 50);
        relay.wait_until_empty(PATIENCE);
        assert_eq!((named(&relay, "relay"), named(&relay, "forwarder")), (1, forwarders));
    }
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
    // An app beside it may have used up all others meanwhile.
    assert_eq!(named(&relay, "relay-block"), 1, "the thread for what blocks is kept");
}
