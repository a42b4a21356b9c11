//! Answers in Cello's shapes.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::json;

/// What goes back over the wire.
pub(super) type Response = hyper::Response<Full<Bytes>>;

const REQUEST_ID: HeaderName = HeaderName::from_static("apigw-requestid");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An answer before it is given.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// A body with a content type.
    pub(super) fn new(status: StatusCode, content_type: HeaderValue, body: impl Into<Bytes>) -> Self {
        Self { status, headers: HeaderMap::from_iter([(CONTENT_TYPE, content_type)]), body: body.into() }
    }

    /// A status alone.
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new() }
    }

    /// A JSON body.
    pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("values with string keys always serialise");
        Self::new(status, JSON, body)
    }

    /// `{"message": …}`, the shape of nearly every error.
    pub(super) fn message(status: StatusCode, message: &str) -> Self {
        Self::json(status, &json!({ "message": message }))
    }

    /// The event was taken.
    pub(super) fn success() -> Self {
        Self::new(StatusCode::OK, JSON, Bytes::from_static(br#"{"success": true}"#))
    }

    /// The bearer token is missing, unknown, expired or revoked.
    pub(super) fn unauthorized() -> Self {
        Self::message(StatusCode::UNAUTHORIZED, "Unauthorized")
    }

    /// No such route; the gateway in front says the same of a wrong method.
    pub(super) fn not_found() -> Self {
        Self::message(StatusCode::NOT_FOUND, "Not Found")
    }

    /// The answer with its request id, ready to be sent.
    pub(super) fn into_response(self, request_id: &str) -> Response {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        if let Ok(id) = HeaderValue::from_str(request_id) {
            response.headers_mut().insert(REQUEST_ID, id);
        }
        response
    }
}

/// Makes the `apigw-requestid` of each answer: all different, and the same again for the same seed.
pub(super) struct RequestIds {
    next: AtomicU64,
}

impl RequestIds {
    pub(super) fn new(seed: u64) -> Self {
        Self { next: AtomicU64::new(seed) }
    }

    /// Sixteen characters, as the gateway's are.
    pub(super) fn next(&self) -> Box<str> {
        let number = scatter(self.next.fetch_add(1, Ordering::Relaxed));
        let mut id = String::with_capacity(16);
        id.push_str("Sim-");
        push_base62(&mut id, number);
        id.push('=');
        id.into()
    }
}

/// Eleven letters and digits, different for different numbers.
pub(super) fn push_base62(text: &mut String, mut number: u64) {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    for _ in 0..11 {
        text.push(char::from(DIGITS[(number % 62) as usize]));
        number /= 62;
    }
}

/// The finalizer of splitmix64: a bijection whose results look random.
pub(super) fn scatter(number: u64) -> u64 {
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn request_ids_differ_and_follow_from_the_seed() {
        let (ids, again) = (RequestIds::new(7), RequestIds::new(7));
        let seen: HashSet<_> = (0..1_000).map(|_| ids.next()).collect();
        assert_eq!(seen.len(), 1_000);
        assert!(seen.contains(&again.next()));
        assert!(seen.iter().all(|id| id.len() == 16));
    }
}
