//! What operators are told, and when.

use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::sync::Arc;

use tokio::time::advance;
use tracing::subscriber::DefaultGuard;

use super::*;
use crate::cello::Access;
use crate::clock::{Clock as _, TestClock};
use crate::event::UserId;
use crate::forwarder::governor::Case;
use crate::forwarder::testing::{Idle, failure, settings};
use crate::outbox::Progress;
use crate::outbox::memory::Memory;

const SECOND: Duration = Duration::from_secs(1);

/// Shared state on a clock that stands still unless it is moved, and the log of this thread.
struct Bench {
    shared: Shared,
    clock: Arc<TestClock>,
    log: Arc<File>,
    _logging: DefaultGuard,
}

impl Bench {
    fn new() -> Self {
        let log = Arc::new(tempfile::tempfile().unwrap());
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(Arc::clone(&log)).finish();
        let logging = tracing::subscriber::set_default(subscriber);
        let clock = Arc::new(TestClock::starting_at(Timestamp::from_millis(0)));
        let deps = Deps {
            outbox: Arc::new(Memory::new(clock.clone())),
            courier: Arc::new(Idle(watch::Sender::new(Access::Granted))),
            clock: clock.clone(),
            metrics: Arc::default(),
        };
        let shared = Shared::new(deps, settings(), false, fastrand::Rng::with_seed(0));
        Self { shared, clock, log, _logging: logging }
    }

    /// How many lines of the log have all of these.
    fn lines(&self, parts: &[&str]) -> usize {
        let (mut log, mut text) = (&*self.log, String::new());
        log.rewind().unwrap();
        log.read_to_string(&mut text).unwrap();
        text.lines().filter(|line| parts.iter().all(|part| line.contains(part))).count()
    }

    fn pause(&self) {
        self.shared.pause(Pause { since: self.clock.now(), until: None });
    }

    /// One event of each of so many users fails.
    fn fail(&self, users: u32) {
        let (now, wall) = (self.clock.instant(), self.clock.now());
        for user in 0..users {
            let (user, judgement) = (UserId::new(&user.to_string()), failure(500));
            let case =
                Case { user: &user, progress: &Progress::default(), judgement: &judgement, alone: false, now: wall };
            self.shared.permit(now);
            let ticket = self.shared.govern(Governor::sent);
            self.shared.govern(|governor| governor.answered(&ticket, &case, now));
            self.shared.settled(None);
        }
    }

    fn breaker(&self) -> (Breaker, Option<Timestamp>) {
        let snapshot = self.shared.snapshot();
        (snapshot.breaker, snapshot.breaker_since)
    }
}

#[tokio::test(start_paused = true)]
async fn each_change_is_logged_and_shown_once_and_at_once() {
    let bench = Bench::new();
    let paused = || bench.shared.deps.metrics.paused.get();
    bench.pause();
    assert_eq!((bench.lines(&["delivery_paused"]), paused()), (1, 1));
    bench.pause();
    bench.fail(5);
    assert_eq!((bench.lines(&["delivery_paused"]), bench.lines(&["circuit_opened"])), (1, 1));
    bench.shared.govern(Governor::resume);
    assert_eq!((bench.lines(&["delivery_unpaused"]), paused()), (1, 0));
    assert_eq!(bench.lines(&["_"]), 3, "and nothing else");
}

#[tokio::test(start_paused = true)]
async fn since_when_the_breaker_stands_as_it_does_is_known() {
    let bench = Bench::new();
    let start = bench.clock.now();
    advance(SECOND).await;
    bench.pause();
    bench.shared.govern(Governor::resume);
    assert_eq!(bench.breaker(), (Breaker::Closed, Some(start)), "a pause has nothing to do with it");
    bench.fail(5);
    let opened = bench.clock.now();
    advance(SECOND).await;
    bench.pause();
    assert_eq!(bench.breaker(), (Breaker::Open, Some(opened)));
}

#[tokio::test(start_paused = true)]
async fn who_watches_the_flow_is_woken_by_changes_alone() {
    let bench = Bench::new();
    let flow = bench.shared.flow();
    bench.shared.tell_flow();
    assert!(!flow.has_changed().unwrap());
    bench.pause();
    bench.shared.tell_flow();
    assert!(flow.has_changed().unwrap());
    assert_eq!(*flow.borrow(), Flow::Paused);
}

#[tokio::test(start_paused = true)]
async fn what_was_claimed_before_the_stop_takes_off_no_more() {
    let bench = Bench::new();
    let (id, user) = (EventId::new(Timestamp::from_millis(0), 1, 0), UserId::new("jane"));
    bench.shared.permit(bench.clock.instant());
    assert!(bench.shared.take_off(id, &user).is_some());
    bench.shared.settled(Some(&user));
    bench.shared.stop();
    assert!(bench.shared.take_off(id, &user).is_none(), "whatever was permitted before");
}
