use bytes::Bytes;
use hyper::StatusCode;

use super::*;
use crate::cello::MAX_BODY;

fn answer(status: u16, body: &'static str) -> Answer {
    Answer {
        status: StatusCode::from_u16(status).unwrap(),
        retry_after: None,
        request_id: Some("r-1".into()),
        content_type: None,
        content_encoding: None,
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
const WITH_MESSAGE: &[&str] = &[
    "{\"message\":\"no\"}",
    " {\"x\":1,\"message\":\"no\"}\n",
    "{\"message\":[\"no\"]}",
    // Half of a surrogate pair, as an app may have sent it, is no text.
    "{\"message\":\"\\ud800 no\"}",
    "{\"\\ud800\":1,\"message\":\"no\"}",
    "{\"message\":{\"ucc\":\"no\"}}",
    "{\"message\":[]}",
    "{\"message\":[{\"ucc\":\"no\"}]}",
    "{\"message\":\"no\",\"message\":\"no\"}",
    "{\"message\":\"no\",\"message\":null}",
];
const SUCCESS_FALSE: &[&str] = &[
    "{\"success\":false,\"message\":\"no\"}",
    "{\"a\":{},\"success\" : false }",
    "{\"success\":false,\"message\":\"a\",\"message\":\"b\"}",
    "{\"success\":false,\"success\":true}",
    "{\"success\":true,\"success\":false}",
];

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
            let cellos_own_words = WITH_MESSAGE.contains(&body) || body.contains("false,\"message\"");
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
    // What is no text is kept as it is written.
    for other in ["\"\\ud800 no\"", "{\"ucc\":[\"no\"]}", "[]", "[{\"ucc\":\"no\"},\"x\"]"] {
        assert_eq!(message(format!("{{\"message\": {other}}}")).as_deref(), Some(other));
    }
    assert_eq!(message("{\"message\":\"a\",\"message\":\"b\"}".to_owned()).as_deref(), Some("a"));
    let long = message(format!("{{\"message\":{{\"ucc\":\"{}\"}}}}", "\u{20ac}".repeat(400))).unwrap();
    assert_eq!(long.len(), 500);
    let long = message(format!("{{\"message\":\"{}\"}}", "\u{20ac}".repeat(400))).unwrap();
    assert_eq!(long.len(), 498);
}

#[test]
fn what_cello_says_of_a_delivered_event_is_not_kept() {
    let judgement = judge(Ok(&answer(200, "{\"success\":true,\"message\":\"welcome, Ann\"}")));
    assert_eq!((judgement.verdict, judgement.message), (Verdict::Delivered, None));
}

#[test]
fn a_wait_that_cello_asks_for_is_passed_on() {
    let wait = Some(Duration::from_secs(9));
    assert_eq!(judge(Ok(&Answer { retry_after: wait, ..answer(429, "") })).retry_after, wait);
}

/// A body as it is read of one that goes on.
fn cut(status: u16, start: &str) -> Judgement {
    let mut body = start.to_owned();
    body.push_str(&"a".repeat(MAX_BODY.saturating_sub(start.len())));
    judge(Ok(&Answer { body: body.into(), cut: true, ..answer(status, "") }))
}

#[test]
fn a_2xx_too_long_to_be_read_whole_is_judged_by_what_was_read_and_never_sent_again_for_its_length() {
    for json in ["{\"success\": true, \"data\": \"", "{\"", "[\"", "\"", "{\"data\":[[{\"x\":{\"\u{e9}"] {
        let judgement = cut(200, json);
        assert_eq!((judgement.verdict, judgement.outcome_unknown), (Verdict::Delivered, false), "{json}");
    }
    let refused = cut(200, "{\"success\":false,\"message\":\"no\",\"trace\":\"");
    assert_eq!((refused.verdict, refused.message.as_deref()), (Verdict::Refused, Some("no")));
    for other in ["<html>", "{} ", "{\"a\" ", "{\"a\":1,,\"", "[1 "] {
        let judgement = cut(200, other);
        assert_eq!((judgement.verdict, judgement.reason), (Verdict::Retry, Some(Reason::NotJson)), "{other}");
        assert!(judgement.outcome_unknown, "{other}");
    }
    let spaces = Answer { body: " ".repeat(MAX_BODY).into(), cut: true, ..answer(200, "") };
    assert_eq!(judge(Ok(&spaces)).reason, Some(Reason::NotJson), "it may be anything");
    // The cut goes through a character.
    let body = [b"{\"\xc3\xa9\":\"".as_slice(), &[b'a'; 9], b"\xc3"].concat();
    let within = Answer { body: body.clone().into(), cut: true, ..answer(200, "") };
    assert_eq!(judge(Ok(&within)).verdict, Verdict::Delivered);
    assert_eq!(judge(Ok(&Answer { cut: false, ..within })).reason, Some(Reason::NotJson));
    // No cut explains these.
    for (broken, cut) in [(b"{}\xc3".as_slice(), false), (b"{\"a\":\"\xff", true)] {
        let broken = Answer { body: bytes::Bytes::from_static(broken), cut, ..answer(200, "") };
        assert_eq!(judge(Ok(&broken)).reason, Some(Reason::NotJson));
    }
}

#[test]
fn a_refusal_too_long_to_be_read_whole_is_cellos_own_if_its_message_came() {
    let own = cut(400, "{\"message\":\"no such ucc\",\"details\":\"");
    assert_eq!((own.verdict, own.message.as_deref()), (Verdict::Refused, Some("no such ucc")));
    for foreign in ["<html>", "{\"details\":\"", "{\"message\":\""] {
        assert_eq!(cut(400, foreign).verdict, Verdict::Hold, "{foreign}");
    }
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
