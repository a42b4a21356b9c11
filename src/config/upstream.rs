//! `cello.*`: where Cello is and how calls to it are authenticated. Nothing here is guessed.

use std::path::PathBuf;

use hyper::Uri;
use secrecy::SecretString;

use super::environment;
use super::reader::Reader;
use crate::cello::{Auth, KeySource, Settings};

/// Cello's environments and their base URLs.
const ENVIRONMENTS: [(&str, &str); 2] =
    [("sandbox", "https://api.sandbox.cello.so"), ("production", "https://api.cello.so")];
/// Where to get what is missing.
const WHERE_KEYS_ARE: &str = "keys are made in the Cello Portal under Access Keys, for each environment";

/// `cello.*`, and what of `forward.*` belongs to a single call.
pub(super) fn settings(reader: &mut Reader, environment: &[(String, String)]) -> Settings {
    let (environment_name, base_url) = base_url(reader);
    Settings {
        base_url,
        environment: environment_name,
        auth: auth(reader),
        ca_file: reader.optional_path("cello.ca_file"),
        connect_timeout: reader.time("forward.connect_timeout"),
        timeout: reader.time("forward.timeout"),
        pool_idle: reader.time("forward.pool_idle"),
        https_proxy: first_set(environment, ["https_proxy", "HTTPS_PROXY"]),
        no_proxy: first_set(environment, ["no_proxy", "NO_PROXY"]),
    }
}

fn first_set(environment: &[(String, String)], names: [&str; 2]) -> Option<String> {
    let value = |wanted: &str| environment.iter().find(|(name, value)| name == wanted && !value.is_empty());
    names.into_iter().find_map(value).map(|(_, value)| value.clone())
}

/// The environment's name (`sandbox`, `production` or `custom`) and the base URL.
pub(super) fn base_url(reader: &mut Reader) -> (String, String) {
    let name = reader.text("cello.environment").to_owned();
    let named = ENVIRONMENTS.iter().find(|(environment, _)| *environment == name);
    if named.is_none() && !name.is_empty() {
        reader.object("cello.environment", "must be \"sandbox\" or \"production\"");
    }
    let given = reader.text("cello.base_url").to_owned();
    let allow_plaintext = reader.switch("cello.allow_plaintext");
    match (named, given.is_empty()) {
        (Some((name, url)), true) => {
            reader.derive("cello.base_url", (*url).to_owned(), "from cello.environment");
            ((*name).to_owned(), (*url).to_owned())
        }
        (None, true) => {
            reader.object(
                "cello.environment",
                "is required: \"sandbox\", or \"production\" where rewards are real (or set cello.base_url)",
            );
            Default::default()
        }
        (named, false) => {
            let url = checked_url(reader, &given, allow_plaintext);
            if let Some((name, own)) = named
                && *own != url
            {
                let reason = format!("is not the base URL of cello.environment = {name:?} ({own}): set only one");
                reader.object("cello.base_url", reason);
            }
            let known = ENVIRONMENTS.iter().find(|(_, own)| *own == url).map_or("custom", |(name, _)| name);
            (known.to_owned(), url)
        }
    }
}

/// The URL without a trailing slash, or a fault.
fn checked_url(reader: &mut Reader, given: &str, allow_plaintext: bool) -> String {
    let key = "cello.base_url";
    let trimmed = given.trim_end_matches('/');
    let uri = trimmed.parse::<Uri>().ok().filter(|uri| uri.scheme().is_some() && uri.host().is_some());
    let Some(uri) = uri else {
        reader.object(key, "must be a URL like https://api.cello.so");
        return String::new();
    };
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    if authority.contains('@') {
        reader.object(key, "must not hold a user name or password");
    } else if uri.query().is_some() || given.contains('#') {
        reader.object(key, "must have no query and no fragment");
    } else if uri.scheme_str() == Some("http") {
        if !is_loopback(uri.host().unwrap_or_default()) && !allow_plaintext {
            let reason = "http:// would show credentials and events to the network: use https://, or set \
                          cello.allow_plaintext = true";
            reader.object(key, reason);
        }
    } else if uri.scheme_str() != Some("https") {
        reader.object(key, "must begin with https:// (or http:// to this machine)");
    }
    trimmed.to_owned()
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[derive(Clone, Copy, Default)]
enum Kind {
    #[default]
    Keys,
    Bearer,
    None,
}

fn auth(reader: &mut Reader) -> Auth {
    let kind = reader.choice("cello.auth", &[("keys", Kind::Keys), ("bearer", Kind::Bearer), ("none", Kind::None)]);
    if !reader.are_sound(&["cello.auth"]) {
        return Auth::None;
    }
    match kind {
        Kind::Keys => key_source(reader).map_or(Auth::None, Auth::Keys),
        Kind::None => Auth::None,
        Kind::Bearer => match reader.optional_path("cello.bearer_token_file") {
            Some(file) => Auth::Bearer(file),
            None => {
                reader.object("cello.bearer_token_file", "is required with cello.auth = \"bearer\"");
                Auth::None
            }
        },
    }
}

/// The one source of the access keys. What it holds is looked at later: keys may be missing, empty or
/// wrong for a while, and the relay takes events all the same.
fn key_source(reader: &mut Reader) -> Option<KeySource> {
    let directory = reader.optional_path("cello.credentials_dir").map(|dir| KeySource::Files {
        access_key_id: dir.join("access-key-id"),
        secret_access_key: dir.join("secret-access-key"),
    });
    let files = both(reader, "cello.access_key_id_file", "cello.secret_access_key_file", |reader, key| {
        reader.optional_path(key)
    })
    .map(|(id, secret): (PathBuf, PathBuf)| KeySource::Files { access_key_id: id, secret_access_key: secret });
    // An empty variable counts only if nothing else is there: it is how a missing secret often looks.
    let alone = directory.is_none() && files.is_none();
    let values = both(reader, "cello.access_key_id", "cello.secret_access_key", |reader, key| {
        let text = reader.text(key);
        (!text.is_empty() || (alone && reader.is_given(key))).then(|| SecretString::from(text))
    })
    .map(|(id, secret)| KeySource::Values { access_key_id: id, secret_access_key: secret });

    let mut sources: Vec<KeySource> = [directory, files, values].into_iter().flatten().collect();
    let (id, secret) = (environment::variable("cello.access_key_id"), environment::variable("cello.secret_access_key"));
    let ways = format!(
        "cello.credentials_dir, cello.access_key_id_file with cello.secret_access_key_file, or the variables {id} and \
         {secret}"
    );
    match sources.len() {
        1 => sources.pop(),
        0 => {
            // Half a pair is already reported, and is not nothing.
            if reader.are_sound(&HALVES) {
                let reason = format!("no access keys are configured: set one of {ways}; {WHERE_KEYS_ARE}");
                reader.object("cello.credentials_dir", reason);
            }
            None
        }
        _ => {
            let reason = format!("access keys come from more than one source: keep exactly one of {ways}");
            reader.object(if reader.optional_path(HALVES[0]).is_some() { HALVES[0] } else { HALVES[1] }, reason);
            None
        }
    }
}

/// The keys of which a pair is made.
const HALVES: [&str; 5] = [
    "cello.credentials_dir",
    "cello.access_key_id_file",
    "cello.secret_access_key_file",
    "cello.access_key_id",
    "cello.secret_access_key",
];

/// Both halves of a pair, or none; one without the other is a fault.
fn both<T>(reader: &mut Reader, id: &str, secret: &str, read: impl Fn(&Reader, &str) -> Option<T>) -> Option<(T, T)> {
    match (read(reader, id), read(reader, secret)) {
        (Some(id), Some(secret)) => Some((id, secret)),
        (None, None) => None,
        (Some(_), None) => {
            reader.object(secret, format!("is required with {id}"));
            None
        }
        (None, Some(_)) => {
            reader.object(id, format!("is required with {secret}"));
            None
        }
    }
}
