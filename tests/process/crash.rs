//! kill -9 at any moment: what was answered 2xx arrives, in order per user.

use std::time::Duration;

use crate::disk::Disk;
use crate::load::{Book, write};
use crate::relay::{PATIENCE, Setup};
use crate::upstream::Upstream;

/// Threads that post at the same time.
const WRITERS: usize = 8;
/// Users of one writer.
const USERS: usize = 3;
/// Kills of one outbox; then a fresh one takes its place, so that what has to be looked through stays small.
const ROUNDS: usize = 25;
/// So many outboxes with CELLO_RELAY_TEST_LONG=1, or CELLO_RELAY_ROUNDS.
const OUTBOXES_LONG: usize = 80;
/// Sends and settles that a kill may cut off, at most: those of eight senders, and what waits for its commit.
const UNSETTLED: usize = 8 + 64;

/// What came of many kills.
#[derive(Default)]
struct Tally {
    events: usize,
    cut_off_rounds: usize,
    sending_rounds: usize,
    duplicates: usize,
    most_duplicates: usize,
}

#[test]
fn what_was_answered_2xx_survives_kill_9_and_arrives_in_order() {
    let outboxes = crate::rounds(1, OUTBOXES_LONG);
    let mut random = fastrand::Rng::with_seed(20_261_122);
    let mut tally = Tally::default();
    for _ in 0..outboxes {
        kill_one_outbox(&mut random, &mut tally);
    }
    let rounds = outboxes * ROUNDS;
    let Tally { events, cut_off_rounds, sending_rounds, duplicates, most_duplicates } = tally;
    println!(
        "{rounds} rounds of kill -9, {cut_off_rounds} with requests and {sending_rounds} with sends in flight: {events} events \
         answered, lost 0, out of order 0, {duplicates} duplicates, {most_duplicates} in one round at most"
    );
    assert!(cut_off_rounds * 2 > rounds, "most kills must hit requests: {cut_off_rounds} of {rounds}");
    assert!(sending_rounds * 3 > rounds, "many kills must hit sends: {sending_rounds} of {rounds}");
}

/// Kills the relay of one outbox again and again, and looks at what came of it.
fn kill_one_outbox(random: &mut fastrand::Rng, tally: &mut Tally) {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","latency":"10ms"}]"#);
    let setup = Setup::new(&upstream.base_url());
    let book = Book::default();
    let mut duplicates_before = 0;
    for _ in 0..ROUNDS {
        let cut_off_before = book.cut_off();
        kill_under_load(&setup, &upstream, &book, Duration::from_millis(random.u64(1..150)));
        tally.cut_off_rounds += usize::from(book.cut_off() > cut_off_before);
        tally.sending_rounds += usize::from(upstream.sends_cut_off());
        // Those of the kill before, and what of them is sent again later.
        let duplicates = upstream.arrivals().duplicates();
        tally.most_duplicates = tally.most_duplicates.max(duplicates - duplicates_before);
        duplicates_before = duplicates;
    }
    let relay = setup.start();
    relay.wait_until_empty(PATIENCE);
    let arrivals = upstream.arrivals();
    let duplicates = arrivals.assert_complete_and_in_order(&book.acked());
    assert!(duplicates <= ROUNDS * UNSETTLED, "{duplicates} duplicates of {ROUNDS} kills");
    assert_eq!(relay.metric("cello_relay_outbox_events", ""), 0.0, "nothing is left");
    // Over all restarts: what arrived, no more and no less, and all that was answered.
    let [accepted, delivered, lost] = ["accepted", "delivered", "lost"].map(|count| relay.ledger(count) as usize);
    assert_eq!((accepted, delivered, lost), (arrivals.count() - duplicates, accepted, 0), "the ledger");
    assert!((book.count()..=book.count() + book.cut_off()).contains(&accepted), "{accepted} of {}", book.count());
    tally.events += book.count();
    tally.duplicates += duplicates;
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

/// Kills while few users' events are parked; each cuts that off at another moment.
const PARKING_KILLS: u64 = 12;
/// Events that each writer has posted before: more than the window holds, so that what comes later is parked.
const CROWD: usize = 400;

#[test]
fn what_is_being_parked_when_the_process_is_killed_is_delivered_all_the_same() {
    let (upstream, book) = (Upstream::start(), Book::default());
    let mut disk = Disk::new(&upstream);
    disk.setup.set("FORWARD__BACKOFF_MIN", "50ms").set("FORWARD__BACKOFF_MAX", "100ms");
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    let relay = disk.setup.start();
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (book, ingest) = (&book, relay.ingest);
            scope.spawn(move || write(book, ingest, writer, USERS, CROWD));
        }
    });
    relay.kill();
    upstream.heal();
    // While a commit is synced the next one is filled, and what the last one brought is read.
    disk.fails("slow-sync");
    for kill in 1..=PARKING_KILLS {
        kill_under_load(&disk.setup, &upstream, &book, Duration::from_millis(200 + 30 * kill));
        let (code, _, said) = disk.setup.call(&["outbox", "check"]);
        assert_eq!(code, 0, "{said}");
    }
    disk.fails("");
    let relay = disk.setup.start();
    relay.wait_until_empty(PATIENCE);
    upstream.arrivals().assert_complete_and_in_order(&book.acked());
}
