//! Taking events out of one relay and giving them to another.

use std::io::{Read, Write};
use std::process::Stdio;

use serde_json::Value;

use crate::client::Client;
use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup};
use crate::upstream::{UNREACHABLE, Upstream};

/// An event as some apps write it: over several lines.
fn over_lines(user: &str, number: u64) -> String {
    let value: Value = serde_json::from_str(&event(user, number)).expect("JSON");
    format!("{value:#}").replace('\n', "\r\n")
}

fn post(relay: &Relay, body: &str) -> String {
    let answer = relay.client().post("/events", body).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

fn call(setup: &Setup, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = setup.call(arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

/// `send -` with this on its stdin; gives what it says.
fn send(setup: &Setup, lines: &str) -> String {
    let mut command = setup.command(&["send", "-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

#[test]
fn an_export_sent_to_another_relay_keeps_its_order_and_counts_once_however_often() {
    let old = Setup::new(UNREACHABLE);
    let from = old.start();
    let upstream = Upstream::start();
    let mut new = Setup::new(&upstream.base_url());
    let to = new.start();
    new.set("INGEST__LISTEN", &to.ingest.to_string());
    post(&from, &event("first", 1));
    for number in 1..=5 {
        post(&from, &over_lines("u", number));
    }
    // Two that are equal are two.
    post(&from, &event("twin", 1));
    post(&from, &event("twin", 1));
    let exported = call(&old, &["outbox", "export", "--reveal"]);
    assert_eq!(exported.lines().count(), 8, "{exported}");
    assert!(exported.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{exported}");
    assert!(send(&new, &exported).contains("8 stored, 0 already known"));
    assert!(send(&new, &exported).contains("0 stored, 8 already known"));

    // What is gone meanwhile moves the rest to other lines, also in an export of the stopped directory.
    call(&old, &["outbox", "erase", "--user", "first", "--yes"]);
    let running = call(&old, &["outbox", "export", "--reveal"]);
    from.kill();
    let stopped = call(&old, &["outbox", "export", "--reveal"]);
    assert_eq!((running.lines().count(), &running), (7, &stopped));
    assert!(send(&new, &stopped).contains("0 stored, 7 already known"));
    to.wait_until_empty(PATIENCE);
    let arrivals = upstream.arrivals();
    assert_eq!(arrivals.count(), 8);
    arrivals.assert_in_order();
}

#[test]
fn an_export_can_be_of_some_events_running_and_stopped_and_says_what_it_does_not_know() {
    let setup = Setup::new(UNREACHABLE);
    let relay = setup.start();
    let ids: Vec<String> = (1..=4).map(|number| post(&relay, &event("u", number))).collect();
    let never = "0192f0c1-2b3a-7c4d-9e5f-000000000001";
    let both = [event("u", 2), event("u", 4)].join("\n");
    let check = || {
        assert_eq!(call(&setup, &["outbox", "export", "--reveal", &ids[3], &ids[1], &ids[3]]).trim(), both);
        assert_eq!(call(&setup, &["outbox", "export", "--reveal", "--limit", "1"]).trim(), event("u", 1));
        assert_eq!(call(&setup, &["outbox", "export", "--reveal", "--older-than", "1h"]), "");
        assert_eq!(call(&setup, &["outbox", "export", "--newer-than", "1h"]).lines().count(), 4);
        let (code, stdout, stderr) = setup.call(&["outbox", "export", &ids[0], never]);
        assert_eq!((code, stdout.as_str()), (69, ""), "{stderr}");
        assert!(stderr.contains(never) && !stderr.contains(&ids[0]), "{stderr}");
    };
    check();
    let after = format!("/api/export?after={}&limit=2&reveal=true", ids[0]);
    let some = Client::socket(&setup.socket()).and_then(|mut client| client.get(&after)).expect("an answer");
    assert_eq!(some.body.trim(), [event("u", 2), event("u", 3)].join("\n"));
    relay.kill();
    check();
}

#[test]
fn an_export_that_breaks_off_is_told_and_no_success() {
    let setup = Setup::new(UNREACHABLE);
    let relay = setup.start();
    // More than the pipes and sockets between relay, command and reader hold.
    let padding = "x".repeat(100_000);
    for number in 0..40 {
        post(&relay, &event("u", number).replace("cello-ucc", &format!("{padding}{number}")));
    }
    let mut export = setup.command(&["outbox", "export", "--reveal"]).spawn().expect("it runs");
    let mut stdout = export.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0; 1]).expect("it has begun");
    relay.kill();
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("what was on its way");
    let output = export.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{stderr}");
    assert!(stderr.contains("not all") && rest.len() < 40 * padding.len(), "{stderr}");
}

#[test]
fn an_export_of_a_running_relay_tells_how_many_damaged_events_it_left_out_as_that_of_a_stopped_one_does() {
    let setup = Setup::new(UNREACHABLE);
    let relay = setup.start();
    call(&setup, &["pause"]);
    let ids: Vec<String> = (1..=3).map(|number| post(&relay, &event("u", number))).collect();
    assert_eq!(relay.terminate().0, Some(0));
    let file = rusqlite::Connection::open(setup.outbox().join("outbox.db")).expect("a database");
    let damage = "UPDATE event SET body = replace(body, 'cello-ucc', 'cello-uCC') \
                  WHERE seq = (SELECT seq FROM event ORDER BY seq LIMIT 1 OFFSET 1)";
    assert_eq!(file.execute(damage, []).expect("a row"), 1);
    drop(file);
    let fit = [event("u", 1), event("u", 3)].join("\n");
    let check = || {
        let of_these = ["outbox", "export", "--reveal", &ids[0], &ids[1], &ids[2]];
        for arguments in [&of_these[..3], &of_these] {
            let (code, stdout, stderr) = setup.call(arguments);
            assert_eq!((code, stdout.trim()), (65, fit.as_str()), "{stderr}");
            assert!(stderr.contains("1 of these events does not match its checksum"), "{stderr}");
        }
        assert_eq!(call(&setup, &["outbox", "export"]).lines().count(), 3, "a listing is of all");
        assert_eq!(call(&setup, &["outbox", "export", "--reveal", "--limit", "1"]).trim(), event("u", 1));
    };
    // On the stopped directory `verdict` ends with 65, too.
    check();
    let relay = setup.start();
    check();
    let mut client = Client::socket(&setup.socket()).expect("the control socket");
    let answer = client.get("/api/export?reveal=true");
    assert!(answer.is_err(), "who understands no trailers must see that it broke off: {answer:?}");
    drop(relay);
}
