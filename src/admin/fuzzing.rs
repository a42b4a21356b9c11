//! What fuzz targets may see of this module; in no other build.

use serde_json::Value;

use super::events::{Call, Query};
use super::order::{Action, Order};
use crate::clock::Timestamp;
use crate::event::EventId;
use crate::outbox::{Filter, Selection};

/// A read's filter, cursor, limit, and whether it reveals; `None` if it is refused.
#[must_use]
pub fn query(text: &str, now: Timestamp) -> Option<(Filter, Option<EventId>, Option<usize>, bool)> {
    Query::parse(text, Call::List).ok().map(|query| query.taken_apart(now))
}

/// What a replay of that body would be about, and how many a second; `None` if it is refused.
#[must_use]
pub fn order(body: &Value, now: Timestamp) -> Option<(Selection, Option<u64>)> {
    Order::parse(Action::Replay, body, now).ok().map(Order::taken_apart)
}
