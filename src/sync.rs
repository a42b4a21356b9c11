//! Locks, bells, tasks and the time they wait for, under a name that a test can give to others.
//!
//! Where a lost wake-up would be a lost or stuck event, they come from here: `tests/interleavings.rs` compiles
//! the same files with those of a scheduler of its own, which tries one order of steps after another.

use std::future::Future;
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};

use tokio::runtime::Handle;
pub(crate) use tokio::spawn;
use tokio::task::JoinSet;
pub(crate) use tokio::time::Instant;

/// Runs `work` there, to its end or until nobody waits for it any more; `None` if it panicked, or the runtime has
/// ended.
pub(crate) async fn run_on<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    // A set of one: dropped, it ends what is in it.
    let mut set = JoinSet::new();
    set.spawn_on(work, runtime);
    set.join_next().await?.ok()
}
