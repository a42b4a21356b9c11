//! A bearer token from a file, and none at all.

use std::time::Duration;

use cello_relay::cello::{Access, Auth, Probe, ProbeError, Verdict};
use cello_relay::reason::Reason;

use super::upstream::{Reply, Upstream};
use super::{KeyFiles, run, settings};

/// Takes events with that `Authorization`, and no others.
async fn wanting(authorization: &'static str) -> Upstream {
    Upstream::start(move |seen| async move {
        match seen.header("authorization") == authorization {
            true => Reply::delivered(),
            false => Reply::unauthorized(),
        }
    })
    .await
}

#[tokio::test]
async fn a_bearer_token_is_read_again_when_its_file_changes() {
    let upstream = wanting("Bearer new").await;
    let files = KeyFiles::none();
    let file = files.path("token");
    std::fs::write(&file, "old\n").unwrap();
    let running = run(settings(&upstream.url(), Auth::Bearer(file.clone())));
    assert_eq!(running.cello.probe().await, Ok(Probe::BearerRead));
    let judgement = running.deliver().await;
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::Hold, Some(Reason::Http401)));
    assert_eq!(upstream.seen("/events").len(), 1, "an unchanged token is not sent again");

    std::fs::write(&file, "new\n").unwrap();
    assert_eq!(running.deliver().await.verdict, Verdict::Delivered, "the 401 leads to the new one at once");
    std::fs::remove_file(&file).unwrap();
    running.access(|access| matches!(access, Access::Missing(_))).await;
    assert_eq!(running.deliver().await.verdict, Verdict::NoAccess);
}

#[tokio::test]
async fn white_space_around_a_bearer_token_is_no_part_of_it_as_for_the_relay_that_asks_for_it() {
    let upstream = wanting("Bearer sound").await;
    let files = KeyFiles::none();
    let file = files.path("token");
    for content in ["sound", "sound\r\n", "\n \tsound \n\n"] {
        std::fs::write(&file, content).unwrap();
        let running = run(settings(&upstream.url(), Auth::Bearer(file.clone())));
        assert_eq!(running.cello.probe().await, Ok(Probe::BearerRead), "{content:?}");
        assert_eq!(running.deliver().await.verdict, Verdict::Delivered, "{content:?}");
    }
}

#[tokio::test]
async fn a_probe_approves_of_no_bearer_token_that_cannot_be_sent() {
    let upstream = Upstream::start(|_| async { Reply::delivered() }).await;
    let files = KeyFiles::none();
    let file = files.path("token");
    for (content, why) in [("canary\x01", "no header may hold"), (" \n\n", "it is empty")] {
        std::fs::write(&file, content).unwrap();
        let running = run(settings(&upstream.url(), Auth::Bearer(file.clone())));
        let error = running.cello.probe().await.unwrap_err();
        assert!(matches!(error, ProbeError::Missing(_)), "{error:?}");
        let said = error.to_string();
        assert!(said.contains("/token: ") && said.contains(why) && !said.contains("canary"), "{said}");
        running.access(|access| matches!(access, Access::Missing(_))).await;
    }
}

#[tokio::test]
async fn operators_are_told_since_when_a_bearer_token_is_held_and_why_it_is_not() {
    let upstream = Upstream::start(|_| async { Reply::delivered() }).await;
    let files = KeyFiles::none();
    let file = files.path("token");
    std::fs::write(&file, "sound\n").unwrap();
    let running = run(settings(&upstream.url(), Auth::Bearer(file.clone())));
    running.access(|access| *access == Access::Granted).await;
    let held = running.cello.token_status();
    assert!(held.access == Access::Granted && held.obtained_at.is_some() && held.last_error.is_none(), "{held:?}");

    for (content, why) in [(Some("not\x01sound"), "no header may hold"), (None, "No such file")] {
        let before = running.cello.token_status();
        match content {
            Some(content) => std::fs::write(&file, content).unwrap(),
            None => std::fs::remove_file(&file).unwrap(),
        }
        let changed = async {
            while running.cello.token_status().last_error == before.last_error {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), changed).await.expect("the file is read again");
        let told = running.cello.token_status();
        assert!(matches!(told.access, Access::Missing(_)) && told.obtained_at.is_none(), "{told:?}");
        assert!(told.last_error.as_ref().is_some_and(|(_, said)| said.contains(why)), "{told:?}");
    }
}

#[tokio::test]
async fn without_authentication_no_header_is_sent() {
    let upstream = Upstream::start(|_| async { Reply::delivered() }).await;
    let running = run(settings(&upstream.url(), Auth::None));
    assert_eq!(running.deliver().await.verdict, Verdict::Delivered);
    assert!(!upstream.seen("/events")[0].headers.contains_key("authorization"));
}
