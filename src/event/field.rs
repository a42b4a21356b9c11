//! The value of a known field, borrowed from the body where it can be.

use std::borrow::Cow;

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
    /// What a valid JSON value is that is no string.
    pub(super) fn of(json: &'a str) -> Self {
        match Kind::of(json) {
            Kind::Null => Field::Absent,
            Kind::Number => Field::Number(json),
            other => Field::Other(other),
        }
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
