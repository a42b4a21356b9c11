//! What cannot be undone: behind a switch, sent once, and forgotten here too.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cello_relay::reads::Settings;
use tokio::sync::Semaphore;

use super::world::{LINK, World, settings};
use crate::cello::upstream::{Reply, Seen};

const ERASE: &str = "/referrers/7/depersonalize";

fn switched_on() -> Settings {
    Settings { allow_depersonalize: true, ..settings() }
}

fn is_erasure(seen: &Seen) -> bool {
    seen.path.ends_with("/depersonalize")
}

#[tokio::test]
async fn it_is_off_unless_it_is_switched_on() {
    let world = World::links().await;
    let answer = world.ask("POST", ERASE, &[]).await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("reads.allow_depersonalize"), "{}", answer.body);
    assert_eq!(world.cello().calls().len(), 0);
}

#[tokio::test]
async fn it_is_passed_on_and_what_is_kept_of_the_user_is_dropped() {
    let world = World::script(switched_on(), |seen| async move {
        match seen.path.as_str() {
            path if path.starts_with("/referrers/") => Reply::json(204, ""),
            "/referral-codes/of-7" => Reply::json(200, r#"{"code":"of-7","productUserId":"7","valid":true}"#),
            "/referral-codes/of-8" => Reply::json(200, r#"{"code":"of-8","productUserId":"8","valid":true}"#),
            _ => Reply::json(200, LINK),
        }
    })
    .await;
    let paths = [
        "/referral-codes/active-link/7",
        "/referral-codes/of-7",
        "/referral-codes/active-link/8",
        "/referral-codes/of-8",
    ];
    for path in paths {
        assert_eq!(world.get(path).await.status, 200);
    }
    let answer = world.ask("POST", ERASE, &[]).await;
    assert_eq!((answer.status, &*answer.body), (204, ""));
    let seen = world.cello().seen(ERASE);
    assert_eq!(
        (seen.len(), seen[0].header("content-length"), &*seen[0].body),
        (1, "0", ""),
        "its length is in no doubt"
    );
    let kept: Vec<bool> = {
        let mut kept = Vec::new();
        for path in paths {
            kept.push(world.get(path).await.header("age").is_some());
        }
        kept
    };
    assert_eq!(kept, [false, false, true, true]);
    let erasures: Vec<Seen> = world.cello().calls().into_iter().filter(is_erasure).collect();
    assert_eq!((erasures.len(), &*erasures[0].method, &*erasures[0].body), (1, "POST", ""));
}

#[tokio::test]
async fn an_answer_that_was_asked_for_before_does_not_come_back_after() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let world = World::script(switched_on(), move |seen| {
        let held = held.clone();
        async move {
            if is_erasure(&seen) {
                return Reply::json(204, "");
            }
            held.acquire().await.unwrap().forget();
            Reply::json(200, LINK)
        }
    })
    .await;
    let world = Arc::new(world);
    let reader = world.clone();
    let path = "/referral-codes/active-link/7";
    let reader = tokio::spawn(async move { reader.get(path).await });
    world.cello().saw(path, 1).await;
    assert_eq!(world.ask("POST", ERASE, &[]).await.status, 204);
    gate.add_permits(2);
    assert_eq!(reader.await.unwrap().header("cache-status"), Some("cello-relay; fwd=uri-miss"));
    assert_eq!(world.get(path).await.header("age"), None);
    assert_eq!(world.cello().calls().len(), 3);
}

#[tokio::test]
async fn it_is_sent_once_whatever_comes() {
    let replies: [(fn() -> Reply, u16); 5] = [
        (Reply::unauthorized, 502),
        (|| Reply::json(500, "{}"), 500),
        (|| Reply::With(503, "retry-after", "1".to_owned()), 503),
        (|| Reply::Reset, 502),
        (|| Reply::Hang, 504),
    ];
    for (reply, status) in replies {
        let settings = Settings { timeout: Duration::from_millis(500), ..switched_on() };
        let tokens = Arc::new(AtomicUsize::new(0));
        let given = tokens.clone();
        let world = World::whole_script(settings, move |seen| {
            let given = given.clone();
            async move {
                match seen.path.as_str() {
                    "/token" => Reply::token(&format!("t{}", given.fetch_add(1, Ordering::SeqCst)), 18_000),
                    _ => reply(),
                }
            }
        })
        .await;
        assert_eq!(world.ask("POST", ERASE, &[]).await.status, status);
        if status == 502 && world.metric(r#"upstream_request_failures_total{reason="http_401"}"#) > 0.0 {
            world.cello().saw("/token", 2).await;
        }
        assert_eq!(world.cello().calls().len(), 1, "{status}");
    }
}

#[tokio::test]
async fn two_at_once_are_two_calls() {
    let world = Arc::new(World::script(switched_on(), |_| async { Reply::json(204, "") }).await);
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let world = world.clone();
            tokio::spawn(async move { world.ask("POST", ERASE, &[]).await.status })
        })
        .collect();
    for call in calls {
        assert_eq!(call.await.unwrap(), 204);
    }
    assert_eq!(world.cello().calls().len(), 2);
}
