//! A referral event: from the bytes that an app posted to the bytes that Cello gets.
//!
//! [`Unchecked`] is what came in. Only [`Unchecked::check`] makes an [`Event`], and the outbox takes
//! nothing else: what is stored has been validated and stripped (type-state).

mod id;
mod trigger;

pub use id::EventId;
pub use trigger::Trigger;

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

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
