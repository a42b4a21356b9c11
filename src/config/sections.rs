//! Each section of the configuration, read into the settings of the component that owns it.

use std::path::PathBuf;
use std::time::Duration;

use super::reader::Reader;
use super::upstream;
use crate::forwarder::Ambiguous;
use crate::ingress::Checks;
use crate::telemetry::{Format, Level};
use crate::{admin, app, cello, forwarder, ingress, ops, outbox, reads, telemetry};

/// More than any machine serves, and still no overflow.
const MANY: u64 = 1_000_000;

/// A loop that only waits moves every ten seconds; less than three of them would end healthy relays.
const SHORTEST_STALL: Duration = Duration::from_secs(30);

/// Everything a relay is built from.
pub(super) fn settings(reader: &mut Reader, environment: &[(String, String)]) -> app::Settings {
    let cello = upstream::settings(reader, environment);
    let (ingest, outbox) = (ingest(reader), outbox(reader, &cello));
    app::Settings {
        ingest: ingress::Settings { outbox_max_events: outbox.max_events, ..ingest },
        outbox,
        durability: durability(reader),
        forward: forward(reader),
        reads: reads(reader),
        cello,
        ops: ops(reader),
        admin: admin(reader),
        shutdown: shutdown(reader),
        log: log(reader, environment),
    }
}

fn ingest(reader: &mut Reader) -> ingress::Settings {
    let checks = [("warn", Checks::Warn), ("strict", Checks::Strict), ("off", Checks::Off)];
    ingress::Settings {
        listen: reader.some_addresses("ingest.listen"),
        max_body_bytes: reader.memory("ingest.max_body_bytes"),
        max_batch: reader.count("ingest.max_batch", 1, MANY),
        max_batch_bytes: reader.memory("ingest.max_batch_bytes"),
        outbox_max_events: 0,
        checks: reader.choice("ingest.checks", &checks),
        allowed_hosts: reader.list("ingest.allowed_hosts"),
        token_file: reader.optional_path("ingest.token_file"),
        allow_unauthenticated_remote: reader.switch("ingest.allow_unauthenticated_remote"),
        max_connections: reader.count("ingest.max_connections", 1, MANY),
        header_timeout: reader.time("ingest.header_timeout"),
        idle_timeout: reader.time("ingest.idle_timeout"),
    }
}

fn outbox(reader: &mut Reader, cello: &cello::Settings) -> outbox::sqlite::Settings {
    outbox::sqlite::Settings {
        dir: reader.path("outbox.dir"),
        max_bytes: reader.size("outbox.max_bytes"),
        max_events: reader.count("outbox.max_events", 0, i64::MAX as u64),
        min_free_bytes: reader.size("outbox.min_free_bytes"),
        reserve: reader.size("outbox.reserve"),
        remember: reader.duration("outbox.remember"),
        remember_max: reader.count("outbox.remember_max", 0, i64::MAX as u64),
        dead_max_age: reader.optional_time("outbox.dead_max_age"),
        key_remember: reader.duration("idempotency.remember"),
        key_max_bytes: reader.size("idempotency.max_bytes"),
        allow_network_fs: reader.switch("outbox.allow_network_fs"),
        upstream: cello.base_url.clone(),
        send_within: cello.delivery_takes_at_most(),
    }
}

fn durability(reader: &mut Reader) -> String {
    reader.choice("outbox.durability", &[("persistent", "persistent"), ("pod", "pod")]).to_owned()
}

fn forward(reader: &mut Reader) -> forwarder::Settings {
    forwarder::Settings {
        concurrency: reader.count("forward.concurrency", 1, 1_000),
        max_per_second: reader.count("forward.max_per_second", 0, MANY),
        backoff_min: reader.time("forward.backoff_min"),
        backoff_max: reader.time("forward.backoff_max"),
        max_strikes: reader.count("forward.max_strikes", 1, MANY),
        give_up_after: reader.duration("forward.give_up_after"),
        refusals_in_a_row: reader.count("forward.refusals_in_a_row", 1, MANY),
        ambiguous: reader.choice("forward.ambiguous", &[("retry", Ambiguous::Retry), ("dead", Ambiguous::Dead)]),
    }
}

fn reads(reader: &mut Reader) -> reads::Settings {
    reads::Settings {
        timeout: reader.time("reads.timeout"),
        concurrency: reader.count("reads.concurrency", 1, 1_000),
        active_link_ttl: reader.duration("reads.active_link_ttl"),
        referral_code_ttl: reader.duration("reads.referral_code_ttl"),
        reward_ttl: reader.duration("reads.reward_ttl"),
        active_link_stale_if_error: reader.duration("reads.active_link_stale_if_error"),
        referral_code_stale_if_error: reader.duration("reads.referral_code_stale_if_error"),
        cache_max_entries: reader.count("reads.cache_max_entries", 0, MANY),
        cache_max_bytes: reader.size("reads.cache_max_bytes"),
        allow_depersonalize: reader.switch("reads.allow_depersonalize"),
    }
}

fn ops(reader: &mut Reader) -> ops::Settings {
    let stall_after = reader.time_of("ops.stall_after", SHORTEST_STALL);
    ops::Settings { listen: reader.some_addresses("ops.listen"), stall_after }
}

fn admin(reader: &mut Reader) -> admin::Settings {
    admin::Settings {
        listen: reader.addresses("admin.listen"),
        socket: socket(reader),
        token_file: reader.optional_path("admin.token_file"),
        allow_quit: reader.switch("admin.allow_quit"),
    }
}

/// `admin.socket`, or `control.sock` in `outbox.dir`.
pub(super) fn socket(reader: &mut Reader) -> PathBuf {
    if let Some(socket) = reader.optional_path("admin.socket") {
        return socket;
    }
    let socket = PathBuf::from(reader.text("outbox.dir")).join("control.sock");
    reader.derive("admin.socket", socket.display().to_string(), "from outbox.dir");
    socket
}

/// `shutdown.*`
pub(super) fn shutdown(reader: &mut Reader) -> app::Shutdown {
    app::Shutdown {
        linger: reader.duration("shutdown.linger"),
        deadline: reader.duration("shutdown.deadline"),
        grace: reader.duration("shutdown.grace"),
        report_file: reader.optional_path("shutdown.report_file"),
        pod_grace: reader.optional_duration("shutdown.pod_grace"),
    }
}

fn log(reader: &mut Reader, environment: &[(String, String)]) -> telemetry::Settings {
    let formats = [("auto", Format::Auto), ("json", Format::Json), ("text", Format::Text)];
    telemetry::Settings {
        level: reader.choice("log.level", &Level::ALL.map(|level| (level.as_str(), level))),
        format: reader.choice("log.format", &formats),
        deliveries: reader.switch("log.deliveries"),
        color: !environment.iter().any(|(name, value)| name == "NO_COLOR" && !value.is_empty()),
    }
}
