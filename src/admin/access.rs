//! Who may do what.

use std::io;
use std::path::{Path, PathBuf};

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, ORIGIN};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Settings;
use super::reply::Refusal;
use crate::http::{self, host::Host};

/// What a listener lets its clients do.
#[derive(Clone, Debug)]
pub enum Access {
    /// The control socket: its file mode decides who can reach it; whoever can may do everything.
    Everything,
    /// TCP: redacted reads, and the rest with a bearer token.
    Guarded {
        /// Where the token is; read at each use, so that it can be changed.
        token_file: Option<PathBuf>,
        /// Whether reads need the token too (a bind that is not loopback).
        reads_need_token: bool,
    },
}

/// What one request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// The page itself, which holds no data: its scripts ask for that.
    Page,
    /// A redacted read.
    Read,
    /// A change of state, or personal data.
    Power,
}

impl Access {
    /// Where a request came in, for the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Access::Everything => "socket",
            Access::Guarded { .. } => "tcp",
        }
    }

    /// Lets a request through or says why not.
    pub(super) fn check(&self, headers: &HeaderMap, asks: Asks) -> Result<(), Refusal> {
        let Access::Guarded { token_file, reads_need_token } = self else { return Ok(()) };
        check_origin(headers)?;
        if !*reads_need_token {
            check_loopback_host(headers)?;
        }
        if asks == Asks::Page || (asks == Asks::Read && !*reads_need_token) {
            return Ok(());
        }
        let Some(file) = token_file else {
            return Err(Refusal::new(
                StatusCode::FORBIDDEN,
                "this needs the control socket, or a token: set admin.token_file".to_owned(),
            ));
        };
        let expected = token_in(file)
            .map_err(|_| Refusal::new(StatusCode::FORBIDDEN, "admin.token_file cannot be read".to_owned()))?;
        if bearer_matches(headers, &expected) {
            return Ok(());
        }
        Err(Refusal::new(StatusCode::FORBIDDEN, "the bearer token of admin.token_file is needed".to_owned()))
    }
}

impl Access {
    /// A change by TCP says that it is JSON, which the forms of another site cannot.
    pub(super) fn check_is_json(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let Access::Guarded { .. } = self else { return Ok(()) };
        let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()?.split(';').next());
        if media_type.is_some_and(|given| given.trim().eq_ignore_ascii_case("application/json")) {
            return Ok(());
        }
        Err(Refusal::new(StatusCode::FORBIDDEN, "a change by TCP needs Content-Type: application/json".to_owned()))
    }
}

/// The token without the blanks around it, which no header can carry.
fn token_in(file: &Path) -> io::Result<Zeroizing<String>> {
    let text = Zeroizing::new(std::fs::read_to_string(file)?);
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// What is wrong with `admin.token_file`: it is read at each use, so that a start goes on without it.
#[must_use]
pub fn token_file_warning(settings: &Settings) -> Option<String> {
    let file = settings.token_file.as_ref()?;
    let why = match token_in(file) {
        Ok(token) if !token.is_empty() => return None,
        Ok(_) => "it is empty".to_owned(),
        Err(error) => error.to_string(),
    };
    let refused = "until it holds a token, all that needs one is refused on admin.listen";
    Some(format!("admin.token_file {}: {why}; {refused}", file.display()))
}

/// A page of another site must not act with the operator's browser.
fn check_origin(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let same = origin.to_str().is_ok_and(|origin| origin.split_once("://").is_some_and(|(_, site)| site == host));
    if same { Ok(()) } else { Err(Refusal::new(StatusCode::FORBIDDEN, "Origin is not this host".to_owned())) }
}

/// A rebound DNS name must not reach a loopback listener.
fn check_loopback_host(headers: &HeaderMap) -> Result<(), Refusal> {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).and_then(Host::parse);
    if host.is_some_and(|host| host.is_loopback()) {
        Ok(())
    } else {
        Err(Refusal::new(StatusCode::FORBIDDEN, "Host is not loopback".to_owned()))
    }
}

fn bearer_matches(headers: &HeaderMap, expected: &str) -> bool {
    !expected.is_empty()
        && http::bearer(headers).is_some_and(|given| given.as_bytes().ct_eq(expected.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::{AUTHORIZATION, HeaderValue};

    fn headers(pairs: &[(hyper::header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_str(value).expect("a header"))).collect()
    }

    fn open_reads(token_file: Option<PathBuf>) -> Access {
        Access::Guarded { token_file, reads_need_token: false }
    }

    #[test]
    fn a_token_is_taken_without_the_blanks_around_it_and_its_scheme_in_any_case() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), " s3cret \r\n").unwrap();
        let token = token_in(file.path()).unwrap();
        for (given, fits) in [
            ("Bearer s3cret", true),
            ("bearer  s3cret ", true),
            ("Basic s3cret", false),
            ("s3cret", false),
            ("Bearer s3cre", false),
        ] {
            assert_eq!(bearer_matches(&headers(&[(AUTHORIZATION, given)]), &token), fits, "{given}");
        }
        assert!(!bearer_matches(&headers(&[(AUTHORIZATION, "Bearer ")]), ""));
    }

    #[test]
    fn the_socket_may_do_everything() {
        assert!(Access::Everything.check(&HeaderMap::new(), Asks::Power).is_ok());
    }

    #[test]
    fn loopback_reads_are_open_and_changes_are_not() {
        let local = headers(&[(HOST, "127.0.0.1:8747")]);
        assert!(open_reads(None).check(&local, Asks::Read).is_ok());
        assert!(open_reads(None).check(&local, Asks::Power).is_err());
    }

    #[test]
    fn changes_need_the_very_token() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        std::fs::write(&file, "s3cret\n").expect("a file");
        let access = open_reads(Some(file));
        let with = |token: &str| headers(&[(HOST, "localhost"), (AUTHORIZATION, &format!("Bearer {token}"))]);
        assert!(access.check(&with("s3cret"), Asks::Power).is_ok());
        assert!(access.check(&with("s3cre"), Asks::Power).is_err());
        assert!(access.check(&with(""), Asks::Power).is_err());
    }

    #[test]
    fn the_page_is_open_where_reads_are_not() {
        let access = Access::Guarded { token_file: None, reads_need_token: true };
        let remote = headers(&[(HOST, "relay.internal:8747")]);
        assert!(access.check(&remote, Asks::Page).is_ok());
        assert!(access.check(&remote, Asks::Read).is_err());
        assert!(open_reads(None).check(&remote, Asks::Page).is_err(), "a rebound name");
    }

    #[test]
    fn a_foreign_origin_or_a_rebound_name_is_kept_out() {
        let foreign = headers(&[(HOST, "127.0.0.1:8747"), (ORIGIN, "https://evil.example")]);
        let own = headers(&[(HOST, "127.0.0.1:8747"), (ORIGIN, "http://127.0.0.1:8747")]);
        let rebound = headers(&[(HOST, "evil.example")]);
        assert!(open_reads(None).check(&foreign, Asks::Read).is_err());
        assert!(open_reads(None).check(&own, Asks::Read).is_ok());
        assert!(open_reads(None).check(&rebound, Asks::Read).is_err());
        for none in ["[::1]evil", "localhost:x.evil", "localhost:99999", "user@localhost", ""] {
            assert!(open_reads(None).check(&headers(&[(HOST, none)]), Asks::Read).is_err(), "{none}");
        }
    }
}
