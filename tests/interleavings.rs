//! Threads that come between each other at every place they can: the inbox of the store's writer, leases that are
//! dropped, and reads that share a flight.
//!
//! The files are the relay's own, compiled here with locks and tasks of `shuttle`, which runs one thread at a time
//! and chooses at each step who goes on: thousands of orders, and not those of one machine's luck. A long wait never
//! times out here, so a wake-up that is lost is a deadlock, and fails. What a file needs of its neighbours and what
//! plays no part is stood in for. A failure prints its schedule: `shuttle::replay` goes through it again.

#![allow(clippy::expect_used, missing_docs)]
#![allow(dead_code, unreachable_pub, reason = "not all of the files is used here")]

#[path = "interleavings/callers.rs"]
mod callers;
#[path = "../src/reads/flight.rs"]
mod flight;
#[path = "interleavings/flight_models.rs"]
mod flight_models;
#[path = "../src/outbox/sqlite/inbox.rs"]
mod inbox;
#[path = "interleavings/inbox_models.rs"]
mod inbox_models;
#[path = "../src/outbox/lease.rs"]
mod lease;

use shuttle::thread;

pub use cello_relay::{event, outbox};

mod sync {
    use std::cell::Cell;
    use std::ops::Add;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::time::Duration;

    pub(crate) use shuttle::future::spawn;
    use shuttle::sync::LockResult;
    pub(crate) use shuttle::sync::{Mutex, MutexGuard};

    thread_local! {
        /// A model runs in one real thread.
        static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
        static RINGS: Cell<usize> = const { Cell::new(0) };
    }

    /// How often a bell was rung, not counting those of time.
    pub(crate) fn rings() -> usize {
        RINGS.get()
    }

    /// A time that passes only where somebody waits for it.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    pub(crate) struct Instant(Duration);

    impl Instant {
        pub(crate) fn now() -> Self {
            Self(NOW.get())
        }

        pub(crate) fn elapsed(&self) -> Duration {
            NOW.get() - self.0
        }

        pub(crate) fn saturating_duration_since(&self, earlier: Self) -> Duration {
            self.0.saturating_sub(earlier.0)
        }
    }

    /// Lets time pass.
    pub(crate) fn pass(time: Duration) {
        NOW.set(NOW.get() + time);
    }

    impl Add<Duration> for Instant {
        type Output = Self;

        fn add(self, wait: Duration) -> Self {
            Self(self.0 + wait)
        }
    }

    /// A bell whose short waits end by themselves, whenever the scheduler likes.
    pub(crate) struct Condvar(Arc<shuttle::sync::Condvar>);

    impl Condvar {
        pub(crate) fn new() -> Self {
            Self(Arc::default())
        }

        pub(crate) fn notify_one(&self) {
            RINGS.set(RINGS.get() + 1);
            self.0.notify_one();
        }

        pub(crate) fn wait_timeout<'a, T>(
            &self,
            guard: MutexGuard<'a, T>,
            patience: Duration,
        ) -> LockResult<(MutexGuard<'a, T>, ())> {
            let ended = Arc::new(AtomicBool::new(patience >= Duration::from_secs(1)));
            if !ended.load(SeqCst) {
                let (bell, ended, at) = (Arc::clone(&self.0), Arc::clone(&ended), NOW.get() + patience);
                shuttle::thread::spawn(move || {
                    NOW.set(NOW.get().max(at));
                    // More than once: the first may come before the wait has begun.
                    while !ended.load(SeqCst) {
                        bell.notify_all();
                        shuttle::thread::yield_now();
                    }
                });
            }
            let guard = self.0.wait(guard).expect("no panic");
            ended.store(true, SeqCst);
            Ok((guard, ()))
        }
    }
}

mod row {
    /// So large that the inbox has room for one only.
    pub(crate) fn event_bytes(_: &cello_relay::event::Event) -> u64 {
        1_200 * 1024
    }
}

mod cello {
    /// Which flight brought it, and what it saw.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Answer {
        pub(crate) flight: usize,
        pub(crate) saw: usize,
    }
}

mod cache {
    #[derive(Clone, Debug)]
    pub(crate) struct Kept;
}

mod target {
    #[derive(Clone, Debug, PartialEq, Eq, Hash)]
    pub(crate) struct Target(pub(crate) &'static str);
}

mod upstream {
    #[derive(Clone, Debug)]
    pub(crate) struct Failure;
}

/// Many orders at random, and many in which few steps are out of turn, where most faults are.
fn in_every_order(model: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_random(model, 3_000);
    shuttle::check_pct(model, 3_000, 3);
}

/// Waits until all have ended.
fn join<T>(threads: Vec<thread::JoinHandle<T>>) -> Vec<T> {
    threads.into_iter().map(|thread| thread.join().expect("no panic")).collect()
}
