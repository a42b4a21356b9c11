//! What only shows when values are compared: faults, and pairs that are legal but risky.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use crate::app::Settings;
use crate::cello::Auth;
use crate::forwarder::Ambiguous;
use crate::ingress;

/// The longest path a unix socket may have (`sun_path` less its final zero).
const MAX_SOCKET_PATH: usize = 107;
/// In less, dead letters are gone before the alert on those that wait for a decision.
const DAY: Duration = Duration::from_secs(86_400);
/// The most that the write-ahead log takes.
const WAL_BYTES: u64 = 4 << 20;

/// Adds a fault for every combination that cannot work or must not be.
pub(super) fn refuse(reader: &mut Reader, settings: &Settings) {
    remote(reader, settings);
    if let Err(reason) = ingress::check_hosts(&settings.ingest) {
        reader.object("ingest.allowed_hosts", reason);
    }
    clashes(reader, settings);
    socket_path(reader, settings);
    let (forward, outbox) = (&settings.forward, &settings.outbox);
    if reader.are_sound(&["forward.backoff_min", "forward.backoff_max"]) && forward.backoff_min > forward.backoff_max {
        reader.object("forward.backoff_min", "is longer than forward.backoff_max");
    }
    let room = outbox.reserve.saturating_add(WAL_BYTES);
    if reader.are_sound(&["outbox.max_bytes", "outbox.reserve"]) && outbox.max_bytes <= room {
        let key = if reader.is_given("outbox.max_bytes") { "outbox.max_bytes" } else { "outbox.reserve" };
        let reason = "outbox.max_bytes leaves no room for events beside outbox.reserve and a 4MiB write-ahead log";
        reader.object(key, reason);
    }
}

/// An address that others can reach needs a token, or an explicit word.
fn remote(reader: &mut Reader, settings: &Settings) {
    let (ingest, admin) = (&settings.ingest, &settings.admin);
    if let Some(address) = first_remote(&ingest.listen)
        && ingest.token_file.is_none()
        && !ingest.allow_unauthenticated_remote
    {
        let reason = format!(
            "{address} can be reached from other machines: set ingest.token_file, or \
             ingest.allow_unauthenticated_remote = true where the network keeps strangers out"
        );
        reader.object("ingest.listen", reason);
    }
    if let Some(address) = first_remote(&admin.listen)
        && admin.token_file.is_none()
    {
        let reason = format!("{address} can be reached from other machines: set admin.token_file");
        reader.object("admin.listen", reason);
    }
}

fn first_remote(addresses: &[SocketAddr]) -> Option<&SocketAddr> {
    addresses.iter().find(|address| !address.ip().to_canonical().is_loopback())
}

/// Two listeners cannot have one port, also when one of them takes every address.
fn clashes(reader: &mut Reader, settings: &Settings) {
    let listeners = [
        ("ingest.listen", &settings.ingest.listen),
        ("ops.listen", &settings.ops.listen),
        ("admin.listen", &settings.admin.listen),
    ];
    let overlap = |a: &SocketAddr, b: &SocketAddr| {
        let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
        a.port() != 0 && a.port() == b.port() && same_ip
    };
    for (place, (key, addresses)) in listeners.iter().enumerate() {
        for (other, taken) in &listeners[..place] {
            if addresses.iter().any(|address| taken.iter().any(|taken| overlap(address, taken))) {
                reader.object(key, format!("needs a port that {other} already takes"));
            }
        }
    }
}

fn socket_path(reader: &mut Reader, settings: &Settings) {
    let length = settings.admin.socket.as_os_str().len();
    if length > MAX_SOCKET_PATH {
        let reason = format!(
            "is {length} bytes long, and a unix socket's path has at most {MAX_SOCKET_PATH}: set admin.socket to a \
             shorter one"
        );
        reader.object("admin.socket", reason);
    }
}

/// What works but may surprise.
pub(super) fn warnings(reader: &Reader, settings: &Settings) -> Vec<String> {
    let mut warnings = Vec::new();
    let mut warn = |applies: bool, text: &str| {
        if applies {
            warnings.push(text.to_owned());
        }
    };
    let Settings { ingest, outbox, forward, cello, shutdown, .. } = settings;
    warn(
        ingest.allow_unauthenticated_remote && ingest.token_file.is_none() && first_remote(&ingest.listen).is_some(),
        "ingest.allow_unauthenticated_remote: whoever reaches ingest.listen can post events and read referral data",
    );
    warn(
        ingest.token_file.is_none() && ingest.allowed_hosts.is_empty() && first_remote(&ingest.listen).is_some(),
        "ingest.allowed_hosts is empty: who asks this machine by any name or address but loopback's gets 403",
    );
    warn(
        ingest.max_batch_bytes < ingest.max_body_bytes,
        "ingest.max_batch_bytes is smaller than ingest.max_body_bytes: an event that fits alone may not fit a batch",
    );
    warn(
        outbox.max_events > 0 && ingest.max_batch as u64 > outbox.max_events,
        "ingest.max_batch is more than outbox.max_events: batches that no outbox can hold are refused with 413",
    );
    warn(
        ingest.max_batch_bytes as u64 > outbox.max_bytes.saturating_sub(outbox.reserve.saturating_add(WAL_BYTES)),
        "ingest.max_batch_bytes is more than outbox.max_bytes leaves beside outbox.reserve and a 4MiB write-ahead log: \
         a batch may never fit",
    );
    warn(
        outbox.key_max_bytes > outbox.max_bytes / 2,
        "idempotency.max_bytes is more than half of outbox.max_bytes: keys may crowd out events",
    );
    warn(
        cello.connect_timeout >= cello.timeout,
        "forward.connect_timeout is not shorter than forward.timeout and never applies",
    );
    warn(
        forward.give_up_after < forward.backoff_max,
        "forward.give_up_after is shorter than forward.backoff_max: an event may be given up after few attempts",
    );
    warn(
        forward.ambiguous == Ambiguous::Dead,
        "forward.ambiguous = \"dead\": an event whose outcome is unknown waits for an operator instead of a retry",
    );
    warn(
        outbox.dead_max_age.is_some_and(|age| age < DAY),
        "outbox.dead_max_age is less than a day: dead letters are discarded before anybody may have seen them",
    );
    warn(
        settings.durability == "pod" && shutdown.deadline < Duration::from_secs(5),
        "outbox.durability = \"pod\" with a short shutdown.deadline: what is not delivered by then goes with the pod",
    );
    let spent = shutdown.linger + shutdown.deadline + shutdown.grace;
    warn(
        shutdown.pod_grace.is_some_and(|grace| spent >= grace),
        "shutdown.linger + deadline + grace reach shutdown.pod_grace: the pod may be killed before the summary",
    );
    warn(
        cello.environment == "production" && matches!(cello.auth, Auth::None),
        "cello.auth = \"none\" with Cello's production: every call will be refused",
    );
    warn(
        reader.text("cello.allow_plaintext") == "true" && cello.base_url.starts_with("http://"),
        "cello.allow_plaintext: credentials and events can be read on the way",
    );
    warnings.extend(unused(reader, &cello.auth));
    warnings
}

/// Credentials that are set and that `cello.auth` does not use.
fn unused(reader: &Reader, auth: &Auth) -> Vec<String> {
    let keys: &[&str] = match auth {
        Auth::Keys(_) => &["cello.bearer_token_file"],
        Auth::Bearer(_) => &["cello.credentials_dir", "cello.access_key_id_file", "cello.access_key_id"],
        Auth::None => {
            &["cello.credentials_dir", "cello.access_key_id_file", "cello.access_key_id", "cello.bearer_token_file"]
        }
    };
    let set = keys.iter().filter(|key| reader.optional_path(key).is_some_and(|path| path != PathBuf::new()));
    set.map(|key| format!("{key} is set but not used with this cello.auth")).collect()
}
