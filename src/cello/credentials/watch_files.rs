//! Follows files as they change.

use std::sync::Arc;
use std::time::Duration;

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::{Files, Reading};
use crate::clock::Clock;
use crate::metrics::Metrics;

/// Looked at so often whatever the watch says: it may have missed something, or not work at all.
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
    let changed = Arc::new(Notify::new());
    let mut watcher = watcher(changed.clone());
    loop {
        // Each time anew: a directory may have come, or been replaced by another of that name.
        if let Some(watcher) = &mut watcher {
            watch_directories(watcher, &files);
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
        if timeout(POLL, changed.notified()).await.is_ok() {
            sleep(DEBOUNCE).await;
        }
    }
}

fn watcher(changed: Arc<Notify>) -> Option<RecommendedWatcher> {
    let heard = move |event: notify::Result<Event>| {
        // Our own reading is heard too.
        let news = event.map_or(true, |event| match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        });
        if news {
            changed.notify_one();
        }
    };
    let made = notify::recommended_watcher(heard);
    made.inspect_err(|error| debug!(event = "watch_failed", %error, "files are polled only")).ok()
}

fn watch_directories(watcher: &mut RecommendedWatcher, files: &Files) {
    for directory in files.directories() {
        if let Err(error) = watcher.watch(directory, RecursiveMode::NonRecursive) {
            debug!(event = "watch_failed", %error, "the directory of the credentials is polled only");
        }
    }
}
