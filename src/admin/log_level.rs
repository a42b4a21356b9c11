//! The log level of a running relay: changed for good, or for a while.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::telemetry::{Handle, Level};

/// Changes the level; cheap to clone.
#[derive(Clone)]
pub struct LogLevel {
    handle: Handle,
    state: Arc<Mutex<State>>,
}

struct State {
    /// What a change for a while goes back to.
    lasting: Level,
    /// Counts changes: a later one takes the place of an earlier one's end.
    changes: u64,
}

impl LogLevel {
    /// Over the log of this process, as it is now.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        let state = State { lasting: handle.level(), changes: 0 };
        Self { handle, state: Arc::new(Mutex::new(state)) }
    }

    /// Changes the level, for good or for `wait`. Needs a runtime around it.
    pub(super) fn set(&self, level: Level, wait: Option<Duration>) {
        let change = self.with(|state| {
            state.changes += 1;
            if wait.is_none() {
                state.lasting = level;
            }
            self.handle.set_level(level);
            state.changes
        });
        let Some(wait) = wait else { return };
        let own = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            own.with(|state| {
                if state.changes == change {
                    own.handle.set_level(state.lasting);
                }
            });
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry;

    const MINUTE: Duration = Duration::from_secs(60);

    async fn pass(time: Duration) {
        tokio::time::sleep(time + Duration::from_millis(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_for_a_while_ends_at_the_last_lasting_level() {
        let (_subscriber, handle) = telemetry::detached(Level::Info);
        let level = LogLevel::new(handle.clone());
        level.set(Level::Warn, None);
        level.set(Level::Debug, Some(MINUTE));
        assert_eq!(handle.level(), Level::Debug);
        pass(MINUTE).await;
        assert_eq!(handle.level(), Level::Warn);
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_change_is_not_ended_by_an_earlier_ones_time() {
        let (_subscriber, handle) = telemetry::detached(Level::Info);
        let level = LogLevel::new(handle.clone());
        level.set(Level::Debug, Some(MINUTE));
        level.set(Level::Trace, Some(3 * MINUTE));
        pass(MINUTE).await;
        assert_eq!(handle.level(), Level::Trace);
        level.set(Level::Error, None);
        pass(3 * MINUTE).await;
        assert_eq!(handle.level(), Level::Error);
    }
}
