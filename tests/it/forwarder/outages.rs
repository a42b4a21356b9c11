//! What failures of Cello, or of single events, do to the queue, and what they do not.

use std::time::Duration;

use cello_relay::cello::{Access, Judgement};
use cello_relay::clock::Timestamp;
use cello_relay::forwarder::Settings;
use cello_relay::outbox::{Flow, Outbox as _};
use cello_relay::reason::Reason;

use super::world::{Call, DAY, MINUTE, SECOND, World, settings, status};

/// The most calls in any ten minutes.
fn most_in_ten_minutes(calls: &[Call]) -> usize {
    let within = |from: Duration| calls.iter().filter(move |call| call.at >= from && call.at < from + 10 * MINUTE);
    calls.iter().step_by(7).map(|call| within(call.at).count()).max().unwrap_or(0)
}

#[tokio::test(start_paused = true)]
async fn one_event_that_always_gets_403_is_retried_alone_while_all_others_are_delivered() {
    let world = World::start(|call| status(if call.user == "stuck" { 403 } else { 200 }));
    let stuck = world.outbox.post("stuck");
    for _ in 0..10 {
        world.post_users(0, 100);
    }
    world.delivered(1_000).await;
    assert_eq!(world.outbox.delivered().len(), 1_000);
    let mut of_user_7 = world.cello.calls();
    of_user_7.retain(|call| call.user == "7");
    assert!(of_user_7.len() == 10 && of_user_7.is_sorted_by_key(|call| call.id));
    assert!(world.outbox.burned(stuck).0 >= 1);
    world.pass(10 * MINUTE).await;
    let retries = world.cello.calls().len() - 1_000;
    assert!((2..40).contains(&retries), "{retries}");
    assert!(world.outbox.dead().is_empty());
    world.post_users(0, 1);
    world.delivered(1_001).await;
}

#[tokio::test(start_paused = true)]
async fn a_403_of_one_user_holds_nobody_who_waits_with_them() {
    // With one send at a time nothing is in flight that would end a hold at once.
    let one = Settings { concurrency: 1, ..settings() };
    let world = World::with(one, 0, |call| status(if call.user == "stuck" { 403 } else { 200 }));
    world.cello.set_latency(Duration::ZERO);
    world.post_users(0, 50);
    world.outbox.post("stuck");
    world.post_users(50, 50);
    world.delivered(100).await;
    let slowest = world.cello.calls().last().map(|call| call.at);
    assert!(slowest < Some(SECOND), "{slowest:?}");
}

#[tokio::test(start_paused = true)]
async fn a_bad_release_of_cello_kills_fewer_than_20_events_and_then_holds_the_rest() {
    let world = World::start(|_| status(400));
    world.post_users(0, 500);
    let mut flow = world.handle.flow();
    flow.wait_for(|flow| *flow == Flow::Held(Reason::MassRefusal)).await.unwrap();
    world.pass(60 * MINUTE).await;
    assert_eq!(world.outbox.dead().len(), 19);
    assert_eq!(world.metrics.dead_lettered.with(Reason::Http400).get(), 19);
    assert_eq!(world.metrics.held.with(Reason::MassRefusal).get(), 1);
    assert!(most_in_ten_minutes(&world.cello.calls()) <= 60);
    world.cello.answer(|_| status(200));
    world.delivered(500 - 19).await;
    assert_eq!(world.outbox.dead().len(), 19);
    assert_eq!(world.metrics.held.with(Reason::MassRefusal).get(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_a_week_costs_tens_of_calls_in_ten_minutes_and_no_event() {
    for fault in [500, 503, 403] {
        let world = World::start(move |_| status(fault));
        world.post_users(0, 12);
        world.pass(7 * DAY).await;
        let calls = world.cello.calls();
        assert!(calls.len() <= 20_200, "{}", calls.len());
        assert!(most_in_ten_minutes(&calls[..200]) <= 40);
        world.cello.answer(|_| status(200));
        world.delivered(12).await;
        assert!(world.outbox.dead().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lone_failing_event_is_never_given_up() {
    let world = World::start(|_| status(500));
    let lone = world.outbox.post("a");
    world.pass(30 * DAY).await;
    assert!(world.outbox.dead().is_empty());
    let (attempts, strikes) = world.outbox.burned(lone);
    assert!(attempts > 1_000 && strikes == 0, "{attempts} {strikes}");
    assert_eq!(world.metrics.delivery_retries.with(Reason::Http5xx).get(), world.cello.calls().len() as u64);
    world.cello.answer(|_| status(200));
    world.delivered(1).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_fails_while_others_pass_is_given_up_only_after_strikes_and_time() {
    let world = World::start(|call| status(if call.user == "bad" { 500 } else { 200 }));
    let bad = world.outbox.post("bad");
    let mut given_up_after = Duration::ZERO;
    while world.outbox.dead().is_empty() {
        world.post_users(0, 1);
        world.pass(MINUTE).await;
        given_up_after += MINUTE;
        assert!(given_up_after < 2 * DAY);
    }
    assert_eq!(world.outbox.dead(), [Reason::Exhausted]);
    assert!(given_up_after >= DAY && given_up_after < DAY + 20 * MINUTE, "{given_up_after:?}");
    assert!(world.outbox.burned(bad).1 >= 19);
}

#[tokio::test(start_paused = true)]
async fn a_hold_starts_by_two_users() {
    let world = World::start(|_| status(403));
    world.outbox.post("a");
    world.outbox.post("b");
    world.handle.flow().wait_for(|flow| *flow == Flow::Held(Reason::Http403)).await.unwrap();
    world.cello.answer(|_| status(200));
    world.delivered(2).await;
    world.handle.flow().wait_for(|flow| *flow == Flow::Ok).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_hold_starts_by_a_lone_event_and_burns_nothing() {
    let world = World::start(|_| status(403));
    let lone = world.outbox.post("a");
    world.handle.flow().wait_for(|flow| *flow == Flow::Held(Reason::Http403)).await.unwrap();
    world.pass(60 * MINUTE).await;
    assert_eq!(world.outbox.burned(lone).0, 0);
    assert!(world.cello.calls().len() <= 130);
}

#[tokio::test(start_paused = true)]
async fn probes_rotate_over_users() {
    let world = World::start(|call| status(if call.number > 130 { 200 } else { 503 }));
    world.post_users(0, 100);
    world.delivered(1).await;
    let users: std::collections::HashSet<String> = world.cello.calls().into_iter().map(|call| call.user).collect();
    assert_eq!(users.len(), 100);
}

#[tokio::test(start_paused = true)]
async fn a_user_whose_event_fails_delays_nobody_and_breaks_no_circuit() {
    let world = World::start(|call| status(if call.user == "stuck" { 500 } else { 200 }));
    for _ in 0..5 {
        world.outbox.post("stuck");
    }
    world.post_users(0, 100);
    world.delivered(100).await;
    let last = world.cello.calls().iter().filter(|call| call.user != "stuck").map(|call| call.at).max();
    assert!(last.unwrap() < SECOND, "100 events of 20 ms at 8 a time take 260 ms: {last:?}");
    world.pass(60 * MINUTE).await;
    assert_eq!(world.metrics.circuit_open.get(), 0);
    let first = world.cello.calls().iter().find(|call| call.user == "stuck").unwrap().id;
    assert!(world.cello.calls().iter().all(|call| call.user != "stuck" || call.id == first));
}

#[tokio::test(start_paused = true)]
async fn a_probe_whose_outcome_is_not_known_burns_nothing_and_leaves_a_trace() {
    for (code, unsure) in [(500, true), (503, false)] {
        let world = World::start(move |_| status(code));
        world.post_users(0, 200);
        world.pass(10 * MINUTE).await;
        let probes = world.cello.calls().len() - 5;
        assert!(probes > 10);
        // What opened the breaker is not burned either.
        let expected = if unsure { probes + 1 } else { 0 };
        assert!(
            world.outbox.unsure().len().abs_diff(expected) <= 1,
            "{code}: {} of {probes}",
            world.outbox.unsure().len()
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_breaker_closes_into_a_slow_start() {
    let world = World::start(|_| status(503));
    world.post_users(0, 200);
    world.pass(MINUTE).await;
    assert_eq!(world.metrics.circuit_open.get(), 1);
    assert_eq!(*world.handle.flow().borrow(), Flow::Retrying);
    assert!(world.handle.open_since().borrow().is_some());
    let before = world.cello.calls().len();
    world.cello.answer(|_| status(200));
    world.delivered(200).await;
    let under_way: Vec<usize> = world.cello.calls()[before..].iter().map(|call| call.under_way).collect();
    assert_eq!(under_way[..4], [1, 1, 1, 2]);
    assert!(under_way[..8].iter().all(|count| *count <= 4) && under_way.contains(&8));
    assert_eq!(world.metrics.upstream_limit.get(), 8);
    assert!(world.handle.open_since().borrow().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_stops_all_sends() {
    let world = World::start(|call| match call.number {
        10 => Judgement { retry_after: Some(45 * SECOND), ..status(429) },
        _ => status(200),
    });
    world.post_users(0, 100);
    world.pass(SECOND).await;
    let report = world.outbox.lookup(world.cello.calls()[10].id).await.unwrap().unwrap();
    assert!(report.next_attempt_at.is_some_and(|at| at.as_millis() >= 1_700_000_045_000), "{report:?}");
    world.delivered(100).await;
    let calls = world.cello.calls();
    let limited = calls[10].at;
    let silence = limited + Duration::from_millis(30)..limited + 45 * SECOND;
    assert!(calls.iter().all(|call| !silence.contains(&call.at)));
    assert!(calls.iter().any(|call| call.at >= silence.end));
}

#[tokio::test(start_paused = true)]
async fn refused_keys_hold_delivery_until_there_is_access_again() {
    let world = World::start(|_| status(200));
    world.cello.access.send_replace(Access::Refused(Timestamp::default()));
    let mut flow = world.handle.flow();
    flow.wait_for(|flow| *flow == Flow::Held(Reason::Credentials)).await.unwrap();
    world.post_users(0, 10);
    world.pass(DAY).await;
    assert!(world.cello.calls().is_empty());
    world.cello.access.send_replace(Access::Granted);
    world.delivered(10).await;
}

#[tokio::test(start_paused = true)]
async fn a_flapping_cello_loses_nothing_and_keeps_order() {
    let world = World::with(settings(), 3, |call| {
        let minute = call.at.as_secs() / 60;
        status([200, 503, 200, 500, 403, 200][minute as usize % 6])
    });
    for _ in 0..30 {
        world.post_users(0, 40);
    }
    world.delivered(1_200).await;
    assert!(world.outbox.dead().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_event_that_arrives_while_there_is_no_token_shows_within_two_seconds() {
    let world = World::start(|_| status(200));
    world.cello.access.send_replace(Access::Waiting);
    world.pass(MINUTE + SECOND).await;
    assert_eq!(*world.handle.flow().borrow(), Flow::Ok, "nothing waits");
    world.post_users(0, 1);
    world.pass(2 * SECOND).await;
    assert_eq!(*world.handle.flow().borrow(), Flow::Retrying);
    world.cello.access.send_replace(Access::Granted);
    world.delivered(1).await;
}
