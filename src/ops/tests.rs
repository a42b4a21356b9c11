use super::*;
use crate::clock::{SystemClock, Timestamp};
use crate::metrics::{Metrics, Place};
use crate::outbox::memory::Memory;
use http_body_util::BodyExt;

async fn get(ops: &Ops, path: &str) -> (StatusCode, String) {
    let answer = ops.answer(&Method::GET, path);
    let status = answer.status();
    #[expect(clippy::disallowed_methods, reason = "a body of our own")]
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn ops(phase: Phase, beat: Instant) -> (Ops, watch::Sender<Phase>) {
    let settings = Settings { listen: Vec::new(), stall_after: Duration::from_secs(60) };
    let metrics = Arc::new(Metrics::new());
    let outbox = Arc::new(Memory::new(Arc::new(SystemClock)));
    let (sender, seen) = watch::channel(phase);
    let heartbeat: Heartbeat = Arc::new(move || beat);
    (Ops::new(&settings, Sources::new(metrics, outbox), seen, vec![("outbox", heartbeat)]), sender)
}

#[tokio::test]
async fn each_probe_answers_its_own_question() {
    let (ops, phase) = ops(Phase::Starting, Instant::now());
    for (now, started, ready) in [
        (Phase::Starting, 503, 503),
        (Phase::Serving, 200, 200),
        (Phase::Terminating, 200, 200),
        (Phase::Draining, 200, 503),
    ] {
        phase.send_replace(now);
        assert_eq!(get(&ops, "/startupz").await.0, started, "{now:?}");
        assert_eq!(get(&ops, "/readyz").await.0, ready, "{now:?}");
        assert_eq!(get(&ops, "/livez").await.0, 200, "{now:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_loop_that_stands_still_too_long_fails_livez_and_is_named() {
    let (ops, _phase) = ops(Phase::Serving, Instant::now());
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(get(&ops, "/livez").await.0, 200);
    tokio::time::advance(Duration::from_secs(2)).await;
    let (status, body) = get(&ops, "/livez").await;
    assert_eq!(status, 503);
    assert!(body.contains("outbox"), "{body}");
}

#[tokio::test]
async fn metrics_have_the_classic_content_type_and_the_phase() {
    let (ops, _phase) = ops(Phase::Serving, Instant::now());
    let answer = ops.answer(&Method::GET, "/metrics");
    assert_eq!(answer.headers()[CONTENT_TYPE], METRICS_TYPE);
    let (_, body) = get(&ops, "/metrics").await;
    assert!(body.contains("cello_relay_state{state=\"serving\"} 1"), "{body}");
    assert!(body.contains("cello_relay_state{state=\"starting\"} 0"));
}

#[tokio::test]
async fn other_paths_and_methods_are_told_what_there_is() {
    let (ops, _phase) = ops(Phase::Serving, Instant::now());
    assert_eq!(get(&ops, "/").await.0, 404);
    let refused = ops.answer(&Method::POST, "/metrics");
    assert_eq!(
        (refused.status(), &refused.headers()[ALLOW]),
        (StatusCode::METHOD_NOT_ALLOWED, &HeaderValue::from_static("GET, HEAD"))
    );
}

#[test]
fn no_oldest_event_is_told_as_0() {
    let metrics = Arc::new(Metrics::new());
    let outbox = Arc::new(Memory::new(Arc::new(SystemClock)));
    let text = Sources::new(metrics.clone(), outbox).render(Phase::Serving);
    assert!(text.contains("cello_relay_outbox_oldest_event_timestamp_seconds 0"));
    assert_eq!(metrics.outbox_events.with(Place::Dead).get(), 0);
    assert!(Timestamp::from_millis(1_500).as_seconds() > 1.4);
}
