//! Reading JSON objects field by field, borrowing from the body and without a tree.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// The kind of a JSON value, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    pub(super) fn of(json: &str) -> Self {
        match json.as_bytes().first() {
            Some(b'"') => Kind::String,
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    pub(super) const fn with_article(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Bool => "a boolean",
            Kind::Number => "a number",
            Kind::String => "a string",
            Kind::Array => "an array",
            Kind::Object => "an object",
        }
    }
}

/// The value of a known field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Field<'a> {
    /// Not there, or `null`.
    #[default]
    Absent,
    /// A string, decoded.
    Text(Cow<'a, str>),
    /// A number with its digits as sent.
    Number(&'a str),
    /// A string that has half a surrogate pair: JSON, but no Unicode text.
    NoText,
    /// Anything else.
    Other(Kind),
}

impl<'a> Field<'a> {
    /// Reads the next value of `map`.
    pub(super) fn next<A: MapAccess<'a>>(map: &mut A) -> Result<Self, A::Error> {
        let raw: &'a RawValue = map.next_value()?;
        let json = raw.get();
        Ok(match Kind::of(json) {
            Kind::Null => Field::Absent,
            Kind::Number => Field::Number(json),
            Kind::String => Self::text(json),
            other => Field::Other(other),
        })
    }

    /// A string without an escape is its own decoded form.
    fn text(json: &'a str) -> Self {
        let inner = json.get(1..json.len() - 1).unwrap_or_default();
        if !inner.contains('\\') {
            return Field::Text(Cow::Borrowed(inner));
        }
        serde_json::from_str::<String>(json).map_or(Field::NoText, |text| Field::Text(Cow::Owned(text)))
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Field::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }

    /// What the value is, if it is there.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Field::Absent => Kind::Null,
            Field::Text(_) | Field::NoText => Kind::String,
            Field::Number(_) => Kind::Number,
            Field::Other(kind) => *kind,
        }
    }
}

/// Takes the fields of an object as they come.
pub(super) trait Fields<'a> {
    /// Takes the value of `name` from `map`, or passes over it with [`skip`].
    fn field<A: MapAccess<'a>>(&mut self, name: Cow<'a, str>, map: &mut A) -> Result<(), A::Error>;
}

/// Passes over a value.
pub(super) fn skip<'a, A: MapAccess<'a>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// Hands an object's fields to `T`; says what was there.
pub(super) struct Object<'t, T>(pub(super) &'t mut T);

impl<'a, T: Fields<'a>> DeserializeSeed<'a> for Object<'_, T> {
    type Value = Kind;

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Kind, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'a, T: Fields<'a>> Visitor<'a> for Object<'_, T> {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Kind, A::Error> {
        while let Some(name) = map.next_key_seed(Name)? {
            self.0.field(name, &mut map)?;
        }
        Ok(Kind::Object)
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut seq: A) -> Result<Kind, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Kind::Array)
    }

    fn visit_unit<E: Error>(self) -> Result<Kind, E> {
        Ok(Kind::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Bool)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Number)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Kind, E> {
        Ok(Kind::Number)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Number)
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Kind, E> {
        Ok(Kind::String)
    }
}

/// A field's name. Taken as bytes, because JSON allows names that are no Unicode text.
struct Name;

impl<'a> DeserializeSeed<'a> for Name {
    type Value = Cow<'a, str>;

    fn deserialize<D: Deserializer<'a>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_bytes(self)
    }
}

impl<'a> Visitor<'a> for Name {
    type Value = Cow<'a, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_borrowed_bytes<E: Error>(self, name: &'a [u8]) -> Result<Self::Value, E> {
        Ok(String::from_utf8_lossy(name))
    }

    fn visit_bytes<E: Error>(self, name: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(String::from_utf8_lossy(name).into_owned()))
    }
}
