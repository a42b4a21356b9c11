//! What answers mean for the event and for the mode.

mod permits;

use std::time::Duration;

use super::super::testing::{delivered, failure, settings};
use super::*;
use crate::cello::{Judgement, Verdict};
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::event::UserId;
use crate::forwarder::Ambiguous;
use crate::outbox::Progress;

const SECOND: Duration = Duration::from_secs(1);
const HELD_403: Option<Reason> = Some(Reason::Http403);

/// A governor and a clock that stands still unless moved.
struct Bench {
    governor: Governor,
    now: Instant,
    alone: bool,
    progress: Progress,
}

impl Bench {
    fn new() -> Self {
        Self::with(settings())
    }

    fn with(settings: Settings) -> Self {
        let now = SystemClock.instant();
        let governor = Governor::new(settings, Access::Granted, now);
        Self { governor, now, alone: false, progress: Progress::default() }
    }

    /// One whole send of one of `user`'s events; a probe waits for its time.
    fn send(&mut self, user: u32, judgement: &Judgement) -> Fate {
        let mut permit = self.governor.permit(self.now);
        if let (0, Some(at)) = (permit.send, permit.ask_at) {
            self.now = at;
            permit = self.governor.permit(at);
        }
        assert!(permit.send > 0, "nothing may be sent: {permit:?}");
        let ticket = self.governor.sent();
        self.answer(&ticket, user, judgement)
    }

    fn answer(&mut self, ticket: &Ticket, user: u32, judgement: &Judgement) -> Fate {
        let user = UserId::new(&user.to_string());
        let (progress, alone, now) = (&self.progress, self.alone, Timestamp::from_millis(0));
        let case = Case { user: &user, progress, judgement, alone, now };
        let fate = self.governor.answered(ticket, &case, self.now);
        self.governor.settled();
        fate
    }

    fn open(&mut self) {
        for user in 0..5 {
            self.send(user, &failure(500));
        }
        assert!(self.is_open());
    }

    fn held(&self) -> Option<Reason> {
        self.governor.view().held
    }

    fn is_open(&self) -> bool {
        self.governor.view().circuit_open
    }
}

const RETRY: Fate = Fate::Retry { strike: false };

#[test]
fn five_different_users_failures_in_a_row_open_the_breaker() {
    let mut bench = Bench::new();
    for user in 0..4 {
        assert_eq!(bench.send(user, &failure(500)), RETRY);
    }
    assert!(!bench.is_open());
    assert_eq!(bench.send(4, &failure(500)), Fate::Release, "what opens it is not burned");
    assert!(bench.is_open());
}

#[test]
fn operators_see_the_last_delivery_and_the_last_failure() {
    let mut bench = Bench::new();
    let seen = |bench: &Bench| {
        let look = bench.governor.look(bench.now);
        (look.last_delivered_at.is_some(), look.last_failure.map(|failure| (failure.reason, failure.status)))
    };
    assert_eq!(seen(&bench), (false, None));
    bench.send(1, &failure(503));
    assert_eq!(seen(&bench), (false, Some((Reason::Http5xx, Some(503)))));
    bench.send(2, &delivered());
    assert_eq!(seen(&bench), (true, Some((Reason::Http5xx, Some(503)))), "each stays until the next of its kind");
}

#[test]
fn one_user_failing_ten_times_does_not_open_the_breaker() {
    let mut bench = Bench::new();
    for _ in 0..10 {
        assert_eq!(bench.send(1, &failure(500)), RETRY);
    }
    assert!(!bench.is_open());
}

#[test]
fn a_delivery_or_a_refusal_between_breaks_the_row_of_failures() {
    for between in [delivered(), failure(400)] {
        let mut bench = Bench::new();
        (0..4).for_each(|user| assert_eq!(bench.send(user, &failure(500)), RETRY));
        bench.send(9, &between);
        (10..14).for_each(|user| assert_eq!(bench.send(user, &failure(500)), RETRY));
        assert!(!bench.is_open());
    }
}

#[test]
fn an_open_breaker_sends_one_probe_at_a_time_and_ever_more_seldom_up_to_30_seconds() {
    let mut bench = Bench::new();
    bench.open();
    let mut waits = Vec::new();
    for user in 0..8 {
        let since = bench.now;
        let asleep = bench.governor.permit(since);
        assert_eq!((asleep.send, asleep.keep), (0, 0));
        bench.now = asleep.ask_at.expect("a time for the next probe");
        waits.push((bench.now - since).as_secs());
        let permit = bench.governor.permit(bench.now);
        assert_eq!((permit.send, permit.keep, permit.rotate), (1, 1, true));
        let ticket = bench.governor.sent();
        assert_eq!(bench.governor.permit(bench.now).keep, 0, "no second probe beside the first");
        assert_eq!(bench.answer(&ticket, user, &failure(500)), Fate::Release);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
}

#[test]
fn a_late_failure_of_an_earlier_send_does_not_put_the_probe_off() {
    let mut bench = Bench::new();
    let late = bench.governor.sent();
    bench.open();
    assert_eq!(bench.answer(&late, 9, &failure(500)), Fate::Release);
    assert_eq!(bench.governor.permit(bench.now).ask_at, Some(bench.now + SECOND));
}

#[test]
fn a_delivery_closes_the_breaker_into_a_slow_start() {
    let mut bench = Bench::new();
    bench.open();
    let mut limits = Vec::new();
    for user in 0..16 {
        assert_eq!(bench.send(user, &delivered()), Fate::Delivered);
        limits.push(bench.governor.view().limit);
    }
    assert!(!bench.is_open());
    assert_eq!(limits[..9], [1, 2, 2, 4, 4, 4, 4, 8, 8]);
    assert_eq!(bench.governor.permit(bench.now).send, 8);
}

#[test]
fn cellos_own_refusal_closes_the_breaker_without_burning_the_probe() {
    let mut bench = Bench::new();
    bench.open();
    assert_eq!(bench.send(0, &failure(400)), Fate::Release);
    assert!(!bench.is_open());
    assert_eq!(bench.send(0, &failure(400)), Fate::Dead(Reason::Http400));
}

#[test]
fn two_users_with_no_delivery_between_start_a_hold() {
    let mut bench = Bench::new();
    assert_eq!(bench.send(1, &failure(403)), RETRY);
    assert_eq!(bench.send(1, &failure(403)), RETRY, "the same user is no second one");
    assert_eq!(bench.send(2, &failure(403)), Fate::Release);
    assert_eq!(bench.held(), HELD_403);
    assert_eq!(bench.send(3, &failure(500)), Fate::Release);
    assert_eq!(bench.held(), HELD_403);
    assert_eq!(bench.send(3, &failure(404)), Fate::Release);
    assert_eq!(bench.held(), Some(Reason::Http404), "the hold shows the latest reason");
}

#[test]
fn a_delivery_between_two_users_keeps_the_hold_away() {
    let mut bench = Bench::new();
    for user in 0..50 {
        assert_eq!(bench.send(user, &failure(403)), RETRY);
        assert_eq!(bench.send(1_000, &delivered()), Fate::Delivered);
    }
    assert_eq!(bench.held(), None);
}

#[test]
fn a_lone_event_starts_a_hold_at_once() {
    let mut bench = Bench { alone: true, ..Bench::new() };
    assert_eq!(bench.send(1, &failure(403)), Fate::Release);
    assert_eq!(bench.held(), HELD_403);
}

#[test]
fn a_hold_that_another_event_ended_counts_against_its_event_alone() {
    let mut bench = Bench { alone: true, ..Bench::new() };
    bench.send(1, &failure(403));
    bench.alone = false;
    bench.send(2, &delivered());
    bench.alone = true;
    assert_eq!(bench.send(1, &failure(403)), RETRY);
    assert_eq!(bench.held(), None);
    bench.progress = Progress { attempts: 2, strikes: 1, first_failed_at: None, overtaken: false };
    assert_eq!(bench.send(3, &failure(403)), RETRY, "one that others overtook does not hold them");
    assert_eq!(bench.held(), None);
}

#[test]
fn a_fresh_token_that_cello_does_not_take_holds_at_once() {
    let mut bench = Bench::new();
    assert_eq!(bench.send(1, &failure(401)), Fate::Release);
    assert_eq!(bench.held(), Some(Reason::Credentials));
    bench.governor.set_access(Access::Refused(Timestamp::from_millis(0)));
    bench.governor.set_access(Access::Granted);
    assert_eq!(bench.held(), None, "new keys end it");
    assert_eq!(bench.governor.view().limit, 1);
}

#[test]
fn many_users_refused_in_a_row_hold_the_queue_with_fewer_dead() {
    let mut bench = Bench::new();
    let fates: Vec<Fate> = (0..20).map(|user| bench.send(user, &failure(400))).collect();
    assert!(fates[..19].iter().all(|fate| *fate == Fate::Dead(Reason::Http400)));
    assert_eq!(fates[19], Fate::Release);
    assert_eq!(bench.held(), Some(Reason::MassRefusal));
    for user in 20..60 {
        assert_eq!(bench.send(user, &failure(400)), Fate::Release);
    }
    assert_eq!(bench.send(20, &failure(403)), Fate::Release);
    assert_eq!(bench.held(), Some(Reason::MassRefusal));
    assert_eq!(bench.send(21, &delivered()), Fate::Delivered);
    assert_eq!(bench.held(), None);
    assert_eq!(bench.send(22, &failure(400)), Fate::Dead(Reason::Http400), "and counting starts anew");
}

#[test]
fn one_users_many_refusals_hold_nothing() {
    let mut bench = Bench::new();
    for _ in 0..100 {
        assert_eq!(bench.send(1, &failure(400)), Fate::Dead(Reason::Http400));
    }
    assert_eq!(bench.held(), None);
}

#[test]
fn without_access_nothing_is_sent_and_nothing_burned() {
    let mut bench = Bench::new();
    let judgement = Judgement { verdict: Verdict::NoAccess, reason: Some(Reason::Credentials), ..delivered() };
    assert_eq!(bench.send(1, &judgement), Fate::Release);
    assert_eq!(bench.governor.permit(bench.now).ask_at, Some(bench.now + SECOND), "no tight loop");
    bench.governor.set_access(Access::Waiting);
    assert_eq!(bench.governor.permit(bench.now + SECOND), Permit::default());
    assert_eq!(bench.governor.flow(|| true), Flow::Retrying);
    bench.governor.set_access(Access::Missing(Timestamp::from_millis(0)));
    assert_eq!(bench.governor.flow(|| true), Flow::Held(Reason::Credentials));
    bench.governor.set_access(Access::Granted);
    assert!(bench.governor.permit(bench.now + SECOND).send > 0);
}

#[test]
fn a_retry_after_stops_everything_until_it_is_over() {
    let mut bench = Bench::new();
    let judgement = Judgement { retry_after: Some(60 * SECOND), ..failure(429) };
    bench.send(1, &judgement);
    let until = bench.now + 60 * SECOND;
    let just_before = until - Duration::from_millis(1);
    assert_eq!(bench.governor.permit(just_before), Permit { ask_at: Some(until), ..Permit::default() });
    bench.send(2, &delivered());
    assert_eq!(bench.now, until);
}

#[test]
fn what_is_sent_and_not_settled_is_bounded() {
    let mut bench = Bench::new();
    let user = UserId::new("a");
    let mut sent = 0;
    while bench.governor.permit(bench.now).send > 0 && sent < 1_000 {
        let ticket = bench.governor.sent();
        let (progress, judgement, now) = (&Progress::default(), &delivered(), Timestamp::from_millis(0));
        bench.governor.answered(&ticket, &Case { user: &user, progress, judgement, alone: false, now }, bench.now);
        sent += 1;
    }
    assert_eq!(sent, 8 + 64);
    assert!(bench.governor.is_full());
    bench.governor.settled();
    assert_eq!(bench.governor.permit(bench.now).send, 1);
}

#[test]
fn what_cello_may_have_is_not_sent_again_if_told_so() {
    let unknown = Judgement { outcome_unknown: true, ..failure(500) };
    assert_eq!(Bench::new().send(1, &unknown), RETRY);
    let mut bench = Bench::with(Settings { ambiguous: Ambiguous::Dead, ..settings() });
    for user in 0..9 {
        assert_eq!(bench.send(user, &unknown), Fate::Dead(Reason::Ambiguous), "also while the breaker is open");
    }
    assert_eq!(bench.send(1, &failure(503)), Fate::Release);
}

#[test]
fn an_event_is_exhausted_by_a_last_strike_and_nothing_else() {
    let first_failed_at = Some(Timestamp::from_millis(-86_400_000));
    let progress = Progress { attempts: 50, strikes: 19, first_failed_at, overtaken: true };
    let mut bench = Bench { progress, ..Bench::new() };
    assert_eq!(bench.send(1, &failure(503)), RETRY);
    assert_eq!(bench.send(1, &failure(500)), Fate::Dead(Reason::Exhausted));
    bench.progress.overtaken = false;
    assert_eq!(bench.send(1, &failure(500)), RETRY);
}

#[test]
fn while_draining_one_users_failures_open_the_breaker_too() {
    let mut bench = Bench::new();
    bench.governor.drain();
    (0..4).for_each(|_| assert_eq!(bench.send(1, &failure(500)), Fate::Release));
    assert!(!bench.is_open());
    bench.send(1, &failure(500));
    assert!(bench.is_open(), "retry times are ignored: no tight loop");
}

#[test]
fn the_flow_names_the_strongest_cause() {
    let mut bench = Bench { alone: true, ..Bench::new() };
    assert_eq!(bench.governor.flow(|| true), Flow::Ok);
    bench.send(1, &failure(500));
    assert_eq!(bench.governor.flow(|| false), Flow::Ok);
    assert_eq!(bench.governor.flow(|| true), Flow::Retrying);
    bench.send(1, &failure(403));
    assert_eq!(bench.governor.flow(|| true), Flow::Held(Reason::Http403));
    bench.governor.drain();
    assert_eq!(bench.governor.flow(|| true), Flow::Draining);
    bench.governor.pause(None);
    assert_eq!(bench.governor.flow(|| true), Flow::Paused);
}

#[test]
fn a_pause_ends_by_itself_or_by_resume() {
    let mut bench = Bench::new();
    let end = bench.now + 5 * SECOND;
    bench.governor.pause(Some(end));
    assert_eq!(bench.governor.permit(bench.now), Permit { ask_at: Some(end), ..Permit::default() });
    assert!(bench.governor.permit(end).send > 0);
    assert!(!bench.governor.view().paused);
    bench.governor.pause(None);
    assert_eq!(bench.governor.permit(end), Permit::default());
    bench.governor.resume();
    assert!(bench.governor.permit(end).send > 0);
}
