//! Logs: one line per thing worth knowing, JSON for machines and text for people.
//!
//! How to log here: the message is constant text, variables are fields; `event` is a stable snake_case
//! name to search and alert on; `error.type` (or `reason`) is a closed list. Names and numbers of our own
//! making only: no user id, no body, no header, nothing that Cello wrote.

mod limit;
mod lines;
mod outlet;
mod panics;

use std::io::{self, IsTerminal};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Registry, reload};

use crate::clock::{Clock, SystemClock};
use crate::metrics::Metrics;
use lines::{Lines, Style};
use outlet::Outlet;

/// The target of lines that say who ordered what; they pass at every level.
pub const AUDIT: &str = concat!(env!("CARGO_CRATE_NAME"), "::audit");

/// `log.*`
#[derive(Clone, Debug)]
pub struct Settings {
    /// For our own targets; libraries stay at `warn` or less.
    pub level: Level,
    /// How lines look.
    pub format: Format,
    /// One info line per delivered or dead event.
    pub deliveries: bool,
    /// Colours on a terminal; off with `NO_COLOR`.
    pub color: bool,
}

/// `log.format`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// JSON unless stdout is a terminal.
    #[default]
    Auto,
    /// JSON lines.
    Json,
    /// For people.
    Text,
}

/// `log.level`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Something needs an operator.
    Error,
    /// Something may need one.
    Warn,
    /// Changes of state.
    #[default]
    Info,
    /// Single events.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// All of them, the quietest first.
    pub const ALL: [Level; 5] = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace];

    /// The name in configuration and API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }

    /// The level of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == name)
    }

    /// What passes: our own targets at this level, what operators ordered at every level, libraries at `warn` at
    /// most. Some of them log headers and bodies below that.
    fn filter(self) -> Targets {
        let own = match self {
            Level::Error => LevelFilter::ERROR,
            Level::Warn => LevelFilter::WARN,
            Level::Info => LevelFilter::INFO,
            Level::Debug => LevelFilter::DEBUG,
            Level::Trace => LevelFilter::TRACE,
        };
        Targets::new()
            .with_default(own.min(LevelFilter::WARN))
            .with_target(env!("CARGO_CRATE_NAME"), own)
            .with_target(AUDIT, own.max(LevelFilter::INFO))
    }
}

/// Changes logging while the process runs.
#[derive(Clone)]
pub struct Handle {
    filter: reload::Handle<Targets, Registry>,
    level: Arc<Mutex<Level>>,
}

impl Handle {
    /// The level in force.
    #[must_use]
    pub fn level(&self) -> Level {
        *self.level.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the level, at once and for all threads.
    pub fn set_level(&self, level: Level) {
        let mut current = self.level.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails only if the subscriber is gone, and then nothing is logged anyway.
        if self.filter.reload(level.filter()).is_ok() {
            *current = level;
        }
    }
}

/// Makes this process log to stdout, and panics be logged and counted. Once, at start.
pub fn init(settings: &Settings, metrics: Arc<Metrics>) -> Handle {
    let terminal = io::stdout().is_terminal();
    let style = match settings.format {
        Format::Json => Style::Json,
        Format::Auto if !terminal => Style::Json,
        Format::Auto | Format::Text => Style::Text { color: terminal && settings.color },
    };
    panics::count_and_log(Arc::clone(&metrics));
    let (subscriber, handle) =
        subscriber(settings.level, Lines::new(style, Outlet::new(io::stdout()), metrics, clock()));
    // A second call leaves the first subscriber in place.
    drop(tracing::subscriber::set_global_default(subscriber));
    handle
}

/// Logs to stderr what `log` logs: of a command that has no log but must leave a line.
pub fn to_stderr(log: impl FnOnce()) {
    let terminal = io::stderr().is_terminal();
    let style = if terminal { Style::Text { color: false } } else { Style::Json };
    let (subscriber, _) = subscriber(Level::Info, Lines::new(style, io::stderr(), Arc::default(), clock()));
    tracing::subscriber::with_default(subscriber, log);
}

/// A log that writes nowhere; for tests of what steers one. The level changes as long as the first lives.
#[cfg(test)]
pub(crate) fn detached(level: Level) -> (impl Subscriber + Send + Sync, Handle) {
    subscriber(level, Lines::new(Style::Json, io::sink(), Arc::default(), clock()))
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn subscriber<W: io::Write + Send + 'static>(level: Level, lines: Lines<W>) -> (impl Subscriber + Send + Sync, Handle) {
    let (filter, reload) = reload::Layer::new(level.filter());
    let handle = Handle { filter: reload, level: Arc::new(Mutex::new(level)) };
    (Registry::default().with(filter).with(lines), handle)
}

#[cfg(test)]
mod tests;
