//! kill -9 at any moment: what was answered 2xx arrives, in order per user.

use std::time::Duration;

use crate::load::{Book, write};
use crate::relay::{PATIENCE, Setup};
use crate::upstream::Upstream;

/// Threads that post at the same time.
const WRITERS: usize = 8;
/// Users of one writer.
const USERS: usize = 3;

#[test]
fn what_was_answered_2xx_survives_kill_9_and_arrives_in_order() {
    let rounds = if crate::long() { 200 } else { 25 };
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","latency":"10ms"}]"#);
    let setup = Setup::new(&upstream.base_url());
    let book = Book::default();
    let mut random = fastrand::Rng::with_seed(20_261_122);
    let (mut cut_off_rounds, mut sending_rounds) = (0, 0);
    for _ in 0..rounds {
        let cut_off_before = book.cut_off();
        kill_under_load(&setup, &upstream, &book, Duration::from_millis(random.u64(1..150)));
        cut_off_rounds += usize::from(book.cut_off() > cut_off_before);
        sending_rounds += usize::from(upstream.sends_cut_off());
    }
    let relay = setup.start();
    relay.wait_until_empty(PATIENCE);
    let arrivals = upstream.arrivals();
    let duplicates = arrivals.assert_complete_and_in_order(&book.acked());
    println!(
        "{rounds} rounds of kill -9, {cut_off_rounds} with requests and {sending_rounds} with sends in flight: {} events answered, \
         lost 0, out of order 0, {duplicates} duplicates",
        book.count(),
    );
    assert!(cut_off_rounds * 2 > rounds, "most kills must hit requests: {cut_off_rounds} of {rounds}");
    assert!(sending_rounds * 2 > rounds, "most kills must hit sends: {sending_rounds} of {rounds}");
    let ledger = relay.metric("cello_relay_outbox_events", "");
    assert_eq!(ledger, 0.0, "nothing is left");
    assert_eq!(relay.metric("cello_relay_events_lost_total", ""), 0.0);
}

/// Starts a relay, lets all writers post, and kills it some time `after` its first send.
fn kill_under_load(setup: &Setup, upstream: &Upstream, book: &Book, after: Duration) {
    let relay = setup.start();
    let ingest = relay.ingest;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || write(book, ingest, writer, USERS, usize::MAX));
        }
        upstream.wait_for_arrival();
        // The moment of the kill is meant to be arbitrary; nothing waits for anything here.
        std::thread::park_timeout(after);
        relay.kill();
    });
}
