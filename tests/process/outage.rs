//! Cello away, tokens short-lived or revoked: nothing lost, nothing dead, few calls.

use std::time::{Duration, Instant};

use crate::load::{Book, write};
use crate::relay::Setup;
use crate::upstream::Upstream;

#[test]
fn an_outage_dead_letters_nothing_makes_few_calls_and_ends_in_order() {
    let (seconds, writers, users, each) = if crate::long() { (60, 10, 500, 5000) } else { (6, 5, 40, 200) };
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let book = Book::default();
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for writer in 0..writers {
            let (book, ingest) = (&book, relay.ingest);
            scope.spawn(move || write(book, ingest, writer, users, each));
        }
    });
    assert_eq!(book.count(), writers * each, "every post is answered 200 while Cello is away");
    std::thread::park_timeout(Duration::from_secs(seconds).saturating_sub(began.elapsed()));
    let calls = upstream.stats()["received"].as_u64().expect("a count");
    assert!(calls < 100, "{calls} calls in {seconds} s: tens, not thousands");
    upstream.heal();
    let back = Instant::now();
    relay.wait_until_empty(Duration::from_secs(240));
    let duplicates = upstream.arrivals().assert_complete_and_in_order(&book.acked());
    println!(
        "an outage of {seconds} s with {} events of {} users: {calls} calls meanwhile, all delivered in order {:.1} s after its end, {duplicates} duplicates",
        book.count(),
        writers * users,
        back.elapsed().as_secs_f64(),
    );
    assert_eq!(relay.metric("cello_relay_outbox_events", "dead"), 0.0);
}

#[test]
fn short_lived_and_revoked_tokens_lose_nothing() {
    let seconds = if crate::long() { 60 } else { 10 };
    let upstream = Upstream::with_token_life(Duration::from_secs(4));
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let book = Book::default();
    let until = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (book, ingest) = (&book, relay.ingest);
            scope.spawn(move || {
                while Instant::now() < until {
                    write(book, ingest, writer, 5, 50);
                }
            });
        }
        for third in 1..=2 {
            let moment = until - Duration::from_secs(seconds) * (3 - third) / 3;
            std::thread::park_timeout(moment.saturating_duration_since(Instant::now()));
            upstream.revoke_tokens();
        }
    });
    relay.wait_until_empty(Duration::from_secs(120));
    upstream.arrivals().assert_complete_and_in_order(&book.acked());
    let calls = upstream.stats()["tokenCalls"].clone();
    let total: u64 = ["accessKey", "refreshToken"].iter().filter_map(|grant| calls[*grant].as_u64()).sum();
    println!(
        "{seconds} s with a token life of 4 s and two revocations: {} events, lost 0, {total} token calls",
        book.count()
    );
    assert!(total < seconds * 2, "{total} token calls in {seconds} s");
}
