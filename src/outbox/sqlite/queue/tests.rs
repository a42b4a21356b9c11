use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::event::Trigger;

fn waiting(user: &str, seq: u64) -> Waiting {
    let event = Event { user: UserId::new(user), trigger: Trigger::None, body: Bytes::from_static(b"{}"), trace: None };
    Waiting { id: EventId::new(Timestamp::from_millis(0), seq, 0), event, again: false }
}

fn large(user: &str, seq: u64, bytes: usize) -> Waiting {
    let mut waiting = waiting(user, seq);
    waiting.event.body = vec![b'x'; bytes].into();
    waiting
}

fn fly(queue: &mut Queue, rotate: bool) -> Option<u64> {
    let waiting = queue.take_free(rotate)?;
    let seq = waiting.id.seq();
    queue.fly(Flight { waiting, progress: Progress::default(), parked: false, intended: false });
    Some(seq)
}

#[test]
fn a_users_second_event_waits_until_the_first_has_landed() {
    let mut queue = Queue::starting_at(4);
    [waiting("a", 1), waiting("a", 2), waiting("b", 3)].into_iter().for_each(|waiting| queue.offer(waiting));
    assert_eq!([fly(&mut queue, false), fly(&mut queue, false), fly(&mut queue, false)], [Some(1), Some(3), None]);
    queue.land(1);
    assert_eq!(fly(&mut queue, false), Some(2));
}

#[test]
fn an_event_is_blocked_while_one_of_its_user_is_before_it() {
    let mut queue = Queue::starting_at(4);
    [waiting("a", 1), waiting("b", 2)].into_iter().for_each(|waiting| queue.offer(waiting));
    assert!(!queue.has_blocked());
    assert_eq!(fly(&mut queue, false), Some(1));
    assert!(!queue.has_blocked(), "nobody waits for what is in flight");
    queue.offer(waiting("a", 3));
    assert!(queue.has_blocked());
    queue.land(1);
    assert!(!queue.has_blocked());
}

#[test]
fn a_released_event_goes_before_its_users_next() {
    let mut queue = Queue::starting_at(3);
    [waiting("a", 1), waiting("a", 2)].into_iter().for_each(|waiting| queue.offer(waiting));
    assert_eq!(fly(&mut queue, false), Some(1));
    queue.release(1);
    assert_eq!(fly(&mut queue, false), Some(1));
}

#[test]
fn takes_that_rotate_pass_over_users_that_were_released_lately() {
    let mut queue = Queue::starting_at(3);
    [waiting("a", 1), waiting("b", 2)].into_iter().for_each(|waiting| queue.offer(waiting));
    assert_eq!(fly(&mut queue, true), Some(1));
    queue.release(1);
    assert_eq!(fly(&mut queue, true), Some(2));
    assert_eq!(fly(&mut queue, true), None);
}

#[test]
fn the_mark_never_passes_what_is_only_in_memory() {
    let mut queue = Queue::starting_at(9);
    [waiting("a", 5), waiting("b", 7)].into_iter().for_each(|waiting| queue.offer(waiting));
    assert_eq!(fly(&mut queue, false), Some(5));
    assert_eq!(queue.mark(0), 5);
    queue.gated(&UserId::new("a"));
    assert_eq!(queue.mark(0), 7);
    queue.gated(&UserId::new("b"));
    assert_eq!(queue.mark(0), 9);
    queue.defer(Deferred::Park(UserId::new("a"), 8));
    assert_eq!((queue.mark(0), queue.mark(1)), (8, 9), "it is passed with the transaction that parks it");
}

#[test]
fn time_does_not_go_back_when_the_clock_does() {
    let start = tokio::time::Instant::now();
    let at = Timestamp::from_millis;
    let mut pace = Pace::starting(at(100_000), start);
    assert_eq!(pace.now(at(160_000), start + Duration::from_secs(1)), at(160_000));
    assert_eq!(pace.now(at(1_000), start + Duration::from_secs(3)), at(162_000));
}

#[test]
fn the_window_takes_so_many_events_so_many_bytes_and_reads_on_past_so_many_that_are_to_be_parked() {
    let mut queue = Queue::default();
    for seq in 1..=WINDOW_EVENTS as u64 {
        assert!(queue.has_room());
        queue.offer(waiting(&format!("user-{seq}"), seq));
    }
    assert!(!queue.has_room());
    let mut queue = Queue::default();
    queue.offer(large("a", 1, WINDOW_BYTES - 1));
    assert!(queue.has_room());
    queue.offer(large("b", 2, 1));
    assert!(!queue.has_room());
    let mut queue = Queue::default();
    for seq in 1..=WINDOW_EVENTS as u64 {
        assert!(queue.has_room() && !queue.is_urgent());
        queue.defer(Deferred::Park(UserId::new("a"), seq));
    }
    assert!(!queue.has_room());
    assert!(queue.is_urgent(), "to be written without waiting for company");
}

#[test]
fn the_window_is_clogged_when_more_than_half_of_its_events_wait_for_others() {
    let mut queue = Queue::default();
    for seq in 0..=WINDOW_EVENTS as u64 / 2 {
        assert!(!queue.is_clogged() && !queue.is_urgent());
        queue.offer(waiting("a", seq));
    }
    assert!(!queue.is_clogged(), "its head waits for a claim alone");
    queue.offer(waiting("a", WINDOW_EVENTS as u64));
    assert!(queue.is_clogged() && queue.is_urgent());
}

#[test]
fn the_window_is_clogged_when_all_of_half_its_bytes_wait_for_others() {
    let half = WINDOW_BYTES / 2;
    let clogged = |bytes: usize, others: &[&str]| {
        let mut queue = Queue::default();
        queue.offer(waiting("a", 1));
        fly(&mut queue, false);
        queue.offer(large("a", 2, bytes));
        others.iter().zip(3..).for_each(|(user, seq)| queue.offer(waiting(user, seq)));
        queue.is_clogged()
    };
    assert!(clogged(half, &[]));
    assert!(!clogged(half - 1, &[]));
    assert!(!clogged(half, &["b"]), "there is one to hand out");
}

#[test]
fn damage_is_written_down_at_once_and_once() {
    let mut queue = Queue::default();
    queue.defer(Deferred::Corrupt(None, 7));
    assert!(queue.is_urgent());
    queue.defer(Deferred::Corrupt(None, 7));
    queue.defer(Deferred::Corrupt(Some(UserId::new("a")), 8));
    assert_eq!(queue.deferred().iter().map(Deferred::seq).collect::<Vec<_>>(), [7, 8]);
}

#[test]
fn an_event_is_free_until_it_is_in_flight() {
    let mut queue = Queue::default();
    assert!(!queue.has_free());
    queue.offer(waiting("a", 1));
    assert!(queue.has_free());
    fly(&mut queue, false);
    assert!(!queue.has_free());
}

#[test]
fn who_was_released_is_remembered_until_an_event_gets_through_or_too_many_others_were() {
    let mut queue = Queue::default();
    let users: Vec<String> = (0..=RELEASED_USERS).map(|n| format!("user-{n}")).collect();
    for (user, seq) in users.iter().zip(1..) {
        queue.offer(waiting(user, seq));
    }
    for seq in 1..=RELEASED_USERS as u64 {
        assert_eq!(fly(&mut queue, true), Some(seq));
        queue.release(seq);
    }
    assert!(queue.was_released(&users[0]) && !queue.was_released(&users[RELEASED_USERS]));
    assert_eq!(queue.released().len(), RELEASED_USERS);
    let last = RELEASED_USERS as u64 + 1;
    assert_eq!(fly(&mut queue, true), Some(last));
    queue.release(last);
    assert!(!queue.was_released(&users[0]) && queue.was_released(&users[1]));
    queue.forget_release(&UserId::new(&users[1]));
    assert!(!queue.was_released(&users[1]) && queue.was_released(&users[2]));
}

#[test]
fn of_a_user_that_gets_a_gate_all_is_to_be_parked_that_is_not_yet_and_none_of_it_takes_room() {
    let mut queue = Queue::default();
    [waiting("a", 1), large("a", 2, WINDOW_BYTES - 1), waiting("b", 3)].into_iter().for_each(|it| queue.offer(it));
    assert_eq!(fly(&mut queue, false), Some(1));
    assert_eq!(queue.unparked(&UserId::new("a")), [2, 1]);
    queue.gated(&UserId::new("a"));
    assert!(queue.unparked(&UserId::new("a")).is_empty(), "the one in flight too");
    queue.offer(large("c", 4, WINDOW_BYTES / 2));
    assert!(queue.has_room());
    assert_eq!([fly(&mut queue, false), fly(&mut queue, false), fly(&mut queue, false)], [Some(3), Some(4), None]);
}

#[test]
fn users_are_blocked_whose_events_wait_behind_others_of_theirs() {
    let mut queue = Queue::default();
    [waiting("flying", 1), waiting("blocked", 2)].into_iter().for_each(|it| queue.offer(it));
    assert_eq!([fly(&mut queue, false), fly(&mut queue, false)], [Some(1), Some(2)]);
    let more = [waiting("blocked", 3), waiting("two", 4), waiting("two", 5), waiting("one", 6)];
    more.into_iter().for_each(|it| queue.offer(it));
    let mut blocked: Vec<String> = queue.blocked_users().iter().map(|user| user.as_str().to_owned()).collect();
    blocked.sort_unstable();
    assert_eq!(blocked, ["blocked", "two"]);
}
