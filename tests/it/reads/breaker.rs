//! While the forwarder's breaker is open no read waits for a Cello that is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cello_relay::cello::Access;
use serde_json::json;
use tokio::task::JoinHandle;

use super::world::{LINK, World, settings};
use crate::cello::upstream::Reply;
use crate::wire::Answer;

const PATH: &str = "/referral-codes/active-link/7";
const REWARD: &str = "/new-users/7/reward";

/// A Cello that hangs while it is down, and reads that would wait longer than any test.
async fn hanging() -> (Arc<World>, Arc<AtomicBool>) {
    let mut settings = settings();
    (settings.timeout, settings.allow_depersonalize) = (Duration::from_secs(3_600), true);
    let down = Arc::new(AtomicBool::new(false));
    let shown = down.clone();
    let world = World::script(settings, move |_| {
        let down = shown.load(Ordering::SeqCst);
        async move { if down { Reply::Hang } else { Reply::json(200, LINK) } }
    })
    .await;
    world.access(|access| *access == Access::Granted).await;
    (Arc::new(world), down)
}

/// Opens the breaker; one read is on its way to find out.
async fn find_out(world: &Arc<World>) -> JoinHandle<Answer> {
    world.set_breaker(true);
    let reader = world.clone();
    let trial = tokio::spawn(async move { reader.get(REWARD).await });
    world.cello().saw(REWARD, 1).await;
    trial
}

#[track_caller]
fn assert_not_asked(answer: &Answer) {
    assert_eq!((answer.status, &answer.json()["reason"]), (503, &json!("breaker_open")), "{answer:?}");
    assert!(answer.header("retry-after").is_some());
}

#[tokio::test]
async fn while_the_breaker_is_open_one_read_waits_for_cello_and_all_others_are_answered_at_once() {
    let (world, down) = hanging().await;
    down.store(true, Ordering::SeqCst);
    let trial = find_out(&world).await;
    for user in 0..50 {
        assert_not_asked(&world.get(&format!("/new-users/other-{user}/reward")).await);
    }
    assert_not_asked(&world.ask("GET", PATH, &[("cache-control", "no-cache")]).await);
    assert_eq!(world.cello().calls().len(), 1);
    trial.abort();
}

#[tokio::test]
async fn while_the_breaker_is_open_an_old_link_is_given_at_once_and_asked_for_behind_the_readers_back() {
    let (world, down) = hanging().await;
    assert_eq!(world.get(PATH).await.status, 200);
    world.pass(Duration::from_secs(70));
    down.store(true, Ordering::SeqCst);
    world.set_breaker(true);
    for _ in 0..20 {
        let old = world.get(PATH).await;
        assert_eq!((old.status, old.header("age")), (200, Some("70")));
        assert_eq!(old.header("cache-status"), Some("cello-relay; hit; ttl=-10; detail=breaker_open"));
    }
    world.cello().saw(PATH, 2).await;
    assert_eq!(world.metric(r#"read_stale_served_total{route="active_link"}"#), 20.0);
    assert_eq!(world.cello().calls().len(), 2, "the first one, and one that finds out");
}

#[tokio::test]
async fn a_read_that_finds_cello_back_lets_all_others_go_though_the_breaker_is_open() {
    let (world, _) = hanging().await;
    world.set_breaker(true);
    assert_eq!(world.get(REWARD).await.status, 200);
    for user in 0..20 {
        assert_eq!(world.get(&format!("/new-users/other-{user}/reward")).await.status, 200);
    }
}

#[tokio::test]
async fn when_the_breaker_closes_reads_go_out_again() {
    let (world, down) = hanging().await;
    down.store(true, Ordering::SeqCst);
    let trial = find_out(&world).await;
    assert_not_asked(&world.get("/new-users/other/reward").await);
    down.store(false, Ordering::SeqCst);
    world.set_breaker(false);
    assert_eq!(world.get("/new-users/other/reward").await.status, 200);
    trial.abort();
}

#[tokio::test]
async fn while_the_breaker_is_open_nothing_that_cannot_be_undone_waits_either() {
    let (world, down) = hanging().await;
    down.store(true, Ordering::SeqCst);
    let trial = find_out(&world).await;
    assert_not_asked(&world.ask("POST", "/referrers/7/depersonalize", &[]).await);
    assert_eq!(world.cello().calls().len(), 1);
    trial.abort();
}
