//! One event as it arrived, and one request.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{AUTHORIZATION, HeaderName, USER_AGENT};
use serde::{Serialize, Serializer};

use crate::clock::Timestamp;

/// Headers that any client sends, and those shown under names of their own.
const EXPECTED: [&str; 10] = [
    "accept",
    "accept-encoding",
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "transfer-encoding",
    "user-agent",
];

/// An event that reached the stand-in. `Debug` shows no personal data.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Arrival {
    /// Counts from 1 in order of arrival.
    pub seq: u64,
    /// When it arrived.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// `payload.newUserId`
    pub user: Option<Box<str>>,
    /// `context.event.trigger`
    pub trigger: Option<Box<str>>,
    /// What came with it.
    #[serde(flatten)]
    pub headers: Headers,
    /// Fields that Cello strips, such as `payload.coupon`; the first twenty.
    pub unknown: Vec<Box<str>>,
    /// Cello has stored it.
    pub counts: bool,
    /// How it was answered; `None`: not, or not yet.
    pub status: Option<u16>,
    /// `apigw-requestid` of the answer.
    pub request_id: Box<str>,
    /// The request's body, byte for byte (as JSON: invalid UTF-8 replaced).
    #[serde(serialize_with = "lossy")]
    pub body: Bytes,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival")
            .field("seq", &self.seq)
            .field("at", &self.at)
            .field("trigger", &self.trigger)
            .field("unknown", &self.unknown)
            .field("counts", &self.counts)
            .field("status", &self.status)
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Headers of interest.
#[derive(Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Headers {
    /// `User-Agent`
    pub user_agent: Option<Box<str>>,
    /// `Idempotency-Key`
    pub idempotency_key: Option<Box<str>>,
    /// Whether there was an `Authorization`; never its value.
    pub authorization: bool,
    /// Headers that a client of Cello has no reason to send.
    #[serde(rename = "otherHeaders")]
    pub other: BTreeMap<Box<str>, Box<str>>,
}

impl Headers {
    pub(in crate::simulator) fn read(headers: &HeaderMap) -> Self {
        let get = |name: HeaderName| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into());
        let unexpected = headers.iter().filter(|(name, _)| !EXPECTED.contains(&name.as_str()));
        Self {
            user_agent: get(USER_AGENT),
            idempotency_key: get(IDEMPOTENCY_KEY),
            authorization: headers.contains_key(AUTHORIZATION),
            other: unexpected
                .map(|(name, value)| (name.as_str().into(), String::from_utf8_lossy(value.as_bytes()).into()))
                .collect(),
        }
    }
}

/// `Idempotency-Key`
pub(in crate::simulator) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A request of any route.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// When it arrived.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// The method.
    pub method: Box<str>,
    /// The path as sent, with its query.
    pub path: Box<str>,
    /// How it was answered; `None`: not.
    pub status: Option<u16>,
    /// `apigw-requestid` of the answer.
    pub request_id: Box<str>,
}

/// Paths hold user ids: not shown.
impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Seen");
        shown.field("at", &self.at).field("method", &self.method).field("status", &self.status).finish_non_exhaustive()
    }
}

fn as_text<S: Serializer>(value: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn lossy<S: Serializer>(body: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&String::from_utf8_lossy(body))
}
