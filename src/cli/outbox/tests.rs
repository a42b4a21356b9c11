//! `outbox …`, `pause` and `drain` against a scripted control socket, and against a stopped outbox.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use clap::Parser;

use super::offline::Stopped;
use super::source::{Question, Which, ask};
use super::*;
use crate::cli::exit::Exit;
use crate::cli::scripted::{Script, Scripted};
use crate::cli::{Cli, Command as Top};
use crate::clock::{SystemClock, Timestamp};
use crate::config::{self, Sources};
use crate::event::{Event, Trigger, UserId};
use crate::outbox::sqlite::Sqlite;
use crate::outbox::{Batch, Outbox};

const USER: &str = "canary-user-4711";
const ID: &str = "0192f0c1-2b3a-7c4d-9e5f-000000000001";

fn context(dir: &Path) -> Context {
    let outbox = ("outbox.dir".to_owned(), dir.display().to_string());
    Context { sources: Sources { flags: vec![outbox], ..Sources::default() } }
}

/// Runs a command line against a control socket that answers from a script; says what was asked.
async fn run_against(script: Script, arguments: &[&str]) -> (Result<(), Failure>, Vec<(String, String)>) {
    let dir = tempfile::tempdir().unwrap();
    let server = Scripted::on_socket(&dir.path().join("control.sock"), script);
    let cli = Cli::try_parse_from([&["cello-relay"], arguments].concat()).unwrap();
    let result = match cli.command {
        Top::Outbox(command) => run(&command, &context(dir.path())).await,
        Top::Drain(args) => crate::cli::drain::run(&args, &context(dir.path())).await,
        other => panic!("{other:?}"),
    };
    (result, server.requests())
}

#[tokio::test]
async fn filters_reach_the_control_api_and_nothing_is_revealed_unasked() {
    let script = vec![(200, r#"{"events":[],"next":null}"#)];
    let arguments = ["outbox", "list", "--state", "dead", "--user", "a b", "--reason", "http_400", "--limit", "5"];
    let (result, requests) = run_against(script, &arguments).await;
    result.unwrap();
    assert_eq!(requests[0].0, "GET /api/events?state=dead&user=a%20b&reason=http_400&limit=5");
    let (_, requests) = run_against(vec![(404, "{}")], &["outbox", "show", ID, "--reveal"]).await;
    assert_eq!(requests[0].0, format!("GET /api/events/{ID}?reveal=true"));
}

#[tokio::test]
async fn a_refusal_of_the_relay_is_told_in_its_own_words() {
    let (result, _) = run_against(vec![(503, r#"{"message":"the outbox is recovering"}"#)], &["outbox", "list"]).await;
    assert!(result.unwrap_err().message.contains("the outbox is recovering"));
    let (result, _) = run_against(vec![(404, r#"{"message":"x"}"#)], &["outbox", "show", ID]).await;
    assert_eq!(result.unwrap_err().exit, Exit::Unavailable);
}

#[tokio::test]
async fn replay_names_events_or_a_filter_and_a_dry_run_changes_nothing() {
    let count = || vec![(200, r#"{"count":1}"#)];
    let (result, requests) = run_against(count(), &["outbox", "replay", ID]).await;
    result.unwrap();
    assert_eq!(requests, [("POST /api/replay".to_owned(), format!(r#"{{"dry_run":false,"ids":["{ID}"]}}"#))]);
    let (_, requests) = run_against(count(), &["outbox", "replay", "--reason", "exhausted", "--dry-run"]).await;
    let filter = r#"{"dry_run":true,"filter":{"reason":"exhausted"}}"#;
    assert_eq!(requests, [("POST /api/replay".to_owned(), filter.to_owned())]);
    let (_, requests) = run_against(count(), &["outbox", "discard", "--all", "--yes"]).await;
    let filter = r#"{"dry_run":false,"filter":{}}"#;
    assert_eq!(requests, [("POST /api/discard".to_owned(), filter.to_owned())]);
}

#[tokio::test]
async fn drain_waits_until_nothing_is_left_and_says_what_is_if_time_ends() {
    let left = r#"{"queue":{"pending":1,"in_flight":1,"retrying":1,"dead":9}}"#;
    let none = r#"{"queue":{"pending":0,"in_flight":0,"retrying":0,"dead":9}}"#;
    let (result, requests) = run_against(vec![(200, "{}"), (200, left), (200, none)], &["drain"]).await;
    result.unwrap();
    let lines: Vec<&str> = requests.iter().map(|(line, _)| line.as_str()).collect();
    assert_eq!(lines, ["POST /api/drain", "GET /api/status", "GET /api/status"]);
    let (result, _) = run_against(vec![(200, "{}"), (200, left)], &["drain", "--timeout", "50ms"]).await;
    let failure = result.unwrap_err();
    assert!(failure.exit == Exit::Unavailable && failure.message.starts_with("3 events"), "{}", failure.message);
    let (_, requests) = run_against(vec![(200, "{}")], &["drain", "--no-wait"]).await;
    assert_eq!(requests.len(), 1);
}

#[tokio::test]
async fn without_relay_and_outbox_the_answer_names_socket_and_directory() {
    let dir = tempfile::tempdir().unwrap();
    let failure = ask(Question::Status, None, &context(dir.path())).await.err().unwrap();
    assert_eq!(failure.exit, Exit::Unavailable);
    assert!(failure.message.contains("control.sock") && failure.message.contains("holds no outbox"));
    assert!(failure.hint.is_some());
}

/// An outbox with one event, closed.
async fn stopped_outbox(dir: &Path) {
    let flags = [("outbox.dir", dir.to_str().unwrap()), ("cello.environment", "sandbox"), ("cello.auth", "none")];
    let flags = flags.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let settings = config::load(&Sources { flags, ..Sources::default() }).unwrap().settings.outbox;
    let outbox = Sqlite::open(settings, Arc::new(SystemClock), Arc::default()).unwrap();
    let body = Bytes::from(format!(r#"{{"payload":{{"newUserId":"{USER}"}}}}"#));
    let event = Event { user: UserId::new(USER), trigger: Trigger::InvoicePaid, body, trace: None };
    outbox.append(Batch { events: vec![event], key: None }).await.unwrap();
    outbox.close().await;
}

#[tokio::test]
async fn a_stopped_relays_directory_answers_as_the_relay_would_redacted_unless_asked() {
    let dir = tempfile::tempdir().unwrap();
    stopped_outbox(dir.path()).await;
    let context = context(dir.path());
    let status: Status = ask(Question::Status, None, &context).await.unwrap().read().unwrap();
    assert_eq!((status.queue.waiting(), status.state.as_str()), (1, "stopped"));

    let which = Which::default();
    let list = |reveal| ask(Question::List { which, after: None, limit: 10, reveal }, None, &context);
    let hidden = list(false).await.unwrap().text();
    assert!(!hidden.contains(USER) && hidden.contains("invoice-paid"), "{hidden}");
    let page: serde_json::Value = list(true).await.unwrap().read().unwrap();
    assert_eq!(page["events"][0]["user"], USER);

    let id = page["events"][0]["id"].as_str().unwrap().parse().unwrap();
    let show = |reveal| ask(Question::Show { id, reveal }, None, &context);
    assert!(!show(false).await.unwrap().text().contains(USER));
    let shown: serde_json::Value = show(true).await.unwrap().read().unwrap();
    assert_eq!(shown["body"]["payload"]["newUserId"], USER);
}

#[tokio::test]
async fn an_export_of_a_stopped_directory_is_what_was_stored_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    stopped_outbox(dir.path()).await;
    let stopped = Stopped::open(dir.path()).unwrap().expect("an outbox");
    let which = Which::default();
    let export = |reveal| {
        let mut text = Vec::new();
        stopped.export(&which, &[], usize::MAX, reveal, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    };
    assert_eq!(export(true), format!("{{\"payload\":{{\"newUserId\":\"{USER}\"}}}}\n"));
    assert!(!export(false).contains(USER));
    assert_eq!(stopped.check().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn of_a_damaged_directory_what_can_be_read_is_printed_and_the_rest_is_told_with_exit_65() {
    let dir = tempfile::tempdir().unwrap();
    stopped_outbox(dir.path()).await;
    let file = rusqlite::Connection::open(dir.path().join("outbox.db")).unwrap();
    file.execute("UPDATE event SET body = replace(body, 'payload', 'qayload')", []).unwrap();
    drop(file);
    let stopped = Stopped::open(dir.path()).unwrap().expect("an outbox");
    let mut text = Vec::new();
    let failure = stopped.export(&Which::default(), &[], usize::MAX, true, &mut text).unwrap_err();
    assert_eq!((failure.exit, text.len()), (Exit::Data, 0), "a body that was changed is not exported");
    assert!(failure.message.contains("1 of these events does not match"), "{}", failure.message);
    let damage = |bytes: &mut Vec<u8>| {
        // A page is moved to where no page of that kind belongs: all events are gone.
        let pages = bytes.len() / 4096;
        (1..pages).for_each(|page| bytes[page * 4096] = 0xff);
    };
    drop(stopped);
    let path = dir.path().join("outbox.db");
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes);
    std::fs::write(&path, &bytes).unwrap();
    std::fs::copy(&path, dir.path().join("outbox-1.damaged.db")).unwrap();
    for file in [None, Some(Path::new("outbox-1.damaged.db"))] {
        let question = Question::List { which: Which::default(), after: None, limit: 10, reveal: false };
        let found = ask(question, file, &context(dir.path())).await.unwrap();
        assert!(found.text().contains("\"events\":[]"), "{}", found.text());
        let failure = found.end().unwrap_err();
        assert_eq!(failure.exit, Exit::Data);
        assert!(failure.message.contains("only 0 events can be read"), "{}", failure.message);
    }
}

#[tokio::test]
async fn the_status_of_a_stopped_relay_knows_what_was_retried_what_lies_aside_and_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    stopped_outbox(dir.path()).await;
    let file = rusqlite::Connection::open(dir.path().join("outbox.db")).unwrap();
    file.execute_batch(
        "UPDATE state SET failed = 1; UPDATE event SET accepted_ms = accepted_ms - 120000;
         INSERT INTO progress SELECT seq, 1, 0, 0, 0, 0, 'http_503' FROM event;",
    )
    .unwrap();
    drop(file);
    std::fs::write(dir.path().join("outbox-1.damaged.db"), "x").unwrap();
    let mut context = context(dir.path());
    context.sources.flags.push(("outbox.durability".to_owned(), "pod".to_owned()));
    let status: serde_json::Value = ask(Question::Status, None, &context).await.unwrap().read().unwrap();
    assert_eq!((&status["queue"]["retrying"], &status["queue"]["pending"]), (&1.into(), &0.into()));
    let reasons = status["reasons"].as_array().unwrap();
    let codes: Vec<&str> = reasons.iter().map(|reason| reason["code"].as_str().unwrap()).collect();
    assert_eq!(codes, ["quarantined", "backlog_on_pod_disk"]);
}

#[test]
fn a_reason_that_no_command_leads_on_from_is_told_without_one() {
    let reason = |command| format!(r#"{{"severity":"warning","sentence":"It is so.","command":"{command}"}}"#);
    let status = format!(r#"{{"queue":{{}},"reasons":[{},{}]}}"#, reason(""), reason("cello-relay resume"));
    let shown = serde_json::from_str::<model::Status>(&status).unwrap().render();
    let told = "WARNING   It is so.\nWARNING   It is so.\n          next: cello-relay resume\n\n";
    assert!(shown.starts_with(told), "{shown}");
}

#[test]
fn listings_and_single_events_are_readable_with_whatever_is_known() {
    let at = Timestamp::from_millis(0).to_string();
    let row = format!(
        r#"{{"id":"{ID}","state":"dead","user":"[redacted]","attempts":2,"acceptedAt":"{at}","reason":"http_400",
        "message":"[redacted]","history":[{{"at":"{at}","reason":"http_400","status":400,"requestId":"r-1"}}]}}"#
    );
    let shown = serde_json::from_str::<model::Row>(&row).unwrap().render();
    assert!(shown.contains("reason      http_400") && shown.contains("r-1"), "{shown}");
    let page = format!(r#"{{"events":[{row}],"next":"{ID}"}}"#);
    let page: model::Page = serde_json::from_str(&page).unwrap();
    assert!(page.render().lines().nth(1).unwrap().starts_with(ID));
}
