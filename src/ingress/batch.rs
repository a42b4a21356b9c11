//! A batch: a JSON array or one event a line; all or nothing.

use std::fmt;

use hyper::StatusCode;
use serde::de::{DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Settings;
use super::answer::{self, Refusal};
use super::notes::{self, Faulty};
use super::post::Layout;
use crate::event::{self, Checked, Fault, Malformed, Refused};
use crate::metrics::Rejection;

/// Reads all events, or says what is wrong with which of them.
pub(super) fn read(body: &[u8], layout: Layout, settings: &Settings) -> Result<Vec<Checked>, Box<Refusal>> {
    let whole = |malformed| notes::refusal(&Refused::Malformed(malformed));
    let text = std::str::from_utf8(body).map_err(|error| whole(Malformed::utf8(body, error)))?;
    let mut parts = Vec::new();
    let within = match layout {
        Layout::Json => array(text, settings.max_batch, &mut parts)?,
        Layout::Lines => lines(text, settings.max_batch, &mut parts),
    };
    if !within {
        return Err(too_many(settings.max_batch as u64, "ingest.max_batch"));
    }
    // Not even an empty outbox holds it: to say "later" would have it sent for ever.
    if settings.outbox_max_events > 0 && parts.len() as u64 > settings.outbox_max_events {
        return Err(too_many(settings.outbox_max_events, "outbox.max_events"));
    }
    if parts.is_empty() {
        return Err(notes::refusal(&Refused::Invalid(vec![Fault::new("body", "must hold at least one event")])));
    }
    let (mut checked, mut faulty) = (Vec::with_capacity(parts.len()), Vec::new());
    for (index, part) in parts.iter().enumerate() {
        match one(part, settings) {
            Ok(event) if faulty.is_empty() => checked.push(event),
            Ok(_) => {}
            Err(refused) => faulty.push(Faulty { index, refused }),
        }
    }
    if faulty.is_empty() { Ok(checked) } else { Err(notes::batch_refusal(&faulty, parts.len())) }
}

fn too_many(limit: u64, setting: &str) -> Box<Refusal> {
    let message = format!("the batch has more than {limit} events ({setting})");
    answer::refuse(StatusCode::PAYLOAD_TOO_LARGE, &message).because(Rejection::TooLarge, 1)
}

/// One event's text, with the line it stands on if that is known.
struct Part<'b> {
    json: &'b str,
    line: Option<usize>,
}

fn one(part: &Part<'_>, settings: &Settings) -> Result<Checked, Refused> {
    if part.json.len() > settings.max_body_bytes {
        let message = format!("is larger than {} bytes (ingest.max_body_bytes)", settings.max_body_bytes);
        return Err(Refused::Invalid(vec![Fault::new("body", message)]));
    }
    event::read(part.json.as_bytes(), settings.checks).map_err(|refused| match refused {
        // A place inside an event, told as a place in the body where that is known.
        Refused::Malformed(Malformed { message, at }) => {
            let at = at.and_then(|(_, column)| part.line.map(|line| (line, column)));
            Refused::Malformed(Malformed { message, at })
        }
        invalid => invalid,
    })
}

/// Events of lines; empty lines are passed over. `false` if there are more than `max`.
fn lines<'b>(text: &'b str, max: usize, parts: &mut Vec<Part<'b>>) -> bool {
    for (number, line) in text.split('\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        if parts.len() == max {
            return false;
        }
        parts.push(Part { json: line, line: Some(number + 1) });
    }
    true
}

/// Events of an array. `false` if there are more than `max`.
fn array<'b>(text: &'b str, max: usize, parts: &mut Vec<Part<'b>>) -> Result<bool, Box<Refusal>> {
    let first = text.trim_ascii_start().bytes().next();
    let mut elements = Elements { max, parts, too_many: false };
    let mut json = serde_json::Deserializer::from_str(text);
    let read = (&mut elements).deserialize(&mut json).and_then(|()| json.end());
    match read {
        Ok(()) => Ok(true),
        Err(_) if elements.too_many => Ok(false),
        Err(error) if error.is_data() && first != Some(b'[') => {
            let message = "must be a JSON array of events (or application/x-ndjson)";
            Err(notes::refusal(&Refused::Invalid(vec![Fault::new("body", message)])))
        }
        Err(error) => Err(notes::refusal(&Refused::Malformed(Malformed::json(&error)))),
    }
}

/// Collects the elements of an array, not more than `max`.
struct Elements<'p, 'b> {
    max: usize,
    parts: &'p mut Vec<Part<'b>>,
    too_many: bool,
}

impl<'b> DeserializeSeed<'b> for &mut Elements<'_, 'b> {
    type Value = ();

    fn deserialize<D: Deserializer<'b>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'b> Visitor<'b> for &mut Elements<'_, 'b> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'b>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(element) = seq.next_element::<&'b RawValue>()? {
            if self.parts.len() == self.max {
                self.too_many = true;
                return Err(A::Error::custom("too many events"));
            }
            self.parts.push(Part { json: element.get(), line: None });
        }
        Ok(())
    }
}
