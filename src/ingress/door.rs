//! The last warnings and refusals, for operators: kinds and names of fields, never values.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::Timestamp;

/// So many are remembered.
const KEPT: usize = 20;
/// So many fields of one request are named.
pub(super) const FIELDS: usize = 8;

/// What happened at the door, and how often since it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// When it happened last.
    pub at: Timestamp,
    /// Let in with a warning, or turned away.
    pub kind: Kind,
    /// The warning's kind (`currency`), or the answer (`http_400`).
    pub what: String,
    /// Which known fields it was about.
    pub fields: Vec<String>,
    /// How many requests; of warnings, how many were given.
    pub count: u64,
}

/// What became of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Let in.
    Warning,
    /// Turned away.
    Refusal,
}

impl Kind {
    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Warning => "warning",
            Kind::Refusal => "refusal",
        }
    }
}

/// The last notes; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Door {
    notes: Arc<Mutex<VecDeque<Note>>>,
}

impl Door {
    /// The last notes, newest first.
    #[must_use]
    pub fn notes(&self) -> Vec<Note> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Remembers one; the same again moves to the front and counts up.
    pub(super) fn note(&self, kind: Kind, what: &str, mut fields: Vec<String>, count: u64, at: Timestamp) {
        fields.truncate(FIELDS);
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |note: &Note| note.kind == kind && note.what == what && note.fields == fields;
        let place = notes.iter().position(same);
        let known = place.and_then(|place| notes.remove(place));
        let note = match known {
            Some(known) => Note { at, count: known.count + count, ..known },
            None => Note { at, kind, what: what.to_owned(), fields, count },
        };
        notes.push_front(note);
        notes.truncate(KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_again_is_counted_and_the_newest_are_kept_in_front() {
        let (door, at) = (Door::default(), Timestamp::from_millis);
        door.note(Kind::Warning, "currency", vec!["payload.currency".to_owned()], 2, at(1));
        door.note(Kind::Refusal, "http_400", vec![], 1, at(2));
        door.note(Kind::Warning, "currency", vec!["payload.currency".to_owned()], 3, at(3));
        let notes = door.notes();
        assert_eq!((notes.len(), notes[0].what.as_str(), notes[0].count, notes[0].at), (2, "currency", 5, at(3)));
        for status in 0..30 {
            door.note(Kind::Refusal, &format!("http_{status}"), vec!["f".to_owned(); 50], 1, at(4));
        }
        let notes = door.notes();
        assert_eq!((notes.len(), notes[0].what.as_str(), notes[0].fields.len()), (KEPT, "http_29", FIELDS));
    }
}
