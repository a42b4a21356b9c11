//! The operator's page: one file, served with a policy that lets it talk to nobody but this listener.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{
    CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use hyper::{Response, StatusCode};
use sha2::{Digest, Sha256};

use super::reply::{self, Body};

const PAGE: &str = include_str!("page.html");

/// Nothing runs but the page's own style and script, known by their hashes.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; connect-src 'self'; style-src '{}'; script-src '{}'; img-src data:; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(within("style")),
        hash(within("script"))
    );
    HeaderValue::try_from(policy).expect("plain ASCII")
});

/// The page; it holds no data and asks for all of it by the control API.
pub(super) fn answer() -> Response<Body> {
    let body = Full::from(Bytes::from_static(PAGE.as_bytes())).map_err(|never| match never {}).boxed_unsync();
    let mut answer = reply::with_type(StatusCode::OK, "text/html; charset=utf-8", body);
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, POLICY.clone());
    let fixed: [(HeaderName, &'static str); 3] =
        [(X_CONTENT_TYPE_OPTIONS, "nosniff"), (X_FRAME_OPTIONS, "DENY"), (REFERRER_POLICY, "no-referrer")];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}

/// The text of the page's only element of that name.
fn within(element: &str) -> &'static str {
    let inner =
        PAGE.split_once(&format!("<{element}>")).and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
    inner.map_or("", |(text, _)| text)
}

/// As a browser compares it with the policy.
fn hash(text: &str) -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small() {
        assert!(PAGE.len() < 48 * 1024, "{} bytes", PAGE.len());
    }

    #[test]
    fn style_and_script_are_inline_and_one_each() {
        for element in ["style", "script"] {
            assert!(!within(element).is_empty());
            assert_eq!(PAGE.matches(&format!("<{element}")).count(), 1, "<{element}>");
        }
    }

    #[test]
    fn nothing_in_the_page_needs_a_weaker_policy_or_makes_markup_of_data() {
        let banned = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"];
        for unsafe_way in banned.into_iter().chain([
            " style=\"",
            " onclick=\"",
            "http://",
            "https://",
            "//cdn",
            "localStorage",
            "sessionStorage",
            "document.cookie",
        ]) {
            let found = PAGE.replace("http://www.w3.org/2000/svg", "").contains(unsafe_way);
            assert!(!found, "{unsafe_way}");
        }
    }

    #[test]
    fn the_policy_allows_nothing_inline_but_by_hash() {
        let policy = POLICY.to_str().expect("ASCII");
        assert!(policy.starts_with("default-src 'none'; connect-src 'self'; style-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
