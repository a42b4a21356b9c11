use bytes::Bytes;
use hyper::StatusCode;

use super::*;

fn answer(status: u16, body: &'static str) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        retry_after: None,
        request_id: Some("r-1".into()),
        content_type: None,
        body: Bytes::from_static(body.as_bytes()),
        cut: false,
    }
}

fn verdict(status: u16, body: &'static str) -> (Verdict, Option<Reason>) {
    let judgement = judge(Ok(&answer(status, body)));
    assert_eq!((judgement.status, judgement.request_id.as_deref()), (Some(status), Some("r-1")));
    (judgement.verdict, judgement.reason)
}

const EMPTY: &[&str] = &["", " \r\n"];
const NOT_JSON: &[&str] = &["<html>ok</html>", "{\"success\": tru", "{} {}", "\u{feff}{}"];
const PLAIN_JSON: &[&str] =
    &["{}", "true", "[]", "[false,\"m\"]", "\"message\"", "{\"message\":null}", "{\"message\":7}"];
const WITH_MESSAGE: &[&str] = &["{\"message\":\"no\"}", " {\"x\":1,\"message\":\"no\"}\n", "{\"message\":[\"no\"]}"];
const SUCCESS_FALSE: &[&str] = &["{\"success\":false,\"message\":\"no\"}", "{\"a\":{},\"success\" : false }"];

fn every_body() -> impl Iterator<Item = &'static str> {
    [EMPTY, NOT_JSON, PLAIN_JSON, WITH_MESSAGE, SUCCESS_FALSE].into_iter().flatten().copied()
}

fn expected_reason(status: u16) -> Reason {
    let listed = [400, 401, 403, 404, 405, 408, 409, 410, 413, 422, 425, 429];
    let name = match status {
        _ if listed.contains(&status) => format!("http_{status}"),
        300..=399 => "http_3xx".to_owned(),
        400..=499 => "http_4xx".to_owned(),
        500..=599 => "http_5xx".to_owned(),
        _ => "not_json".to_owned(),
    };
    name.parse().unwrap()
}

#[test]
fn a_2xx_is_judged_by_its_body() {
    for status in 200..=299 {
        for body in EMPTY.iter().chain(PLAIN_JSON).chain(WITH_MESSAGE) {
            assert_eq!(verdict(status, body), (Verdict::Delivered, None), "{status} {body}");
        }
        for body in SUCCESS_FALSE {
            assert_eq!(verdict(status, body), (Verdict::Refused, Some(Reason::SuccessFalse)), "{status} {body}");
        }
        for body in NOT_JSON {
            assert_eq!(verdict(status, body), (Verdict::Retry, Some(Reason::NotJson)), "{status} {body}");
        }
    }
}

#[test]
fn every_other_status_with_every_body_has_the_verdict_of_the_table() {
    for status in (100..=199).chain(300..=599) {
        for body in every_body() {
            let cellos_own_words = WITH_MESSAGE.contains(&body) || body == SUCCESS_FALSE[0];
            let expected = match status {
                100..=199 | 408 | 425 | 429 | 500..=599 => Verdict::Retry,
                400 | 409 | 413 | 414 | 415 | 422 | 431 if cellos_own_words => Verdict::Refused,
                _ => Verdict::Hold,
            };
            assert_eq!(verdict(status, body), (expected, Some(expected_reason(status))), "{status} {body}");
        }
    }
}

#[test]
fn only_where_cello_may_have_counted_the_event_is_the_outcome_unknown() {
    for status in 100..=599 {
        for body in every_body() {
            let judgement = judge(Ok(&answer(status, body)));
            let not_json = status < 200 || (status < 300 && NOT_JSON.contains(&body));
            let expected = not_json || [500, 502, 504].contains(&status);
            assert_eq!(judgement.outcome_unknown, expected, "{status} {body}");
        }
    }
}

#[test]
fn every_transport_error_is_retried_and_unknown_only_if_the_request_may_have_arrived() {
    let table = [
        (Fault::Dns, Reason::Dns, false),
        (Fault::Connect, Reason::Connect, false),
        (Fault::Tls, Reason::Tls, false),
        (Fault::Timeout, Reason::Timeout, true),
        (Fault::Reset, Reason::Reset, true),
    ];
    for (fault, reason, can_have_arrived) in table {
        for sent in [false, true] {
            let judgement = judge(Err(&TransportError { fault, sent }));
            assert_eq!((judgement.verdict, judgement.reason), (Verdict::Retry, Some(reason)));
            assert_eq!(judgement.outcome_unknown, sent && can_have_arrived, "{fault:?} {sent}");
            assert_eq!(judgement.status, None);
        }
    }
}

#[test]
fn cellos_message_is_kept_capped_on_a_character_boundary() {
    let message = |body: String| judge(Ok(&Answer { body: body.into(), ..answer(400, "") })).message;
    assert_eq!(
        message("{\"message\":\"payload.ucc\\n missing\"}".to_owned()).as_deref(),
        Some("payload.ucc\n missing")
    );
    assert_eq!(message("{\"message\":[\"a\",\"b\"]}".to_owned()).as_deref(), Some("a; b"));
    let long = message(format!("{{\"message\":\"{}\"}}", "\u{20ac}".repeat(400))).unwrap();
    assert_eq!(long.len(), 498);
}

#[test]
fn a_wait_that_cello_asks_for_is_passed_on() {
    let wait = Some(Duration::from_secs(9));
    assert_eq!(judge(Ok(&Answer { retry_after: wait, ..answer(429, "") })).retry_after, wait);
}

#[test]
fn a_body_nested_without_end_does_no_harm() {
    let body = "[".repeat(60_000);
    assert_eq!(judge(Ok(&Answer { body: body.into(), ..answer(200, "") })).reason, Some(Reason::NotJson));
}

#[test]
fn cellos_message_is_not_shown_by_debug() {
    assert!(!format!("{:?}", judge(Ok(&answer(400, "{\"message\":\"ann@example.com\"}")))).contains("ann@"));
}

#[test]
fn every_reason_a_status_can_give_has_its_series_from_the_start() {
    let metrics = crate::metrics::Metrics::new().render();
    for (status, body) in (200..600).flat_map(|status| every_body().map(move |body| (status, body))) {
        let Some(reason) = verdict(status, body).1 else { continue };
        for name in ["upstream_request_failures_total", "delivery_retries_total"] {
            let series = format!("cello_relay_{name}{{reason=\"{reason}\"}} 0\n");
            assert!(metrics.contains(&series), "{series}");
        }
    }
}
