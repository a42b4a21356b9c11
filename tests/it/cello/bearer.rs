//! A bearer token from a file, and none at all.

use cello_relay::cello::{Access, Auth, Probe, Verdict};
use cello_relay::reason::Reason;

use super::upstream::{Reply, Upstream};
use super::{KeyFiles, run, settings};

#[tokio::test]
async fn a_bearer_token_is_read_again_when_its_file_changes() {
    let upstream = Upstream::start(|seen| async move {
        match seen.header("authorization") {
            "Bearer new" => Reply::delivered(),
            _ => Reply::unauthorized(),
        }
    })
    .await;
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
async fn without_authentication_no_header_is_sent() {
    let upstream = Upstream::start(|_| async { Reply::delivered() }).await;
    let running = run(settings(&upstream.url(), Auth::None));
    assert_eq!(running.deliver().await.verdict, Verdict::Delivered);
    assert!(!upstream.seen("/events")[0].headers.contains_key("authorization"));
}
