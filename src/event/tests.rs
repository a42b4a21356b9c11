//! What the door promises, against examples and against a plain `serde_json::Value` model.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::*;

fn checked(body: &str) -> Checked {
    read(body.as_bytes(), Checks::Warn).unwrap_or_else(|refused| panic!("{body}: {refused:?}"))
}

fn faults(body: &str, checks: Checks) -> Vec<String> {
    match read(body.as_bytes(), checks) {
        Err(Refused::Invalid(faults)) => faults.iter().map(Fault::to_string).collect(),
        other => panic!("{body}: {other:?}"),
    }
}

fn malformed(body: &[u8]) -> String {
    match read(body, Checks::Warn) {
        Err(Refused::Malformed(malformed)) => malformed.to_string(),
        other => panic!("{other:?}"),
    }
}

/// An event with these members more in its payload and this context.
fn event(payload: &str, context: &str) -> String {
    format!(r#"{{"eventName":"ReferralUpdated","payload":{{"ucc":"c","newUserId":"u"{payload}}},"context":{context}}}"#)
}

const DATED: &str = r#"{"event":{"timestamp":"2022-10-05 14:14:34"}}"#;

fn stored(body: &str) -> String {
    String::from_utf8(checked(body).event.body.to_vec()).expect("UTF-8")
}

fn warnings(body: &str) -> Vec<(Warning, String)> {
    checked(body).warnings
}

#[test]
fn what_is_stored_is_the_known_fields_with_the_contexts_own_bytes_and_the_prices_own_digits() {
    let context = r#"{ "b":1.0e2 , "a" : [1,  2],"a":"\u00e9\ud800" }"#;
    let body = format!(
        r#" {{"extra":[1,{{}}],"context": {context} ,"payload":{{"price": 10.500000000000000000001,"coupon":true,
        "newUserId":"u\u00fc\"\n","currency":"EUR","ucc":"c/\/"}},"eventName":"Referral\u0055pdated"}} "#
    );
    let expected = format!(
        r#"{{"eventName":"ReferralUpdated","payload":{{"ucc":"c//","newUserId":"uü\"\n","price":10.500000000000000000001,"currency":"EUR"}},"context":{context}}}"#
    );
    assert_eq!(stored(&body), expected);
    let event = checked(&body);
    assert_eq!(event.event.user.as_str(), "uü\"\n");
    assert_eq!((event.stripped, event.stripped_count), (vec!["payload.coupon".to_owned(), "extra".to_owned()], 2));
}

#[test]
fn null_counts_as_absent() {
    let body = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"c","newUserId":"u","price":null,"currency":null},"context":null}"#;
    let bare = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"c","newUserId":"u"},"context":{}}"#;
    assert_eq!(stored(body), bare);
    assert_eq!(stored(bare), bare);
    let nothing = r#"{"eventName":null,"payload":{"ucc":null,"newUserId":null}}"#;
    let required = ["eventName is required", "payload.ucc is required", "payload.newUserId is required"];
    assert_eq!(faults(nothing, Checks::Off), required);
}

#[test]
fn a_required_name_that_is_spelled_otherwise_is_told_of() {
    let body = r#"{"eventname":"ReferralUpdated","payload":{"UCC":"c","new_user_id":"u","user":"x"}}"#;
    assert_eq!(
        faults(body, Checks::Off),
        [
            r#"eventName is required (there is "eventname", did you mean "eventName"?)"#,
            r#"payload.ucc is required (there is "UCC", did you mean "ucc"?)"#,
            r#"payload.newUserId is required (there is "new_user_id", did you mean "newUserId"?)"#,
        ]
    );
    let there_too = r#"{"eventName":"ReferralUpdated","EventName":"x","Payload":{}}"#;
    assert_eq!(
        faults(there_too, Checks::Off)[0],
        r#"payload is required (there is "Payload", did you mean "payload"?)"#
    );
    let long = format!(r#"{{"eventName":"ReferralUpdated","payload":{{"newUserId":"u","u{}cc":1}}}}"#, "-".repeat(500));
    assert!(faults(&long, Checks::Off)[0].len() < 200);
}

#[test]
fn all_faults_are_told_at_once_and_quote_no_values() {
    let body = r#"{"eventName":"Secret","payload":{"newUserId":7,"price":"secret","currency":false,"ucc":""},"context":["secret"]}"#;
    assert_eq!(
        faults(body, Checks::Off),
        [
            "eventName must be \"ReferralUpdated\"",
            "payload.ucc must not be empty",
            "payload.newUserId must be a string (got a number: quote it)",
            "payload.price must be a number (got a string)",
            "payload.currency must be a string (got a boolean)",
            "context must be an object (got an array)",
        ]
    );
    assert_eq!(faults("[1]", Checks::Warn), ["body must be an object (got an array)"]);
    assert_eq!(
        faults(r#"{"eventName":"ReferralUpdated","payload":"x"}"#, Checks::Warn),
        ["payload must be an object (got a string)"]
    );
    assert!(faults("{}", Checks::Warn).contains(&"payload is required".to_owned()));
    let huge = event(r#","price":1e999"#, "{}");
    assert_eq!(faults(&huge, Checks::Off), ["payload.price is too large a number"]);
}

#[test]
fn a_name_given_twice_in_envelope_or_payload_is_refused_and_in_the_context_not() {
    let body = r#"{"eventName":"ReferralUpdated","x":1,"x":2,"payload":{"ucc":"c","newUserId":"u","\u0075cc":"d","y":1,"y":2},"context":{"a":1,"a":2}}"#;
    assert_eq!(
        faults(body, Checks::Off),
        ["payload.ucc is there twice", "x is there twice", "payload.y is there twice"]
    );
    checked(&event("", r#"{"a":1,"a":2}"#));
    for (field, again) in [
        ("eventName", r#""eventName":"ReferralUpdated","payload":{"ucc":"c","newUserId":"u"}"#),
        ("payload", r#""payload":{},"payload":{"ucc":"c","newUserId":"u"}"#),
        ("context", r#""context":{},"context":{},"payload":{"ucc":"c","newUserId":"u"}"#),
        ("payload.newUserId", r#""payload":{"ucc":"c","newUserId":"u","newUserId":"u"}"#),
        ("payload.price", r#""payload":{"ucc":"c","newUserId":"u","price":1,"price":null}"#),
        ("payload.currency", r#""payload":{"ucc":"c","newUserId":"u","currency":null,"currency":"EUR"}"#),
    ] {
        let body = format!(r#"{{"eventName":"ReferralUpdated",{again}}}"#);
        assert_eq!(faults(&body, Checks::Off), [format!("{field} is there twice")], "{body}");
    }
}

#[test]
fn only_names_that_a_sender_made_up_are_kept_from_others() {
    let made_up = |name: &str, message: &'static str| Fault::new(name.to_owned(), message).public_field().to_owned();
    assert_eq!(made_up("payload.ann@example.com", TWICE), "an unknown field");
    assert_eq!(made_up("context.event.trigger", "is unknown"), "context.event.trigger");
    assert_eq!(Fault::new("payload.ucc", TWICE).public_field(), "payload.ucc");
}

#[test]
fn strings_of_255_characters_are_not_too_long_however_many_bytes_they_have() {
    for (character, times, long) in [("a", 255, false), ("a", 256, true), ("\u{e9}", 255, false), ("\u{e9}", 256, true)]
    {
        let user = character.repeat(times);
        let body =
            event("", &format!(r#"{{"event":{{"timestamp":"2022-10-05 14:14:34"}},"newUser":{{"name":"{user}"}}}}"#));
        let said = warnings(&body).iter().any(|(kind, _)| *kind == Warning::Length);
        assert_eq!(said, long, "{times} times {character}");
    }
}

#[test]
fn what_is_no_json_is_told_with_its_place_and_without_values() {
    assert_eq!(malformed(b"{\n \"a\" 1}"), "is not JSON: expected `:` at line 2 column 6");
    assert_eq!(malformed(b""), "is not JSON: EOF while parsing a value at line 1 column 0");
    assert_eq!(malformed(b"{}\n{}"), "is not JSON: trailing characters at line 2 column 1");
    assert_eq!(malformed(b"{\n\"a\":\"\xff\"}"), "is not UTF-8 at line 2 column 6");
}

#[test]
fn nesting_is_followed_to_128_and_brackets_in_strings_do_not_count() {
    let nested = |depth: usize| event("", &format!(r#"{{"a":{}{}}}"#, "[".repeat(depth), "]".repeat(depth)));
    checked(&nested(126));
    assert!(malformed(nested(127).as_bytes()).starts_with("is nested deeper than 128 at line 1 column "));
    checked(&event("", &format!(r#"{{"a":"\"{}"}}"#, "[".repeat(500))));
    let hidden = format!(r#"{{"a":{}"{}",{}"#, "[".repeat(100), "]".repeat(100), "[".repeat(100));
    assert!(malformed(event("", &hidden).as_bytes()).starts_with("is nested deeper than 128 at line 1 column "));
    malformed(event(&format!(r#","x":{}"#, "[".repeat(100_000)), "{}").as_bytes());
}

#[test]
fn half_a_surrogate_pair_is_no_user_id_but_passes_through_the_context() {
    let half = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"c","newUserId":"\ud800"}}"#;
    assert_eq!(faults(half, Checks::Off), ["payload.newUserId must be Unicode text (half a surrogate pair in it)"]);
    let context = r#"{"newUser":{"name":"\ud800"},"\udfff":1}"#;
    assert!(stored(&event("", context)).ends_with(&format!("{context}}}")));
}

#[test]
fn only_the_first_20_stripped_fields_are_named_and_long_names_are_cut() {
    let many: String = (0..30).map(|n| format!(r#","f{n}{}":1"#, "é".repeat(100))).collect();
    let checked = checked(&event(&many, "{}"));
    assert_eq!((checked.stripped.len(), checked.stripped_count), (STRIPPED_NAMED, 30));
    assert_eq!(checked.stripped[0], format!("payload.f0{}…", "é".repeat(62)));
}

#[test]
fn the_examples_of_cellos_own_documents_pass_unchanged() {
    let examples: Map<String, Value> =
        serde_json::from_str(include_str!("../../tests/files/cello-events.json")).expect("JSON");
    for (name, example) in examples {
        let checked = checked(&example.to_string());
        let sent: Value = serde_json::from_slice(&checked.event.body).expect("JSON");
        assert_eq!(sent, example, "{name}");
        assert_eq!(checked.stripped_count, 0, "{name}");
        let odd: Vec<Warning> = checked.warnings.iter().map(|(kind, _)| *kind).collect();
        assert!(odd.iter().all(|kind| *kind == Warning::UserMismatch), "{name}: {:?}", checked.warnings);
    }
}

#[test]
fn what_is_odd_is_warned_about_by_kind_refused_when_strict_and_passed_when_off() {
    let dated = |more: &str| format!(r#"{{"event":{{"timestamp":"2022-11-20T03:18:01.620Z"{more}}}}}"#);
    let subscription =
        |more: &str| format!(r#"{{"event":{{"timestamp":"2022-10-05 14:14:34"}},"subscription":{{{more}}}}}"#);
    let long = "x".repeat(256);
    let cases = [
        (event(r#","currency":"EURO""#, DATED), Warning::Currency),
        (event(r#","price":1"#, DATED), Warning::Currency),
        (event(r#","price":-0.5,"currency":"EUR""#, DATED), Warning::Price),
        (event("", &dated(r#","x":1,"trigger":"new-sigup""#)), Warning::Trigger),
        (event("", &subscription(r#""interval":"month""#)), Warning::Interval),
        (event("", "{}"), Warning::Timestamp),
        (event("", r#"{"event":{"timestamp":"05.10.2022"}}"#), Warning::Timestamp),
        (event("", r#"{"event":{"timestamp":"2022-13-05 14:14:34"}}"#), Warning::Timestamp),
        (event("", r#"{"event":{"timestamp":"2022-13-05T14:14:34Z"}}"#), Warning::Timestamp),
        (event("", r#"{"event":{"timestamp":"2022-10-05T14:14Z"}}"#), Warning::Timestamp),
        (event("", r#"{"event":{"timestamp":"2022-10-05T14:14+02:00"}}"#), Warning::Timestamp),
        (event("", r#"{"event":{"timestamp":"2022-10-05T14:14:34Z[UTC]"}}"#), Warning::Timestamp),
        (event("", r#"{"event":{"timestamp":"2022-10-05T14:14:34,5Z"}}"#), Warning::Timestamp),
        (event("", r#"{"event":{"timestamp":"2022-10-05T14:14:34+0200"}}"#), Warning::Timestamp),
        (event("", r#"{"event":{"timestamp":"2022-10-05T14:14:34+02"}}"#), Warning::Timestamp),
        (event("", r#"{"event":{"timestamp":"2022-10-05T141434.5Z"}}"#), Warning::Timestamp),
        (event("", r#"{"event":{"timestamp":"2022-10-05 141434.5"}}"#), Warning::Timestamp),
        (
            event("", r#"{"event":{"timestamp":"2022-10-05T14:14:34.123456789Z[America/Argentina/Ushuaia]"}}"#),
            Warning::Timestamp,
        ),
        (event(r#","price":1,"currency":"EUR""#, &dated(r#","trigger":"invoice-paid""#)), Warning::Invoice),
        (event("", r#"{"event":{"timestamp":"2022-10-05 14:14:34"},"newUser":{"id":"v"}}"#), Warning::UserMismatch),
        (event("", &subscription(r#""seatsUsed":1.5"#)), Warning::FieldType),
        (event("", &subscription(r#""id":7"#)), Warning::FieldType),
        (event("", r#"{"event":{"timestamp":"2022-10-05 14:14:34"},"newUser":[]}"#), Warning::FieldType),
        (event("", &subscription(&format!(r#""id":"{long}""#))), Warning::Length),
    ];
    for (body, kind) in cases {
        let warnings = warnings(&body);
        assert_eq!(warnings.iter().map(|(kind, _)| *kind).collect::<Vec<_>>(), [kind], "{body}: {warnings:?}");
        assert_eq!(faults(&body, Checks::Strict).len(), 1, "{body}");
        assert!(read(body.as_bytes(), Checks::Off).expect("passed").warnings.is_empty(), "{body}");
    }
}

#[test]
fn what_is_fine_is_not_warned_about() {
    let seats = |value: &str| {
        format!(r#"{{"event":{{"timestamp":"2022-10-05 14:14:34"}},"subscription":{{"seatsUsed":{value}}}}}"#)
    };
    for body in [
        event(r#","price":0,"currency":"""#, DATED),
        event(r#","price":0,"currency":"eur""#, DATED),
        event("", &seats("3")),
        event("", &seats("\"3\"")),
        event("", r#"{"event":{"timestamp":"2022-10-05T14:14:34Z","trigger":"charge-refunded"}}"#),
        event("", r#"{"event":{"timestamp":"2022-10-05T14:14:34.123456789-02:30"}}"#),
        event("", r#"{"event":{"timestamp":"2022-10-05T14:14:34+02:00"},"newUser":{"id":"u","email":null}}"#),
    ] {
        assert_eq!(warnings(&body), [], "{body}");
    }
}

#[test]
fn a_misspelt_trigger_is_quoted_only_to_its_sender() {
    let body = event("", r#"{"event":{"timestamp":"2022-10-05 14:14:34","trigger":"new-sigup"}}"#);
    let told = r#"context.event.trigger: unknown "new-sigup", did you mean "new-signup"?"#;
    assert_eq!(warnings(&body), [(Warning::Trigger, told.to_owned())]);
    let fault = r#"context.event.trigger is unknown, did you mean "new-signup"?"#;
    assert_eq!(faults(&body, Checks::Strict), [fault]);
    assert_eq!(checked(&body).event.trigger, Trigger::Other);
}

#[test]
fn of_a_currency_with_spaces_around_it_the_one_that_is_meant_is_told() {
    let told = "payload.currency: not an ISO 4217 code, did you mean \"EUR\"?".to_owned();
    assert_eq!(warnings(&event(r#","currency":" eur""#, DATED)), [(Warning::Currency, told)]);
    let (_, told) = &warnings(&event(r#","currency":"EURO""#, DATED))[0];
    assert_eq!(told, "payload.currency: not an ISO 4217 code");
}

#[test]
fn of_a_section_given_twice_the_last_one_counts_whole() {
    let trigger = |context: &str| checked(&event("", context)).event.trigger;
    assert_eq!(trigger(r#"{"event":{"trigger":"new-signup"},"event":{"x":1}}"#), Trigger::None);
    assert_eq!(trigger(r#"{"event":{},"event":{"trigger":"new-signup"}}"#), Trigger::NewSignup);
    assert_eq!(trigger(r#"{"event":{"trigger":"new-signup"},"event":7}"#), Trigger::None);
}

/// Any JSON, not too deep.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-1e9..1e9).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Mostly an event, sometimes not quite.
fn any_event() -> impl Strategy<Value = Value> {
    let text = || prop_oneof![8 => any::<String>().prop_map(Value::from), 1 => any_json()];
    let payload = (text(), text(), any_json(), text(), any::<String>(), any_json(), 0..64u8);
    let context = prop_oneof![3 => any_json().prop_map(|inner| json!({"event": {"trigger": inner}})), 1 => any_json()];
    (payload, context, any_json()).prop_map(|((ucc, user, price, currency, name, value, keep), context, extra)| {
        let mut payload = Map::new();
        let fields = [("ucc", ucc), ("newUserId", user), ("price", price), ("currency", currency), (&name, value)];
        for (bit, (name, value)) in fields.into_iter().enumerate() {
            if bit < 2 || keep & (1 << bit) != 0 {
                payload.insert(name.to_owned(), value);
            }
        }
        json!({"eventName": "ReferralUpdated", "payload": payload, "context": context, "extra": extra})
    })
}

/// What is stored, by the book: `None` if the event is refused.
fn model(event: &Value) -> Option<Value> {
    let payload = event["payload"].as_object()?;
    let text = |name: &str| payload.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let mut kept = json!({"ucc": text("ucc")?, "newUserId": text("newUserId")?});
    for (name, fits) in [("price", Value::is_number as fn(&Value) -> bool), ("currency", Value::is_string)] {
        match payload.get(name) {
            None | Some(Value::Null) => {}
            Some(value) if fits(value) => kept[name] = value.clone(),
            Some(_) => return None,
        }
    }
    let context = match &event["context"] {
        Value::Null => json!({}),
        context if context.is_object() => context.clone(),
        _ => return None,
    };
    Some(json!({"eventName": "ReferralUpdated", "payload": kept, "context": context}))
}

proptest! {
    #[test]
    fn what_is_accepted_and_stored_is_what_the_model_says(event in any_event(), pretty: bool) {
        let body = if pretty { serde_json::to_string_pretty(&event) } else { serde_json::to_string(&event) }.expect("JSON");
        let read = read(body.as_bytes(), Checks::Warn);
        match model(&event) {
            None => prop_assert!(matches!(read, Err(Refused::Invalid(_)))),
            Some(expected) => {
                let checked = read.expect("accepted");
                let stored: Value = serde_json::from_slice(&checked.event.body).expect("JSON");
                prop_assert_eq!(checked.event.user.as_str(), event["payload"]["newUserId"].as_str().expect("a string"));
                prop_assert_eq!(stored, expected);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(body: Vec<u8>, cut in 0..400usize, flips in prop::collection::vec((0..400usize, any::<u8>()), 0..4)) {
        read(&body, Checks::Strict).ok();
        let mut event = event(r#","price":-1,"x":{"y":["\u00e9"]}"#, DATED).into_bytes();
        for (place, byte) in flips {
            let place = place % event.len();
            event[place] = byte;
        }
        event.truncate(event.len().saturating_sub(cut));
        read(&event, Checks::Strict).ok();
    }
}
