//! Turns tracing's events into lines and writes them.

use std::fmt;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serializer;
use serde::ser::SerializeMap;
use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

use super::limit::{Limiter, Subject};
use crate::clock::{Clock, Timestamp};
use crate::metrics::{LogLevel, Metrics};

/// Bytes kept of a text: an error's chain can be long.
const MAX_TEXT: usize = 512;
/// Names that every line has; a field of the same name is left out.
const OWN_NAMES: [&str; 7] = ["timestamp", "level", "message", "target", "version", "suppressed", "lines_dropped"];
/// Warnings that a state begins.
const BEGINNINGS: [&str; 3] = ["circuit_opened", "delivery_held", "reason_began"];
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How a line looks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    Json,
    Text { color: bool },
}

/// The layer that writes. A line is made first and written with one call, so that lines of several
/// threads, or of a crash, are never mixed.
pub(super) struct Lines<W> {
    style: Style,
    out: Mutex<Out<W>>,
    limiter: Mutex<Limiter>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

struct Out<W> {
    writer: W,
    /// Lines that could not be written since the last one that was.
    dropped: u64,
}

impl<W: Write> Out<W> {
    /// There is nowhere to report that logging failed but in the next line; delivery goes on.
    fn write(&mut self, line: &[u8]) {
        match self.writer.write_all(line).and_then(|()| self.writer.flush()) {
            Ok(()) => self.dropped = 0,
            Err(_) => self.dropped += 1,
        }
    }
}

impl<W: Write> Lines<W> {
    pub(super) fn new(style: Style, writer: W, metrics: Arc<Metrics>, clock: Arc<dyn Clock>) -> Self {
        Self { style, out: Mutex::new(Out { writer, dropped: 0 }), limiter: Mutex::default(), metrics, clock }
    }

    fn count(&self, level: Level) {
        let label = match level {
            Level::ERROR => LogLevel::Error,
            Level::WARN => LogLevel::Warn,
            Level::INFO => LogLevel::Info,
            _ => return,
        };
        self.metrics.log_messages.with(label).inc();
    }

    /// Errors and warnings are limited; what is left out is counted on the next line of its kind. What begins a state is
    /// not: the line that ends it is always written, and the last one has to be true.
    fn admit(&self, metadata: &Metadata<'_>, record: &Record) -> Option<u64> {
        let begins = record.text_of("event").is_some_and(|event| BEGINNINGS.contains(&event));
        if *metadata.level() > Level::WARN || begins {
            return Some(0);
        }
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        limiter.admit(record.subject(metadata), self.clock.instant())
    }
}

impl<S: Subscriber, W: Write + Send + 'static> Layer<S> for Lines<W> {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut record = Record::default();
        event.record(&mut record);
        let metadata = event.metadata();
        self.count(*metadata.level());
        let Some(suppressed) = self.admit(metadata, &record) else { return };
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let line = Line { at: self.clock.now(), metadata, record: &record, suppressed, dropped: out.dropped };
        let mut bytes = match self.style {
            Style::Json => line.json(),
            Style::Text { color } => line.text(color).into_bytes(),
        };
        bytes.push(b'\n');
        out.write(&bytes);
    }
}

/// The fields of one event, in their order.
#[derive(Default)]
struct Record {
    message: String,
    fields: Vec<(&'static str, Value)>,
}

impl Record {
    fn text_of(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| *field == name).and_then(|(_, value)| value.as_str())
    }

    fn subject(&self, metadata: &Metadata<'_>) -> Subject {
        let place = || format!("{}:{}", metadata.target(), metadata.line().unwrap_or_default());
        let event = self.text_of("event").map_or_else(place, str::to_owned);
        let reason = ["error.type", "reason", "kind"].iter().find_map(|name| self.text_of(name));
        (event, reason.unwrap_or_default().to_owned())
    }

    fn push(&mut self, field: &Field, value: Value) {
        if !OWN_NAMES.contains(&field.name()) {
            self.fields.push((field.name(), value));
        }
    }

    fn push_text(&mut self, field: &Field, text: String) {
        if field.name() == "message" {
            self.message = text;
        } else {
            self.push(field, Value::String(capped(text)));
        }
    }
}

impl Visit for Record {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.push(field, value.into());
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.push(field, value.into());
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.push(field, value.into());
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.push(field, value.into());
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        self.push_text(field, value.to_owned());
    }
    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let chain = std::iter::successors(Some(value), |error| error.source());
        let texts: Vec<String> = chain.map(ToString::to_string).collect();
        self.push_text(field, texts.join(": "));
    }
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.push_text(field, format!("{value:?}"));
    }
}

fn capped(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    text
}

struct Line<'a> {
    at: Timestamp,
    metadata: &'a Metadata<'static>,
    record: &'a Record,
    suppressed: u64,
    /// Lines before it that nobody read.
    dropped: u64,
}

impl Line<'_> {
    /// What is left out before it, by name.
    fn gaps(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [("suppressed", self.suppressed), ("lines_dropped", self.dropped)].into_iter().filter(|(_, count)| *count > 0)
    }

    fn json(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        self.write_json(&mut bytes).expect("plain values are written to memory");
        bytes
    }

    fn write_json(&self, bytes: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let mut serializer = serde_json::Serializer::new(bytes);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("timestamp", &self.at.to_string())?;
        map.serialize_entry("level", level_name(*self.metadata.level()))?;
        map.serialize_entry("message", &self.record.message)?;
        for (name, value) in &self.record.fields {
            map.serialize_entry(name, value)?;
        }
        for (name, count) in self.gaps() {
            map.serialize_entry(name, &count)?;
        }
        map.serialize_entry("target", self.metadata.target())?;
        map.serialize_entry("version", VERSION)?;
        map.end()
    }

    fn text(&self, color: bool) -> String {
        let level = level_name(*self.metadata.level());
        let mut line = match color {
            true => format!("{} {}{level:>5}\x1b[0m {}", self.at, escape(*self.metadata.level()), self.record.message),
            false => format!("{} {level:>5} {}", self.at, self.record.message),
        };
        for (name, value) in &self.record.fields {
            // Quoted unless it is a plain word, so that a value cannot pass for another field or line.
            let text = match value.as_str() {
                Some(word) if is_plain(word) => word.to_owned(),
                _ => value.to_string(),
            };
            line.push_str(&format!(" {name}={text}"));
        }
        for (name, count) in self.gaps() {
            line.push_str(&format!(" {name}={count}"));
        }
        line
    }
}

fn is_plain(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\'))
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

fn escape(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        _ => "\x1b[2m",
    }
}

/// A writer that tests can read.
#[cfg(test)]
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Vec<u8>>>);

#[cfg(test)]
impl Shared {
    pub(super) fn lines(&self) -> Vec<String> {
        let bytes = self.0.lock().unwrap();
        String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
    }
}

#[cfg(test)]
impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
