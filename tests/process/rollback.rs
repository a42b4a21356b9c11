//! An outbox that a later release has written, met by this one's binary; and what is saved before a rollout.

use std::path::Path;

use rusqlite::Connection;

use crate::client::Client;
use crate::load::event;
use crate::relay::{PATIENCE, Setup, sum};
use crate::upstream::Upstream;

/// Raises the file's schema version by one, as a release does that adds a column and a table; gives the version.
fn add_a_version(outbox: &Path) -> i64 {
    let file = Connection::open(outbox.join("outbox.db")).expect("a database");
    let next = version(&file) + 1;
    let added = format!(
        "ALTER TABLE event ADD COLUMN added_{next} TEXT; ALTER TABLE dead ADD COLUMN added_{next} TEXT; \
         CREATE TABLE added_{next} (note TEXT); INSERT INTO added_{next} VALUES ('kept');"
    );
    file.execute_batch(&added).expect("a change");
    file.pragma_update(None, "user_version", next).expect("a change");
    next
}

fn version(file: &Connection) -> i64 {
    file.query_row("PRAGMA user_version", [], |row| row.get(0)).expect("a version")
}

#[test]
fn a_rollback_by_one_version_delivers_all_and_by_two_exits_65_and_touches_nothing() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","user":"refused","status":400},{"path":"/events","status":503}]"#);
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("SHUTDOWN__DEADLINE", "100ms");
    let relay = setup.start();
    let mut client = relay.client();
    for (number, user) in ["refused", "u", "u", "v"].into_iter().enumerate() {
        assert_eq!(client.post("/events", &event(user, number as u64)).expect("an answer").status, 200);
    }
    relay.wait_until("one is refused and one failed", |metrics| {
        sum(metrics, "cello_relay_outbox_events", "dead") == 1.0
            && sum(metrics, "cello_relay_delivery_retries_total", "") >= 1.0
    });
    assert_eq!(relay.terminate().0, Some(0));
    let next = add_a_version(&setup.outbox());

    upstream.heal();
    let relay = setup.start();
    assert_eq!(relay.client().post("/events", &event("v", 4)).expect("an answer").status, 200);
    relay.wait_until_empty(PATIENCE);
    let status = Client::socket(&setup.socket()).expect("the control socket").get("/api/status").expect("an answer");
    let ledger = &status.json()["ledger"];
    assert_eq!((&ledger["accepted"], &ledger["delivered"], &ledger["dead"]), (&5.into(), &4.into(), &1.into()));
    upstream.arrivals().assert_in_order();
    assert_eq!(relay.terminate().0, Some(0));
    let file = Connection::open(setup.outbox().join("outbox.db")).expect("a database");
    assert_eq!(version(&file), next);
    let note: String = file.query_row(&format!("SELECT note FROM added_{next}"), [], |row| row.get(0)).expect("a note");
    assert_eq!(note, "kept");
    drop(file);

    add_a_version(&setup.outbox());
    let before = std::fs::read(setup.outbox().join("outbox.db")).expect("a file");
    let (code, _, stderr) = setup.call(&["run"]);
    assert_eq!(code, 65, "{stderr}");
    assert_eq!(std::fs::read(setup.outbox().join("outbox.db")).expect("a file"), before);
    assert_eq!(setup.call(&["outbox", "stats"]).0, 65, "nor is it read by what looks only");
}

const EVENTS: &str = "cello_relay_outbox_events";

#[test]
fn what_a_paused_relay_exports_another_one_delivers_and_the_first_sends_nothing_as_it_ends() {
    let upstream = Upstream::start();
    let refused = r#"{"path":"/events","user":"refused","status":400,"message":"no such ucc"}"#;
    upstream.fault(&format!(r#"[{refused},{{"path":"/events","status":503}}]"#));
    let mut leaving = Setup::new(&upstream.base_url());
    leaving.set("SHUTDOWN__DEADLINE", "1s");
    let relay = leaving.start();
    assert_eq!(relay.client().post("/events", &event("refused", 0)).expect("an answer").status, 200);
    relay.wait_until("it is dead", |metrics| sum(metrics, "cello_relay_events_dead_lettered_total", "") >= 1.0);
    for number in 0..5 {
        assert_eq!(relay.client().post("/events", &event("u", number)).expect("an answer").status, 200);
    }
    relay.wait_until("one failed", |metrics| sum(metrics, "cello_relay_delivery_retries_total", "") >= 1.0);
    assert_eq!(leaving.call(&["pause"]).0, 0);
    upstream.heal();
    relay.wait_until("nothing is being sent", |metrics| sum(metrics, EVENTS, "state=\"in_flight\"") == 0.0);
    // As deploy/upgrading.md has it.
    let export = |state: &str| {
        let (code, exported, stderr) = leaving.call(&["outbox", "export", "--state", state, "--reveal"]);
        assert_eq!(code, 0, "{stderr}");
        exported
    };
    let (exported, dead) = (export("retrying") + &export("pending"), export("dead"));
    assert_eq!((exported.lines().count(), dead.lines().count()), (5, 1), "{exported}");
    let (code, log) = relay.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("\"undelivered\":5") && log.contains("\"dead\":1"), "as many as were exported: {log}");
    assert_eq!(upstream.arrivals().count(), 0, "a paused relay sends nothing, not even as it ends");

    let mut staying = Setup::new(&upstream.base_url());
    let relay = staying.start();
    staying.set("INGEST__LISTEN", &relay.ingest.to_string());
    let file = staying.dir().join("events.ndjson");
    std::fs::write(&file, exported).expect("a file");
    for _ in 0..2 {
        assert_eq!(staying.call(&["send", "events.ndjson"]).0, 0);
    }
    relay.wait_until_empty(PATIENCE);
    upstream.arrivals().assert_in_order();
    assert_eq!(upstream.arrivals().count(), 5, "each once");
}
