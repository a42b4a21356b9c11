//! Where connections are made and driven, and have their timers.
//!
//! hyper's client does all that on the runtime of whoever needs a connection first. That is most often whoever asks for
//! the token, and with HTTP/2 all deliveries share that connection: they would go through the thread that takes
//! events in, and wake it and be woken by it for each event.

use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant};

use hyper::rt::{Executor, Sleep, Timer};
use hyper_util::rt::TokioTimer;
use tokio::runtime::Handle;

use crate::sync::run_on;

/// The runtime of connections.
#[derive(Clone, Default)]
pub(super) struct Berth(Option<Handle>);

impl Berth {
    pub(super) fn on(runtime: Handle) -> Self {
        Self(Some(runtime))
    }

    /// That of whoever asks, if none was given.
    fn runtime(&self) -> Handle {
        self.0.clone().unwrap_or_else(Handle::current)
    }

    /// Runs `work` there; see [`run_on`].
    pub(super) async fn run<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        run_on(&self.runtime(), work).await
    }
}

impl<F> Executor<F> for Berth
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, work: F) {
        self.runtime().spawn(work);
    }
}

impl Timer for Berth {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        let runtime = self.runtime();
        let _entered = runtime.enter();
        TokioTimer::new().sleep(duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        let runtime = self.runtime();
        let _entered = runtime.enter();
        TokioTimer::new().sleep_until(deadline)
    }

    fn now(&self) -> Instant {
        TokioTimer::new().now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, deadline: Instant) {
        TokioTimer::new().reset(sleep, deadline);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    fn thread_of(name: &str) -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).thread_name(name).enable_all().build().unwrap()
    }

    fn here() -> Option<String> {
        thread::current().name().map(str::to_owned)
    }

    #[test]
    fn what_connections_need_runs_on_the_runtime_that_was_given_whoever_asks() {
        let (asks, drives) = (thread_of("asks"), thread_of("drives"));
        for (berth, expected) in [(Berth::on(drives.handle().clone()), "drives"), (Berth::default(), "asks")] {
            let (say, said) = mpsc::sync_channel(1);
            let made = asks.block_on(asks.spawn(async move {
                berth.execute(async move { say.send(here()).unwrap() });
                berth.run(async { here() }).await
            }));
            assert_eq!(made.unwrap(), Some(Some(expected.to_owned())));
            assert_eq!(said.recv().unwrap().as_deref(), Some(expected));
        }
    }

    #[test]
    fn timers_are_those_of_the_runtime_that_was_given() {
        let drives = thread_of("drives");
        let berth = Berth::on(drives.handle().clone());
        // Without a timer of its own; whoever made one here would panic.
        let asks = tokio::runtime::Builder::new_current_thread().build().unwrap();
        asks.block_on(async {
            let mut sleep = berth.sleep(Duration::from_secs(3600));
            berth.reset(&mut sleep, berth.now());
            sleep.await;
            berth.sleep_until(berth.now()).await;
        });
    }

    #[tokio::test]
    async fn what_nobody_waits_for_is_not_gone_on_with() {
        let (held, let_go) = tokio::sync::oneshot::channel::<()>();
        let berth = Berth::default();
        let mut run = Box::pin(berth.run(async move {
            let _held = held;
            std::future::pending::<()>().await
        }));
        tokio::select! {
            biased;
            _ = &mut run => panic!("it has no end"),
            () = tokio::task::yield_now() => {}
        }
        drop(run);
        assert!(let_go.await.is_err(), "what it held was dropped");
    }

    #[tokio::test]
    async fn of_a_panic_and_of_a_runtime_that_has_ended_nothing_comes() {
        async fn panics() -> u8 {
            panic!("for the test")
        }
        assert_eq!(Berth::default().run(panics()).await, None);
        let ended = thread_of("ended");
        let berth = Berth::on(ended.handle().clone());
        ended.shutdown_background();
        assert_eq!(berth.run(async { 1 }).await, None);
    }
}
