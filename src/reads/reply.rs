//! What the app gets: Cello's answer with where it came from, or why there is none.

use std::fmt;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AGE, CONTENT_ENCODING, CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

use super::cache::Kept;
use super::upstream::Failure;
use crate::cello::Answer;

/// An answer to a read.
pub type Reply = Response<Full<Bytes>>;

const REQUEST_ID: HeaderName = HeaderName::from_static("apigw-requestid");
const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
/// Seconds after which a read that found no room, no token or the breaker open may be tried again.
const AGAIN_AFTER: u16 = 1;

/// Why Cello was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Forwarded {
    /// Nothing was kept.
    Miss,
    /// What was kept is too old.
    Stale,
    /// The app wanted it.
    Request,
    /// It is no read.
    Method,
}

/// `Cache-Status` (RFC 9211) of an answer that did not come from the cache.
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheStatus {
    pub(super) forwarded: Forwarded,
    pub(super) stored: bool,
    pub(super) collapsed: bool,
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forwarded = match self.forwarded {
            Forwarded::Miss => "uri-miss",
            Forwarded::Stale => "stale",
            Forwarded::Request => "request",
            Forwarded::Method => "method",
        };
        write!(f, "cello-relay; fwd={forwarded}")?;
        f.write_str(if self.stored { "; stored" } else { "" })?;
        f.write_str(if self.collapsed { "; collapsed" } else { "" })
    }
}

/// Cello's answer as it came.
pub(super) fn passed_on(answer: Answer, status: CacheStatus) -> Reply {
    let mut reply = unchanged(answer);
    reply.headers_mut().insert(CACHE_STATUS, value(&status.to_string()));
    reply
}

/// What an answer from the cache stands in for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instead {
    /// It is fresh.
    Nothing,
    /// It is old, and Cello was not asked: it is taken to be down.
    Asking,
    /// It is old, and this is what came.
    Answer(StatusCode),
}

/// An answer from the cache.
pub(super) fn kept(kept: Kept, instead: Instead) -> Reply {
    let (age, ttl) = (seconds(kept.age), seconds(kept.ttl));
    let left = i128::from(ttl) - i128::from(age);
    let status = match instead {
        Instead::Nothing => format!("cello-relay; hit; ttl={left}"),
        Instead::Asking => format!("cello-relay; hit; ttl={left}; detail=breaker_open"),
        Instead::Answer(status) => format!("cello-relay; fwd=stale; fwd-status={}; ttl={left}", status.as_u16()),
    };
    let mut reply = unchanged(kept.answer);
    reply.headers_mut().insert(CACHE_STATUS, value(&status));
    reply.headers_mut().insert(AGE, HeaderValue::from(age));
    reply
}

/// No answer of Cello's, and why.
pub(super) fn failed(failure: Failure, status: CacheStatus) -> Reply {
    let mut reply = json(failure.status(), &json!({ "message": failure.message(), "reason": failure.reason() }));
    reply.headers_mut().insert(CACHE_STATUS, value(&status.to_string()));
    if failure.status() == StatusCode::SERVICE_UNAVAILABLE {
        reply.headers_mut().insert(RETRY_AFTER, HeaderValue::from(AGAIN_AFTER));
    }
    reply
}

/// The relay does not ask Cello that.
pub(super) fn refused(status: StatusCode, message: &str) -> Reply {
    json(status, &json!({ "message": message }))
}

fn unchanged(answer: Answer) -> Reply {
    let mut reply = Response::new(Full::new(answer.body));
    *reply.status_mut() = answer.status;
    let headers = reply.headers_mut();
    if let Some(content_type) = answer.content_type {
        headers.insert(CONTENT_TYPE, content_type);
    }
    if let Some(coding) = answer.content_encoding {
        headers.insert(CONTENT_ENCODING, coding);
    }
    if let Some(id) = answer.request_id.and_then(|id| HeaderValue::from_str(&id).ok()) {
        headers.insert(REQUEST_ID, id);
    }
    if let Some(wait) = answer.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds(wait)));
    }
    reply
}

fn json(status: StatusCode, body: &Value) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(body.to_string())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, JSON);
    reply
}

fn seconds(duration: std::time::Duration) -> u64 {
    duration.as_secs()
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("tokens and numbers are header values")
}
