//! What a configuration promises to the person who writes it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use cello_relay::cello::{Auth, KeySource};
use cello_relay::config::{self, Faults, Loaded, Sources};
use cello_relay::forwarder::Ambiguous;
use cello_relay::telemetry::{Format, Level};

const SECRET: &str = "canary-secret-4711";

/// Settings of the environment over the defaults; `pairs` are `section.key` or whole variable names.
fn environment(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let name = |key: &str| match key.contains('.') {
        true => format!("CELLO_RELAY_{}", key.replace('.', "__").to_uppercase()),
        false => key.to_owned(),
    };
    pairs.iter().map(|(key, value)| (name(key), (*value).to_owned())).collect()
}

/// A configuration that holds, with these on top.
fn load(pairs: &[(&str, &str)]) -> Result<Loaded, Faults> {
    let least = [("cello.environment", "sandbox"), ("cello.credentials_dir", "/keys")];
    let mut environment = environment(&least);
    environment.extend(self::environment(pairs));
    config::load(&Sources { environment, ..Sources::default() })
}

fn only(pairs: &[(&str, &str)]) -> Result<Loaded, Faults> {
    config::load(&Sources { environment: environment(pairs), ..Sources::default() })
}

fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("relay.toml");
    std::fs::write(&path, text).expect("a file");
    (dir, path)
}

fn load_file(text: &str) -> Result<Loaded, Faults> {
    let (_dir, path) = file(text);
    config::load(&Sources { files: vec![path], ..Sources::default() })
}

fn report(result: Result<Loaded, Faults>) -> String {
    result.expect_err("faults").to_string()
}

#[test]
fn the_defaults_are_those_of_the_reference() {
    let settings = load(&[]).unwrap().settings;
    assert_eq!(settings.ingest.listen, ["127.0.0.1:8745".parse().unwrap(), "[::1]:8745".parse().unwrap()]);
    assert_eq!((settings.ingest.max_body_bytes, settings.ingest.max_batch), (256 << 10, 1_000));
    assert_eq!((settings.ingest.max_batch_bytes, settings.ingest.max_connections), (4 << 20, 10_000));
    assert_eq!(settings.ingest.idle_timeout, Duration::from_secs(120));
    assert_eq!(settings.outbox.dir, Path::new("./data"));
    assert_eq!((settings.outbox.max_bytes, settings.outbox.max_events), (1 << 30, 0));
    assert_eq!((settings.outbox.min_free_bytes, settings.outbox.reserve), (64 << 20, 8 << 20));
    assert_eq!((settings.outbox.remember, settings.outbox.remember_max), (Duration::from_secs(3_600), 100_000));
    assert_eq!(settings.outbox.key_remember, Duration::from_secs(86_400));
    assert_eq!(settings.outbox.upstream, "https://api.sandbox.cello.so");
    assert_eq!((settings.forward.concurrency, settings.forward.max_strikes), (8, 20));
    assert_eq!(settings.forward.ambiguous, Ambiguous::Retry);
    assert_eq!((settings.cello.timeout, settings.cello.pool_idle), (Duration::from_secs(15), Duration::from_secs(20)));
    let reads = &settings.reads;
    assert_eq!((reads.timeout, reads.concurrency), (Duration::from_secs(3), 16));
    assert_eq!((reads.active_link_ttl, reads.referral_code_ttl), (Duration::from_secs(60), Duration::from_secs(5)));
    assert_eq!((reads.reward_ttl, reads.referral_code_stale_if_error), (Duration::ZERO, Duration::ZERO));
    assert_eq!(reads.active_link_stale_if_error, Duration::from_secs(3_600));
    assert_eq!((reads.cache_max_entries, reads.cache_max_bytes, reads.allow_depersonalize), (10_000, 8 << 20, false));
    assert_eq!(settings.admin.socket, Path::new("./data/control.sock"));
    assert_eq!((settings.shutdown.deadline, settings.shutdown.pod_grace), (Duration::from_secs(20), None));
    assert_eq!((settings.log.level, settings.log.format, settings.log.color), (Level::Info, Format::Auto, true));
}

#[test]
fn every_kind_of_wrong_value_is_a_fault_of_its_key() {
    for (key, value) in [
        ("ingest.listen", "localhost:8745"),
        ("ingest.listen", ""),
        ("ingest.listen", "127.0.0.1:1,127.0.0.1:1"),
        ("ingest.max_body_bytes", "262144"),
        ("ingest.max_body_bytes", "0B"),
        ("ingest.max_batch", "many"),
        ("ingest.max_batch", "0"),
        ("ingest.max_batch", "-1"),
        ("ingest.allowed_hosts", "relay,http://relay"),
        ("ingest.allowed_hosts", "*.relay"),
        ("ingest.allowed_hosts", "[::1]relay"),
        ("ingest.allowed_hosts", "relay:x"),
        ("ingest.checks", "on"),
        ("ingest.allow_unauthenticated_remote", "yes"),
        ("ingest.idle_timeout", "120"),
        ("ingest.header_timeout", "0s"),
        ("outbox.dir", ""),
        ("outbox.durability", "ram"),
        ("outbox.max_bytes", "8MiB"),
        ("outbox.reserve", "2GiB"),
        ("outbox.max_events", "many"),
        ("outbox.dead_max_age", "0s"),
        ("forward.concurrency", "1001"),
        ("reads.timeout", "0s"),
        ("reads.concurrency", "0"),
        ("reads.allow_depersonalize", "yes"),
        ("forward.ambiguous", "maybe"),
        ("forward.backoff_min", "10m"),
        ("cello.environment", "prod"),
        ("cello.auth", "basic"),
        ("cello.allow_plaintext", "1"),
        ("ops.listen", "8746"),
        ("ops.listen", "127.0.0.1:8745"),
        ("ops.stall_after", "1.5m"),
        ("ops.stall_after", "29s"),
        ("admin.listen", "[::]:8745"),
        ("shutdown.pod_grace", "30"),
        ("log.level", "verbose"),
        ("log.format", "xml"),
        ("log.deliveries", "sometimes"),
    ] {
        let faults = load(&[(key, value)]).expect_err(&format!("{key} = {value:?}"));
        let keys: Vec<&str> = faults.0.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, [key], "{key} = {value:?}: {faults}");
    }
}

#[test]
fn all_faults_are_in_one_report_with_value_origin_and_reason() {
    let (_dir, path) = file("[ingest]\nmax_batch = \"lots\"\nlisen = \"x\"\n[forward]\ntimeout = 15\n");
    let origin = path.display().to_string();
    let environment = environment(&[("outbox.max_bytes", "1GB"), ("CELLO_RELAY_LOG_LEVEL", "debug")]);
    let flags = vec![("log.format".to_owned(), "yaml".to_owned())];
    let report = report(config::load(&Sources { files: vec![path], environment, flags }));
    for expected in [
        "the configuration has 8 faults:",
        &format!("ingest.max_batch = \"lots\" ({origin})\n    must be a whole number"),
        &format!("ingest.lisen ({origin})\n    unknown key; did you mean ingest.listen?"),
        &format!("forward.timeout = \"15\" ({origin})\n    has no unit: write 15s"),
        "outbox.max_bytes = \"1GB\" (CELLO_RELAY_OUTBOX__MAX_BYTES)\n    has an unknown unit: write 1GiB",
        "CELLO_RELAY_LOG_LEVEL\n    section and key are separated by two underscores: write CELLO_RELAY_LOG__LEVEL",
        "log.format = \"yaml\" (--set)\n    must be \"auto\", \"json\" or \"text\"",
        "cello.environment = \"\" (default)\n    is required",
        "cello.credentials_dir = \"\" (default)\n    no access keys are configured",
    ] {
        assert!(report.contains(expected), "{expected}\n---\n{report}");
    }
}

#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest_in_every_layer() {
    let unknown = |result| report(result);
    assert!(unknown(load(&[("ingest.max_bach", "1")])).contains("did you mean CELLO_RELAY_INGEST__MAX_BATCH?"));
    assert!(unknown(load(&[("forwarder.concurrency", "1")])).contains("CELLO_RELAY_FORWARD__CONCURRENCY?"));
    assert!(unknown(load_file("[outbox]\nmax_byte = \"1GiB\"")).contains("did you mean outbox.max_bytes?"));
    let flags = vec![("log.leve".to_owned(), "info".to_owned())];
    assert!(unknown(config::load(&Sources { flags, ..Sources::default() })).contains("did you mean log.level?"));
}

#[test]
fn service_link_variables_of_kubernetes_are_harmless() {
    let links = [
        ("CELLO_RELAY_SERVICE_HOST", "10.0.0.1"),
        ("CELLO_RELAY_SERVICE_PORT_OPS", "8746"),
        ("CELLO_RELAY_PORT", "tcp://10.0.0.1:8745"),
        ("CELLO_RELAY_PORT_8745_TCP_ADDR", "10.0.0.1"),
        ("CELLO_RELAY_GATEWAY_PORT_8745_TCP", "tcp://10.0.0.1:8745"),
        ("CELLO_RELAY_OPS_SERVICE_PORT", "8746"),
        ("CELLO_RELAY_OPS_PORT", "tcp://10.0.0.1:8746"),
    ];
    let loaded = load(&links).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn a_stray_variable_with_our_prefix_is_a_warning_without_its_value() {
    let loaded = load(&[("CELLO_RELAY_DEBUG", SECRET)]).unwrap();
    assert_eq!(loaded.warnings, ["CELLO_RELAY_DEBUG: is no setting and is ignored"]);
}

#[test]
fn later_layers_win_and_the_effective_configuration_names_them() {
    let (_a, first) =
        file("[ingest]\nmax_batch = 1\nmax_connections = 1\nchecks = \"strict\"\n[cello]\nauth = \"none\"");
    let (_b, second) = file("[ingest]\nmax_batch = 2\nmax_connections = 2\n[cello]\nenvironment = \"sandbox\"");
    let mut environment = environment(&[("ingest.max_batch", "3")]);
    environment.push(("CELLO_RELAY_CONFIG".to_owned(), format!("{},{}", first.display(), second.display())));
    let flags = vec![("log.level".to_owned(), "debug".to_owned())];
    let loaded = config::load(&Sources { files: vec![], environment, flags }).unwrap();
    let origin = |key: &str| {
        let entry = loaded.effective.iter().find(|entry| entry.key == key).unwrap();
        (entry.value.as_str(), entry.origin.clone())
    };
    assert_eq!(origin("ingest.max_batch"), ("3", "CELLO_RELAY_INGEST__MAX_BATCH".to_owned()));
    assert_eq!(origin("ingest.max_connections"), ("2", second.display().to_string()));
    assert_eq!(origin("ingest.checks"), ("strict", first.display().to_string()));
    assert_eq!(origin("log.level"), ("debug", "--set".to_owned()));
    assert_eq!(origin("log.format"), ("auto", "default".to_owned()));
    assert_eq!(origin("cello.base_url"), ("https://api.sandbox.cello.so", "from cello.environment".to_owned()));
}

#[test]
fn lists_may_be_arrays_or_comma_separated() {
    let of = |listen: &str| {
        let text = format!("[cello]\nenvironment = \"sandbox\"\ncredentials_dir = \"/k\"\n[ingest]\nlisten = {listen}");
        load_file(&text).unwrap().settings.ingest.listen
    };
    assert_eq!(of("\"127.0.0.1:1, [::1]:2\""), of("[\"127.0.0.1:1\", \"[::1]:2\"]"));
}

#[test]
fn a_key_id_keeps_its_zeros_and_secrets_come_from_the_environment() {
    let keys =
        [("cello.environment", "production"), ("cello.access_key_id", "0123"), ("cello.secret_access_key", SECRET)];
    let loaded = only(&keys).unwrap();
    let Auth::Keys(KeySource::Values { access_key_id, .. }) = &loaded.settings.cello.auth else {
        panic!("{:?}", loaded.settings.cello.auth)
    };
    assert_eq!(secrecy::ExposeSecret::expose_secret(access_key_id), "0123");
}

#[test]
fn secrets_are_in_no_report_no_debug_output_and_not_in_the_effective_configuration() {
    let keys =
        [("cello.environment", "production"), ("cello.access_key_id", SECRET), ("cello.secret_access_key", SECRET)];
    let loaded = only(&keys).unwrap();
    let shown = format!("{loaded:?} {:?} {:?}", loaded.settings, loaded.effective);
    assert!(!shown.contains(SECRET) && shown.contains("[redacted]"));

    let half = [("cello.environment", "production"), ("cello.secret_access_key", SECRET)];
    let misspelled = [("cello.secret_acces_key", SECRET), ("CELLO_RELAY_CELLO_SECRET_ACCESS_KEY", SECRET)];
    let in_url = [("cello.base_url", "https://user:canary-secret-4711@api.cello.so")];
    let reports = [
        report(only(&half)),
        report(only(&misspelled)),
        report(load(&in_url)),
        report(load_file(&format!("[cello]\nsecret_access_key = \"{SECRET}\""))),
        report(load_file(&format!("[cello]\nsecret_access_key = \"{SECRET}"))),
        report(config::load(&Sources {
            flags: vec![("cello.secret_access_key".to_owned(), SECRET.to_owned())],
            ..Sources::default()
        })),
    ];
    for report in reports {
        assert!(!report.contains(SECRET), "{report}");
    }
    let sources = Sources { environment: environment(&keys), ..Sources::default() };
    assert!(!format!("{sources:?}").contains(SECRET));
}

#[test]
fn a_secret_in_a_file_is_refused() {
    let report = report(load_file("[cello]\naccess_key_id = \"0123\""));
    assert!(report.contains("cello.access_key_id = \"[redacted]\""), "{report}");
    assert!(report.contains("CELLO_RELAY_CELLO__ACCESS_KEY_ID"), "{report}");
}

#[test]
fn which_cello_is_meant_is_never_guessed() {
    let keys = ("cello.credentials_dir", "/keys");
    assert!(report(only(&[keys])).contains("cello.environment"));
    let url = |url: &str| only(&[keys, ("cello.base_url", url)]).map(|loaded| loaded.settings.cello);
    assert_eq!(url("https://api.cello.so/").unwrap().environment, "production");
    assert_eq!(url("https://relay.internal/v1/").unwrap().base_url, "https://relay.internal/v1");
    assert_eq!(url("http://[::1]:9000").unwrap().environment, "custom");
    for wrong in
        ["api.cello.so", "ftp://api.cello.so", "https://", "https://a/?b=c", "http://api.cello.so", "https://u:p@a"]
    {
        assert!(url(wrong).is_err(), "{wrong}");
    }
    assert!(load(&[("cello.base_url", "https://api.sandbox.cello.so/")]).is_ok(), "both may agree");
    assert!(report(load(&[("cello.base_url", "https://api.cello.so")])).contains("set only one"));
    let plain = [("cello.environment", ""), ("cello.base_url", "http://cello"), ("cello.allow_plaintext", "true")];
    assert!(load(&plain).unwrap().warnings.iter().any(|warning| warning.contains("allow_plaintext")));
}

#[test]
fn access_keys_have_exactly_one_source() {
    let files = [("cello.access_key_id_file", "/id"), ("cello.secret_access_key_file", "/secret")];
    assert!(report(load(&files)).contains("more than one source"), "a directory and files");
    let with = |pairs: &[(&str, &str)]| only(&[&[("cello.environment", "sandbox")], pairs].concat());
    assert!(matches!(with(&files).unwrap().settings.cello.auth, Auth::Keys(KeySource::Files { .. })));
    assert!(report(with(&files[..1])).contains("is required with cello.access_key_id_file"));
    assert!(report(with(&[])).contains("no access keys are configured"));
    assert!(with(&[("cello.auth", "none")]).is_ok());
    assert!(report(with(&[("cello.auth", "bearer")])).contains("cello.bearer_token_file"));
    let empty = [("cello.access_key_id", ""), ("cello.secret_access_key", "")];
    assert!(with(&empty).is_ok(), "configured but empty: the relay starts and waits");
    assert!(load(&empty).is_ok(), "empty variables are no second source");
}

#[test]
fn the_missing_half_of_a_pair_of_keys_is_shown_as_empty_and_the_other_not_at_all() {
    let report = report(only(&[("cello.environment", "sandbox"), ("cello.access_key_id", SECRET)]));
    assert!(report.contains("cello.secret_access_key = \"\"") && !report.contains(SECRET), "{report}");
}

#[test]
fn addresses_that_others_reach_need_a_token_or_a_word() {
    for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
        assert!(report(load(&[("ingest.listen", address)])).contains("ingest.token_file"), "{address}");
        assert!(report(load(&[("admin.listen", address)])).contains("admin.token_file"), "{address}");
        assert!(load(&[("ingest.listen", address), ("ingest.token_file", "/t")]).is_ok());
        assert!(load(&[("admin.listen", address), ("admin.token_file", "/t")]).is_ok());
        assert!(load(&[("ops.listen", address)]).is_ok(), "the kubelet is outside");
    }
    let open = load(&[("ingest.listen", "[::]:1"), ("ingest.allow_unauthenticated_remote", "true")]).unwrap();
    assert!(open.warnings[0].contains("allow_unauthenticated_remote"));
}

#[test]
fn a_control_socket_whose_path_is_too_long_is_refused_with_the_way_out() {
    let dir = format!("/{}", "d".repeat(107));
    let report = report(load(&[("outbox.dir", &dir)]));
    assert!(report.contains("121 bytes long") && report.contains("set admin.socket"), "{report}");
    assert!(load(&[("outbox.dir", &dir), ("admin.socket", "/run/relay.sock")]).is_ok());
    assert!(load(&[("admin.socket", &format!("/{}", "s".repeat(106)))]).is_ok(), "107 bytes fit");
}

#[test]
fn risky_pairs_are_warnings() {
    let warned = |pairs: &[(&str, &str)], about: &str| {
        let warnings = load(pairs).unwrap().warnings;
        assert!(warnings.iter().any(|warning| warning.contains(about)), "{about}: {warnings:?}");
    };
    warned(&[("shutdown.pod_grace", "20s")], "shutdown.pod_grace");
    warned(&[("forward.connect_timeout", "15s")], "never applies");
    warned(&[("forward.give_up_after", "1m")], "given up");
    warned(&[("idempotency.max_bytes", "1GiB")], "crowd out");
    warned(&[("outbox.max_events", "999")], "ingest.max_batch is more than outbox.max_events");
    warned(&[("outbox.max_bytes", "15MiB"), ("idempotency.max_bytes", "1MiB")], "a batch may never fit");
    warned(&[("outbox.dead_max_age", "23h")], "outbox.dead_max_age");
    let open = [("ingest.listen", "0.0.0.0:8745"), ("ingest.allow_unauthenticated_remote", "true")];
    warned(&open, "whoever reaches ingest.listen");
    warned(&open, "ingest.allowed_hosts is empty");
    warned(&[("cello.auth", "none")], "cello.credentials_dir is set but not used");
    for fine in [vec![], vec![("outbox.max_events", "1000")], vec![("outbox.dead_max_age", "1d")]] {
        assert!(load(&fine).unwrap().warnings.is_empty(), "{fine:?}");
    }
}

#[test]
fn liveness_cannot_be_set_to_fail_a_relay_that_only_waits() {
    let report = report(load(&[("ops.stall_after", "2s")]));
    assert!(report.contains("must be at least 30s"), "{report}");
    assert_eq!(load(&[("ops.stall_after", "30s")]).unwrap().settings.ops.stall_after.as_secs(), 30);
}

#[test]
fn a_file_that_is_missing_or_no_toml_is_named() {
    let files = vec![PathBuf::from("/nowhere/relay.toml")];
    assert!(report(config::load(&Sources { files, ..Sources::default() })).contains("/nowhere/relay.toml"));
    assert!(report(load_file("[cello\n")).contains("is not valid TOML: TOML parse error at line 1"));
    assert!(report(load_file("ingest = 5")).contains("unknown key"));
    assert!(report(load_file("[ingest.listen]\nx = 1")).contains("unknown key"));
}

#[test]
fn the_shipped_files_load() {
    for name in ["sandbox", "production"] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("config/{name}.toml"));
        let loaded = config::load(&Sources { files: vec![file], ..Sources::default() }).unwrap();
        assert_eq!(loaded.settings.cello.environment, name);
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    }
}

#[test]
fn the_hash_changes_with_every_setting_and_not_with_secrets() {
    let hash = |pairs: &[(&str, &str)]| load(pairs).unwrap().hash;
    assert_eq!(hash(&[]), hash(&[]));
    assert_ne!(hash(&[]), hash(&[("ingest.max_batch", "999")]));
    let keys = |secret| {
        let keys =
            [("cello.environment", "sandbox"), ("cello.access_key_id", "a"), ("cello.secret_access_key", secret)];
        only(&keys).unwrap().hash
    };
    assert_eq!(keys("one"), keys("two"));
}

#[test]
fn the_proxy_and_no_color_come_from_the_same_environment() {
    let settings = load(&[("HTTPS_PROXY", "http://upper:1"), ("no_proxy", "a,b"), ("NO_COLOR", "1")]).unwrap().settings;
    assert_eq!(settings.cello.https_proxy.as_deref(), Some("http://upper:1"));
    assert_eq!(settings.cello.no_proxy.as_deref(), Some("a,b"));
    assert!(!settings.log.color);
    let both = load(&[("HTTPS_PROXY", "http://upper:1"), ("https_proxy", "http://lower:1")]).unwrap().settings;
    assert_eq!(both.cello.https_proxy.as_deref(), Some("http://lower:1"));
}

#[test]
fn a_client_finds_the_relay_without_keys_and_whatever_else_is_wrong() {
    let environment = environment(&[("ops.listen", "127.0.0.1:1"), ("forward.timeout", "x"), ("log.level", "x")]);
    let found = config::whereabouts(&Sources { environment, ..Sources::default() }).unwrap();
    assert_eq!(found.ops, ["127.0.0.1:1".parse().unwrap()]);
    assert_eq!(found.socket, Path::new("./data/control.sock"));
    let missing = Sources { files: vec!["/nowhere".into()], ..Sources::default() };
    assert!(config::whereabouts(&missing).is_err(), "a file that was named must exist");
}

#[test]
fn a_client_goes_to_no_relay_at_all_if_a_flag_or_variable_is_misspelt() {
    let faults = |sources: Sources| config::whereabouts(&sources).unwrap_err().to_string();
    let flags = vec![("outbox.dirr".to_owned(), "/mnt/other".to_owned())];
    let said = faults(Sources { flags, ..Sources::default() });
    assert!(said.contains("outbox.dirr (--set)") && said.contains("did you mean outbox.dir?"), "{said}");
    for (name, meant) in [
        ("CELLO_RELAY_ADMIN_SOCKET", "write CELLO_RELAY_ADMIN__SOCKET"),
        ("CELLO_RELAY_ADMIN__SOKET", "did you mean CELLO_RELAY_ADMIN__SOCKET?"),
    ] {
        let environment = vec![(name.to_owned(), "/mnt/other/control.sock".to_owned())];
        let said = faults(Sources { environment, ..Sources::default() });
        assert!(said.contains(name) && said.contains(meant), "{said}");
    }
    // What a file that the relay shares holds for a later release fails no probe.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("relay.toml");
    std::fs::write(&file, "[outbox]\ndir = \"/mnt/here\"\nnewer = 1\n").unwrap();
    let found = config::whereabouts(&Sources { files: vec![file], ..Sources::default() }).unwrap();
    assert_eq!(found.dir, Path::new("/mnt/here"));
}
