//! The base URL: checked once, joined with every path.

use hyper::Uri;
use hyper::http::uri::{Authority, PathAndQuery, Scheme};

use super::BuildError;

/// Scheme, authority and path prefix that every call starts with.
#[derive(Clone, Debug)]
pub(super) struct Base {
    scheme: Scheme,
    authority: Authority,
    /// Without a trailing slash, so that a path can follow.
    prefix: Box<str>,
}

impl Base {
    /// Checks a base URL. The errors do not repeat it: it may hold a password.
    pub(super) fn parse(url: &str) -> Result<Self, BuildError> {
        let wrong = |why| Err(BuildError::BaseUrl { why });
        let Ok(parts) = url.parse::<Uri>().map(Uri::into_parts) else {
            return wrong("it is not a URL");
        };
        let Some(scheme) = parts.scheme.filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme)) else {
            return wrong("it must start with https:// or http://");
        };
        let Some(authority) = parts.authority.filter(|authority| !authority.host().is_empty()) else {
            return wrong("it has no host");
        };
        if authority.as_str().contains('@') {
            return wrong("it must not hold a user or password");
        }
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return wrong("it must not have a query");
        }
        Ok(Self { scheme, authority, prefix: path.path().trim_end_matches('/').into() })
    }

    /// The URL of a path; `None` if it is too long for one.
    pub(super) fn join(&self, path: &PathAndQuery) -> Option<Uri> {
        let path = match &*self.prefix {
            "" => path.clone(),
            prefix => PathAndQuery::try_from(format!("{prefix}{path}")).ok()?,
        };
        let uri = Uri::builder().scheme(self.scheme.clone()).authority(self.authority.clone());
        uri.path_and_query(path).build().ok()
    }

    pub(super) fn is_https(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// The host, an IPv6 address without its brackets.
    pub(super) fn host(&self) -> &str {
        self.authority.host().trim_start_matches('[').trim_end_matches(']')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(base: &str) -> String {
        Base::parse(base).unwrap().join(&PathAndQuery::from_static("/events")).unwrap().to_string()
    }

    #[test]
    fn a_trailing_slash_or_a_path_is_as_good_as_none() {
        assert_eq!(joined("https://api.cello.so"), "https://api.cello.so/events");
        assert_eq!(joined("https://api.cello.so/"), "https://api.cello.so/events");
        assert_eq!(joined("https://gw.example:8443/cello/v1/"), "https://gw.example:8443/cello/v1/events");
        assert_eq!(joined("http://[::1]:9000//"), "http://[::1]:9000/events");
    }

    #[test]
    fn what_is_no_base_url_is_refused_without_being_repeated() {
        for url in ["", "api.cello.so", "ftp://a", "https://", "https://u:pw@a", "https://a/?q=1", "https://a b"] {
            let error = Base::parse(url).unwrap_err().to_string();
            assert!(!error.contains("pw"), "{error}");
        }
    }

    #[test]
    fn the_host_of_an_ipv6_address_has_no_brackets() {
        assert_eq!(Base::parse("https://[::1]:1/").unwrap().host(), "::1");
    }
}
