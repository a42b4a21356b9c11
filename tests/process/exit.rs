//! Signals, exit codes and starts that must fail.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use crate::client::Client;
use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup, by_user, sum};
use crate::upstream::{UNREACHABLE, Upstream};

#[test]
fn sigterm_empties_the_outbox_and_exits_0_with_a_summary() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let report = setup.dir().join("report");
    setup.set("SHUTDOWN__REPORT_FILE", report.to_str().expect("a plain path"));
    let relay = setup.start();
    let mut client = relay.client();
    for number in 0..50 {
        assert_eq!(client.post("/events", &event("u", number)).expect("an answer").status, 200);
    }
    let (code, log) = relay.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("shutdown_summary"), "{log}");
    assert_eq!(std::fs::read_to_string(report).expect("a report").trim(), "undelivered=0 dead=0 oldest=0s");
    assert_eq!(upstream.arrivals().count(), 50);
}

#[test]
fn what_cannot_be_delivered_in_time_waits_for_the_next_start() {
    let mut setup = Setup::new(UNREACHABLE);
    setup.set("SHUTDOWN__DEADLINE", "200ms");
    let relay = setup.start();
    assert_eq!(relay.client().post("/events", &event("u", 1)).expect("an answer").status, 200);
    let (code, log) = relay.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("\"undelivered\":1"), "{log}");
    let relay = setup.start();
    assert_eq!(relay.metric("cello_relay_outbox_recovered_events", ""), 1.0);
}

#[test]
fn a_relay_that_is_paused_for_longer_ends_without_waiting_and_one_whose_pause_ends_in_time_delivers_first() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("SHUTDOWN__DEADLINE", "10m");
    for (pause, left) in [(vec!["pause"], 1), (vec!["pause", "--for", "1h"], 1), (vec!["pause", "--for", "2s"], 0)] {
        let relay = setup.start();
        assert_eq!(setup.call(&pause).0, 0);
        assert_eq!(relay.client().post("/events", &event("u", 1)).expect("an answer").status, 200);
        let (code, log) = relay.terminate();
        let summary = log.lines().find(|line| line.contains("shutdown_summary")).unwrap_or_default();
        assert_eq!((code, summary.contains(&format!("\"undelivered\":{left}"))), (Some(0), true), "{pause:?}: {log}");
        let relay = setup.start();
        assert_eq!(setup.call(&["resume"]).0, 0);
        relay.wait_until_empty(PATIENCE);
        relay.terminate();
    }
}

#[test]
fn a_second_signal_ends_the_relay_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut setup = Setup::new(UNREACHABLE);
        setup.set("SHUTDOWN__LINGER", "60s");
        let mut relay = setup.start();
        relay.signal(signal);
        relay.wait_for_event("draining");
        relay.signal(signal);
        assert_eq!(relay.wait().0, Some(code));
    }
}

#[test]
fn an_ordinary_container_goes_on_taking_events_for_as_long_as_it_lingers() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("SHUTDOWN__LINGER", "3s");
    let mut relay = setup.start();
    relay.signal("TERM");
    relay.wait_for_event("draining");
    assert_eq!(relay.client().post("/events", &event("u", 1)).expect("an answer").status, 200, "the app still works");
    let probe = Client::connect(relay.ops).and_then(|mut ops| ops.get("/readyz")).expect("an answer");
    assert_eq!(
        (probe.status, probe.body.trim()),
        (503, "ending: no new events are taken once shutdown.linger is over")
    );
    assert_eq!(relay.wait().0, Some(0));
    assert_eq!(upstream.arrivals().count(), 1);
}

#[test]
fn a_relay_that_ends_says_so_and_one_that_only_drains_says_that_events_are_taken() {
    let mut setup = Setup::new(UNREACHABLE);
    setup.set("SHUTDOWN__DEADLINE", "60s");
    let mut relay = setup.start();
    assert_eq!(relay.client().post("/events", &event("u", 1)).expect("an answer").status, 200);
    let said = |relay: &Relay| -> Option<String> {
        let status = relay.status();
        let reason = status["reasons"].as_array()?.iter().find(|reason| reason["code"] == "draining")?;
        reason["sentence"].as_str().map(str::to_owned)
    };
    assert_eq!(setup.call(&["drain", "--no-wait"]).0, 0);
    let drains = said(&relay).expect("a reason");
    assert!(drains.contains("events are still taken") && drains.contains("Only a restart"), "{drains}");
    relay.signal("TERM");
    relay.wait_for_event("draining");
    let ends = said(&relay).expect("a reason");
    assert!(ends.contains("The relay is ending") && ends.contains("shutdown.linger"), "{ends}");
    assert!(!ends.contains("still taken") && !ends.contains("Only a restart"), "{ends}");
    relay.signal("TERM");
    assert_eq!(relay.wait().0, Some(143));
}

#[test]
fn an_ending_relay_stores_what_is_being_sent_to_it_and_lets_nobody_else_in() {
    let mut setup = Setup::new(UNREACHABLE);
    setup.set("SHUTDOWN__DEADLINE", "2s");
    let relay = setup.start();
    let mut idle = relay.client();
    assert_eq!(idle.post("/events", &event("u", 1)).expect("an answer").status, 200);
    let late = event("u", 2);
    let mut stream = TcpStream::connect(relay.ingest).expect("a connection");
    let head = "POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n", late.len()).expect("sent");
    relay.wait_until("the request is not under way", |metrics| {
        sum(metrics, "cello_relay_ingest_requests_in_flight", "") == 1.0
    });
    relay.signal("TERM");
    while Client::connect(relay.ingest).is_ok() {
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert!(idle.post("/events", &event("u", 3)).is_err(), "a connection that was kept is closed");
    stream.write_all(late.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer and the end");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.to_lowercase().contains("connection: close"), "{answer}");
    let (code, log) = relay.wait();
    assert!(code == Some(0) && log.contains("\"undelivered\":2"), "{log}");
}

#[test]
fn an_app_ends_the_relay_by_quit_if_that_is_allowed_and_its_events_are_delivered() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let token = setup.dir().join("token");
    std::fs::write(&token, "operators-only\n").expect("a file");
    setup.set("ADMIN__TOKEN_FILE", token.to_str().expect("a plain path"));
    let quit = |relay: &Relay, headers: &[(&str, &str)]| {
        let mut client = Client::connect(relay.admin).expect("the control API");
        client.request("POST", "/api/quit", headers, "").expect("an answer")
    };
    let json = ("Content-Type", "application/json");
    let bearer = ("Authorization", "Bearer operators-only");
    let relay = setup.start();
    let refused = quit(&relay, &[json, bearer]);
    assert_eq!(refused.status, 403, "{}", refused.body);
    assert!(refused.body.contains("admin.allow_quit"), "{}", refused.body);
    relay.terminate();

    setup.set("ADMIN__ALLOW_QUIT", "true");
    let relay = setup.start();
    assert_eq!(quit(&relay, &[json]).status, 403, "not without the token");
    assert_eq!(relay.client().post("/events", &event("u", 1)).expect("an answer").status, 200);
    let taken = quit(&relay, &[json, bearer]);
    assert!(taken.status < 300, "{}", taken.body);
    assert_eq!(relay.wait().0, Some(0));
    assert_eq!(upstream.arrivals().count(), 1);
}

#[test]
fn a_second_relay_on_the_same_outbox_exits_75_and_names_the_first() {
    let setup = Setup::new(UNREACHABLE);
    let first = setup.start();
    let (code, _, stderr) = setup.call(&["run"]);
    assert_eq!(code, 75, "{stderr}");
    assert!(stderr.contains(&first.pid().to_string()), "{stderr}");
}

#[test]
fn a_port_in_use_exits_75_and_names_it() {
    let setup = Setup::new(UNREACHABLE);
    let relay = setup.start();
    let mut other = Setup::new(UNREACHABLE);
    other.set("INGEST__LISTEN", &relay.ingest.to_string());
    let (code, _, stderr) = other.call(&["run"]);
    assert_eq!(code, 75, "{stderr}");
    assert_eq!(stderr.matches(&relay.ingest.to_string()).count(), 1, "{stderr}");
}

#[test]
fn a_control_socket_of_another_relay_or_a_file_in_its_place_is_left_alone() {
    let setup = Setup::new(UNREACHABLE);
    let first = setup.start();
    let mut other = Setup::new(UNREACHABLE);
    other.set("ADMIN__SOCKET", setup.socket().to_str().expect("a plain path"));
    let (code, _, stderr) = other.call(&["run"]);
    assert!(code == 75 && stderr.contains("another relay answers on it"), "{code}: {stderr}");
    assert_eq!(setup.call(&["pause"]).0, 0, "the first one still has it");
    // One that a killed relay left behind is no hindrance, and an end removes only what is its own.
    first.kill();
    let second = other.start();
    std::fs::rename(setup.socket(), setup.dir().join("elsewhere")).expect("a socket");
    std::fs::write(setup.socket(), "precious").expect("a file");
    second.terminate();
    let (code, _, stderr) = other.call(&["run"]);
    assert!(code == 74 && stderr.contains("no socket"), "{code}: {stderr}");
    assert_eq!(std::fs::read_to_string(setup.socket()).expect("it is there"), "precious");
}

#[test]
fn wrong_configuration_exits_78_with_every_fault() {
    let mut setup = Setup::new("ftp://nowhere");
    setup.set("FORWARD__CONCURENCY", "8").set("INGEST__IDLE_TIMEOUT", "120").set("OUTBOX__MAX_BYTES", "much");
    let (code, _, stderr) = setup.call(&["run"]);
    assert_eq!(code, 78, "{stderr}");
    for part in ["cello.base_url", "CELLO_RELAY_FORWARD__CONCURRENCY", "ingest.idle_timeout", "outbox.max_bytes"] {
        assert!(stderr.contains(part), "{part} is not in:\n{stderr}");
    }
}

#[test]
fn files_that_keep_the_relay_from_starting_are_a_warning_of_check_config_and_a_fault_of_it_online() {
    let mut setup = Setup::new(UNREACHABLE);
    let (empty, missing) = (setup.dir().join("empty"), setup.dir().join("missing"));
    std::fs::write(&empty, "\n").expect("a file");
    for ca_file in [&missing, &empty] {
        for token_file in [&empty, &missing] {
            setup.set("CELLO__CA_FILE", ca_file.to_str().expect("a plain path"));
            setup.set("INGEST__TOKEN_FILE", token_file.to_str().expect("a plain path"));
            let named = |text: &str| {
                let name = |key: &str, file: &Path| text.contains(key) && text.contains(file.to_str().unwrap_or("?"));
                name("cello.ca_file", ca_file) && name("ingest.token_file", token_file)
            };
            let (code, stdout, stderr) = setup.call(&["check-config"]);
            assert!(code == 0 && stderr.contains("warning: ") && named(&stderr), "{code} {stdout} {stderr}");
            let (code, stdout, stderr) = setup.call(&["check-config", "--online"]);
            assert!(code == 78 && named(&stderr) && !stdout.contains("is valid"), "{code} {stdout} {stderr}");
            assert_eq!(setup.call(&["run"]).0, 78);
        }
    }
}

#[test]
fn keys_that_are_not_there_yet_are_no_fault_of_the_configuration_and_one_of_it_online() {
    let mut setup = Setup::new(UNREACHABLE);
    let keys = setup.dir().join("keys");
    setup.unset("CELLO__ACCESS_KEY_ID").unset("CELLO__SECRET_ACCESS_KEY");
    setup.set("CELLO__CREDENTIALS_DIR", keys.to_str().expect("a plain path"));
    // Manifests are also checked where nothing is mounted, and a relay starts without keys.
    let (code, _, stderr) = setup.call(&["check-config"]);
    assert!(code == 0 && stderr.is_empty(), "{code} {stderr}");
    let (code, _, stderr) = setup.call(&["check-config", "--online"]);
    let said = ["no credentials for Cello: ", "keys/access-key-id", "hint: the files of cello.credentials_dir"];
    assert!(code == 78 && said.iter().all(|part| stderr.contains(part)), "{code} {stderr}");
}

#[test]
fn a_token_file_of_the_admin_listener_that_cannot_be_read_is_warned_of_at_start() {
    let mut setup = Setup::new(UNREACHABLE);
    let file = setup.dir().join("operators");
    let name = file.to_str().expect("a plain path").to_owned();
    setup.set("ADMIN__TOKEN_FILE", &name).set("SHUTDOWN__DEADLINE", "0s");
    for content in [None, Some("\n"), Some("secret-of-operators\n")] {
        content.iter().for_each(|content| std::fs::write(&file, content).expect("a file"));
        let (_, log) = setup.start().terminate();
        let warning = log.lines().find(|line| line.contains("\"config_warning\"") && line.contains("admin.token_file"));
        let is_told = warning.is_some_and(|line| line.contains(&name));
        assert_eq!(is_told, content != Some("secret-of-operators\n"), "{content:?}: {log}");
        assert_eq!(setup.call(&["check-config"]).2.contains("warning: admin.token_file"), is_told, "{content:?}");
    }
}

#[test]
fn wrong_usage_exits_64() {
    assert_eq!(Setup::new(UNREACHABLE).call(&["runn"]).0, 64);
    assert_eq!(Setup::new(UNREACHABLE).call(&["outbox", "show"]).0, 64);
}

#[test]
fn service_links_of_kubernetes_do_no_harm() {
    let mut setup = Setup::new(UNREACHABLE);
    for service in ["CELLO_RELAY", "CELLO_RELAY_GATEWAY"] {
        for (suffix, value) in [
            ("SERVICE_HOST", "10.0.0.1"),
            ("SERVICE_PORT", "8745"),
            ("SERVICE_PORT_HTTP", "8745"),
            ("PORT", "tcp://10.0.0.1:8745"),
            ("PORT_8745_TCP", "tcp://10.0.0.1:8745"),
            ("PORT_8745_TCP_PROTO", "tcp"),
            ("PORT_8745_TCP_PORT", "8745"),
            ("PORT_8745_TCP_ADDR", "10.0.0.1"),
        ] {
            setup.raw(&format!("{service}_{suffix}"), value);
        }
    }
    let (code, log) = setup.start().terminate();
    assert_eq!(code, Some(0));
    assert!(!log.contains("SERVICE_HOST"), "{log}");
}

#[test]
fn a_changed_upstream_with_events_waiting_exits_78_and_names_the_ways_out() {
    let mut setup = Setup::new(UNREACHABLE);
    setup.set("SHUTDOWN__DEADLINE", "0s");
    let relay = setup.start();
    assert_eq!(relay.client().post("/events", &event("u", 1)).expect("an answer").status, 200);
    relay.terminate();
    setup.set("CELLO__BASE_URL", "http://127.0.0.1:10");
    let (code, _, stderr) = setup.call(&["run"]);
    assert_eq!(code, 78, "{stderr}");
    assert!(stderr.contains('1') && stderr.contains(UNREACHABLE) && stderr.contains("rebind"), "{stderr}");
}

#[test]
fn an_outbox_that_is_no_directory_exits_73_or_74() {
    let setup = Setup::new(UNREACHABLE);
    std::fs::write(setup.outbox(), "a file").expect("a file");
    let (code, _, stderr) = setup.call(&["run"]);
    assert!([73, 74].contains(&code), "{code}: {stderr}");
}

/// Runs a subcommand as somebody who may not see the outbox; nothing if this machine offers nobody else.
fn call_as_a_stranger(setup: &Setup, arguments: &[&str]) -> Option<(Option<i32>, String)> {
    let root = std::fs::metadata("/proc/self").expect("a process").uid() == 0;
    let mut command = setup.command(arguments);
    if root {
        if !Path::new("/usr/bin/setpriv").exists() {
            return None;
        }
        command = setup.command_by(by_user(65_534, &[]), arguments);
        command.current_dir("/");
    }
    let output = command.output().expect("it runs");
    Some((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

#[test]
fn whoever_may_not_see_the_outbox_is_told_so_and_exits_77() {
    let setup = Setup::new(UNREACHABLE);
    let relay = setup.start();
    let close = |mode| std::fs::set_permissions(setup.outbox(), std::fs::Permissions::from_mode(mode)).expect("ours");
    close(0);
    for arguments in
        [&["outbox", "stats"][..], &["outbox", "check"], &["outbox", "rebind", "--yes"], &["pause"], &["run"]]
    {
        let Some((code, stderr)) = call_as_a_stranger(&setup, arguments) else {
            println!("skipped: setpriv is not installed");
            break;
        };
        assert_eq!(code, Some(77), "{arguments:?}: {stderr}");
        assert!(stderr.contains("no permission"), "{arguments:?}: {stderr}");
    }
    close(0o700);
    drop(relay);
}

#[test]
fn files_of_the_outbox_are_the_relays_alone() {
    let setup = Setup::new(UNREACHABLE);
    let _relay = setup.start();
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(&setup.outbox()), 0o700);
    for entry in std::fs::read_dir(setup.outbox()).expect("a folder") {
        let path = entry.expect("an entry").path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}
