//! What is appended, and what comes of it.

use std::fmt;

use crate::event::{Event, EventId};

/// Events to be stored together.
#[derive(Clone, Debug)]
pub struct Batch {
    /// At least one.
    pub events: Vec<Event>,
    /// Remembered with the batch, so that a repeated request is answered and not stored again.
    pub key: Option<Key>,
}

/// An idempotency key and what it stands for.
#[derive(Clone, PartialEq, Eq)]
pub struct Key {
    /// Keys of different routes do not meet.
    pub route: Route,
    /// The `Idempotency-Key` header, 1–255 characters.
    pub key: Box<str>,
    /// SHA-256 of the decompressed request body.
    pub body: [u8; 32],
    /// Whatever the caller needs to give the first answer again (without the ids).
    pub notes: Box<str>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("route", &self.route).finish_non_exhaustive()
    }
}

/// The two ways in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Route {
    /// `POST /events`
    Events,
    /// `POST /events/batch`
    Batch,
}

/// Proof of a durable append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// One per event, in the batch's order.
    pub ids: Vec<EventId>,
    /// Set if the key was known: the ids are the first append's and these are its notes.
    pub replayed: Option<Box<str>>,
}

/// Why a batch was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// A bound is reached; deliveries go on and make room.
    #[error("the outbox is full ({0})")]
    Full(Bound),
    /// The disk failed; the store heals by itself when it can.
    #[error("the outbox cannot write")]
    Unavailable,
    /// The idempotency key was used with another body.
    #[error("the idempotency key was used with another body")]
    KeyReused,
    /// The store is closing.
    #[error("the outbox is closed")]
    Closed,
}

/// Which bound a full outbox has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `outbox.max_bytes`
    Bytes,
    /// `outbox.max_events`
    Events,
    /// `outbox.min_free_bytes`, or the disk itself
    Disk,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bound::Bytes => "max_bytes",
            Bound::Events => "max_events",
            Bound::Disk => "disk",
        })
    }
}
