//! What has to run as long as the relay does, though a bug may break it off: what forwards, what keeps the token fresh, and
//! what tells in the log how things stand.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use crate::sync::run_on;

/// The first wait after a panic, and the longest: what panics again and again is then silent for so long that liveness probes
/// notice (`ops.stall_after`).
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(120);
/// What ran for so long is sound.
const SOUND: Duration = Duration::from_secs(300);

/// Runs what `begin` gives to its end. A panic in it is a bug, which is logged and counted as one; it is begun anew, as
/// otherwise the relay would go on taking events, and nobody would see that nothing becomes of them.
pub(super) async fn keep_up<F>(begin: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut pause = PAUSE_MIN;
    loop {
        let begun = Instant::now();
        if run_on(&Handle::current(), begin()).await.is_some() {
            return;
        }
        if begun.elapsed() >= SOUND {
            pause = PAUSE_MIN;
        }
        sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// After how many seconds it was begun each time, if it panics so often, each time after `sound`.
    async fn begins(panics: usize, sound: Duration) -> Vec<u64> {
        let (begun, start) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let at = std::sync::Mutex::new(Vec::new());
        keep_up(|| {
            at.lock().unwrap().push(start.elapsed().as_secs());
            let time = begun.fetch_add(1, Ordering::Relaxed);
            async move {
                sleep(sound).await;
                assert!(time == panics, "for the test");
            }
        })
        .await;
        at.into_inner().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn what_panics_is_begun_anew_ever_more_seldom_until_it_ends_by_itself() {
        assert_eq!(begins(3, Duration::ZERO).await, [0, 1, 3, 7]);
        assert_eq!(begins(9, Duration::ZERO).await[6..], [63, 127, 247, 367], "every two minutes");
        assert_eq!(begins(2, SOUND).await, [0, 301, 602], "a panic now and then");
    }

    #[tokio::test]
    async fn what_nobody_keeps_up_any_more_ends() {
        let (held, let_go) = (Arc::new(()), Arc::new(tokio::sync::Notify::new()));
        let mut kept = Box::pin(keep_up(|| {
            let (held, begun) = (held.clone(), let_go.clone());
            async move {
                begun.notify_one();
                std::future::pending::<()>().await;
                drop(held);
            }
        }));
        tokio::select! {
            () = &mut kept => panic!("it has no end"),
            () = let_go.notified() => {}
        }
        drop(kept);
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }
}
