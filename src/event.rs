//! A referral event: from the bytes that an app posted to the bytes that Cello gets.
//!
//! [`Unchecked`] is what came in. Only [`Unchecked::check`] makes an [`Event`], and the outbox takes
//! nothing else: what is stored has been validated and stripped (type-state).
//!
//! What Cello states as refused is always refused; what it does not state is a matter of [`Checks`].

mod check;
mod context;
mod cursor;
mod encode;
mod field;
mod hints;
mod id;
mod suggest;
mod trigger;
mod unchecked;

#[cfg(test)]
mod tests;

pub use id::EventId;
pub use trigger::Trigger;
pub use unchecked::{Malformed, Unchecked};

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::metrics::Warning;

/// The referred user (`payload.newUserId`): what order is kept by. Personal data: `Debug` hides it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Arc<str>);

impl UserId {
    /// Wraps an id as the app sent it.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(Arc::from(id))
    }

    /// The id itself; never for a log line.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UserId([redacted])")
    }
}

/// A validated, stripped event, ready to be stored and sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    /// Whose event it is; order is kept per user.
    pub user: UserId,
    /// What happened, for metrics.
    pub trigger: Trigger,
    /// The very bytes of the request body that Cello gets.
    pub body: Bytes,
    /// The app's W3C `traceparent`, if it sent a valid one.
    pub trace: Option<Box<str>>,
}

/// Shows no personal data.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("trigger", &self.trigger)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// `ingest.checks`: what is done about what Cello does not state as refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checks {
    /// Accept and warn.
    #[default]
    Warn,
    /// Refuse.
    Strict,
    /// Neither.
    Off,
}

/// An event that passed, with all that its sender should know.
#[derive(Debug)]
pub struct Checked {
    /// What is stored.
    pub event: Event,
    /// Names of the fields that were stripped, the first [`STRIPPED_NAMED`] of them.
    pub stripped: Vec<String>,
    /// How many fields were stripped.
    pub stripped_count: usize,
    /// What is odd about it, as a sentence for its sender, who may be quoted in it: not for a log.
    pub warnings: Vec<(Warning, String)>,
}

/// So many stripped fields are named.
pub const STRIPPED_NAMED: usize = 20;

/// What is said of a name that occurs more than once.
const TWICE: &str = "is there twice";

/// What is wrong with one field. Reads as a sentence: `<field> <message>`; quotes no values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The field's path, `body` for the whole.
    pub field: Cow<'static, str>,
    /// What it must be.
    pub message: Cow<'static, str>,
}

impl Fault {
    /// A fault of `field`.
    pub fn new(field: impl Into<Cow<'static, str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    /// The field's path for those who are not the sender: a name that the sender made up may hold anything.
    #[must_use]
    pub fn public_field(&self) -> &str {
        let made_up = matches!(self.field, Cow::Owned(_)) && self.message == TWICE;
        if made_up { "an unknown field" } else { &self.field }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.field, self.message)
    }
}

/// Why there is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The bytes are no JSON that can be looked at.
    Malformed(Malformed),
    /// All faults at once; never empty.
    Invalid(Vec<Fault>),
}

/// Parses, validates and strips one event.
///
/// # Errors
/// Says everything that is wrong at once.
pub fn read(body: &[u8], checks: Checks) -> Result<Checked, Refused> {
    Unchecked::parse(body).map_err(Refused::Malformed)?.check(checks).map_err(Refused::Invalid)
}
