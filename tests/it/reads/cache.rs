//! What is kept, for how long, and what the app is told of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::world::{LINK, World, settings};
use crate::cello::upstream::Reply;

const SECOND: Duration = Duration::from_secs(1);
const PATH: &str = "/referral-codes/active-link/7";

/// A Cello whose status the test sets, and a number in each answer.
async fn numbered() -> (World, Arc<AtomicU16>) {
    let (status, number) = (Arc::new(AtomicU16::new(200)), AtomicUsize::new(0));
    let shown = status.clone();
    let world = World::script(settings(), move |_| {
        let (status, number) = (shown.load(Ordering::SeqCst), number.fetch_add(1, Ordering::SeqCst));
        async move { Reply::json(status, &format!(r#"{{"activeUcc":"{number}"}}"#)) }
    })
    .await;
    (world, status)
}

#[tokio::test]
async fn an_answer_is_given_again_for_its_time_to_live_and_no_longer() {
    let (world, _) = numbered().await;
    let first = world.get(PATH).await;
    assert_eq!(first.header("cache-status"), Some("cello-relay; fwd=uri-miss; stored"));
    assert_eq!((&*first.body, first.header("age")), (r#"{"activeUcc":"0"}"#, None));
    world.pass(59 * SECOND);
    let again = world.get("/referral-codes/active-link/%37").await;
    let status = again.header("cache-status").unwrap();
    assert_eq!((&*again.body, status), (&*first.body, "cello-relay; hit; ttl=1"));
    assert_eq!((again.header("age"), again.header("apigw-requestid")), (Some("59"), Some("req-1=")));
    world.pass(SECOND);
    let later = world.get(PATH).await;
    let status = later.header("cache-status");
    assert_eq!((&*later.body, status), (r#"{"activeUcc":"1"}"#, Some("cello-relay; fwd=stale; stored")));
    assert_eq!(world.metric(r#"read_cache_requests_total{route="active_link"}"#), 3.0);
    assert_eq!(world.metric(r#"read_cache_hits_total{route="active_link"}"#), 1.0);
    assert_eq!(world.metric("read_cache_entries"), 1.0);
}

#[tokio::test]
async fn each_kind_of_read_has_its_own_time_to_live() {
    let (world, _) = numbered().await;
    for (path, ttl) in [("/referral-codes/c", 5), ("/referral-codes/active-link/c", 60), ("/new-users/c/reward", 0)] {
        let first = world.get(path).await.body;
        if ttl > 0 {
            world.pass(SECOND * (ttl - 1));
            assert_eq!(world.get(path).await.body, first, "{path}");
            world.pass(SECOND);
        }
        assert_ne!(world.get(path).await.body, first, "{path}");
    }
}

#[tokio::test]
async fn an_old_link_stands_in_while_cello_fails_but_an_old_code_never() {
    let (world, status) = numbered().await;
    let (link, code) = (world.get(PATH).await, world.get("/referral-codes/c").await);
    assert_eq!((link.status, code.status), (200, 200));
    status.store(503, Ordering::SeqCst);
    world.pass(60 * SECOND);
    let old = world.get(PATH).await;
    assert_eq!((old.status, &old.body, old.header("age")), (200, &link.body, Some("60")));
    assert_eq!(old.header("cache-status"), Some("cello-relay; fwd=stale; fwd-status=503; ttl=0"));
    assert_eq!(world.metric(r#"read_stale_served_total{route="active_link"}"#), 1.0);
    assert_eq!(world.get("/referral-codes/c").await.status, 503);
    world.pass(3_600 * SECOND);
    assert_eq!(world.get(PATH).await.status, 503, "the hour is over");
}

#[tokio::test]
async fn what_cello_does_not_have_any_more_is_given_no_longer() {
    for gone in [404, 410] {
        let (world, status) = numbered().await;
        assert_eq!(world.get(PATH).await.status, 200);
        status.store(gone, Ordering::SeqCst);
        assert_eq!(world.ask("GET", PATH, &[("cache-control", "no-cache")]).await.status, gone);
        status.store(503, Ordering::SeqCst);
        assert_eq!(world.get(PATH).await.status, 503, "neither as fresh nor to stand in, after a {gone}");
    }
}

#[tokio::test]
async fn no_cache_asks_cello_itself_and_takes_no_old_answer() {
    let (world, status) = numbered().await;
    let first = world.get(PATH).await.body;
    for header in ["no-cache", "max-age=0, No-Cache"] {
        let answer = world.ask("GET", PATH, &[("cache-control", header)]).await;
        assert_ne!(answer.body, first);
        assert_eq!(answer.header("cache-status"), Some("cello-relay; fwd=request; stored"));
        assert_eq!(world.get(PATH).await.body, answer.body, "what came is kept for the others");
    }
    status.store(500, Ordering::SeqCst);
    assert_eq!(world.ask("GET", PATH, &[("cache-control", "no-cache")]).await.status, 500);
    assert_eq!(world.get(PATH).await.status, 200);
}

#[tokio::test]
async fn an_answer_that_was_asked_for_earlier_does_not_replace_a_later_one() {
    let (gate, number) = (Arc::new(Semaphore::new(0)), AtomicUsize::new(0));
    let held = gate.clone();
    let world = World::script(settings(), move |_| {
        let (held, number) = (held.clone(), number.fetch_add(1, Ordering::SeqCst));
        async move {
            if number == 0 {
                held.acquire().await.unwrap().forget();
            }
            Reply::json(200, &format!(r#"{{"activeUcc":"{number}"}}"#))
        }
    })
    .await;
    let world = Arc::new(world);
    let slow = world.clone();
    let slow = tokio::spawn(async move { slow.get(PATH).await });
    world.cello().saw(PATH, 1).await;
    let later = world.ask("GET", PATH, &[("cache-control", "no-cache")]).await;
    gate.add_permits(1);
    assert_eq!(slow.await.unwrap().header("cache-status"), Some("cello-relay; fwd=uri-miss"));
    assert_eq!(world.get(PATH).await.body, later.body);
}

#[tokio::test]
async fn only_a_200_with_json_is_kept() {
    for reply in [
        || Reply::json(400, r#"{"message":"m"}"#),
        || Reply::json(404, r#"{"message":"m"}"#),
        || Reply::json(500, r#"{"message":"m"}"#),
        || Reply::json(201, r#"{"message":"m"}"#),
        || Reply::Typed(200, "text/html", "<h1>An unexpected error occurred</h1>".into()),
        || Reply::Typed(200, "application/json", "".into()),
    ] {
        let world = World::script(settings(), move |_| async move { reply() }).await;
        let (first, again) = (world.get(PATH).await, world.get(PATH).await);
        assert_eq!((first.status, &first.body), (again.status, &again.body));
        assert_eq!(first.header("cache-status"), Some("cello-relay; fwd=uri-miss"));
        assert_eq!(world.cello().calls().len(), 2, "{first:?}");
    }
}

#[tokio::test]
async fn the_cache_is_bounded_by_entries_and_by_bytes() {
    for (entries, bytes) in [(4, 8 << 20), (10_000, 2_048), (0, 8 << 20), (10_000, 0)] {
        let mut settings = settings();
        (settings.cache_max_entries, settings.cache_max_bytes) = (entries, bytes);
        let world = World::script(settings, |_| async { Reply::json(200, LINK) }).await;
        for user in 0..20 {
            assert_eq!(world.get(&format!("/referral-codes/active-link/{user}")).await.status, 200);
        }
        let kept = world.metric("read_cache_entries");
        let most: f64 = if entries == 0 || bytes == 0 { 0.0 } else { 8.0 };
        assert!(kept <= most.min(entries as f64) && (most == 0.0 || kept > 0.0), "{entries} {bytes}: {kept}");
    }
}

#[tokio::test]
async fn a_fresh_answer_that_another_read_brought_meanwhile_is_a_hit_and_not_an_old_one() {
    let (gate, number) = (Arc::new(Semaphore::new(0)), AtomicUsize::new(0));
    let held = gate.clone();
    let world = World::script(settings(), move |_| {
        let (held, number) = (held.clone(), number.fetch_add(1, Ordering::SeqCst));
        async move {
            if number > 0 {
                return Reply::json(200, LINK);
            }
            held.acquire().await.unwrap().forget();
            Reply::json(503, "{}")
        }
    })
    .await;
    let world = Arc::new(world);
    let slow = world.clone();
    let slow = tokio::spawn(async move { slow.get(PATH).await });
    world.cello().saw(PATH, 1).await;
    world.ask("GET", PATH, &[("cache-control", "no-cache")]).await;
    gate.add_permits(1);
    let slow = slow.await.unwrap();
    assert_eq!((slow.status, slow.header("cache-status")), (200, Some("cello-relay; hit; ttl=60")));
    assert_eq!(world.metric(r#"read_stale_served_total{route="active_link"}"#), 0.0);
    assert_eq!(world.metric(r#"read_cache_hits_total{route="active_link"}"#), 1.0);
}
