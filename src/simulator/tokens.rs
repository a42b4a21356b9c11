//! `POST /token`: keys for tokens, refresh tokens for access tokens.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::answer::{Answer, push_base62};
use crate::clock::Timestamp;

/// More live tokens than a sane client ever holds; beyond, the one that ends first goes.
const MAX_TOKENS: usize = 10_000;

/// The one pair of keys that is accepted.
#[derive(Clone, Debug)]
pub struct AccessKeys {
    /// `accessKeyId`
    pub access_key_id: SecretString,
    /// `secretAccessKey`
    pub secret_access_key: SecretString,
}

/// What an answer to keys holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenShape {
    /// Without `refreshTokenExpiresIn`.
    Old,
    /// With it.
    #[default]
    New,
}

/// How bad credentials are answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorShape {
    /// 400 with `message`, as documented.
    #[default]
    Documented,
    /// 401 with `statusCode`, `timestamp`, `path` and `message`, as seen.
    Seen,
}

/// How tokens are given.
#[derive(Clone, Debug)]
pub struct TokenRules {
    /// The accepted pair; none: any pair without an empty half.
    pub keys: Option<AccessKeys>,
    /// How long an access token lives.
    pub life: Duration,
    /// How long a refresh token lives.
    pub refresh_life: Duration,
    /// What an answer to keys holds.
    pub shape: TokenShape,
    /// How bad credentials are answered.
    pub error_shape: ErrorShape,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self {
            keys: None,
            life: Duration::from_secs(18_000),
            refresh_life: Duration::from_secs(432_000),
            shape: TokenShape::default(),
            error_shape: ErrorShape::default(),
        }
    }
}

/// What a token request asks with.
pub(super) enum Grant {
    /// Both keys.
    AccessKey { id: String, secret: String },
    /// A refresh token.
    RefreshToken(String),
    /// Neither, or not as strings.
    Malformed,
}

impl Grant {
    pub(super) fn read(body: &[u8]) -> Self {
        let Ok(Value::Object(mut fields)) = serde_json::from_slice(body) else { return Self::Malformed };
        match (fields.remove("refreshToken"), fields.remove("accessKeyId"), fields.remove("secretAccessKey")) {
            (Some(Value::String(token)), None, None) => Self::RefreshToken(token),
            (None, Some(Value::String(id)), Some(Value::String(secret))) => Self::AccessKey { id, secret },
            _ => Self::Malformed,
        }
    }
}

/// All tokens given so far, and the rules by which more are.
pub(super) struct Tokens {
    rules: TokenRules,
    given: Mutex<Given>,
}

struct Given {
    access: HashMap<Box<str>, Timestamp>,
    refresh: HashMap<Box<str>, Timestamp>,
    rng: fastrand::Rng,
}

impl Tokens {
    pub(super) fn new(rules: TokenRules, seed: u64) -> Self {
        let given = Given { access: HashMap::new(), refresh: HashMap::new(), rng: fastrand::Rng::with_seed(seed) };
        Self { rules, given: Mutex::new(given) }
    }

    /// Answers a token request; `refuse_keys` makes every pair of keys a bad one.
    pub(super) fn exchange(&self, grant: &Grant, refuse_keys: bool, now: Timestamp) -> Answer {
        let known = match grant {
            Grant::AccessKey { id, secret } => !refuse_keys && self.accepts(id, secret),
            Grant::RefreshToken(token) => is_alive(&self.given().refresh, token, now),
            Grant::Malformed => {
                let message = "either accessKeyId and secretAccessKey or refreshToken is required, as strings";
                return Answer::message(StatusCode::BAD_REQUEST, message);
            }
        };
        if !known {
            return self.bad_credentials(now);
        }
        let mut given = self.given();
        let access = given.issue(Kind::Access, now, self.rules.life);
        let mut answer = json!({ "accessToken": access, "expiresIn": self.rules.life.as_secs() });
        if matches!(grant, Grant::AccessKey { .. }) {
            answer["refreshToken"] = given.issue(Kind::Refresh, now, self.rules.refresh_life).into();
            if self.rules.shape == TokenShape::New {
                answer["refreshTokenExpiresIn"] = self.rules.refresh_life.as_secs().into();
            }
        }
        Answer::json(StatusCode::CREATED, &answer)
    }

    /// Whether an `Authorization` header lets a call through.
    pub(super) fn admits(&self, authorization: Option<&str>, now: Timestamp) -> bool {
        let bearer = authorization.and_then(|value| value.split_once(' '));
        let token = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
        token.is_some_and(|token| is_alive(&self.given().access, token, now))
    }

    /// Ends every token given so far.
    pub(super) fn revoke_all(&self) {
        let mut given = self.given();
        given.access.clear();
        given.refresh.clear();
    }

    fn accepts(&self, id: &str, secret: &str) -> bool {
        match &self.rules.keys {
            Some(keys) => keys.access_key_id.expose_secret() == id && keys.secret_access_key.expose_secret() == secret,
            None => !id.is_empty() && !secret.is_empty(),
        }
    }

    fn bad_credentials(&self, now: Timestamp) -> Answer {
        let message = "Invalid API Credentials";
        match self.rules.error_shape {
            ErrorShape::Documented => Answer::message(StatusCode::BAD_REQUEST, message),
            ErrorShape::Seen => {
                let body = json!({
                    "statusCode": 401,
                    "timestamp": now.to_string(),
                    "path": "/api/token",
                    "message": message,
                });
                Answer::json(StatusCode::UNAUTHORIZED, &body)
            }
        }
    }

    fn given(&self) -> MutexGuard<'_, Given> {
        self.given.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Access,
    Refresh,
}

impl Given {
    fn issue(&mut self, kind: Kind, now: Timestamp, life: Duration) -> String {
        let mut token = String::from(match kind {
            Kind::Access => "sim-access-",
            Kind::Refresh => "sim-refresh-",
        });
        push_base62(&mut token, self.rng.u64(..));
        push_base62(&mut token, self.rng.u64(..));
        let tokens = match kind {
            Kind::Access => &mut self.access,
            Kind::Refresh => &mut self.refresh,
        };
        if tokens.len() >= MAX_TOKENS {
            make_room(tokens, now);
        }
        tokens.insert(token.as_str().into(), now.plus(life));
        token
    }
}

fn make_room(tokens: &mut HashMap<Box<str>, Timestamp>, now: Timestamp) {
    tokens.retain(|_, ends| *ends > now);
    if tokens.len() >= MAX_TOKENS {
        let first = tokens.iter().min_by_key(|(_, ends)| **ends).map(|(token, _)| token.clone());
        first.and_then(|token| tokens.remove(&token));
    }
}

fn is_alive(tokens: &HashMap<Box<str>, Timestamp>, token: &str, now: Timestamp) -> bool {
    tokens.get(token).is_some_and(|ends| now < *ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn keys() -> Grant {
        Grant::read(br#"{"accessKeyId":"id","secretAccessKey":"secret"}"#)
    }

    #[test]
    fn tokens_stay_bounded_however_many_are_asked_for() {
        let tokens = Tokens::new(TokenRules::default(), 1);
        for _ in 0..MAX_TOKENS + 50 {
            assert_eq!(tokens.exchange(&keys(), false, NOW).status, StatusCode::CREATED);
        }
        let given = tokens.given();
        assert_eq!((given.access.len(), given.refresh.len()), (MAX_TOKENS, MAX_TOKENS));
    }

    #[test]
    fn a_request_with_both_grants_neither_or_other_types_is_malformed() {
        for body in ["", "[]", "{}", r#"{"accessKeyId":"a"}"#, r#"{"refreshToken":7}"#] {
            assert!(matches!(Grant::read(body.as_bytes()), Grant::Malformed), "{body}");
        }
        let both = br#"{"accessKeyId":"a","secretAccessKey":"b","refreshToken":"c"}"#;
        assert!(matches!(Grant::read(both), Grant::Malformed));
    }

    #[test]
    fn only_the_given_pair_is_accepted_if_one_is_given() {
        let keys = AccessKeys { access_key_id: "id".into(), secret_access_key: "secret".into() };
        let tokens = Tokens::new(TokenRules { keys: Some(keys), ..TokenRules::default() }, 1);
        assert!(tokens.accepts("id", "secret"));
        assert!(!tokens.accepts("id", "other") && !tokens.accepts("other", "secret"));
        let any = Tokens::new(TokenRules::default(), 1);
        assert!(any.accepts("x", "y") && !any.accepts("", "y") && !any.accepts("x", ""));
    }
}
