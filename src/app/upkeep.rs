//! What has to run as long as the relay does.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;

/// So that what panics each time does not take a core.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs what `begin` gives to its end. A panic in it is a bug, which is logged and counted as one; it is begun anew, as
/// without it the relay would go on taking events that it cannot deliver.
pub(super) async fn keep_up<F>(begin: impl Fn() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        // A set of one: dropped, it ends what is in it.
        let mut set = JoinSet::new();
        set.spawn(begin());
        match set.join_next().await {
            Some(Err(error)) if error.is_panic() => tokio::time::sleep(PAUSE).await,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_panics_is_begun_anew_until_it_ends_by_itself() {
        let (begun, start) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        keep_up(|| {
            let time = begun.fetch_add(1, Ordering::Relaxed);
            async move { assert!(time == 3, "for the test") }
        })
        .await;
        assert_eq!((begun.load(Ordering::Relaxed), start.elapsed()), (4, 3 * PAUSE));
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
