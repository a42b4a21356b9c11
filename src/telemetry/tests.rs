//! What log lines promise.

use std::sync::Arc;
use std::time::Duration;

use tracing::subscriber::with_default;

use super::lines::{Lines, Shared, Style};
use super::*;
use crate::clock::{TestClock, Timestamp};

fn json_lines(level: Level, log: impl FnOnce(&Handle)) -> Vec<serde_json::Value> {
    let lines = written(level, Style::Json, log);
    lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn written(level: Level, style: Style, log: impl FnOnce(&Handle)) -> Vec<String> {
    let (output, clock) = (Shared::default(), Arc::new(TestClock::starting_at(Timestamp::from_millis(0))));
    let lines = Lines::new(style, output.clone(), Arc::default(), clock);
    let (subscriber, handle) = subscriber(level, lines);
    with_default(subscriber, || log(&handle));
    output.lines()
}

#[test]
fn a_json_line_has_the_promised_fields_flat_and_in_order() {
    let lines = written(Level::Info, Style::Json, |_| {
        tracing::info!(
            event = "token_refreshed",
            grant = "access_key",
            duration_seconds = 0.25,
            "a token was obtained"
        );
    });
    let line: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    assert!(lines[0].starts_with(r#"{"timestamp":"1970-01-01T00:00:00"#), "{}", lines[0]);
    assert_eq!(line["level"], "info");
    assert_eq!(line["message"], "a token was obtained");
    assert_eq!(line["event"], "token_refreshed");
    assert_eq!(line["duration_seconds"], 0.25);
    assert_eq!(line["target"], "cello_relay::telemetry::tests");
    assert_eq!(line["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn dotted_names_and_error_chains_are_kept_and_long_texts_are_capped() {
    let error = std::io::Error::other("x".repeat(2_000));
    let lines = json_lines(Level::Info, |_| {
        tracing::warn!(event = "e", error.r#type = "timeout", error = &error as &dyn std::error::Error, "failed");
    });
    assert_eq!(lines[0]["error.type"], "timeout");
    assert!(lines[0]["error"].as_str().unwrap().len() < 520);
}

#[test]
fn a_value_with_line_breaks_stays_in_its_line() {
    for style in [Style::Json, Style::Text { color: false }] {
        let lines = written(Level::Info, style, |_| tracing::info!(event = "e", path = "a\nlevel=error", "seen"));
        assert_eq!(lines.len(), 1, "{lines:?}");
    }
}

#[test]
fn libraries_are_capped_at_warn_whatever_the_level() {
    let lines = json_lines(Level::Trace, |_| {
        tracing::trace!("own");
        tracing::info!(target: "hyper::client", "headers");
        tracing::debug!(target: "rustls", "bytes");
        tracing::warn!(target: "hyper::client", "a warning");
    });
    let messages: Vec<&str> = lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["own", "a warning"]);
    assert!(json_lines(Level::Error, |_| tracing::warn!(target: "hyper", "quiet")).is_empty());
}

#[test]
fn what_operators_ordered_is_written_at_every_level() {
    for level in Level::ALL {
        let lines = json_lines(level, |_| tracing::info!(target: AUDIT, event = "operator_action", "an order"));
        assert_eq!(lines.len(), 1, "{level:?}");
    }
}

#[test]
fn the_level_can_be_changed_while_running() {
    let lines = json_lines(Level::Info, |handle| {
        tracing::debug!("before");
        handle.set_level(Level::Debug);
        tracing::debug!("after");
        assert_eq!(handle.level(), Level::Debug);
    });
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["message"], "after");
}

#[tokio::test(start_paused = true)]
async fn repeated_warnings_are_written_once_in_ten_seconds_with_a_count_of_the_rest() {
    let (output, clock) = (Shared::default(), Arc::new(TestClock::starting_at(Timestamp::from_millis(0))));
    let metrics = Arc::new(Metrics::new());
    let (subscriber, _handle) =
        subscriber(Level::Info, Lines::new(Style::Json, output.clone(), Arc::clone(&metrics), clock));
    let _guard = tracing::subscriber::set_default(subscriber);
    for _ in 0..5 {
        tracing::warn!(event = "delivery_failed", reason = "http_5xx", "an attempt failed");
    }
    tokio::time::advance(Duration::from_secs(10)).await;
    tracing::warn!(event = "delivery_failed", reason = "http_5xx", "an attempt failed");
    let lines = output.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(!lines[0].contains("suppressed") && lines[1].contains(r#""suppressed":4"#), "{lines:?}");
    assert_eq!(metrics.log_messages.with(crate::metrics::LogLevel::Warn).get(), 6);
}

#[test]
fn that_a_state_begins_is_written_each_time_as_is_that_it_ends() {
    let lines = json_lines(Level::Info, |_| {
        for _ in 0..2 {
            tracing::warn!(event = "delivery_held", reason = "http_403", "delivery is held");
            tracing::info!(event = "delivery_resumed", "delivery is no longer held");
        }
        tracing::warn!(event = "delivery_held", reason = "http_403", "delivery is held");
    });
    assert_eq!((lines.len(), &lines[4]["event"]), (5, &"delivery_held".into()), "{lines:?}");
}

#[test]
fn each_kind_of_what_looks_wrong_has_its_line() {
    let lines = json_lines(Level::Info, |_| {
        for kind in ["price", "currency", "price"] {
            tracing::warn!(event = "event_looks_wrong", kind, "accepting events that look wrong");
        }
    });
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn a_panic_is_counted_and_logged_without_its_text() {
    let metrics = Arc::new(Metrics::new());
    let lines = json_lines(Level::Info, |_| {
        let counted = Arc::clone(&metrics);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| panics::report(panic, &counted)));
        let result = std::panic::catch_unwind(|| panic!("user-4711@example.com"));
        std::panic::set_hook(before);
        assert!(result.is_err());
    });
    let line = lines.iter().find(|line| line["event"] == "panic").expect("a line");
    assert!(line["reason"].as_str().unwrap().contains("telemetry/tests.rs"));
    assert!(!line.to_string().contains("4711"));
    assert!(metrics.panics.get() >= 1);
}
