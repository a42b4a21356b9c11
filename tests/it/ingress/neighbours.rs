//! One bad caller never slows a good one: the good one gets all its answers while the bad ones are held.

use std::time::Duration;

use tokio::time::Instant;

use super::bodies::gzip;
use super::support::{EVENT, Rig, settings};
use crate::wire::{Wire, request};

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A good caller's posts, one after the other, are all answered; the median time of an answer.
async fn all_is_well_for_others(rig: &Rig) -> Duration {
    let posts = async {
        let mut times = Vec::new();
        for _ in 0..50 {
            let sent = Instant::now();
            assert_eq!(rig.post(EVENT).await.0, 200);
            times.push(sent.elapsed());
        }
        times.sort_unstable();
        times[times.len() / 2]
    };
    tokio::time::timeout(PATIENCE, posts).await.expect("a good caller's answers")
}

#[tokio::test]
async fn hundreds_of_heads_and_bodies_that_trickle_in_slow_nobody() {
    let rig = Rig::start();
    let alone = all_is_well_for_others(&rig).await;
    let whole = request("POST", "/events", &[], EVENT.as_bytes());
    let mut slow = Vec::new();
    for _ in 0..300 {
        slow.push(Wire::connect(rig.at).await);
    }
    // Half of them in their heads, half in their bodies.
    for (place, wire) in slow.iter_mut().enumerate() {
        wire.send(if place % 2 == 0 { &whole[..20] } else { &whole[..whole.len() - 20] }).await;
    }
    for step in 0..5 {
        for (place, wire) in slow.iter_mut().enumerate() {
            let at = if place % 2 == 0 { 20 } else { whole.len() - 20 } + step;
            wire.send(&whole[at..=at]).await;
        }
        let beside = all_is_well_for_others(&rig).await;
        // Loosely: other tests run on the same cores.
        assert!(beside < alone * 10 + Duration::from_millis(50), "{beside:?} beside them, {alone:?} alone");
    }
    assert_eq!(rig.outbox.bodies().len(), 300, "none of the slow ones is done");
    for (place, mut wire) in slow.into_iter().enumerate() {
        wire.send(&whole[if place % 2 == 0 { 25 } else { whole.len() - 15 }..]).await;
        assert_eq!(wire.answer().await.status, 200, "and none of them is lost");
    }
}

#[tokio::test]
async fn callers_who_take_every_place_and_send_no_whole_head_lose_their_places() {
    let mut settings = settings();
    (settings.max_connections, settings.header_timeout) = (8, Duration::from_secs(1));
    let rig = Rig::with(settings, None);
    let mut slow = Vec::new();
    for _ in 0..24 {
        let mut wire = Wire::connect(rig.at).await;
        wire.send("POST /events HT").await;
        slow.push(wire);
    }
    assert_eq!(tokio::time::timeout(PATIENCE, rig.post(EVENT)).await.expect("an answer").0, 200);
    for mut wire in slow {
        assert!(wire.is_hung_up().await);
    }
}

#[tokio::test]
async fn a_caller_who_pipelines_without_end_and_never_reads_is_held_and_then_hung_up_on() {
    let mut settings = settings();
    settings.idle_timeout = Duration::from_secs(1);
    let rig = Rig::with(settings, None);
    let many = request("GET", "/openapi.json", &[], b"").repeat(100);
    let mut greedy = Wire::connect(rig.at).await;
    // Sends on until nothing more is taken.
    let flood = async { while greedy.try_send(&many).await {} };
    let (flood, _) = tokio::join!(tokio::time::timeout(PATIENCE, flood), all_is_well_for_others(&rig));
    flood.expect("the end of the connection");
    rig.until_metric("ingest_connections", 0.0).await;
}

#[tokio::test]
async fn gzip_bombs_are_refused_one_by_one_while_others_are_answered() {
    let mut settings = settings();
    settings.max_batch_bytes = 4 << 20;
    let rig = Rig::with(settings, None);
    let bomb = request("POST", "/events/batch", &[("content-encoding", "gzip")], &gzip(&vec![b' '; 64 << 20]));
    assert!(bomb.len() < 80_000, "{}", bomb.len());
    let mut bombers = Vec::new();
    for _ in 0..32 {
        let mut wire = Wire::connect(rig.at).await;
        wire.send(&bomb).await;
        bombers.push(wire);
    }
    all_is_well_for_others(&rig).await;
    for mut wire in bombers {
        assert_eq!(wire.answer().await.status, 413);
    }
}

/// On the one thread of this test, whoever does not give way stops everybody.
#[tokio::test]
async fn a_body_of_nothing_but_empty_gzip_members_gives_way_to_others() {
    let mut settings = settings();
    settings.max_batch_bytes = 4 << 20;
    let rig = Rig::with(settings, None);
    let nothing = gzip(b"");
    let body = [nothing.repeat((1 << 20) / nothing.len() - 9), gzip(format!("[{EVENT}]").as_bytes())].concat();
    let mut bomber = Wire::connect(rig.at).await;
    bomber.send(request("POST", "/events/batch", &[("content-encoding", "gzip")], &body)).await;
    let answer = tokio::spawn(async move { bomber.answer().await });
    let mut answered = 0;
    while !answer.is_finished() {
        assert_eq!(rig.post(EVENT).await.0, 200);
        answered += 1;
    }
    // Some 200; four where it does not give way.
    assert!(answered > 10, "{answered} others were answered meanwhile");
    assert_eq!(answer.await.expect("no panic").status, 200, "members are parts of one whole");
    assert_eq!(rig.outbox.bodies().len(), answered + 1);
}

#[tokio::test]
async fn too_many_headers_or_too_large_ones_are_refused_431_and_many_small_ones_are_fine() {
    let rig = Rig::start();
    let of = |count: usize, size: usize| {
        let names: Vec<String> = (0..count).map(|n| format!("x-{n}")).collect();
        let value = "v".repeat(size);
        let headers: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
        request("POST", "/events", &headers, EVENT.as_bytes())
    };
    for (count, size, status) in
        [(90, 10, 200), (1, 15_000, 200), (200, 10, 431), (5_000, 1, 431), (10, 5_000, 431), (1, 1 << 20, 431)]
    {
        let mut wire = Wire::connect(rig.at).await;
        wire.try_send(of(count, size)).await;
        assert_eq!(wire.answer().await.status, status, "{count} headers of {size} bytes");
    }
    assert_eq!(rig.outbox.bodies().len(), 2);
}

#[tokio::test]
async fn a_length_that_no_memory_holds_is_only_an_announcement_where_the_limits_allow_it() {
    let mut settings = settings();
    settings.max_body_bytes = 1 << 50;
    let rig = Rig::with(settings, None);
    let mut wire = Wire::connect(rig.at).await;
    let host = rig.at;
    let head = format!(
        "POST /events HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: 1000000000000000"
    );
    wire.send(format!("{head}\r\n\r\n{{")).await;
    for _ in 0..3 {
        wire.send("\n").await;
        all_is_well_for_others(&rig).await;
    }
}
