//! When the loop looks around.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::yield_now;
use tokio::time::{Instant, sleep};

use super::testing::{Idle, settings};
use super::*;
use crate::clock::{TestClock, Timestamp};
use crate::outbox::memory::Memory;

/// Counts how often it is asked for the time that passes.
struct Counting(TestClock, AtomicUsize);

impl Clock for Counting {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn instant(&self) -> Instant {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.instant()
    }
}

/// A forwarder that runs and has nothing to send, with that access.
fn idle(access: Access) -> (Handle, Arc<Counting>) {
    let clock = Arc::new(Counting(TestClock::starting_at(Timestamp::from_millis(0)), AtomicUsize::new(0)));
    let deps = Deps {
        outbox: Arc::new(Memory::new(Arc::clone(&clock) as Arc<dyn Clock>)),
        courier: Arc::new(Idle(watch::Sender::new(access))),
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        metrics: Arc::default(),
    };
    let (forwarder, handle) = Forwarder::new(deps, settings(), false, fastrand::Rng::with_seed(0));
    tokio::spawn(forwarder.run());
    (handle, clock)
}

/// How often the loop looks while that goes on.
async fn looks(clock: &Counting, meanwhile: impl Future<Output = ()>) -> usize {
    yield_now().await;
    clock.1.store(0, Ordering::Relaxed);
    meanwhile.await;
    clock.1.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn without_work_the_loop_looks_every_ten_seconds_and_every_second_while_there_is_no_token() {
    for (access, expected) in [(Access::Granted, 60), (Access::Waiting, 600)] {
        let (_handle, clock) = idle(access);
        let found = looks(&clock, sleep(Duration::from_secs(600))).await;
        assert!((expected - 1..=expected + 1).contains(&found), "{access:?}: {found}");
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_wakes_the_loop_makes_it_look_once() {
    let (handle, clock) = idle(Access::Granted);
    let waking = async {
        for _ in 0..100 {
            handle.shared.wake();
            yield_now().await;
            yield_now().await;
        }
    };
    assert_eq!(looks(&clock, waking).await, 100);
}
