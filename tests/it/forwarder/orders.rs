//! What operators and the end of the process order.

use std::time::Duration;

use cello_relay::forwarder::{Ambiguous, Settings};
use cello_relay::outbox::{Flow, Outbox as _};
use cello_relay::reason::Reason;

use super::world::{DAY, MINUTE, SECOND, World, settings, status};

#[tokio::test(start_paused = true)]
async fn a_pause_lets_the_sent_finish_and_starts_nothing_until_resumed() {
    let world = World::start(|_| status(200));
    world.post_users(0, 100);
    world.delivered(1).await;
    world.handle.pause(None);
    assert_eq!(*world.handle.flow().borrow(), Flow::Paused, "whoever asks next sees it");
    world.handle.idle().await;
    let sent = world.cello.calls().len();
    assert_eq!(world.outbox.delivered().len(), sent);
    world.pass(DAY).await;
    assert_eq!(world.cello.calls().len(), sent);
    assert_eq!((*world.handle.flow().borrow(), world.metrics.paused.get()), (Flow::Paused, 1));
    assert!(world.handle.snapshot().paused.is_some_and(|pause| pause.until.is_none()));
    world.handle.resume();
    world.delivered(100).await;
    assert_eq!(world.handle.snapshot().paused, None);
    assert_eq!((*world.handle.flow().borrow(), world.metrics.paused.get()), (Flow::Ok, 0));
}

#[tokio::test(start_paused = true)]
async fn a_timed_pause_ends_by_itself() {
    let world = World::start(|_| status(200));
    world.handle.pause(Some(10 * MINUTE));
    world.post_users(0, 1);
    world.delivered(1).await;
    assert!(world.cello.calls()[0].at >= 10 * MINUTE);
}

#[tokio::test(start_paused = true)]
async fn a_drain_ignores_backoff_but_not_the_breaker() {
    let world = World::start(|_| status(503));
    world.post_users(0, 3);
    world.pass(60 * MINUTE).await;
    world.handle.drain();
    world.pass(SECOND / 2).await;
    assert_eq!(*world.handle.flow().borrow(), Flow::Draining);
    let before = world.cello.calls().len();
    world.pass(10 * MINUTE).await;
    let calls = world.cello.calls().len() - before;
    assert!((10..40).contains(&calls), "{calls}");
    world.cello.answer(|_| status(200));
    let recovered = world.cello.calls().len();
    world.delivered(3).await;
    let last = &world.cello.calls();
    assert!(last.last().unwrap().at - last[recovered].at < SECOND, "the first success lets all go at once");
}

#[tokio::test(start_paused = true)]
async fn a_drain_sends_at_once_what_waits_for_a_retry() {
    let world = World::start(|call| status(if call.number < 12 { 503 } else { 200 }));
    let event = world.outbox.post("a");
    world.outbox.until(|outbox| outbox.burned(event).0 == 12).await;
    world.pass(SECOND / 20).await;
    let drained_at = world.cello.calls().last().unwrap().at;
    world.handle.drain();
    world.delivered(1).await;
    assert!(world.cello.calls().last().unwrap().at - drained_at < SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_stop_lets_the_sent_finish_and_ends_the_loop() {
    let world = World::start(|_| status(200));
    world.post_users(0, 100);
    world.delivered(20).await;
    world.handle.stop();
    let sent = world.cello.calls().len();
    world.handle.idle().await;
    world.running.await.unwrap();
    assert_eq!(world.cello.calls().len(), sent, "nothing starts after a stop");
    assert_eq!(world.outbox.delivered().len(), sent);
    let stats = world.outbox.stats();
    assert_eq!((stats.in_flight, stats.ledger.undelivered()), (0, 100 - sent as u64), "what was at hand is given back");
}

#[tokio::test(start_paused = true)]
async fn a_closed_outbox_ends_the_loop() {
    let world = World::start(|_| status(200));
    world.outbox.close().await;
    world.running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn sends_cut_off_at_the_end_are_counted_ambiguous_and_given_back() {
    let world = World::start(|_| status(200));
    world.cello.set_latency(MINUTE);
    world.post_users(0, 20);
    world.pass(SECOND).await;
    assert_eq!(world.handle.abort(), 8);
    world.handle.idle().await;
    world.running.await.unwrap();
    assert_eq!(world.metrics.delivery_ambiguous.with(Reason::Timeout).get(), 8);
    assert_eq!((world.outbox.stats().in_flight, world.outbox.stats().retrying), (0, 0), "nothing is burned");
    assert_eq!(world.outbox.unsure().len(), 8, "that Cello may have them is known");
}

#[tokio::test(start_paused = true)]
async fn sends_cut_off_at_the_end_are_given_up_with_ambiguous_dead() {
    let world = World::with(Settings { ambiguous: Ambiguous::Dead, ..settings() }, 0, |_| status(200));
    world.cello.set_latency(MINUTE);
    world.post_users(0, 20);
    world.pass(SECOND).await;
    world.handle.abort();
    world.handle.idle().await;
    assert_eq!(world.outbox.dead(), [Reason::Ambiguous; 8]);
}

#[tokio::test(start_paused = true)]
async fn what_had_no_connection_yet_when_the_end_cut_it_off_is_known_not_to_be_sent() {
    for ambiguous in [Ambiguous::Retry, Ambiguous::Dead] {
        let world = World::with(Settings { ambiguous, ..settings() }, 0, |_| status(200));
        world.cello.be_out_of_reach();
        world.post_users(0, 20);
        world.pass(SECOND).await;
        assert_eq!(world.handle.abort(), 8);
        world.handle.idle().await;
        world.running.await.unwrap();
        let (ambiguous, stats) = (&world.metrics.delivery_ambiguous, world.outbox.stats());
        assert_eq!((ambiguous.with(Reason::Timeout).get(), world.outbox.unsure().len()), (0, 0));
        assert_eq!((world.outbox.dead().len(), stats.pending(), stats.in_flight), (0, 20, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_intent_that_a_stop_overtakes_is_not_followed_by_a_send() {
    let world = World::with(Settings { ambiguous: Ambiguous::Dead, ..settings() }, 0, |_| status(200));
    world.outbox.allow_writes(0);
    world.post_users(0, 3);
    world.pass(SECOND).await;
    world.handle.stop();
    world.outbox.allow_writes(usize::MAX);
    world.handle.idle().await;
    assert!(world.cello.calls().is_empty() && world.outbox.dead().is_empty());
    assert_eq!((world.outbox.stats().pending(), world.outbox.stats().in_flight), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn the_heart_beats_while_everything_waits() {
    let world = World::start(|_| status(200));
    for wait in [Duration::from_millis(1), 7 * SECOND, MINUTE, DAY] {
        world.pass(wait).await;
        let beat = world.handle.heartbeat();
        assert!(beat.elapsed() <= 10 * SECOND);
    }
    world.handle.pause(None);
    world.pass(DAY).await;
    assert!(world.handle.heartbeat().elapsed() <= 10 * SECOND);
}
