//! `POST /events` and `POST /events/batch`: from a request to a durable answer.

use bytes::Bytes;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::http::request::Parts;
use sha2::{Digest, Sha256};

use super::answer::{self, Answer, Refusal};
use super::store::{Tally, append};
use super::{Shared, batch, detail, door, notes};
use crate::event::{self, Checked, Event, EventId};
use crate::http::body;
use crate::metrics::{Label, Rejection, Warning};
use crate::outbox::{Batch, Key, Receipt, Route};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// An idempotency key has at most so many characters.
const KEY_MAX: usize = 255;

/// How events are laid out in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Json,
    /// One event a line.
    Lines,
}

impl Shared {
    /// Takes events in; answers when they are durable.
    pub(super) async fn post(&self, head: &Parts, body: &mut Incoming, route: Route) -> Result<Answer, Box<Refusal>> {
        let single = route == Route::Events;
        let layout = media_type(head, !single)?;
        let key = idempotency_key(head)?;
        let body::Whole { bytes, held: _held } = self.body(head, body, single).await?;
        let (batch, aside) = self.understand(head, bytes, route, layout, key)?;
        let receipt = append(self.outbox.as_ref(), &self.metrics, batch, &aside.tally).await;
        let receipt = receipt.map_err(|error| answer::not_stored(error, aside.events))?;
        // Only of what was accepted, and only once.
        if receipt.replayed.is_none() {
            self.tell(aside.told);
            aside.warned.log(&receipt.ids, aside.trace.as_deref());
        }
        Ok(stored(&receipt, &aside.notes, single))
    }

    /// What is to be stored of a body, and what is kept of it meanwhile. (No async function: what such a one is given
    /// lies in its future to the end.)
    fn understand(
        &self,
        head: &Parts,
        body: Bytes,
        route: Route,
        layout: Layout,
        key: Option<Box<str>>,
    ) -> Result<(Batch, Aside), Box<Refusal>> {
        let single = route == Route::Events;
        let checked = if single {
            vec![event::read(&body, self.settings.checks).map_err(|refused| notes::refusal(&refused))?]
        } else {
            batch::read(&body, layout, &self.settings)?
        };
        let aside = Aside {
            events: checked.len() as u64,
            tally: Tally::of(&checked),
            told: Told::of(&checked),
            warned: detail::Warned::of(&checked),
            notes: notes::fragment(&checked, single),
            trace: traceparent(head),
        };
        let key = key.map(|key| Key { route, key, body: Sha256::digest(&body).into(), notes: aside.notes.clone() });
        let events = checked.into_iter().map(|checked| Event { trace: aside.trace.clone(), ..checked.event }).collect();
        Ok((Batch { events, key }, aside))
    }

    /// The whole body, decompressed.
    pub(super) async fn body(
        &self,
        head: &Parts,
        body: &mut Incoming,
        single: bool,
    ) -> Result<body::Whole<'_>, Box<Refusal>> {
        let (max, setting) = match single {
            true => (self.settings.max_body_bytes, "ingest.max_body_bytes"),
            false => (self.settings.max_batch_bytes, "ingest.max_batch_bytes"),
        };
        let unreadable = |error| answer::unreadable(error, max, setting);
        let compressed = is_gzip(head)?;
        let mut whole = body::read(body, max, self.settings.idle_timeout, &self.budget).await.map_err(unreadable)?;
        if compressed {
            // Boxed: it is rare, and its buffer would make every request's future too large for quick allocation.
            whole = Box::pin(body::gunzip(whole, max)).await.map_err(unreadable)?;
        }
        self.metrics.ingest_bytes.inc_by(whole.bytes.len() as u64);
        Ok(whole)
    }

    /// Tells operators of warnings, without values.
    fn tell(&self, told: Told) {
        for (kind, fields, count) in told.0 {
            tracing::warn!(event = "event_looks_wrong", kind = kind.as_str(), "accepting events that look wrong");
            self.door.note(door::Kind::Warning, kind.as_str(), fields, count, self.clock.now());
        }
    }
}

/// What is kept of a request while its events are stored.
struct Aside {
    events: u64,
    tally: Tally,
    told: Told,
    warned: detail::Warned,
    /// What the answer says beside ids.
    notes: Box<str>,
    trace: Option<Box<str>>,
}

/// What a request's events are warned about: each kind with the fields, which are known ones, and how often.
struct Told(Vec<(Warning, Vec<String>, u64)>);

impl Told {
    fn of(checked: &[Checked]) -> Self {
        let mut kinds: Vec<(Warning, Vec<String>, u64)> = Vec::new();
        for (kind, text) in checked.iter().flat_map(|event| &event.warnings) {
            let field = detail::field(text);
            match kinds.iter_mut().find(|(known, ..)| known == kind) {
                None => kinds.push((*kind, vec![field.to_owned()], 1)),
                Some((_, fields, count)) => {
                    *count += 1;
                    if !fields.iter().any(|known| known == field) {
                        fields.push(field.to_owned());
                    }
                }
            }
        }
        Self(kinds)
    }
}

/// The 200 of either route: `{"success":true,"id":…}` or `{"success":true,"ids":[…]}`, with what there is
/// to say.
fn stored(receipt: &Receipt, notes: &str, single: bool) -> Answer {
    let notes = receipt.replayed.as_deref().unwrap_or(notes);
    let mut answer = match receipt.ids.first() {
        Some(id) if single => one(*id, notes),
        _ => answer::json(several(&receipt.ids, notes)),
    };
    if receipt.replayed.is_some() {
        answer.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
    }
    answer
}

fn one(id: EventId, notes: &str) -> Answer {
    let mut text = [0; EventId::TEXT_BYTES];
    let id = id.write_to(&mut text);
    let mut answer = answer::json([r#"{"success":true,"id":""#, id, "\"", notes, "}"].concat());
    if let Ok(location) = HeaderValue::from_maybe_shared(Bytes::from(["/events/", id].concat())) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

fn several(ids: &[EventId], notes: &str) -> String {
    let mut text = [0; EventId::TEXT_BYTES];
    let mut body = String::with_capacity(32 + (EventId::TEXT_BYTES + 3) * ids.len() + notes.len());
    body.push_str("{\"success\":true,\"ids\":[");
    for (place, id) in ids.iter().enumerate() {
        body.push_str(if place == 0 { "\"" } else { ",\"" });
        body.push_str(id.write_to(&mut text));
        body.push('"');
    }
    body.push(']');
    body.push_str(notes);
    body.push('}');
    body
}

/// JSON, or lines for a batch. Nothing said counts as JSON; parameters do not matter.
pub(super) fn media_type(head: &Parts, lines_too: bool) -> Result<Layout, Box<Refusal>> {
    let Some(value) = head.headers.get(CONTENT_TYPE) else { return Ok(Layout::Json) };
    let value = value.to_str().unwrap_or("?");
    let essence = value.split(';').next().unwrap_or_default().trim();
    if essence.is_empty() || essence.eq_ignore_ascii_case("application/json") {
        Ok(Layout::Json)
    } else if lines_too && essence.eq_ignore_ascii_case("application/x-ndjson") {
        Ok(Layout::Lines)
    } else {
        let wanted = if lines_too { "application/json or application/x-ndjson" } else { "application/json" };
        let message = format!("the Content-Type must be {wanted}");
        Err(answer::refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, &message).because(Rejection::MediaType, 1))
    }
}

fn is_gzip(head: &Parts) -> Result<bool, Box<Refusal>> {
    let mut codings = head.headers.get_all(CONTENT_ENCODING).iter();
    let coding = match (codings.next(), codings.next()) {
        (None, _) => return Ok(false),
        (Some(coding), None) => coding.to_str().unwrap_or("?").trim().to_ascii_lowercase(),
        _ => "several".to_owned(),
    };
    match coding.as_str() {
        "" | "identity" => Ok(false),
        "gzip" | "x-gzip" => Ok(true),
        _ => {
            let refusal =
                answer::refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the Content-Encoding must be gzip or none");
            let refusal = refusal.header(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
            Err(refusal.because(Rejection::MediaType, 1))
        }
    }
}

fn idempotency_key(head: &Parts) -> Result<Option<Box<str>>, Box<Refusal>> {
    let mut keys = head.headers.get_all(IDEMPOTENCY_KEY).iter();
    let key = match (keys.next(), keys.next()) {
        (None, _) => return Ok(None),
        (Some(key), None) => std::str::from_utf8(key.as_bytes()).ok(),
        _ => None,
    };
    match key.filter(|key| (1..=KEY_MAX).contains(&key.chars().count())) {
        Some(key) => Ok(Some(Box::from(key))),
        None => {
            let message = format!("the Idempotency-Key must be one header of 1 to {KEY_MAX} characters");
            Err(answer::refuse(StatusCode::BAD_REQUEST, &message).because(Rejection::Schema, 1))
        }
    }
}

/// The W3C trace context of the app, if it is valid; otherwise as if there were none.
pub(super) fn traceparent(head: &Parts) -> Option<Box<str>> {
    let text = head.headers.get(TRACEPARENT)?.to_str().ok()?.trim();
    is_traceparent(text).then(|| Box::from(text))
}

fn is_traceparent(text: &str) -> bool {
    let mut parts = text.splitn(5, '-');
    let mut hex = |digits: usize| {
        let part = parts.next().unwrap_or_default();
        let valid = part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        valid.then_some(part)
    };
    let (version, trace, span, flags) = (hex(2), hex(32), hex(16), hex(2));
    let not_zero = |part: Option<&str>| part.is_some_and(|part| part.bytes().any(|byte| byte != b'0'));
    // Later versions may append more; version 00 may not.
    let whole = version != Some("00") || parts.next().is_none();
    version.is_some_and(|version| version != "ff")
        && not_zero(trace)
        && not_zero(span)
        && flags.is_some()
        && whole
        && text.len() <= 128
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_traceparent_is_kept() {
        let valid = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(is_traceparent(valid));
        assert!(is_traceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"));
        for text in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
        ] {
            assert!(!is_traceparent(text), "{text}");
        }
    }
}
