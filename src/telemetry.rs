//! Logs.

/// `log.*`
#[derive(Clone, Debug)]
pub struct Settings {
    /// `error`, `warn`, `info`, `debug` or `trace`, for our own targets.
    pub level: String,
    /// How lines look.
    pub format: Format,
    /// One info line per delivered or dead event.
    pub deliveries: bool,
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
