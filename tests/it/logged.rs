//! What this thread logs.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Once;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

thread_local! {
    static LINES: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Keeps the lines of a thread that wants them. All threads share one subscriber: with one a thread, what a thread
/// without logs first is off for all.
struct ToThread;

impl Write for ToThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| {
            if let Some(lines) = lines {
                lines.push_str(&String::from_utf8_lossy(bytes));
            }
        });
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// JSON lines of this thread, our own down to debug, from now on until it is dropped.
pub(crate) struct Logged(());

impl Logged {
    pub(crate) fn from_now() -> Self {
        static SHARED: Once = Once::new();
        SHARED.call_once(|| {
            let own = Targets::new().with_target("cello_relay", Level::DEBUG).with_default(Level::INFO);
            let lines = tracing_subscriber::fmt::layer().json().with_writer(|| ToThread);
            tracing_subscriber::registry().with(own).with(lines).init();
        });
        LINES.set(Some(String::new()));
        Self(())
    }

    pub(crate) fn text(&self) -> String {
        LINES.with_borrow(|lines| lines.clone().unwrap_or_default())
    }

    /// How many lines are of that event.
    pub(crate) fn count(&self, event: &str) -> usize {
        self.text().matches(&format!(r#""event":"{event}""#)).count()
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        LINES.set(None);
    }
}
