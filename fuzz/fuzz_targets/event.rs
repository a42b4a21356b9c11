//! One event: what is accepted, and the very bytes that are stored, against a model on `serde_json`.
#![no_main]

mod json;

use cello_relay::event::{Checks, Refused, Trigger, read};
use json::{all_different, get, members, text};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use serde_json::value::RawValue;

/// What the model says of a body.
enum Model {
    /// It is no JSON, or not such that it is looked at.
    Malformed,
    Invalid,
    Accepted {
        user: String,
        body: String,
        stripped: usize,
        trigger: Option<Trigger>,
    },
}

fuzz_target!(|body: &[u8]| {
    let (warned, strict, off) = (read(body, Checks::Warn), read(body, Checks::Strict), read(body, Checks::Off));
    assert_eq!(warned.is_ok(), off.is_ok(), "odd is not refused");
    assert!(strict.is_err() || warned.is_ok(), "strict takes no more");
    if let Ok(checked) = &warned {
        assert_eq!(strict.is_ok(), checked.warnings.is_empty(), "strict refuses what is warned about");
        let again = read(&checked.event.body, Checks::Off).expect("what is stored is an event");
        assert_eq!((&again.event, again.stripped_count), (&checked.event, 0));
    }
    let Some(model) = model(body) else { return };
    match (model, &warned) {
        (Model::Malformed, Err(Refused::Malformed(malformed))) => assert!(malformed.at.is_some()),
        (Model::Invalid, Err(Refused::Invalid(faults))) => assert!(!faults.is_empty()),
        (Model::Accepted { user, body, stripped, trigger }, Ok(checked)) => {
            assert_eq!(checked.event.user.as_str(), user);
            assert_eq!(std::str::from_utf8(&checked.event.body), Ok(&*body));
            assert_eq!(checked.stripped_count, stripped);
            assert!(checked.stripped.len() == stripped.min(20));
            assert!(trigger.is_none_or(|trigger| trigger == checked.event.trigger));
        }
        (_, got) => panic!("the model says otherwise than {got:?}"),
    }
});

/// `None` where names are no Unicode text: the model cannot tell which of them are the same.
fn model(body: &[u8]) -> Option<Model> {
    let Ok(json) = std::str::from_utf8(body) else { return Some(Model::Malformed) };
    let Ok(json) = serde_json::from_str::<&RawValue>(json) else { return Some(Model::Malformed) };
    if depth(json.get()) > 128 {
        return Some(Model::Malformed);
    }
    if !json.get().starts_with('{') {
        return Some(Model::Invalid);
    }
    let envelope = members(json.get())?;
    let payload = match get(&envelope, "payload") {
        Some(payload) if payload.starts_with('{') => members(payload)?,
        _ => return Some(Model::Invalid),
    };
    Some(accepted(&envelope, &payload).unwrap_or(Model::Invalid))
}

/// `None` if it is refused.
fn accepted(envelope: &[(String, &str)], payload: &[(String, &str)]) -> Option<Model> {
    if !all_different(envelope) || !all_different(payload) {
        return None;
    }
    let required = |name: &str| get(payload, name).and_then(text).filter(|text| !text.is_empty());
    let (ucc, user) = (required("ucc")?, required("newUserId")?);
    if text(get(envelope, "eventName")?)? != "ReferralUpdated" {
        return None;
    }
    let quoted = |text: &str| serde_json::to_string(text).expect("a string");
    let mut kept = format!(r#""ucc":{},"newUserId":{}"#, quoted(&ucc), quoted(&user));
    if let Some(price) = get(payload, "price") {
        let is_number = price.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        if !is_number || !price.parse::<f64>().ok()?.is_finite() {
            return None;
        }
        kept += &format!(r#","price":{price}"#);
    }
    if let Some(currency) = get(payload, "currency") {
        kept += &format!(r#","currency":{}"#, quoted(&text(currency)?));
    }
    let context = get(envelope, "context").unwrap_or("{}");
    if !context.starts_with('{') {
        return None;
    }
    let unknown = |members: &[(String, &str)], known: &[&str]| {
        members.iter().filter(|(name, _)| !known.contains(&&**name)).count()
    };
    let stripped = unknown(envelope, &["eventName", "payload", "context"])
        + unknown(payload, &["ucc", "newUserId", "price", "currency"]);
    let body = format!(r#"{{"eventName":"ReferralUpdated","payload":{{{kept}}},"context":{context}}}"#);
    Some(Model::Accepted { user, body, stripped, trigger: trigger(context) })
}

/// `None` where the context is more than a `Value` can hold (half surrogate pairs, huge numbers).
fn trigger(context: &str) -> Option<Trigger> {
    let context: Value = serde_json::from_str(context).ok()?;
    Some(match &context["event"]["trigger"] {
        Value::Null => Trigger::None,
        Value::String(name) => Trigger::from_name(name),
        _ => Trigger::Other,
    })
}

/// How deep valid JSON is nested.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0usize, 0, false, false);
    for character in json.chars() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => in_string = !in_string,
            '{' | '[' if !in_string => depth += 1,
            '}' | ']' if !in_string => depth -= 1,
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest
}
