//! What an answer says about the events themselves: faults, stripped fields, warnings.

use std::fmt::Write;

use hyper::StatusCode;

use super::answer::{self, Refusal, push_string};
use crate::event::{Checked, Fault, Refused, STRIPPED_NAMED};
use crate::metrics::Rejection;

/// At most so many warnings of a batch are listed, and so many faults.
const LISTED: usize = 100;

/// So many faults of a batch are told in the one-line message.
const TOLD: usize = 5;

/// A refused event of a batch.
pub(super) struct Faulty {
    /// Its place, from 0.
    pub(super) index: usize,
    pub(super) refused: Refused,
}

/// The tail of a 200's JSON object: `,"stripped":[…],"warnings":[…]`, each only if there is something.
pub(super) fn fragment(checked: &[Checked], single: bool) -> Box<str> {
    if checked.iter().all(|checked| checked.stripped.is_empty() && checked.warnings.is_empty()) {
        return Box::default();
    }
    let mut out = String::new();
    let at = |index: usize| if single { None } else { Some(index) };
    let each = || checked.iter().enumerate();
    let stripped = each().flat_map(|(index, event)| event.stripped.iter().map(move |name| (at(index), name)));
    list(&mut out, "stripped", "field", stripped.take(STRIPPED_NAMED));
    let warnings = each().flat_map(|(index, event)| event.warnings.iter().map(move |(_, text)| (at(index), text)));
    list(&mut out, "warnings", "message", warnings.take(LISTED));
    out.into_boxed_str()
}

/// Plain strings for a single event, objects with their index for a batch.
fn list<'t>(out: &mut String, name: &str, member: &str, items: impl Iterator<Item = (Option<usize>, &'t String)>) {
    let start = out.len();
    for (index, text) in items {
        out.push(if out.len() == start { '[' } else { ',' });
        match index {
            None => push_string(out, text),
            Some(index) => {
                // Writing to a string does not fail.
                write!(out, "{{\"index\":{index},\"{member}\":").ok();
                push_string(out, text);
                out.push('}');
            }
        }
    }
    if out.len() > start {
        out.insert_str(start, &format!(",\"{name}\":"));
        out.push(']');
    }
}

/// The 400 of a single event, or of a body as a whole.
pub(super) fn refusal(refused: &Refused) -> Box<Refusal> {
    let (mut message, mut errors) = (String::new(), Vec::new());
    each_fault(refused, |field, text, at| {
        separate(&mut message);
        message.push_str(field);
        message.push(' ');
        message.push_str(text);
        if let Some((line, column)) = at {
            write!(message, " at line {line} column {column}").ok();
        }
        errors.push(entry(None, field, text, at));
    });
    bad_request(&message, &errors, rejection(refused), 1).about(fields([refused].into_iter()))
}

/// The 400 of a batch.
pub(super) fn batch_refusal(faulty: &[Faulty], events: usize) -> Box<Refusal> {
    let (mut message, mut errors, mut count) = (String::new(), Vec::new(), 0);
    for Faulty { index, refused } in faulty {
        each_fault(refused, |field, text, at| {
            count += 1;
            if count <= TOLD {
                separate(&mut message);
                write!(message, "event {index}: {field} {text}").ok();
            }
            if count <= LISTED {
                errors.push(entry(Some(*index), field, text, at));
            }
        });
    }
    if count > TOLD {
        write!(message, "; and {} more", count - TOLD).ok();
    }
    let malformed = faulty.iter().map(|faulty| rejection(&faulty.refused)).find(|why| *why == Rejection::InvalidJson);
    let why = malformed.unwrap_or(Rejection::Schema);
    bad_request(&message, &errors, why, events as u64).about(fields(faulty.iter().map(|faulty| &faulty.refused)))
}

/// The fields at fault, each once, as operators may see them.
fn fields<'r>(refused: impl Iterator<Item = &'r Refused>) -> Vec<String> {
    let mut fields: Vec<String> = Vec::new();
    for refused in refused {
        let named = match refused {
            Refused::Malformed(_) => vec!["body"],
            Refused::Invalid(faults) => faults.iter().map(Fault::public_field).collect(),
        };
        for field in named {
            if fields.len() < LISTED && !fields.iter().any(|known| known == field) {
                fields.push(field.to_owned());
            }
        }
    }
    fields
}

fn rejection(refused: &Refused) -> Rejection {
    match refused {
        Refused::Malformed(_) => Rejection::InvalidJson,
        Refused::Invalid(_) => Rejection::Schema,
    }
}

fn each_fault(refused: &Refused, mut tell: impl FnMut(&str, &str, Option<(usize, usize)>)) {
    match refused {
        Refused::Malformed(malformed) => tell("body", &malformed.message, malformed.at),
        Refused::Invalid(faults) => faults.iter().for_each(|fault| tell(&fault.field, &fault.message, None)),
    }
}

fn separate(message: &mut String) {
    if !message.is_empty() {
        message.push_str("; ");
    }
}

/// One member of `errors`.
fn entry(index: Option<usize>, field: &str, text: &str, at: Option<(usize, usize)>) -> String {
    let mut out = String::from("{");
    if let Some(index) = index {
        write!(out, "\"index\":{index},").ok();
    }
    out.push_str("\"field\":");
    push_string(&mut out, field);
    out.push_str(",\"message\":");
    push_string(&mut out, text);
    if let Some((line, column)) = at {
        write!(out, ",\"line\":{line},\"column\":{column}").ok();
    }
    out.push('}');
    out
}

fn bad_request(message: &str, errors: &[String], why: Rejection, events: u64) -> Box<Refusal> {
    let mut body = String::from("{\"message\":");
    push_string(&mut body, message);
    body.push_str(",\"errors\":[");
    body.push_str(&errors.join(","));
    body.push_str("]}");
    answer::refuse_json(StatusCode::BAD_REQUEST, body).because(why, events)
}
