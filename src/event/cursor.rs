//! Walking JSON once, without a tree and without a second validation.
//!
//! What is walked here was validated as a whole before, by `serde_json`; so a value's end is found by its
//! brackets and quotes alone. Bytes that are no JSON give fewer members, never a panic.

use std::borrow::Cow;

use memchr::memchr2;

use super::field::{Field, Kind};

/// A place in valid JSON. Between two calls it stands at a value, or behind one.
pub(super) struct Cursor<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Stands at the first value of `json`.
    pub(super) fn new(json: &'a str) -> Self {
        let mut cursor = Self { json, at: 0 };
        cursor.skip_space();
        cursor
    }

    /// Walks the value it stands at and hands each member's name to `member`, which takes the value (with
    /// [`Cursor::value`], [`Cursor::field`] or this). Says what the value is; one that is no object is passed
    /// over.
    pub(super) fn object(&mut self, mut member: impl FnMut(&mut Self, Cow<'a, str>)) -> Kind {
        let kind = Kind::of(self.rest());
        if kind != Kind::Object {
            self.value();
            return kind;
        }
        self.at += 1;
        while let Some(name) = self.name() {
            member(self, name);
        }
        kind
    }

    /// Takes the value it stands at as it is there.
    pub(super) fn value(&mut self) -> &'a str {
        let start = self.at;
        self.at = value_end(self.json.as_bytes(), start);
        self.since(start)
    }

    /// Takes the value it stands at.
    pub(super) fn field(&mut self) -> Field<'a> {
        match self.byte() {
            Some(b'"') => self.string().map_or(Field::NoText, Field::Text),
            _ => Field::of(self.value()),
        }
    }

    /// Where it stands, for [`Cursor::since`].
    pub(super) fn place(&self) -> usize {
        self.at
    }

    /// Everything from `place` to here.
    pub(super) fn since(&self, place: usize) -> &'a str {
        self.json.get(place..self.at).unwrap_or_default()
    }

    /// The next member's name, decoded; or the end of the object.
    fn name(&mut self) -> Option<Cow<'a, str>> {
        self.skip_mark(b',');
        let start = self.at;
        if self.byte() != Some(b'"') {
            self.at = self.json.len().min(start + 1);
            return None;
        }
        let name = self.string().unwrap_or_else(|quoted| Cow::Borrowed(unquoted(quoted)));
        self.skip_mark(b':');
        Some(name)
    }

    /// Takes the string it stands at, decoded; or as it is there if it is no Unicode text.
    fn string(&mut self) -> Result<Cow<'a, str>, &'a str> {
        let start = self.at;
        let (end, is_plain) = string_end(self.json.as_bytes(), start);
        self.at = end;
        let quoted = self.since(start);
        if is_plain {
            return Ok(Cow::Borrowed(unquoted(quoted)));
        }
        serde_json::from_str::<String>(quoted).map(Cow::Owned).map_err(|_| quoted)
    }

    fn rest(&self) -> &'a str {
        self.json.get(self.at..).unwrap_or_default()
    }

    fn byte(&self) -> Option<u8> {
        self.json.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Passes over `mark` and the space around it.
    fn skip_mark(&mut self, mark: u8) {
        self.skip_space();
        if self.byte() == Some(mark) {
            self.at += 1;
            self.skip_space();
        }
    }
}

fn unquoted(quoted: &str) -> &str {
    quoted.get(1..quoted.len() - 1).unwrap_or_default()
}

/// Behind the closing quote of the string that starts at `at`; and whether it has no escape, so that it is its own
/// decoded form.
fn string_end(json: &[u8], mut at: usize) -> (usize, bool) {
    at += 1;
    let mut is_plain = true;
    while let Some(found) = json.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if json[at] == b'"' {
            return (at + 1, is_plain);
        }
        at += 2;
        is_plain = false;
    }
    (json.len(), is_plain)
}

/// Behind the value that starts at `at`.
fn value_end(json: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = string_end(json, at).0 - 1,
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth == 0 => return at,
            b'}' | b']' => depth -= 1,
            b',' | b' ' | b'\t' | b'\n' | b'\r' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
        if depth == 0 && matches!(byte, b'"' | b'}' | b']') {
            return at;
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(json: &str) -> Vec<(String, &str)> {
        let mut members = Vec::new();
        Cursor::new(json).object(|cursor, name| members.push((name.into_owned(), cursor.value())));
        members
    }

    #[test]
    fn members_come_in_their_order_with_their_own_bytes() {
        let json = r#" { "a" : 1 ,"b":[1, {"x":"]"}] , "\u0063":"d\"}" , "":{} , "e" : null } "#;
        let expected = [("a", "1"), ("b", r#"[1, {"x":"]"}]"#), ("c", r#""d\"}""#), ("", "{}"), ("e", "null")];
        assert_eq!(members(json), expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn an_object_in_an_object_is_walked_on_the_way() {
        let (mut inner, mut outer) = (Vec::new(), Vec::new());
        Cursor::new(r#"{"a":{"b":[1],"c":{}},"d":2}"#).object(|cursor, name| {
            let start = cursor.place();
            cursor.object(|cursor, name| inner.push((name, cursor.value())));
            outer.push((name, cursor.since(start)));
        });
        assert_eq!(inner, [("b".into(), "[1]"), ("c".into(), "{}")]);
        assert_eq!(outer, [("a".into(), r#"{"b":[1],"c":{}}"#), ("d".into(), "2")]);
    }

    #[test]
    fn what_is_no_object_has_no_members_and_what_is_cut_off_does_no_harm() {
        for json in ["[]", "1", "", "null"] {
            assert_eq!(members(json), [], "{json}");
        }
        let json = r#"{"a":{"b":"c\\"},"d":["#;
        for end in 0..json.len() {
            members(&json[..end]);
        }
    }
}
