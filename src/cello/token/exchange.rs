//! `POST /token`: the request, and what its answer says.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hyper::Method;
use hyper::http::uri::PathAndQuery;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tower::{Service, ServiceExt};
use zeroize::Zeroizing;

use super::machine::{Ask, Granted, Refusal};
use crate::cello::answer::Answer;
use crate::cello::transport::{Call, TransportError, bearer};
use crate::cello::verdict::judge;
use crate::cello::wiped;
use crate::metrics::{Grant, Operation, RefreshFailure};
use crate::reason::Reason;

/// The life of a token whose answer does not say one.
const UNSAID_LIFE: Duration = Duration::from_secs(60);
/// No life is taken for longer: it must stay a moment that can be reckoned with.
const MAX_LIFE: f64 = 365.0 * 86_400.0;

/// Why no token came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::cello) enum Failure {
    /// 400, 401 or 403.
    Rejected(u16),
    /// Any other answer that is no 2xx, and how long Cello asks to wait.
    Status(u16, Option<Duration>),
    /// A 2xx without a usable token.
    Malformed,
    /// A 2xx with a token whose life was over when it came.
    Late,
    /// No answer.
    Network(TransportError),
}

impl Failure {
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::Rejected(_) => Refusal::Rejected,
            Self::Status(_, wait) => Refusal::Failed(wait),
            Self::Malformed | Self::Late | Self::Network(_) => Refusal::Failed(None),
        }
    }

    pub(super) fn label(self) -> RefreshFailure {
        match self {
            Self::Rejected(_) => RefreshFailure::Rejected,
            Self::Status(429, _) => RefreshFailure::Http429,
            Self::Status(500.., _) => RefreshFailure::Http5xx,
            Self::Status(..) | Self::Late => RefreshFailure::Other,
            Self::Malformed => RefreshFailure::Decode,
            Self::Network(_) => RefreshFailure::Network,
        }
    }

    /// By name. An answer that Cello should not give is put down to what is configured.
    pub(super) fn reason(self) -> Reason {
        match self {
            Self::Status(429, _) => Reason::Http429,
            Self::Status(500.., _) => Reason::Http5xx,
            Self::Rejected(_) | Self::Status(..) => Reason::Credentials,
            Self::Malformed => Reason::NotJson,
            Self::Late => Reason::Timeout,
            Self::Network(error) => judge(Err(&error)).reason.unwrap_or(Reason::Reset),
        }
    }

    /// What answers is most likely not Cello's API, or not the whole way to it.
    pub(in crate::cello) fn is_elsewhere(self) -> bool {
        matches!(self, Self::Status(300..=399 | 404 | 405 | 410, _))
    }

    pub(super) fn status(self) -> Option<u16> {
        match self {
            Self::Rejected(status) | Self::Status(status, _) => Some(status),
            Self::Malformed | Self::Late | Self::Network(_) => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rejected(status) => write!(f, "refused with status {status}"),
            Self::Status(status @ 300..=399, _) => {
                write!(f, "status {status}: cello.base_url redirects, which is never followed")
            }
            Self::Status(status, _) if self.is_elsewhere() => {
                write!(f, "status {status}: there is no /token under cello.base_url")
            }
            Self::Status(status, _) => write!(f, "status {status}"),
            Self::Malformed => f.write_str("an answer without a usable accessToken"),
            Self::Late => f.write_str("a token that lives for less time than its answer took"),
            Self::Network(error) => f.write_str(judge(Err(error)).reason.map_or("no answer", Reason::as_str)),
        }
    }
}

impl Ask {
    pub(super) fn grant(&self) -> Grant {
        match self {
            Self::Keys(_) => Grant::AccessKey,
            Self::Refresh(_) => Grant::RefreshToken,
        }
    }
}

/// Asks Cello for a token, once. The flag of the answer: its life was not said.
pub(in crate::cello) async fn exchange<S>(stack: S, ask: &Ask, timeout: Duration) -> Result<(Granted, bool), Failure>
where
    S: Service<Call, Response = Answer, Error = TransportError>,
{
    let path = PathAndQuery::from_static("/token");
    let call = Call::new(Operation::Token, Method::POST, path, timeout).with_json(body(ask));
    let answer = stack.oneshot(call).await.map_err(Failure::Network)?;
    let result = match answer.status.as_u16() {
        200..=299 => read(&answer.body).ok_or(Failure::Malformed),
        status @ (400 | 401 | 403) => Err(Failure::Rejected(status)),
        status => Err(Failure::Status(status, answer.retry_after)),
    };
    wiped::wipe(answer.body);
    result
}

#[derive(Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
enum Request<'a> {
    Keys { access_key_id: &'a str, secret_access_key: &'a str },
    Refresh { refresh_token: &'a str },
}

/// Overwritten once it is sent.
fn body(ask: &Ask) -> Bytes {
    let request = match ask {
        Ask::Keys(keys) => Request::Keys { access_key_id: keys.expose(0), secret_access_key: keys.expose(1) },
        Ask::Refresh(token) => Request::Refresh { refresh_token: token.expose_secret() },
    };
    // Room for all of it, however it is escaped: growing would leave copies behind.
    let bytes = match &request {
        Request::Keys { access_key_id: id, secret_access_key: secret } => id.len() + secret.len(),
        Request::Refresh { refresh_token: token } => token.len(),
    };
    let mut body = Zeroizing::new(Vec::with_capacity(64 + 6 * bytes));
    serde_json::to_writer(&mut *body, &request).expect("strings are valid JSON");
    wiped::shared(body)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Response<'a> {
    access_token: String,
    /// Of any type: only the token itself decides whether an answer counts.
    #[serde(borrow)]
    expires_in: Option<&'a RawValue>,
    #[serde(borrow)]
    refresh_token: Option<&'a RawValue>,
    #[serde(borrow)]
    refresh_token_expires_in: Option<&'a RawValue>,
}

pub(super) fn read(body: &[u8]) -> Option<(Granted, bool)> {
    // A list would do as well for serde: its values in the order of the fields.
    body.trim_ascii_start().starts_with(b"{").then_some(())?;
    let response: Response<'_> = serde_json::from_slice(body).ok()?;
    let value = SecretString::from(response.access_token);
    // It must go into a header.
    if value.expose_secret().is_empty() || bearer(&value).is_none() {
        return None;
    }
    let life = response.expires_in.and_then(seconds);
    let refresh = response.refresh_token.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    let granted = Granted {
        value,
        life: life.unwrap_or(UNSAID_LIFE),
        refresh: refresh.filter(|token| !token.is_empty()).map(SecretString::from),
        refresh_life: response.refresh_token_expires_in.and_then(seconds),
    };
    Some((granted, life.is_none()))
}

/// A number of seconds, at least 1.
fn seconds(raw: &RawValue) -> Option<Duration> {
    let seconds: f64 = serde_json::from_str(raw.get()).ok()?;
    (seconds >= 1.0).then(|| Duration::from_secs_f64(seconds.min(MAX_LIFE)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::cello::credentials::Secrets;
    use crate::cello::wiped::remains::Place;

    fn life(expires_in: &str) -> (u64, bool) {
        let body = format!("{{\"accessToken\":\"a\"{expires_in}}}");
        let (granted, unsaid) = read(body.as_bytes()).unwrap();
        (granted.life.as_secs(), unsaid)
    }

    #[test]
    fn a_life_that_is_not_said_is_a_minute() {
        assert_eq!(life(",\"expiresIn\":18000"), (18_000, false));
        assert_eq!(life(",\"expiresIn\":1"), (1, false));
        assert_eq!(life(",\"expiresIn\":1e300"), (365 * 86_400, false));
        for unsaid in ["", "null", "0", "-1", "0.5", "\"18000\"", "[]", "{}", "true"] {
            let field = if unsaid.is_empty() { String::new() } else { format!(",\"expiresIn\":{unsaid}") };
            assert_eq!(life(&field), (60, true), "{unsaid}");
        }
    }

    #[test]
    fn what_failed_is_named_and_said_with_the_status_that_cello_gave() {
        let wait = Some(Duration::from_secs(7));
        let network = Failure::Network(TransportError { fault: crate::cello::Fault::Tls, sent: false });
        let table = [
            (Failure::Rejected(403), RefreshFailure::Rejected, Some(403), Refusal::Rejected, "refused with status 403"),
            (Failure::Status(429, wait), RefreshFailure::Http429, Some(429), Refusal::Failed(wait), "status 429"),
            (Failure::Status(500, None), RefreshFailure::Http5xx, Some(500), Refusal::Failed(None), "status 500"),
            (
                Failure::Status(302, None),
                RefreshFailure::Other,
                Some(302),
                Refusal::Failed(None),
                "status 302: cello.base_url redirects, which is never followed",
            ),
            (
                Failure::Status(404, None),
                RefreshFailure::Other,
                Some(404),
                Refusal::Failed(None),
                "status 404: there is no /token under cello.base_url",
            ),
            (Failure::Status(418, None), RefreshFailure::Other, Some(418), Refusal::Failed(None), "status 418"),
            (
                Failure::Malformed,
                RefreshFailure::Decode,
                None,
                Refusal::Failed(None),
                "an answer without a usable accessToken",
            ),
            (
                Failure::Late,
                RefreshFailure::Other,
                None,
                Refusal::Failed(None),
                "a token that lives for less time than its answer took",
            ),
            (network, RefreshFailure::Network, None, Refusal::Failed(None), "tls"),
        ];
        let reasons = table.each_ref().map(|(failure, ..)| failure.reason().as_str());
        for (failure, label, status, refusal, text) in table {
            assert_eq!((failure.label(), failure.status(), failure.refusal()), (label, status, refusal));
            assert_eq!(failure.to_string(), text);
        }
        let credentials = "credentials";
        assert_eq!(
            reasons,
            [credentials, "http_429", "http_5xx", credentials, credentials, credentials, "not_json", "timeout", "tls"]
        );
    }

    #[test]
    fn an_answer_without_a_usable_token_is_malformed() {
        let bodies = ["", "{}", "null", "{\"accessToken\":7}", "{\"accessToken\":\"\"}", "{\"accessToken\":null}"];
        for body in
            bodies.iter().chain(&["{\"accessToken\":\"a\\nb\"}", "{\"accessToken\":\"a\"", "<html>", "[\"a\",60]"])
        {
            assert!(read(body.as_bytes()).is_none(), "{body}");
        }
    }

    #[test]
    fn a_refresh_token_of_another_type_does_not_spoil_the_answer() {
        let (granted, _) = read(br#"{"accessToken":"a","refreshToken":7,"refreshTokenExpiresIn":"x"}"#).unwrap();
        assert!(granted.refresh.is_none() && granted.refresh_life.is_none());
        let (granted, _) = read(br#"{"accessToken":"a","refreshToken":"r","refreshTokenExpiresIn":9}"#).unwrap();
        assert_eq!(granted.refresh.unwrap().expose_secret(), "r");
        assert_eq!(granted.refresh_life, Some(Duration::from_secs(9)));
    }

    #[test]
    fn requests_have_cellos_two_shapes() {
        let keys = Arc::new(Secrets::new(vec!["0123".into(), "s\"x".into()]));
        assert_eq!(body(&Ask::Keys(keys)), r#"{"accessKeyId":"0123","secretAccessKey":"s\"x"}"#);
        assert_eq!(body(&Ask::Refresh("r".into())), r#"{"refreshToken":"r"}"#);
    }

    #[test]
    fn a_request_for_a_token_is_overwritten_when_it_has_been_sent() {
        // As many as keys may have, all of them escaped.
        let (id, secret) = ("\u{1}".repeat(64), "\u{2}".repeat(4096));
        let keys = Arc::new(Secrets::new(vec![id.into(), secret.into()]));
        let body = body(&Ask::Keys(keys));
        let mut place = Place::of(&body);
        drop(body);
        assert!(!place.holds(&"\\u0002".repeat(8)));
    }

    #[tokio::test]
    async fn an_answer_with_a_token_is_overwritten_once_it_is_read() {
        let text = br#"{"accessToken":"a-canary-of-a-token-that-is-longer-than-what-an-allocator-writes"}"#;
        let answered = bytes::BytesMut::from(&text[..]).freeze();
        let mut place = Place::of(&answered);
        let stack = tower::service_fn(move |_| {
            std::future::ready(Ok(Answer {
                status: hyper::StatusCode::CREATED,
                retry_after: None,
                request_id: None,
                content_type: None,
                content_encoding: None,
                body: answered.clone(),
                cut: false,
            }))
        });
        let ask = Ask::Refresh("r".into());
        let (granted, _) = exchange(stack, &ask, Duration::from_secs(1)).await.unwrap();
        assert!(granted.value.expose_secret().starts_with("a-canary-of-a-token"));
        assert!(!place.holds("a-canary-of-a-token"));
    }
}
