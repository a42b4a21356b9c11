//! The threads that a relay's runtimes have.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::exit::{Exit, Failure};

/// A runtime of one thread. Two threads of one runtime wake each other for tasks that the first would have done by the
/// time the other is awake.
///
/// Beside it is one for what blocks (keys are read, names looked up), from the start and for ever: an app of the same pod
/// that leaks threads may leave none to be had later.
///
/// # Errors
/// There are none to be had now.
pub(super) fn one_thread(name: &'static str) -> Result<Runtime, Failure> {
    are_to_be_had(2).map_err(|error| {
        Failure::new(Exit::Io, format!("cannot start a thread: {error}"))
            .hint("the limit of processes is reached: that of the pod (pids.max) or of the user (ulimit -u)")
    })?;
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).max_blocking_threads(4).thread_keep_alive(Duration::MAX);
    let is_first = AtomicBool::new(true);
    builder.thread_name_fn(move || {
        // Of 15 letters at most, as the kernel cuts off the rest.
        if is_first.swap(false, Ordering::Relaxed) { name.to_owned() } else { format!("{name}-block") }
    });
    let runtime = builder.enable_all().build()?;
    // Once the runtime's own is up: of two started together, either may become it.
    runtime.block_on(async { tokio::spawn(async {}).await }).map_err(io::Error::from)?;
    runtime.spawn_blocking(|| ());
    Ok(runtime)
}

/// Whether so many can be started; tokio would panic.
fn are_to_be_had(threads: usize) -> io::Result<()> {
    let started: Vec<_> = (0..threads).map(|_| thread::Builder::new().spawn(thread::park)).collect();
    for thread in started.iter().flatten() {
        thread.thread().unpark();
    }
    // Their numbers are free again once they are joined. None can have panicked.
    started.into_iter().try_for_each(|thread| thread.map(|thread| drop(thread.join())))
}

/// What is taken in and what is sent share hardly more than the store: where there is room for it, each has a thread.
pub(super) fn has_two_cores() -> bool {
    thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
}
