//! Reads a posted event the way Cello does: strict about envelope and payload, generous about context.
//!
//! Where Cello's documents are silent this is the stricter reading, so that a test finds what the real
//! one might refuse: empty `ucc` or `newUserId`, `null` for an optional field, no `context`.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// So many unknown fields are named; the rest is only counted.
const NAMED_UNKNOWN: usize = 20;

/// What could be made of a body; `user` and `trigger` are found in refused ones too where possible.
#[derive(Default)]
pub(super) struct Envelope {
    /// `payload.newUserId`
    pub(super) user: Option<Box<str>>,
    /// `context.event.trigger`
    pub(super) trigger: Option<Box<str>>,
    /// `context.sequence`: a caller's own order number, checked per user.
    pub(super) sequence: Option<u64>,
    /// Fields that Cello strips, the first few by path.
    pub(super) unknown: Vec<Box<str>>,
    /// How many fields Cello strips.
    pub(super) unknown_count: u64,
    /// Why Cello answers 400, if it does.
    pub(super) refusal: Option<String>,
}

impl Envelope {
    /// Reads a body; never fails, a bad body is a refused envelope.
    pub(super) fn read(body: &[u8]) -> Self {
        let mut envelope = Self::default();
        let Ok(root) = serde_json::from_slice::<&RawValue>(body) else {
            envelope.refuse("the body is not valid JSON");
            return envelope;
        };
        let Some(root) = Fields::of(root) else {
            envelope.refuse("the body must be an object");
            return envelope;
        };
        match root.get("eventName").and_then(text) {
            Some(name) if name == "ReferralUpdated" => {}
            _ => envelope.refuse("eventName must be \"ReferralUpdated\""),
        }
        envelope.note_unknown("", &root, &["eventName", "payload", "context"]);
        match root.get("payload").and_then(Fields::of) {
            Some(payload) => envelope.read_payload(&payload),
            None => envelope.refuse("payload must be an object"),
        }
        match root.get("context") {
            Some(context) if is_object(context) => envelope.read_context(context),
            _ => envelope.refuse("context must be an object"),
        }
        envelope
    }

    fn read_payload(&mut self, payload: &Fields<'_>) {
        for name in ["ucc", "newUserId"] {
            match payload.get(name).map(text) {
                Some(Some(value)) if !value.is_empty() => {
                    if name == "newUserId" {
                        self.user = Some(value.into());
                    }
                }
                Some(Some(_)) => self.refuse(&format!("payload.{name} must not be empty")),
                Some(None) => self.refuse(&format!("payload.{name} must be a string")),
                None => self.refuse(&format!("payload.{name} is required")),
            }
        }
        if payload.get("price").is_some_and(|price| !is_number(price)) {
            self.refuse("payload.price must be a number");
        }
        if payload.get("currency").is_some_and(|currency| text(currency).is_none()) {
            self.refuse("payload.currency must be a string");
        }
        self.note_unknown("payload.", payload, &["ucc", "newUserId", "price", "currency"]);
    }

    /// Takes what is understood of a context; no context is refused for what is in it.
    fn read_context(&mut self, context: &RawValue) {
        #[derive(Deserialize)]
        struct Context<'a> {
            #[serde(borrow)]
            event: Option<&'a RawValue>,
            #[serde(borrow)]
            sequence: Option<&'a RawValue>,
        }
        let Ok(context) = serde_json::from_str::<Context<'_>>(context.get()) else { return };
        self.sequence = context.sequence.and_then(|number| number.get().parse().ok());
        let event = context.event.and_then(Fields::of);
        self.trigger = event.and_then(|event| event.get("trigger").and_then(text)).map(Into::into);
    }

    fn note_unknown(&mut self, prefix: &str, fields: &Fields<'_>, known: &[&str]) {
        for (name, _) in fields.0.iter().filter(|(name, _)| !known.contains(&name.0.as_ref())) {
            self.unknown_count += 1;
            if self.unknown.len() < NAMED_UNKNOWN {
                self.unknown.push(format!("{prefix}{}", name.0).into());
            }
        }
    }

    /// Adds a reason; Cello names all that is wrong in one message.
    fn refuse(&mut self, why: &str) {
        match &mut self.refusal {
            Some(message) => {
                message.push_str("; ");
                message.push_str(why);
            }
            None => self.refusal = Some(why.to_owned()),
        }
    }
}

/// The fields of an object, their values unread.
struct Fields<'a>(Vec<(Name<'a>, &'a RawValue)>);

#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Fields<'a> {
    fn of(value: &'a RawValue) -> Option<Self> {
        is_object(value).then(|| serde_json::from_str(value.get()).ok()).flatten()
    }

    /// The last of a name counts, as in JavaScript.
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().rev().find(|(key, _)| key.0 == name).map(|(_, value)| *value)
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(4);
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

fn is_number(value: &RawValue) -> bool {
    value.get().starts_with(|first: char| first == '-' || first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(body: &str) -> Option<String> {
        Envelope::read(body.as_bytes()).refusal
    }

    #[test]
    fn a_context_may_be_any_object_and_is_read_as_far_as_it_is_understood() {
        let with_context = |context: &str| {
            let body = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"c","newUserId":"u"},"context":"#;
            Envelope::read(format!("{body}{context}}}").as_bytes())
        };
        for context in ["{}", r#"{"event":7}"#, r#"{"event":{"trigger":{}}}"#, r#"{"event":1,"event":2}"#] {
            let envelope = with_context(context);
            assert_eq!((envelope.refusal, envelope.trigger), (None, None), "{context}");
        }
        let envelope = with_context(r#"{"event":{"trigger":"new-signup"},"sequence":12,"mine":[{}]}"#);
        assert_eq!((envelope.trigger.as_deref(), envelope.sequence), (Some("new-signup"), Some(12)));
        assert_eq!(with_context("[]").refusal.as_deref(), Some("context must be an object"));
    }

    #[test]
    fn every_fault_of_envelope_and_payload_is_named_in_one_message() {
        let body = r#"{"eventName":"Other","payload":{"newUserId":7,"price":"1","currency":null},"context":{}}"#;
        let message = "eventName must be \"ReferralUpdated\"; payload.ucc is required; \
                       payload.newUserId must be a string; payload.price must be a number; \
                       payload.currency must be a string";
        assert_eq!(refusal(body).as_deref(), Some(message));
        let empty = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"","newUserId":"u"},"context":{}}"#;
        assert_eq!(refusal(empty).as_deref(), Some("payload.ucc must not be empty"));
        assert_eq!(refusal("[]").as_deref(), Some("the body must be an object"));
        assert_eq!(refusal("{").as_deref(), Some("the body is not valid JSON"));
        assert!(Envelope::read(b"{\"eventName\":\"\xff\"}").refusal.is_some());
    }

    #[test]
    fn what_cello_strips_is_named_by_its_path() {
        let body = r#"{"id":1,"eventName":"ReferralUpdated","payload":{"ucc":"c","newUserId":"\u0075","coupon":2},
                       "context":{"own":true}}"#;
        let envelope = Envelope::read(body.as_bytes());
        assert_eq!(envelope.refusal, None);
        assert_eq!((envelope.user.as_deref(), envelope.unknown_count), (Some("u"), 2));
        assert_eq!(envelope.unknown.iter().map(AsRef::as_ref).collect::<Vec<_>>(), ["id", "payload.coupon"]);
    }
}
