//! How the control API answers.

use std::io;

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use crate::outbox::ReadError;

/// A body that is either at hand or written as it is read.
pub(super) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// A request that is not granted.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    message: String,
    allow: Option<&'static str>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: String) -> Self {
        Self { status, message, allow: None }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message.into())
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message.into())
    }

    pub(super) fn method(method: &'static str) -> Self {
        let allow = if method == "GET" { "GET, HEAD" } else { method };
        Self { status: StatusCode::METHOD_NOT_ALLOWED, message: format!("only {allow}"), allow: Some(allow) }
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let mut answer = json(self.status, &json!({"message": self.message}));
        if let Some(allow) = self.allow {
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        answer
    }
}

impl From<ReadError> for Refusal {
    fn from(error: ReadError) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

/// A JSON answer.
pub(super) fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    let text = serde_json::to_string(value).expect("names are strings, so it is always JSON");
    let body = Full::from(text + "\n");
    with_type(status, "application/json", body.map_err(|never| match never {}).boxed_unsync())
}

/// A document of this build.
pub(super) fn document(text: &'static str) -> Response<Body> {
    let body = Full::from(Bytes::from_static(text.as_bytes())).map_err(|never| match never {});
    with_type(StatusCode::OK, "application/json", body.boxed_unsync())
}

/// An answer of that media type, which no cache keeps.
pub(super) fn with_type(status: StatusCode, media_type: &'static str, body: Body) -> Response<Body> {
    let mut answer = Response::new(body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
