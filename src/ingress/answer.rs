//! Answers and refusals, in the shapes that apps rely on.

use std::fmt::Write;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::{Method, Response, StatusCode};

use crate::http::body::BodyError;
use crate::metrics::{Label, Rejection};
use crate::outbox::{AppendError, Bound};

/// What this listener answers with.
pub type Answer = Response<Full<Bytes>>;

/// An answer that says no, and how it is counted.
pub(super) struct Refusal {
    pub(super) answer: Answer,
    why: Option<(Rejection, u64)>,
    /// Which known fields are at fault, for operators.
    pub(super) fields: Vec<String>,
}

impl Refusal {
    fn new(answer: Answer) -> Box<Self> {
        Box::new(Self { answer, why: None, fields: Vec::new() })
    }

    pub(super) fn because(mut self: Box<Self>, why: Rejection, events: u64) -> Box<Self> {
        self.why = Some((why, events));
        self
    }

    /// The same, about these fields.
    pub(super) fn about(mut self: Box<Self>, fields: Vec<String>) -> Box<Self> {
        self.fields = fields;
        self
    }

    /// What it is counted as, and for how many events; `None` if it was about no event.
    pub(super) fn why(&self) -> Option<(Rejection, u64)> {
        self.why
    }

    pub(super) fn header(mut self: Box<Self>, name: HeaderName, value: HeaderValue) -> Box<Self> {
        self.answer.headers_mut().insert(name, value);
        self
    }
}

/// 200 with JSON.
pub(super) fn json(body: impl Into<Bytes>) -> Answer {
    let mut answer = super::full(body);
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// `{"message": …}` with a status.
pub(super) fn refuse(status: StatusCode, message: &str) -> Box<Refusal> {
    let mut body = String::with_capacity(16 + message.len());
    body.push_str("{\"message\":");
    push_string(&mut body, message);
    body.push('}');
    refuse_json(status, body)
}

/// A ready body with a status.
pub(super) fn refuse_json(status: StatusCode, body: String) -> Box<Refusal> {
    let mut answer = json(body);
    *answer.status_mut() = status;
    Refusal::new(answer)
}

pub(super) fn not_found(message: &str) -> Box<Refusal> {
    refuse(StatusCode::NOT_FOUND, message)
}

pub(super) fn method_not_allowed(allowed: &[Method]) -> Box<Refusal> {
    let names: Vec<&str> = allowed.iter().map(Method::as_str).collect();
    let allow = names.join(", ");
    let refusal = refuse(StatusCode::METHOD_NOT_ALLOWED, &format!("this path answers {allow} only"));
    refusal.header(ALLOW, HeaderValue::from_str(&allow).expect("names of methods are header values"))
}

pub(super) fn unauthorized(message: &str) -> Box<Refusal> {
    refuse(StatusCode::UNAUTHORIZED, message)
        .header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"cello-relay\""))
        .because(Rejection::Unauthorized, 1)
}

/// 503: not now. `reason` is one of a closed list.
pub(super) fn unavailable(why: Rejection, message: &str, retry_after_s: u16, events: u64) -> Box<Refusal> {
    let mut body = String::with_capacity(128);
    body.push_str("{\"message\":");
    push_string(&mut body, message);
    // Writing to a string does not fail.
    write!(body, ",\"reason\":\"{}\"}}", why.as_str()).ok();
    refuse_json(StatusCode::SERVICE_UNAVAILABLE, body)
        .header(RETRY_AFTER, HeaderValue::from(retry_after_s))
        .because(why, events)
}

/// A batch was not stored.
pub(super) fn not_stored(error: AppendError, events: u64) -> Box<Refusal> {
    match error {
        AppendError::Full(Bound::Disk) => {
            unavailable(Rejection::Disk, "the disk of the outbox is full (outbox.min_free_bytes)", 10, events)
        }
        AppendError::Full(bound) => {
            let message = format!("the outbox is full (outbox.{bound}); it empties as Cello takes events");
            unavailable(Rejection::OutboxFull, &message, 10, events)
        }
        AppendError::Unavailable => {
            // A sync that failed does not tell what the disk has.
            let message = "the outbox cannot write to its disk, and it is not known whether this was stored; \
                           send it again with the same Idempotency-Key";
            unavailable(Rejection::Disk, message, 5, events)
        }
        // What came before the listener closed and was sent too slowly; whoever comes later is not let in at all.
        AppendError::Closed => {
            unavailable(Rejection::Draining, "the relay is stopping and takes no new events", 2, events)
        }
        AppendError::KeyReused => {
            let message = "this Idempotency-Key was used with another body";
            refuse(StatusCode::UNPROCESSABLE_ENTITY, message).because(Rejection::KeyReused, events)
        }
    }
}

/// A body was not read.
pub(super) fn unreadable(error: BodyError, max: usize, setting: &str) -> Box<Refusal> {
    match error {
        BodyError::TooLarge => {
            let message = format!("the body is larger than {max} bytes ({setting})");
            refuse(StatusCode::PAYLOAD_TOO_LARGE, &message).because(Rejection::TooLarge, 1)
        }
        BodyError::Slow => {
            let refusal = refuse(StatusCode::REQUEST_TIMEOUT, "the body was not sent in time");
            refusal.header(CONNECTION, HeaderValue::from_static("close"))
        }
        BodyError::Broken => refuse(StatusCode::BAD_REQUEST, "the body ended early").because(Rejection::InvalidJson, 1),
        BodyError::NotGzip => refuse(StatusCode::BAD_REQUEST, "the body is not gzip, as Content-Encoding says")
            .because(Rejection::InvalidJson, 1),
    }
}

/// Appends a JSON string.
pub(super) fn push_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::to_string(text).expect("a string is always JSON"));
}
