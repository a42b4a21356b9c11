//! What an answer of Cello, or none, means for the event. Pure and total.
//!
//! | answer | verdict | reason |
//! | --- | --- | --- |
//! | 2xx, empty body | delivered | |
//! | 2xx, JSON that does not say `"success": false` | delivered | |
//! | 2xx, JSON that does | refused | `success_false` |
//! | 2xx, not JSON; 1xx | retry (outcome unknown) | `not_json` |
//! | 400, 409, 413, 414, 415, 422, 431 with a JSON object that has a `message` | refused | `http_<code>` or `http_4xx` |
//! | the same without it: not Cello's own words, so the fault is on the way | hold | same |
//! | 401 that a newer token did not cure; 403, 404, 405, 407, 410, any other 4xx | hold | same |
//! | 3xx, never followed | hold | `http_3xx` |
//! | 408, 425, 429 | retry | `http_<code>` |
//! | 5xx and beyond | retry (outcome unknown: 500, 502, 504) | `http_5xx` |
//! | no answer: not resolved, not connected, no TLS | retry | `dns`, `connect`, `tls` |
//! | no answer: too late, broken off | retry (outcome unknown if sent) | `timeout`, `reset` |
//! | nothing sent for want of a token | no access | `credentials` |
//!
//! Of a body over [`MAX_BODY`](super::MAX_BODY) only the start is read: it counts as what it is so far. Cello has no
//! reason to talk that long; but if it does, an event that it took is not sent to it again and again.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::answer::Answer;
use super::transport::{Fault, TransportError};
use crate::reason::Reason;

/// So much of Cello's message is kept, in bytes.
const MAX_MESSAGE: usize = 500;

/// What happens to the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Cello has it.
    Delivered,
    /// Cello refuses this very event: dead.
    Refused,
    /// The fault is ours or on the way: hold.
    Hold,
    /// Try again later.
    Retry,
    /// No token could be had; nothing was sent, or only with a token that is refused.
    NoAccess,
}

/// A verdict with all that is kept of the answer.
#[derive(Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What happens to the event.
    pub verdict: Verdict,
    /// Why; of no meaning when delivered.
    pub reason: Option<Reason>,
    /// Cello's status.
    pub status: Option<u16>,
    /// `apigw-requestid`.
    pub request_id: Option<Box<str>>,
    /// Cello's `message`, capped. May hold personal data.
    pub message: Option<Box<str>>,
    /// `Retry-After` of a 429 or 503, clamped to 1 s–10 min.
    pub retry_after: Option<Duration>,
    /// The request was sent and Cello may have counted it all the same.
    pub outcome_unknown: bool,
}

/// Shows nothing of Cello's message.
impl std::fmt::Debug for Judgement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Judgement")
            .field("verdict", &self.verdict)
            .field("reason", &self.reason)
            .field("status", &self.status)
            .field("request_id", &self.request_id)
            .field("retry_after", &self.retry_after)
            .field("outcome_unknown", &self.outcome_unknown)
            .finish_non_exhaustive()
    }
}

impl Judgement {
    /// Nothing could be sent for want of a token.
    #[must_use]
    pub fn no_access() -> Self {
        Self::unanswered(Verdict::NoAccess, Reason::Credentials, false)
    }

    fn unanswered(verdict: Verdict, reason: Reason, outcome_unknown: bool) -> Self {
        Self {
            verdict,
            reason: Some(reason),
            status: None,
            request_id: None,
            message: None,
            retry_after: None,
            outcome_unknown,
        }
    }
}

/// Judges what came of one call.
#[must_use]
pub fn judge(answer: Result<&Answer, &TransportError>) -> Judgement {
    match answer {
        Ok(answer) => judge_answer(answer),
        Err(error) => {
            let (reason, can_have_arrived) = match error.fault {
                Fault::Dns => (Reason::Dns, false),
                Fault::Connect => (Reason::Connect, false),
                Fault::Tls => (Reason::Tls, false),
                Fault::Timeout => (Reason::Timeout, true),
                Fault::Reset => (Reason::Reset, true),
            };
            Judgement::unanswered(Verdict::Retry, reason, can_have_arrived && error.sent)
        }
    }
}

fn judge_answer(answer: &Answer) -> Judgement {
    let status = answer.status.as_u16();
    let body = Said::read(&answer.body, answer.cut);
    let (verdict, reason) = match status {
        200..=299 => match body {
            Said::NotJson => (Verdict::Retry, Some(Reason::NotJson)),
            Said::Object { success_false: true, .. } => (Verdict::Refused, Some(Reason::SuccessFalse)),
            Said::Nothing | Said::Json | Said::Object { .. } => (Verdict::Delivered, None),
        },
        _ => {
            let has_message = matches!(body, Said::Object { message: Some(_), .. });
            (verdict_of(status, has_message), Some(reason_of(status)))
        }
    };
    Judgement {
        verdict,
        reason,
        status: Some(status),
        request_id: answer.request_id.clone(),
        message: match body {
            Said::Object { message, .. } if verdict != Verdict::Delivered => message,
            _ => None,
        },
        retry_after: answer.retry_after,
        outcome_unknown: reason == Some(Reason::NotJson) || matches!(status, 500 | 502 | 504),
    }
}

/// The verdict of any status but a 2xx.
fn verdict_of(status: u16, has_message: bool) -> Verdict {
    match status {
        0..=199 | 408 | 425 | 429 | 500.. => Verdict::Retry,
        400 | 409 | 413 | 414 | 415 | 422 | 431 if has_message => Verdict::Refused,
        _ => Verdict::Hold,
    }
}

/// The reason of any status but a 2xx.
fn reason_of(status: u16) -> Reason {
    match status {
        400 => Reason::Http400,
        401 => Reason::Http401,
        403 => Reason::Http403,
        404 => Reason::Http404,
        405 => Reason::Http405,
        408 => Reason::Http408,
        409 => Reason::Http409,
        410 => Reason::Http410,
        413 => Reason::Http413,
        422 => Reason::Http422,
        425 => Reason::Http425,
        429 => Reason::Http429,
        _ => match status {
            0..=299 => Reason::NotJson,
            300..=399 => Reason::Http3xx,
            400..=499 => Reason::Http4xx,
            500.. => Reason::Http5xx,
        },
    }
}

/// What a body says, as far as a verdict needs it.
enum Said {
    /// Empty, or white space alone.
    Nothing,
    /// Not JSON in UTF-8.
    NotJson,
    /// JSON, but no object.
    Json,
    /// A JSON object.
    Object { success_false: bool, message: Option<Box<str>> },
}

/// The two fields that count; of whatever type, and however often, so that none makes the rest unreadable. Filled
/// as they are read, so that they are known of a body that is cut too.
#[derive(Default)]
struct Fields<'a> {
    success_false: bool,
    message: Option<&'a RawValue>,
}

impl<'a> Visitor<'a> for &mut Fields<'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        // Names are decoded one by one: one that is no text is none of the two.
        while let Some(name) = map.next_key::<&RawValue>()? {
            let name = serde_json::from_str::<String>(name.get()).unwrap_or_default();
            let value = map.next_value::<&RawValue>()?;
            match name.as_str() {
                "success" => self.success_false |= value.get() == "false",
                "message" if self.message.is_none() && may_be_message(value) => self.message = Some(value),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Said {
    fn read(body: &[u8], cut: bool) -> Self {
        let body = body.trim_ascii();
        if body.is_empty() && !cut {
            return Self::Nothing;
        }
        let text = match std::str::from_utf8(body) {
            Ok(text) => text,
            // The cut may go through a character.
            Err(error) if cut && error.error_len().is_none() => {
                std::str::from_utf8(&body[..error.valid_up_to()]).unwrap_or_default()
            }
            Err(_) => return Self::NotJson,
        };
        let mut fields = Fields::default();
        let mut reader = serde_json::Deserializer::from_str(text);
        let read = reader.deserialize_map(&mut fields).and_then(|()| reader.end());
        let is_json = |result: serde_json::Result<()>| match result {
            Ok(()) => true,
            Err(error) => cut && error.is_eof() && !text.is_empty(),
        };
        if is_json(read) {
            Self::Object { success_false: fields.success_false, message: fields.message.map(message) }
        } else if is_json(serde_json::from_str::<IgnoredAny>(text).map(drop)) {
            Self::Json
        } else {
            Self::NotJson
        }
    }
}

/// A string, a list or an object. Cello's own words are known by there being any, not by their being readable: apps
/// can make it repeat what is no text, as half of a surrogate pair.
fn may_be_message(value: &RawValue) -> bool {
    value.get().starts_with(['"', '[', '{'])
}

/// Text, or several (as validators answer), else as it is written; capped.
fn message(value: &RawValue) -> Box<str> {
    let one = || serde_json::from_str::<String>(value.get()).ok();
    let many = || serde_json::from_str::<Vec<String>>(value.get()).ok().filter(|list| !list.is_empty());
    let text = one().or_else(|| many().map(|list| list.join("; ")));
    let text = text.as_deref().unwrap_or(value.get());
    text[..text.floor_char_boundary(MAX_MESSAGE)].into()
}

#[cfg(test)]
#[path = "verdict/tests.rs"]
mod tests;
