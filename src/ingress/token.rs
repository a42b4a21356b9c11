//! `POST /token`, answered locally so that existing clients work unchanged.

use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, HeaderValue};
use hyper::http::request::Parts;
use secrecy::ExposeSecret;
use serde::Deserialize;

use super::answer::{self, Answer, Refusal, push_string};
use super::{Shared, admission};

/// Given where no token is asked for; it opens nothing.
const PLACEHOLDER: &str = "local-relay-needs-no-token";

/// Cello's own lifetimes, in seconds.
const LIFETIMES: &str = ",\"expiresIn\":18000";
const REFRESH_LIFETIME: &str = ",\"refreshTokenExpiresIn\":432000";

/// Both shapes of the request. Nothing of it is kept or shown: no `Debug`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ask {
    access_key_id: Option<String>,
    secret_access_key: Option<String>,
    refresh_token: Option<String>,
}

impl Shared {
    pub(super) async fn token(&self, head: &Parts, body: &mut Incoming) -> Result<Answer, Box<Refusal>> {
        super::post::media_type(head, false)?;
        let body = self.body(head, body, true).await?;
        let shape = || {
            let message = "expected {\"accessKeyId\": \"…\", \"secretAccessKey\": \"…\"} or {\"refreshToken\": \"…\"}";
            answer::refuse(StatusCode::BAD_REQUEST, message)
        };
        let ask: Ask = serde_json::from_slice(&body.bytes).map_err(|_| shape())?;
        let (offered, by_keys) = match (ask.access_key_id, ask.secret_access_key, ask.refresh_token) {
            (Some(_), Some(secret), _) => (secret, true),
            (_, _, Some(refresh)) => (refresh, false),
            _ => return Err(shape()),
        };
        let now = self.clock.instant();
        match self.admission.bearer() {
            None => Ok(granted(PLACEHOLDER, by_keys)),
            Some(bearer) if bearer.is(&offered, now) || admission::carries(head, bearer, now) => {
                Ok(granted(bearer.token(now).expose_secret(), by_keys))
            }
            Some(_) => {
                Err(answer::unauthorized("send the relay's bearer token as secretAccessKey (ingest.token_file)"))
            }
        }
    }
}

/// Asked by keys, the answer has a refresh token; asked by refresh token, none.
fn granted(token: &str, by_keys: bool) -> Answer {
    let mut body = String::from("{\"accessToken\":");
    push_string(&mut body, token);
    body.push_str(LIFETIMES);
    if by_keys {
        body.push_str(",\"refreshToken\":");
        push_string(&mut body, token);
        body.push_str(REFRESH_LIFETIME);
    }
    body.push('}');
    let mut answer = answer::json(body);
    *answer.status_mut() = StatusCode::CREATED;
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
