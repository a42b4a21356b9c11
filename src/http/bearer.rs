//! The token that a request carries.

use hyper::HeaderMap;
use hyper::header::AUTHORIZATION;

/// What stands behind `Bearer` (in any case), without the blanks around it.
pub(crate) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}
