//! Follows files as they change.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::changes::Changes;
use super::{Files, Reading};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// Looked at so often whatever is heard: a change may have been missed, or none can be heard.
const POLL: Duration = Duration::from_secs(30);
/// Several files are written one after the other.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Keeps `readings` as the files are, for ever.
///
/// Watched are the directories, not the files: Kubernetes swaps a `..data` link beside them, others
/// rename a new file over the old one.
pub(in crate::cello) async fn follow(
    files: Files,
    readings: &watch::Sender<Reading>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
) {
    let mut changes = None;
    loop {
        if changes.is_none() {
            changes = Changes::new().inspect_err(complain).ok();
        }
        // Each time anew: a directory may have come, or been replaced by another of that name.
        if let Some(changes) = &changes {
            let watch = |directory| changes.watch(directory).inspect_err(complain);
            files.directories().for_each(|directory| drop(watch(directory)));
        }
        let before = readings.borrow().clone();
        files.clone().read_into(readings).await;
        let now = readings.borrow().clone();
        if now != before {
            if matches!(now, Reading::Present(_)) {
                metrics.credentials_reloaded.set(clock.now().as_seconds());
            }
            if before != Reading::Unread {
                info!(event = "credentials_changed", "the credential files have changed");
            }
        }
        if timeout(POLL, next(changes.as_ref())).await.is_ok() {
            sleep(DEBOUNCE).await;
        }
    }
}

/// Resolves when something has changed; never, if that cannot be heard.
async fn next(changes: Option<&Changes>) {
    if let Some(changes) = changes
        && changes.heard().await.inspect_err(complain).is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn complain(error: &io::Error) {
    debug!(event = "watch_failed", %error, "changes of the credential files are not heard of; they are polled");
}
