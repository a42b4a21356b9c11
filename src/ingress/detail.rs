//! Debug lines about single requests, without limit: for whoever looks for the app that sends what is refused or
//! doubtful. Kinds, names of known fields and ids, never values.

use hyper::http::request::Parts;
use tracing::Level;

use super::answer::Refusal;
use super::{door, post};
use crate::event::{Checked, EventId};
use crate::metrics::{Label, Route};

/// A request was turned away.
pub(super) fn refused(refusal: &Refusal, route: Route, head: &Parts) {
    if !tracing::enabled!(Level::DEBUG) {
        return;
    }
    let (reason, trace) = (refusal.why().map(|(why, _)| why.as_str()), post::traceparent(head));
    tracing::debug!(
        event = "refusal_detail",
        reason,
        status = refusal.answer.status().as_u16(),
        route = route.as_str(),
        fields = few(&refusal.fields),
        trace_id = trace.as_deref().and_then(trace_id),
        "a request was refused, for these fields"
    );
}

/// The events of a request that are let in with a warning.
pub(super) struct Warned(Vec<Line>);

struct Line {
    /// The event's place in its request.
    index: usize,
    kinds: Vec<String>,
    fields: Vec<String>,
}

impl Warned {
    /// Those of them; none if nobody reads it.
    pub(super) fn of(checked: &[Checked]) -> Self {
        if !tracing::enabled!(Level::DEBUG) {
            return Self(Vec::new());
        }
        let warned = checked.iter().enumerate().filter(|(_, event)| !event.warnings.is_empty());
        let line = |(index, event): (usize, &Checked)| {
            let mut line = Line { index, kinds: Vec::new(), fields: Vec::new() };
            for (kind, text) in &event.warnings {
                add(&mut line.kinds, kind.as_str());
                add(&mut line.fields, field(text));
            }
            line
        };
        Self(warned.map(line).collect())
    }

    /// Tells of them, now that they have ids.
    pub(super) fn log(&self, ids: &[EventId], trace: Option<&str>) {
        for Line { index, kinds, fields } in &self.0 {
            tracing::debug!(
                event = "warning_detail",
                reason = few(kinds),
                fields = few(fields),
                event_id = ids.get(*index).map(tracing::field::display),
                trace_id = trace.and_then(trace_id),
                "an event was accepted with a warning, for these fields"
            );
        }
    }
}

/// The known field that a warning is about.
pub(super) fn field(warning: &str) -> &str {
    warning.split(':').next().unwrap_or_default()
}

fn add(names: &mut Vec<String>, name: &str) {
    if !names.iter().any(|known| known == name) {
        names.push(name.to_owned());
    }
}

/// As many as are kept for operators.
fn few(names: &[String]) -> String {
    names[..names.len().min(door::FIELDS)].join(", ")
}

/// The trace of a valid traceparent.
fn trace_id(traceparent: &str) -> Option<&str> {
    traceparent.split('-').nth(1)
}
