//! How sends are bounded, ordered and paced.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use cello_relay::cello::{Judgement, Verdict};
use cello_relay::event::{EventId, Trigger};
use cello_relay::forwarder::{Ambiguous, Settings};
use cello_relay::outbox::Outbox;
use cello_relay::reason::Reason;
use proptest::prelude::*;

use super::world::{Call, MINUTE, SECOND, World, settings, status};
use crate::logged::Logged;

#[tokio::test(start_paused = true)]
async fn never_are_more_sends_under_way_than_the_concurrency() {
    for concurrency in [1, 3, 8] {
        let world = World::with(Settings { concurrency, ..settings() }, 0, |_| status(200));
        world.post_users(0, 200);
        world.delivered(200).await;
        let most = world.cello.calls().iter().map(|call| call.under_way).max();
        assert_eq!(most, Some(concurrency));
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_breaks_off_is_gone_on_with_by_another_and_each_event_is_sent_once() {
    let mut world = World::start(|_| status(200));
    for _ in 0..3 {
        world.post_users(0, 50);
    }
    for delivered in [10, 60, 110] {
        world.delivered(delivered).await;
        world.running.abort();
        world.pass(MINUTE).await;
        let sent = world.cello.calls().len();
        assert!(sent < delivered + 2 * 8, "{sent} were sent: only what was under way goes on");
        world.running = tokio::spawn(world.forwarder.clone().run());
    }
    world.delivered(150).await;
    let calls = world.cello.calls();
    let ids: HashSet<_> = calls.iter().map(|call| call.id).collect();
    assert_eq!((calls.len(), ids.len()), (150, 150));
    for user in 0..50 {
        assert!(calls.iter().filter(|call| call.user == user.to_string()).is_sorted_by_key(|call| call.id));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slot_is_free_before_its_event_is_durably_settled_but_only_64_times() {
    let world = World::start(|_| status(200));
    world.outbox.allow_writes(0);
    world.post_users(0, 500);
    world.pass(60 * MINUTE).await;
    assert_eq!(world.cello.calls().len(), 8 + 64);
    assert_eq!(world.metrics.delivery_latency.get_sample_count(), 0, "nothing counts before it is durable");
    world.outbox.allow_writes(10);
    world.pass(SECOND).await;
    assert_eq!(world.cello.calls().len(), 8 + 64 + 10, "each one that is settled lets one go");
    world.outbox.allow_writes(usize::MAX);
    world.delivered(500).await;
    assert_eq!(world.cello.calls().len(), 500);
}

#[tokio::test(start_paused = true)]
async fn no_second_sees_more_sends_than_max_per_second() {
    for max_per_second in [1, 10, 250] {
        let world = World::with(Settings { max_per_second, ..settings() }, 0, |_| status(200));
        world.cello.set_latency(Duration::from_millis(1));
        let count = max_per_second as usize * 4;
        world.post_users(0, count);
        world.delivered(count).await;
        let calls = world.cello.calls();
        for (first, later) in calls.iter().zip(&calls[max_per_second as usize..]) {
            assert!(later.at - first.at >= SECOND, "{first:?} {later:?}");
        }
        assert!(calls[count - 1].at < 5 * SECOND, "nor fewer than it could");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cello_may_have_is_counted_and_sent_again() {
    let world = World::start(|call| status(if call.number == 0 { 500 } else { 200 }));
    world.post_users(0, 1);
    world.delivered(1).await;
    assert_eq!(world.metrics.delivery_ambiguous.with(Reason::Http5xx).get(), 1);
    assert_eq!(world.outbox.intents(), 0);
}

#[tokio::test(start_paused = true)]
async fn with_ambiguous_dead_the_intent_comes_first_and_nothing_is_sent_twice() {
    let at_most_once = Settings { ambiguous: Ambiguous::Dead, ..settings() };
    let world = World::with(at_most_once, 0, |call| status(if call.number == 0 { 500 } else { 200 }));
    world.outbox.allow_writes(0);
    world.post_users(0, 2);
    world.pass(SECOND).await;
    assert!(world.cello.calls().is_empty());
    world.outbox.allow_writes(2);
    world.pass(SECOND).await;
    assert_eq!((world.outbox.intents(), world.cello.calls().len()), (2, 2));
    world.outbox.allow_writes(usize::MAX);
    world.delivered(1).await;
    world.pass(60 * MINUTE).await;
    assert_eq!(world.outbox.dead(), [Reason::Ambiguous]);
    assert_eq!(world.cello.calls().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_bug_in_a_send_frees_its_slot_and_gives_the_event_back() {
    let world = World::start(|call| if call.number < 20 { panic!("scripted") } else { status(200) });
    world.post_users(0, 3);
    world.delivered(3).await;
    assert!(world.cello.calls().iter().all(|call| call.under_way <= 3));
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_failure_could_not_be_stored_is_sent_again_without_haste() {
    let world = World::start(|call| status(if call.number < 5 { 503 } else { 200 }));
    world.outbox.fail_settles(5);
    world.post_users(0, 1);
    world.delivered(1).await;
    let calls = world.cello.calls();
    assert_eq!(calls.len(), 6);
    assert!(calls.windows(2).all(|pair| pair[1].at - pair[0].at >= SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_could_not_be_stored_is_settled_later_and_not_sent_again() {
    let world = World::start(|_| Judgement { request_id: Some("the first".into()), ..status(200) });
    world.outbox.fail_settles(5);
    let first = world.outbox.post("a");
    let second = world.outbox.post("a");
    world.delivered(2).await;
    let sent: Vec<EventId> = world.cello.calls().iter().map(|call| call.id).collect();
    assert_eq!(sent, [first, second]);
    let report = world.outbox.lookup(first).await.unwrap().unwrap();
    assert_eq!(report.request_id.as_deref(), Some("the first"));
    assert_eq!(world.metrics.delivered.with(Trigger::None).get(), 2);
}

#[tokio::test(start_paused = true)]
async fn that_nobody_knows_whether_cello_has_an_event_is_not_forgotten_when_it_could_not_be_stored() {
    let world = World::start(|call| status(if call.number == 0 { 500 } else { 400 }));
    world.outbox.fail_settles(2);
    let event = world.outbox.post("a");
    world.outbox.until(|outbox| !outbox.dead().is_empty()).await;
    assert_eq!((world.outbox.unsure(), world.cello.calls().len()), (vec![event], 2));
    let detail = world.outbox.dead_letters().show(event).await.unwrap().unwrap();
    assert!(detail.listed.may_be_counted, "it is not sent again unless that is meant");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_being_sent_is_not_sent_beside_itself_after_the_store_was_opened_anew() {
    for answer in [200, 503] {
        let world = World::start(move |call| status(if call.number == 0 { answer } else { 200 }));
        world.cello.set_latency(5 * SECOND);
        let first = world.outbox.post("a");
        let second = world.outbox.post("a");
        world.pass(SECOND).await;
        for _ in 0..3 {
            world.outbox.reopen();
            world.pass(SECOND / 10).await;
        }
        world.delivered(2).await;
        let calls = world.cello.calls();
        let sent: Vec<EventId> = calls.iter().map(|call| call.id).collect();
        let expected: &[EventId] = if answer == 200 { &[first, second] } else { &[first, first, second] };
        assert_eq!(sent, expected, "answered {answer}");
        assert!(calls.iter().all(|call| call.under_way == 1), "answered {answer}");
        assert_eq!(world.outbox.delivered(), [first, second]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_end_waits_for_what_an_earlier_opening_of_the_store_handed_out() {
    let world = World::start(|_| status(200));
    world.cello.set_latency(5 * SECOND);
    let event = world.outbox.post("a");
    world.pass(SECOND).await;
    world.outbox.reopen();
    world.pass(SECOND).await;
    world.handle.stop();
    world.handle.idle().await;
    assert_eq!((world.outbox.delivered(), world.cello.calls().len()), (vec![event], 1));
    world.running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_free_slot_is_used_though_the_store_hands_out_a_next_event_before_its_answer_to_the_last_settle_is_heard() {
    for max_per_second in [0, 1000] {
        let world = World::with(Settings { concurrency: 2, max_per_second, ..settings() }, 0, |_| status(200));
        world.outbox.tell_after(SECOND / 20);
        world.cello.set_latency(MINUTE);
        world.outbox.post("slow");
        world.pass(SECOND).await;
        world.cello.set_latency(SECOND / 200);
        let busy: Vec<EventId> = (0..5).map(|_| world.outbox.post("busy")).collect();
        world.post_users(0, 5);
        world.pass(5 * SECOND).await;
        let calls = world.cello.calls();
        assert_eq!(calls.len(), 11, "{max_per_second} a second: {calls:?}");
        assert!(calls.iter().map(|call| call.id).filter(|id| busy.contains(id)).eq(busy.iter().copied()));
    }
}

#[tokio::test(start_paused = true)]
async fn failed_attempts_and_the_ends_of_events_are_logged_by_ids_and_without_personal_data() {
    let log = Logged::from_now();
    let world = World::start(|call| {
        let answer = status(if call.user == "jane" { 200 } else { 400 });
        let (request_id, message) = (Some("req-1".into()), Some("joe is unknown".into()));
        Judgement { request_id, message, ..answer }
    });
    let (jane, joe) = (world.outbox.post("jane"), world.outbox.post("joe"));
    world.outbox.until(|outbox| outbox.delivered().len() + outbox.dead().len() == 2).await;
    world.handle.stop();
    world.running.await.unwrap();
    let text = log.text();
    let told = |id: EventId, parts: &[&str]| {
        let of_event = text.lines().filter(|line| line.contains(&id.to_string()));
        of_event.filter(|line| parts.iter().all(|part| line.contains(part))).count()
    };
    let (request, failed) = (r#""upstream_request_id":"req-1""#, [r#""reason":"http_400""#, r#""status":400"#]);
    assert_eq!((told(jane, &[]), told(jane, &[r#""event":"delivered""#, request])), (1, 1));
    assert_eq!(told(joe, &[&[r#""event":"delivery_failed""#, r#""attempt":1"#, request][..], &failed].concat()), 1);
    assert_eq!(told(joe, &[&[r#""event":"dead_lettered""#, request][..], &failed].concat()), 1);
    assert!(!text.contains("jane") && !text.contains("joe"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn with_a_limit_a_slow_cello_still_gets_as_many_at_a_time_as_may_be_under_way() {
    for max_per_second in [10, 101, 700] {
        let world = World::with(Settings { max_per_second, ..settings() }, 0, |_| status(200));
        world.cello.set_latency(5 * SECOND);
        world.post_users(0, 200);
        world.pass(MINUTE).await;
        let sent = world.cello.calls().len();
        assert!((90..=96).contains(&sent), "{sent} of 8 each five seconds, at {max_per_second} a second");
    }
}

#[tokio::test(start_paused = true)]
async fn with_a_limit_a_send_that_hangs_delays_no_other_users_event() {
    let world = World::with(Settings { max_per_second: 10, ..settings() }, 0, |_| status(200));
    world.cello.set_latency(MINUTE);
    world.outbox.post("a");
    world.pass(SECOND).await;
    let posted = world.outbox.post("b");
    world.pass(SECOND / 5).await;
    assert_eq!(world.cello.calls().last().map(|call| call.id), Some(posted));
}

/// Outcomes that leave an event in the queue, and a few that end it.
fn outcomes() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(prop::sample::select(vec![200, 200, 200, 400, 403, 429, 500, 503]), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn events_of_a_user_arrive_in_order_whatever_cello_answers(
        outcomes in outcomes(), users in 1usize..12, seed: u64, concurrency in 1usize..9,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let script = move |call: &Call| status(outcomes.get(call.number).copied().unwrap_or(200));
            let world = World::with(Settings { concurrency, ..settings() }, seed, script);
            let posted = 5 * users;
            for _ in 0..5 {
                world.post_users(0, users);
            }
            world.outbox.until(|outbox| outbox.delivered().len() + outbox.dead().len() == posted).await;
            let mut last: HashMap<String, Call> = HashMap::new();
            for call in world.cello.calls() {
                if let Some(before) = last.insert(call.user.clone(), call.clone()) {
                    assert!(before.id <= call.id, "a user's order broke");
                }
            }
        });
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_sent_for_want_of_a_token_is_burned_or_repeated_in_a_tight_loop() {
    let world = World::start(|call| {
        let none = Judgement { verdict: Verdict::NoAccess, reason: Some(Reason::Credentials), ..status(200) };
        if call.at < MINUTE { none } else { status(200) }
    });
    let event = world.outbox.post("a");
    world.delivered(1).await;
    assert_eq!(world.outbox.burned(event).0, 0);
    assert!(world.cello.calls().len() < 65);
    assert_eq!(world.metrics.delivery_retries.with(Reason::Credentials).get(), 0);
}
