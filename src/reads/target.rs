//! What a read asks for: taken from the path, checked, and written anew.
//!
//! Nothing of the app's path goes upstream as it came. One segment is decoded once; what it holds is
//! encoded again, every byte that could mean something in a URL, into one of four fixed paths.

use hyper::StatusCode;
use hyper::http::uri::PathAndQuery;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::metrics::ReadRoute;

/// All but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Characters in an id or code; Cello's strings have 255.
const MAX_CHARS: usize = 255;

/// A read that is well-formed. The value may be personal data, so there is no `Debug`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Target {
    route: ReadRoute,
    value: Box<str>,
}

/// Why a path is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) status: StatusCode,
    pub(super) message: &'static str,
}

/// Finds the route and its segment, still encoded.
pub(super) fn route(path: &str) -> Option<(ReadRoute, &str)> {
    let segments: Vec<&str> = path.strip_prefix('/')?.splitn(4, '/').collect();
    let (route, segment) = match segments[..] {
        // Without an id it is no code either.
        ["referral-codes", "active-link"] => return None,
        ["referral-codes", code] => (ReadRoute::ReferralCode, code),
        ["referral-codes", "active-link", user] => (ReadRoute::ActiveLink, user),
        ["new-users", user, "reward"] => (ReadRoute::Reward, user),
        ["referrers", user, "depersonalize"] => (ReadRoute::Depersonalize, user),
        _ => return None,
    };
    (!segment.is_empty()).then_some((route, segment))
}

impl Target {
    /// Decodes a segment and checks it.
    pub(super) fn check(route: ReadRoute, segment: &str) -> Result<Self, Wrong> {
        let wrong = |message| Err(Wrong { status: StatusCode::BAD_REQUEST, message });
        if !is_well_encoded(segment) {
            return wrong("the path is not validly percent-encoded");
        }
        let Ok(value) = percent_decode_str(segment).decode_utf8() else {
            return wrong("the path is not UTF-8");
        };
        if !(1..=MAX_CHARS).contains(&value.chars().count()) {
            return wrong("an id or code has 1 to 255 characters");
        }
        if value.chars().any(char::is_control) {
            return wrong("an id or code has no control characters");
        }
        // A server on the way that decodes more often than it should must not be led elsewhere.
        let again = percent_decode_str(&value).decode_utf8_lossy();
        for decoded in [&*value, &*again] {
            if parts(decoded).any(|part| part == "." || part == "..") {
                return wrong("an id or code has no . or .. in it");
            }
            // Nor by one to which large and small letters are the same.
            let leads_elsewhere = parts(decoded).next().is_some_and(|part| part.eq_ignore_ascii_case("active-link"));
            if route == ReadRoute::ReferralCode && leads_elsewhere {
                return Err(Wrong { status: StatusCode::NOT_FOUND, message: "no such path" });
            }
        }
        Ok(Self { route, value: value.into() })
    }

    pub(super) fn route(&self) -> ReadRoute {
        self.route
    }

    /// The code, or the user's id; decoded.
    pub(super) fn value(&self) -> &str {
        &self.value
    }

    /// The path to ask Cello for.
    pub(super) fn path(&self) -> PathAndQuery {
        let value = utf8_percent_encode(&self.value, ENCODED);
        let path = match self.route {
            ReadRoute::ReferralCode => format!("/referral-codes/{value}"),
            ReadRoute::ActiveLink => format!("/referral-codes/active-link/{value}"),
            ReadRoute::Reward => format!("/new-users/{value}/reward"),
            ReadRoute::Depersonalize => format!("/referrers/{value}/depersonalize"),
        };
        path.try_into().expect("unreserved characters and escapes make a path, and 255 characters no long one")
    }
}

/// What a server might take for segments.
fn parts(decoded: &str) -> impl Iterator<Item = &str> {
    decoded.split(['/', '\\'])
}

/// Whether every `%` is followed by two hex digits.
fn is_well_encoded(segment: &str) -> bool {
    let escapes = segment.split('%').skip(1);
    escapes
        .map(|rest| rest.as_bytes().get(..2))
        .all(|digits| digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(path: &str) -> Result<String, u16> {
        let (route, segment) = route(path).ok_or(404_u16)?;
        Target::check(route, segment).map(|target| target.path().to_string()).map_err(|wrong| wrong.status.as_u16())
    }

    #[test]
    fn a_segment_is_decoded_once_and_encoded_anew() {
        for (asked, sent) in [
            ("/referral-codes/UIPIWa2Hnnr", "/referral-codes/UIPIWa2Hnnr"),
            ("/referral-codes/%55IP", "/referral-codes/UIP"),
            ("/referral-codes/active-link/a@b.c", "/referral-codes/active-link/a%40b.c"),
            ("/referral-codes/active-link/auth0%7C7+8", "/referral-codes/active-link/auth0%7C7%2B8"),
            ("/new-users/a%2Fb/reward", "/new-users/a%2Fb/reward"),
            ("/new-users/a%252Fb/reward", "/new-users/a%252Fb/reward"),
            ("/new-users/a%23b%3Fc;d/reward", "/new-users/a%23b%3Fc%3Bd/reward"),
            ("/new-users/J%C3%BCrgen/reward", "/new-users/J%C3%BCrgen/reward"),
            ("/referrers/.../depersonalize", "/referrers/.../depersonalize"),
        ] {
            assert_eq!(upstream(asked).as_deref(), Ok(sent));
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        for path in [
            "/new-users/./reward",
            "/new-users/../reward",
            "/new-users/%2e%2E/reward",
            "/new-users/%252e%252e/reward",
            "/new-users/..%2f..%2ftoken/reward",
            "/new-users/..%5c..%5ctoken/reward",
            "/new-users/a%2f..%2f..%2fevents%23/reward",
            "/new-users/a%252f..%252fb/reward",
            "/new-users/%/reward",
            "/new-users/%4/reward",
            "/new-users/%zz/reward",
            "/new-users/%+1/reward",
            "/new-users/%ff/reward",
            "/new-users/a%0d%0aHost:x/reward",
            "/new-users/a%00/reward",
            "/new-users/%C2%85/reward",
        ] {
            assert_eq!(upstream(path), Err(400), "{path}");
        }
    }

    #[test]
    fn an_active_link_without_an_id_is_no_code_however_it_is_written() {
        for path in [
            "active-link",
            "active-link/",
            "active%2Dlink",
            "active-link%2F7",
            "active-link%5c7",
            "active-link%252F7",
            "Active-Link",
            "active%2DlinK",
        ] {
            assert_eq!(upstream(&format!("/referral-codes/{path}")), Err(404), "{path}");
        }
        assert!(upstream("/referral-codes/active-links").is_ok());
    }

    #[test]
    fn only_the_four_paths_exist() {
        for path in [
            "",
            "/",
            "/token",
            "/events",
            "/referral-codes/",
            "/referral-codes/a/b",
            "/new-users//reward",
            "/new-users/7/reward/",
            "/referrers/7",
            "/referral-codes/active-link/7/8",
            "//new-users/7/reward",
        ] {
            assert_eq!(upstream(path), Err(404), "{path}");
        }
    }

    #[test]
    fn a_value_has_1_to_255_characters_of_any_script() {
        assert!(upstream(&format!("/referral-codes/{}", "%F0%9F%8E%81".repeat(255))).is_ok());
        assert_eq!(upstream(&format!("/referral-codes/{}", "c".repeat(256))), Err(400));
    }
}
