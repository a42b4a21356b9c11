//! What the app gets when Cello, the token or the relay's own limits fail it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cello_relay::cello::{Access, Courier, Departed, Verdict};
use cello_relay::clock::Timestamp;
use cello_relay::event::EventId;
use cello_relay::metrics::{Code, Metrics, ReadRoute};
use serde_json::json;
use tokio::sync::Semaphore;

use super::world::{LINK, World, settings};
use crate::cello::upstream::{Reply, Seen};
use crate::wire::Answer;

const SHORT: Duration = Duration::from_millis(150);

#[track_caller]
fn assert_failed(answer: &Answer, status: u16, reason: &str) {
    let body = answer.json();
    assert_eq!((answer.status, &body["reason"]), (status, &json!(reason)), "{answer:?}");
    assert!(body["message"].is_string());
    assert_eq!(answer.header("retry-after").is_some(), status == 503);
}

#[tokio::test]
async fn a_read_that_cello_does_not_answer_in_time_is_a_504() {
    let mut settings = settings();
    settings.timeout = SHORT;
    let world = World::script(settings, |_| async { Reply::Hang }).await;
    world.access(|access| *access == Access::Granted).await;
    assert_failed(&world.get("/new-users/7/reward").await, 504, "timeout");
    assert_eq!(world.metric(r#"upstream_request_failures_total{reason="timeout"}"#), 1.0);
    assert_eq!(world.metric("upstream_requests_in_flight"), 0.0);
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_502() {
    let world = World::script(settings(), |_| async { Reply::Reset }).await;
    assert_failed(&world.get("/new-users/7/reward").await, 502, "reset");
}

#[tokio::test]
async fn an_answer_that_ends_http_is_a_502() {
    let world = World::script(settings(), |_| async { Reply::With(101, "upgrade", "x".to_owned()) }).await;
    assert_failed(&world.get("/new-users/7/reward").await, 502, "reset");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_a_502_and_never_a_cut_body() {
    let body = |bytes: usize| Bytes::from(format!("\"{}\"", "x".repeat(bytes - 2)));
    let world = World::script(settings(), move |seen: Seen| async move {
        Reply::Answer(200, body(if seen.path.contains("large") { 64 * 1024 + 1 } else { 64 * 1024 }))
    })
    .await;
    assert_failed(&world.get("/new-users/large/reward").await, 502, "too_large");
    assert_eq!(world.get("/new-users/whole/reward").await.body.len(), 64 * 1024);
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once_and_then_it_is_a_502() {
    let tokens = Arc::new(AtomicUsize::new(0));
    let given = tokens.clone();
    let world = World::whole_script(settings(), move |seen| {
        let given = given.clone();
        async move {
            if seen.path == "/token" {
                return Reply::token(&format!("t{}", given.fetch_add(1, Ordering::SeqCst)), 18_000);
            }
            let fresh = seen.header("authorization") == "Bearer t1";
            match seen.path.contains("never") || !fresh {
                true => Reply::unauthorized(),
                false => Reply::json(200, "{}"),
            }
        }
    })
    .await;
    assert_eq!(world.get("/new-users/7/reward").await.status, 200);
    assert_eq!((world.cello().calls().len(), tokens.load(Ordering::SeqCst)), (2, 2));
    for _ in 0..20 {
        assert_failed(&world.get("/new-users/never/reward").await, 502, "http_401");
    }
    assert!(tokens.load(Ordering::SeqCst) <= 4, "no storm of tokens: {}", tokens.load(Ordering::SeqCst));
}

#[tokio::test]
async fn a_read_before_the_first_token_waits_for_it() {
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let world = World::whole_script(settings(), move |seen| {
        let held = held.clone();
        async move {
            if seen.path == "/token" {
                held.acquire().await.unwrap().forget();
                return Reply::token("t", 18_000);
            }
            Reply::json(200, LINK)
        }
    })
    .await;
    let world = Arc::new(world);
    let reader = world.clone();
    let reader = tokio::spawn(async move { reader.get("/new-users/7/reward").await });
    world.cello().saw("/token", 1).await;
    gate.add_permits(1);
    assert_eq!(reader.await.unwrap().status, 200);
}

#[tokio::test]
async fn without_a_token_in_time_it_is_a_503() {
    let mut settings = settings();
    settings.timeout = SHORT;
    let world = World::whole_script(settings, |_| async { Reply::Hang }).await;
    assert_failed(&world.get("/new-users/7/reward").await, 503, "timeout");
    assert_eq!(world.cello().calls().len(), 0);
}

#[tokio::test]
async fn without_a_token_because_cello_cannot_be_reached_the_reason_is_that() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base_url = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let world = World::before(&base_url, settings());
    assert_failed(&world.get("/new-users/7/reward").await, 503, "connect");
    let world = World::whole_script(settings(), |_| async { Reply::Reset }).await;
    assert_failed(&world.get("/new-users/7/reward").await, 503, "reset");
    let world = World::whole_script(settings(), |_| async { Reply::json(200, "{}") }).await;
    assert_failed(&world.get("/new-users/7/reward").await, 503, "not_json");
}

#[tokio::test]
async fn while_the_keys_are_refused_it_is_a_503_at_once() {
    let mut settings = settings();
    // Longer than the client of this test waits.
    settings.timeout = Duration::from_secs(3_600);
    let world = World::whole_script(settings, |_| async { Reply::unauthorized() }).await;
    world.access(|access| matches!(access, Access::Refused(_))).await;
    assert_failed(&world.get("/new-users/7/reward").await, 503, "credentials");
}

#[tokio::test]
async fn while_no_token_can_be_had_it_is_a_503_at_once_and_no_longer_once_there_is_one() {
    let mut settings = settings();
    // Longer than the client of this test waits.
    settings.timeout = Duration::from_secs(3_600);
    let failing = Arc::new(AtomicUsize::new(500));
    let shown = failing.clone();
    let world = World::whole_script(settings, move |seen| {
        let failing = shown.load(Ordering::SeqCst);
        async move {
            match (seen.path.as_str(), failing) {
                ("/token", 500) => Reply::json(500, "{}"),
                ("/token", _) => Reply::token("t", 18_000),
                _ => Reply::json(200, LINK),
            }
        }
    })
    .await;
    // The first one waits for the first attempt; the others for nothing.
    for _ in 0..20 {
        assert_failed(&world.get("/new-users/7/reward").await, 503, "http_5xx");
    }
    assert_eq!(world.cello().calls().len(), 0);
    failing.store(200, Ordering::SeqCst);
    world.access(|access| *access == Access::Granted).await;
    assert_eq!(world.get("/new-users/7/reward").await.status, 200);
}

/// Counts what is under way at once, and waits at the gate.
struct Crowd {
    gate: Arc<Semaphore>,
    most: Arc<AtomicUsize>,
}

async fn crowded(timeout: Duration, concurrency: usize) -> (Arc<World>, Crowd) {
    let crowd = Crowd { gate: Arc::new(Semaphore::new(0)), most: Arc::default() };
    let (gate, most, now) = (crowd.gate.clone(), crowd.most.clone(), Arc::new(AtomicUsize::new(0)));
    let mut settings = settings();
    (settings.timeout, settings.concurrency) = (timeout, concurrency);
    let world = World::script(settings, move |seen| {
        let (gate, most, now) = (gate.clone(), most.clone(), now.clone());
        async move {
            if seen.path == "/events" {
                return Reply::delivered();
            }
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            gate.acquire().await.unwrap().forget();
            now.fetch_sub(1, Ordering::SeqCst);
            Reply::json(200, "{}")
        }
    })
    .await;
    (Arc::new(world), crowd)
}

fn read_all(world: &Arc<World>, count: usize) -> Vec<tokio::task::JoinHandle<Answer>> {
    let read = |user| {
        let world = world.clone();
        tokio::spawn(async move { world.get(&format!("/new-users/{user}/reward")).await })
    };
    (0..count).map(read).collect()
}

#[tokio::test]
async fn so_many_reads_go_out_at_once_and_no_more() {
    let (world, crowd) = crowded(Duration::from_secs(20), 3).await;
    let readers = read_all(&world, 30);
    world.until(|_| crowd.most.load(Ordering::SeqCst) == 3).await;
    crowd.gate.add_permits(30);
    for reader in readers {
        assert_eq!(reader.await.unwrap().status, 200);
    }
    assert_eq!((crowd.most.load(Ordering::SeqCst), world.cello().calls().len()), (3, 30));
}

#[tokio::test]
async fn a_read_whose_turn_does_not_come_in_time_is_a_503() {
    let (world, _crowd) = crowded(SHORT, 1).await;
    world.access(|access| *access == Access::Granted).await;
    let mut statuses = Vec::new();
    for reader in read_all(&world, 4) {
        statuses.push(reader.await.unwrap().status);
    }
    statuses.sort_unstable();
    assert!(statuses.contains(&503) && statuses.iter().all(|status| [503, 504].contains(status)), "{statuses:?}");
}

#[tokio::test]
async fn reads_that_wait_are_bounded_and_more_are_refused_at_once() {
    let (world, crowd) = crowded(Duration::from_secs(20), 1).await;
    let readers = read_all(&world, 1_100);
    let refused = |metrics: &Metrics| metrics.read_requests.with(ReadRoute::Reward, Code::C503).get();
    world.until(|metrics| refused(metrics) == 76).await;
    crowd.gate.add_permits(1_024);
    let mut answered = 0;
    for reader in readers {
        let answer = reader.await.unwrap();
        match answer.status {
            200 => answered += 1,
            _ => assert_failed(&answer, 503, "busy"),
        }
    }
    assert_eq!((answered, world.cello().calls().len()), (1_024, 1_024));
}

#[tokio::test]
async fn a_flood_of_reads_that_hang_does_not_stop_delivery() {
    let (world, crowd) = crowded(Duration::from_secs(20), 16).await;
    let readers = read_all(&world, 300);
    world.until(|_| crowd.most.load(Ordering::SeqCst) == 16).await;
    for sequence in 0..50 {
        let id = EventId::new(Timestamp::from_millis(1), sequence, 1);
        assert_eq!(
            world.client.deliver(id, Bytes::from_static(b"{}"), Departed::default()).await.verdict,
            Verdict::Delivered
        );
        assert_eq!(world.rig.post(crate::ingress::support::EVENT).await.0, 200);
    }
    assert_eq!(crowd.most.load(Ordering::SeqCst), 16);
    crowd.gate.add_permits(300);
    for reader in readers {
        assert_eq!(reader.await.unwrap().status, 200);
    }
}
