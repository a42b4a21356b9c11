//! The routes beside `/token` and `/events`, in the shapes of Cello's schemas.
//!
//! Nothing is stored: what is asked for decides the answer. Codes that begin with `unknown` or `blocked`
//! are that; users that begin with `unknown` have no reward and are no referrers.

use hyper::{Method, StatusCode};
use serde_json::json;

use super::answer::{Answer, push_base62, scatter};

/// A request that needs no body; segments are decoded.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// `GET /referral-codes/{code}`
    ReferralCode(String),
    /// `GET /referral-codes/active-link/{productUserId}`
    ActiveLink(String),
    /// `GET /new-users/{productUserId}/reward`
    Reward(String),
    /// `POST /referrers/{productUserId}/depersonalize`
    Depersonalize(String),
}

impl Read {
    /// Finds the route, if it is one of these.
    pub(super) fn route(method: &Method, path: &str) -> Option<Self> {
        let segments: Vec<_> = path.strip_prefix('/')?.split('/').collect();
        if segments.contains(&"") {
            return None;
        }
        match (method.as_str(), segments.as_slice()) {
            ("GET", ["referral-codes", code]) => Some(Self::ReferralCode(decode(code))),
            ("GET", ["referral-codes", "active-link", user]) => Some(Self::ActiveLink(decode(user))),
            ("GET", ["new-users", user, "reward"]) => Some(Self::Reward(decode(user))),
            ("POST", ["referrers", user, "depersonalize"]) => Some(Self::Depersonalize(decode(user))),
            _ => None,
        }
    }

    /// The user it is about.
    pub(super) fn user(&self) -> Option<&str> {
        match self {
            Self::ReferralCode(_) => None,
            Self::ActiveLink(user) | Self::Reward(user) | Self::Depersonalize(user) => Some(user),
        }
    }

    /// What Cello says to someone with a token.
    pub(super) fn answer(&self) -> Answer {
        match self {
            Self::ReferralCode(code) => referral_code(code),
            Self::ActiveLink(user) => {
                let ucc = code_of(user);
                Answer::json(StatusCode::OK, &json!({ "activeUcc": ucc, "link": format!("moonly.cello.so/{ucc}") }))
            }
            Self::Reward(user) if user.starts_with("unknown") => {
                Answer::json(StatusCode::OK, &json!({ "eligible": false, "reward": null }))
            }
            Self::Reward(user) => reward(user),
            Self::Depersonalize(user) if user.starts_with("unknown") => {
                Answer::message(StatusCode::NOT_FOUND, "Referrer not found")
            }
            Self::Depersonalize(_) => Answer::empty(StatusCode::NO_CONTENT),
        }
    }
}

fn referral_code(code: &str) -> Answer {
    let (user, valid, campaign) = match code {
        _ if code.starts_with("unknown") => ("", false, ""),
        _ if code.starts_with("blocked") => ("12345678", false, ""),
        _ => ("12345678", true, "campaign_partners_1"),
    };
    let body = json!({ "code": code, "productUserId": user, "valid": valid, "campaignId": campaign });
    Answer::json(StatusCode::OK, &body)
}

fn reward(user: &str) -> Answer {
    let body = json!({
        "eligible": true,
        "reward": { "type": "standard", "interval": "month", "intervalCount": 3, "percentage": 20 },
        "signupId": format!("signup_{}", code_of(user)),
        "signupAt": "2024-01-15T10:30:00Z",
        "referralUcc": "ucc_xyz789",
        "campaignId": "campaign_id_123",
        "campaignRevision": "v2",
    });
    Answer::json(StatusCode::OK, &body)
}

/// A code like Cello's, always the same for the same user.
fn code_of(user: &str) -> String {
    let number = user.bytes().fold(0, |number, byte| scatter(number ^ u64::from(byte)));
    let mut code = String::new();
    push_base62(&mut code, number);
    code
}

/// Undoes percent-encoding; what is not validly encoded stays as it is.
pub(super) fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let digits = tail.get(..2).filter(|_| first == b'%').and_then(|digits| str::from_utf8(digits).ok());
        let is_hex = |digits: &&str| digits.bytes().all(|digit| digit.is_ascii_hexdigit());
        match digits.filter(is_hex).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_routes_with_decoded_segments() {
        let get = |path| Read::route(&Method::GET, path);
        assert_eq!(get("/referral-codes/a%2Fb"), Some(Read::ReferralCode("a/b".into())));
        assert_eq!(get("/referral-codes/active-link/u%201"), Some(Read::ActiveLink("u 1".into())));
        assert_eq!(get("/new-users/u/reward"), Some(Read::Reward("u".into())));
        for path in ["/", "/referral-codes/", "/new-users//reward", "/referrers/u/depersonalize", "/x/y"] {
            assert_eq!(get(path), None, "{path}");
        }
        assert!(Read::route(&Method::POST, "/referrers/u/depersonalize").is_some());
    }

    #[test]
    fn bad_percent_encoding_stays_as_it_is() {
        assert_eq!(decode("%41%4"), "A%4");
        assert_eq!(decode("%+1%zz%"), "%+1%zz%");
        assert_eq!(decode("%C3%A9é"), "éé");
    }

    #[test]
    fn different_users_have_different_links() {
        assert_eq!(code_of("a"), code_of("a"));
        assert_ne!(code_of("a"), code_of("b"));
        assert_ne!(code_of("ab"), code_of("ba"));
    }
}
