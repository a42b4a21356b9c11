//! What is wrong with tokens is told once, and since when, and its end once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cello_relay::cello::Access;
use cello_relay::clock::{Clock, SystemClock};
use cello_relay::reason::Reason;
use tokio::sync::Notify;

use super::upstream::{Reply, Upstream};
use super::{KeyFiles, run, run_by, settings, values};
use crate::logged::Logged;
use crate::reads::world::Ahead;

/// So many lines of the complaint, and of its end.
fn told(log: &Logged, complaint: &str) -> (usize, usize) {
    (log.count(complaint), log.count("token_recovered"))
}

#[tokio::test]
async fn that_no_token_can_be_obtained_is_told_once_and_that_there_is_one_again() {
    let log = Logged::from_now();
    let asked = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start(move |_| {
        let is_early = asked.fetch_add(1, Ordering::Relaxed) < 2;
        async move { if is_early { Reply::json(500, "") } else { Reply::token("t", 18_000) } }
    })
    .await;
    let running = run(settings(&upstream.url(), values()));
    upstream.saw("/token", 2).await;
    assert_eq!(told(&log, "token_refresh_failed"), (1, 0));
    running.access(|access| *access == Access::Granted).await;
    assert_eq!(told(&log, "token_refresh_failed"), (1, 1));
}

#[tokio::test]
async fn a_token_that_has_ended_when_it_comes_is_a_failure_that_is_told_and_waited_after() {
    let log = Logged::from_now();
    let clock = Arc::new(Ahead::default());
    let slow = clock.clone();
    let upstream = Upstream::start(move |_| {
        slow.pass(Duration::from_secs(2));
        async { Reply::token("t", 1) }
    })
    .await;
    let running = run_by(settings(&upstream.url(), values()), clock);
    let failed = async {
        while running.cello.token_status().failure.is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), failed).await.expect("it is told");
    let told = running.cello.token_status();
    assert_eq!((told.failure, told.obtained_at), (Some(Reason::Timeout), None), "{told:?}");
    assert!(told.last_error.is_some_and(|(_, said)| said.contains("lives for less time than its answer took")));
    assert_eq!(running.metric(r#"token_refresh_failures_total{reason="other"}"#), 1.0);
    assert_eq!((log.count("token_refresh_failed"), upstream.seen("/token").len()), (1, 1));
}

#[tokio::test]
async fn that_keys_are_refused_is_told_once_and_that_others_are_not() {
    let log = Logged::from_now();
    let upstream = Upstream::start(|seen| async move {
        if seen.body.contains("good") { Reply::token("t", 18_000) } else { Reply::unauthorized() }
    })
    .await;
    let files = KeyFiles::with("bad", "s");
    let running = run(settings(&upstream.url(), files.auth()));
    running.access(|access| matches!(access, Access::Refused(_))).await;
    files.write("bad too", "s");
    upstream.saw("/token", 2).await;
    assert_eq!(told(&log, "credentials_refused"), (1, 0));
    files.write("good", "s");
    running.access(|access| *access == Access::Granted).await;
    assert_eq!(told(&log, "credentials_refused"), (1, 1));
}

#[tokio::test]
async fn that_keys_are_missing_is_told_once_and_that_they_are_there() {
    let log = Logged::from_now();
    let upstream = Upstream::start(|_| async { Reply::token("t", 18_000) }).await;
    let files = KeyFiles::none();
    let running = run(settings(&upstream.url(), files.auth()));
    running.access(|access| matches!(access, Access::Missing(_))).await;
    assert_eq!(told(&log, "credentials_missing"), (1, 0));
    files.write("good", "s");
    running.access(|access| *access == Access::Granted).await;
    assert_eq!(told(&log, "credentials_missing"), (1, 1));
}

#[tokio::test]
async fn since_when_keys_are_refused_is_when_it_was_learnt() {
    let answers = Arc::new(Notify::new());
    let waits = answers.clone();
    let upstream = Upstream::start(move |_| {
        let waits = waits.clone();
        async move {
            waits.notified().await;
            Reply::unauthorized()
        }
    })
    .await;
    let running = run(settings(&upstream.url(), values()));
    upstream.saw("/token", 1).await;
    let asked = SystemClock.now();
    let before = std::iter::repeat_with(|| SystemClock.now()).find(|now| *now > asked).unwrap();
    answers.notify_one();
    running.access(|access| matches!(access, Access::Refused(since) if *since >= before)).await;
}

#[tokio::test]
async fn operators_are_told_of_the_token_in_use_and_that_newer_keys_are_refused() {
    let upstream = Upstream::start(|seen| async move {
        if seen.body.contains("good") { Reply::token("t", 18_000) } else { Reply::unauthorized() }
    })
    .await;
    let files = KeyFiles::with("good", "s");
    let before = SystemClock.now();
    let running = run(settings(&upstream.url(), files.auth()));
    running.access(|access| *access == Access::Granted).await;
    let told = running.cello.token_status();
    let life = Duration::from_secs(18_000);
    let (obtained, ends) = (told.obtained_at.unwrap(), told.expires_at.unwrap());
    assert!(before <= obtained && obtained <= SystemClock.now(), "{told:?}");
    assert!(before.plus(life) <= ends && ends <= SystemClock.now().plus(life), "{told:?}");
    assert!(told.refresh_at.is_some_and(|at| obtained < at && at < ends), "{told:?}");
    assert!(!told.keys_refused && told.last_error.is_none(), "{told:?}");

    files.write("bad", "s");
    let refused = async {
        while !running.cello.token_status().keys_refused {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.expect("the new keys are tried");
    let told = running.cello.token_status();
    assert_eq!((told.access, told.obtained_at), (Access::Granted, Some(obtained)), "the token is good all the same");
    assert!(told.last_error.is_some(), "{told:?}");
}
