//! Who may ask at all: framing, Host, Origin, bearer token.

use hyper::StatusCode;
use hyper::Version;
use hyper::header::{CONNECTION, HOST, HeaderValue, ORIGIN, TRANSFER_ENCODING};
use hyper::http::request::Parts;
use tokio::time::Instant;

use super::answer::{self, Refusal};
use super::bearer::{self, Bearer};
use super::route::Route;
use super::{Settings, StartError};
use crate::http::{self, host::Host};
use crate::metrics::Rejection;

/// Refuses to listen where anybody could post.
///
/// # Errors
/// The sentence for the configuration report.
pub fn check_bind(settings: &Settings) -> Result<(), String> {
    let open = settings.listen.iter().find(|address| !address.ip().to_canonical().is_loopback());
    match open {
        Some(address) if settings.token_file.is_none() && !settings.allow_unauthenticated_remote => Err(format!(
            "ingest.listen {address} is not loopback: set ingest.token_file, \
             or ingest.allow_unauthenticated_remote = true to let anybody post"
        )),
        _ => Ok(()),
    }
}

/// Refuses what can be the host of no request.
///
/// # Errors
/// The sentence for the configuration report.
pub fn check_hosts(settings: &Settings) -> Result<(), String> {
    match settings.allowed_hosts.iter().find(|text| Host::configured(text).is_none()) {
        Some(text) => {
            Err(format!("\"{text}\" is no host: a name or an address, with :port if only that port is meant"))
        }
        None => Ok(()),
    }
}

/// Reads the token file, if there is one, as the start does.
///
/// # Errors
/// If it cannot be read or is empty.
pub fn check_token_file(settings: &Settings) -> Result<(), StartError> {
    let Some(path) = &settings.token_file else { return Ok(()) };
    let read = bearer::read(path).map_err(|why| StartError::Token { path: path.clone(), why });
    read.map(drop)
}

/// The rule at the door. With a token, every request must carry it; without, only loopback names are
/// answered, so that a web page or a rebound DNS name does not reach a developer's relay.
pub(super) struct Admission {
    bearer: Option<Bearer>,
    allowed_hosts: Vec<Host>,
}

impl Admission {
    pub(super) fn new(settings: &Settings, now: Instant) -> Result<Self, StartError> {
        let bearer = settings.token_file.clone().map(|path| Bearer::open(path, now)).transpose()?;
        let allowed_hosts = settings.allowed_hosts.iter().filter_map(|host| Host::configured(host)).collect();
        Ok(Self { bearer, allowed_hosts })
    }

    pub(super) fn bearer(&self) -> Option<&Bearer> {
        self.bearer.as_ref()
    }

    pub(super) fn check(&self, head: &Parts, route: Option<Route<'_>>, now: Instant) -> Result<(), Box<Refusal>> {
        check_framing(head)?;
        if head.headers.contains_key(ORIGIN) {
            let message = "requests of web pages (with an Origin) are refused, also from ingest.allowed_hosts";
            return Err(answer::refuse(StatusCode::FORBIDDEN, message).because(Rejection::Host, 1));
        }
        match &self.bearer {
            None => self.check_host(head),
            // `POST /token` is how a client that only knows keys gets the bearer.
            Some(_) if matches!(route, Some(Route::OpenApi | Route::Token)) => Ok(()),
            Some(bearer) if self::carries(head, bearer, now) => Ok(()),
            Some(_) => Err(answer::unauthorized("a bearer token is required (ingest.token_file)")),
        }
    }

    fn check_host(&self, head: &Parts) -> Result<(), Box<Refusal>> {
        let mut hosts = head.headers.get_all(HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            // Browsers always send one; HTTP/1.0 need not.
            (None, _) if head.version == Version::HTTP_10 => None,
            (Some(host), None) => Some(host.to_str().unwrap_or_default()),
            _ => return Err(answer::refuse(StatusCode::BAD_REQUEST, "exactly one Host header is required")),
        };
        let target = head.uri.authority().map(|authority| authority.as_str());
        if host.into_iter().chain(target).all(|host| self.is_allowed(host)) {
            return Ok(());
        }
        let message = "this Host is not allowed; name it in ingest.allowed_hosts if it is meant";
        Err(answer::refuse(StatusCode::FORBIDDEN, message).because(Rejection::Host, 1))
    }

    fn is_allowed(&self, host: &str) -> bool {
        let Some(host) = Host::parse(host) else { return false };
        host.is_loopback() || self.allowed_hosts.iter().any(|allowed| allowed.allows(&host))
    }
}

/// A body is framed in the one way that everybody on the way reads alike. hyper looks only at the last coding; a
/// proxy that looks at the first would see another request behind this one.
fn check_framing(head: &Parts) -> Result<(), Box<Refusal>> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let known = |coding: &HeaderValue| coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_none_or(known) && codings.next().is_none() {
        return Ok(());
    }
    let refusal = answer::refuse(StatusCode::BAD_REQUEST, "the Transfer-Encoding must be chunked, once, or none");
    Err(refusal.header(CONNECTION, HeaderValue::from_static("close")))
}

/// Whether the request has the right bearer token.
pub(super) fn carries(head: &Parts, bearer: &Bearer, now: Instant) -> bool {
    http::bearer(&head.headers).is_some_and(|token| bearer.is(token, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(allowed: &[&str]) -> Admission {
        Admission {
            bearer: None,
            allowed_hosts: allowed.iter().map(|host| Host::configured(host).expect("a host")).collect(),
        }
    }

    #[test]
    fn only_loopback_names_and_allowed_ones_are_hosts() {
        let admission = admission(&["relay", "Other:8745", "[fd00::1]", "relay_two", "fd00::2"]);
        for none in [
            "[::1]evil",
            "[::1]evil:1",
            "[::1",
            "[localhost]",
            "[127.0.0.1]",
            "localhost:x.evil",
            "localhost:1.evil",
            "localhost:1:2",
            "localhost:99999",
            "localhost:+1",
            "user@localhost",
            "localhost/",
            "local host",
            "relay:x",
        ] {
            assert!(!admission.is_allowed(none), "{none}");
        }
        for host in [
            "localhost",
            "LOCALHOST:8745",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:8745",
            "[::1]",
            "relay:99",
            "other:8745",
            "localhost:",
            "localhost.",
            "[0:0::1]",
            "[::ffff:127.0.0.1]:1",
            "[fd00::1]:8745",
            "relay_two",
            "[FD00::2]",
        ] {
            assert!(admission.is_allowed(host), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example", "10.0.0.1", "[::2]", "other:1", "0.0.0.0", "::1"] {
            assert!(!admission.is_allowed(host), "{host}");
        }
    }
}
