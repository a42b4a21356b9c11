//! The threads that a relay's runtimes have.

use std::io;
use std::panic::{self, UnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::exit::{Exit, Failure};

/// A runtime of one thread. Two threads of one runtime wake each other for tasks that the first would have done by the
/// time the other is awake.
///
/// Beside it is one for what blocks (keys are read, names looked up), or up to four where that takes long; the first from
/// the start and all for ever: an app of the same pod that leaks threads may leave none to be had later.
///
/// # Errors
/// There are none to be had now.
pub(super) fn one_thread(name: &'static str) -> Result<Runtime, Failure> {
    let built = unless_it_panics(|| {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1).max_blocking_threads(4).thread_keep_alive(Duration::MAX);
        let is_first = AtomicBool::new(true);
        builder.thread_name_fn(move || {
            // Of 15 letters at most, as the kernel cuts off the rest.
            if is_first.swap(false, Ordering::Relaxed) { name.to_owned() } else { format!("{name}-block") }
        });
        let runtime = builder.enable_all().build()?;
        // Once the runtime's own is up: of two started together, either may become it.
        runtime.block_on(async { tokio::spawn(async {}).await })?;
        runtime.spawn_blocking(|| ());
        Ok::<_, io::Error>(runtime)
    });
    let built = built.map_err(|why| {
        Failure::new(Exit::Io, format!("cannot start a thread: {why}"))
            .hint("most often the limit of processes is reached: the pod's (pids.max) or the user's (ulimit -u)")
    });
    Ok(built??)
}

/// tokio panics where it is given no thread, which is no bug: nothing of it is logged or counted. `Err`: what it said.
fn unless_it_panics<T>(build: impl FnOnce() -> T + UnwindSafe) -> Result<T, String> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    let built = panic::catch_unwind(build);
    panic::set_hook(hook);
    built.map_err(|said| said.downcast_ref::<String>().cloned().unwrap_or_default())
}

/// What is taken in and what is sent share hardly more than the store: where there is room for it, each has a thread.
pub(super) fn has_two_cores() -> bool {
    thread::available_parallelism().is_ok_and(|cores| cores.get() > 1)
}
