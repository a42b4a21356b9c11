//! What came in: validated as JSON and taken apart, nothing believed yet.

use std::borrow::Cow;
use std::fmt;

use serde::de::IgnoredAny;

use super::context::Context;
use super::cursor::Cursor;
use super::field::{Field, Kind};

/// Nesting that is followed, the event's own braces included.
pub(super) const MAX_DEPTH: usize = 128;

/// The bytes are not JSON, or not such that it is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What is wrong; quotes no values.
    pub message: String,
    /// Line and column, from 1, where known.
    pub at: Option<(usize, usize)>,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.at {
            Some((line, column)) => write!(f, " at line {line} column {column}"),
            None => Ok(()),
        }
    }
}

impl Malformed {
    /// What serde_json found, without the values it may quote and with the place apart.
    pub(crate) fn json(error: &serde_json::Error) -> Self {
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or_default();
        let message = if error.is_data() { "is not as expected".to_owned() } else { format!("is not JSON: {what}") };
        Self { message, at: Some((error.line(), error.column())) }
    }

    /// Bytes that are no UTF-8.
    pub(crate) fn utf8(body: &[u8], error: std::str::Utf8Error) -> Self {
        Self { message: "is not UTF-8".to_owned(), at: Some(place(body, error.valid_up_to())) }
    }
}

/// Line and column, from 1, of an offset.
fn place(body: &[u8], offset: usize) -> (usize, usize) {
    let before = &body[..offset];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    (1 + before.iter().filter(|byte| **byte == b'\n').count(), 1 + offset - line_start)
}

/// An event as posted, borrowed from the request body.
#[derive(Debug, Default)]
pub struct Unchecked<'a> {
    pub(super) kind: Option<Kind>,
    pub(super) event_name: Field<'a>,
    pub(super) payload_kind: Option<Kind>,
    pub(super) payload: Payload<'a>,
    pub(super) context: Context<'a>,
    /// Its own bytes.
    pub(super) raw_context: Option<&'a str>,
    pub(super) unknown: Vec<Cow<'a, str>>,
    pub(super) twice: Vec<&'static str>,
    seen: u8,
}

/// `payload` as posted.
#[derive(Debug, Default)]
pub(super) struct Payload<'a> {
    pub(super) ucc: Field<'a>,
    pub(super) new_user_id: Field<'a>,
    pub(super) price: Field<'a>,
    pub(super) currency: Field<'a>,
    pub(super) unknown: Vec<Cow<'a, str>>,
    pub(super) twice: Vec<&'static str>,
    seen: u8,
}

impl<'a> Unchecked<'a> {
    /// Takes a request body apart.
    ///
    /// # Errors
    /// If it is not JSON, not UTF-8 or too deep.
    pub fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(body).map_err(|error| Malformed::utf8(body, error))?;
        if let Some(offset) = too_deep(body) {
            let message = format!("is nested deeper than {MAX_DEPTH}");
            return Err(Malformed { message, at: Some(place(body, offset)) });
        }
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| Malformed::json(&error))?;
        let mut unchecked = Unchecked::default();
        let kind = Cursor::new(text).object(|cursor, name| unchecked.take(cursor, name));
        unchecked.kind = Some(kind);
        Ok(unchecked)
    }

    fn take(&mut self, cursor: &mut Cursor<'a>, name: Cow<'a, str>) {
        match &*name {
            "eventName" => {
                note(&mut self.seen, 0, "eventName", &mut self.twice);
                self.event_name = cursor.field();
            }
            "payload" => {
                note(&mut self.seen, 1, "payload", &mut self.twice);
                let kind = cursor.object(|cursor, name| self.payload.take(cursor, name));
                self.payload_kind = Some(kind);
            }
            "context" => {
                note(&mut self.seen, 2, "context", &mut self.twice);
                let start = cursor.place();
                self.context.look(cursor);
                self.raw_context = Some(cursor.since(start));
            }
            _ => {
                self.unknown.push(name);
                cursor.value();
            }
        }
    }
}

impl<'a> Payload<'a> {
    fn take(&mut self, cursor: &mut Cursor<'a>, name: Cow<'a, str>) {
        let value = cursor.field();
        let (bit, path, field) = match &*name {
            "ucc" => (0, "payload.ucc", &mut self.ucc),
            "newUserId" => (1, "payload.newUserId", &mut self.new_user_id),
            "price" => (2, "payload.price", &mut self.price),
            "currency" => (3, "payload.currency", &mut self.currency),
            _ => return self.unknown.push(name),
        };
        note(&mut self.seen, bit, path, &mut self.twice);
        *field = value;
    }
}

/// Marks a known field as seen; notes it if it was before.
fn note(seen: &mut u8, bit: u8, path: &'static str, twice: &mut Vec<&'static str>) {
    if *seen & (1 << bit) != 0 && !twice.contains(&path) {
        twice.push(path);
    }
    *seen |= 1 << bit;
}

/// Where nesting passes [`MAX_DEPTH`]. Looks at brackets outside strings only; whether they match is the
/// parser's business.
fn too_deep(json: &[u8]) -> Option<usize> {
    // Hardly any event has so many brackets at all, and counting them is a tenth of the work.
    memchr::memchr2_iter(b'{', b'[', json).nth(MAX_DEPTH)?;
    let (mut depth, mut in_string, mut offset) = (0usize, false, 0);
    while let Some(byte) = json.get(offset) {
        match byte {
            b'\\' if in_string => offset += 1,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some(offset);
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        offset += 1;
    }
    None
}
