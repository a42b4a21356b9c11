//! The members of a JSON object, found without a tree and without a second validation.
//!
//! What is walked here was validated as a whole before, by `serde_json`; so a value's end is found by its
//! brackets and quotes alone. Bytes that are no JSON give fewer members, never a panic.

use std::borrow::Cow;

use memchr::memchr2;

/// Walks the members of an object in their order.
pub(super) struct Members<'a> {
    json: &'a str,
    at: usize,
}

impl<'a> Members<'a> {
    /// The members of `json`, which is valid; none if it is no object.
    pub(super) fn of(json: &'a str) -> Self {
        let mut members = Self { json, at: 0 };
        members.skip_space();
        members.at = if members.byte() == Some(b'{') { members.at + 1 } else { json.len() };
        members
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

    /// Takes everything up to `end`.
    fn take(&mut self, end: usize) -> Option<&'a str> {
        let taken = self.json.get(self.at..end);
        self.at = end;
        taken
    }
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, &'a str);

    /// The next name, decoded, and its value as it stands there.
    fn next(&mut self) -> Option<Self::Item> {
        self.skip_mark(b',');
        if self.byte()? != b'"' {
            return None;
        }
        let name = self.take(string_end(self.json.as_bytes(), self.at))?;
        self.skip_mark(b':');
        let value = self.take(value_end(self.json.as_bytes(), self.at))?;
        Some((decoded(name), value))
    }
}

/// A name without an escape is its own decoded form; one that is no Unicode text stays as it is.
fn decoded(quoted: &str) -> Cow<'_, str> {
    let name = quoted.get(1..quoted.len() - 1).unwrap_or_default();
    if !name.contains('\\') {
        return Cow::Borrowed(name);
    }
    serde_json::from_str::<String>(quoted).map_or(Cow::Borrowed(name), Cow::Owned)
}

/// Behind the closing quote of the string that starts at `at`.
fn string_end(json: &[u8], mut at: usize) -> usize {
    at += 1;
    while let Some(found) = json.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found;
        if json[at] == b'"' {
            return at + 1;
        }
        at += 2;
    }
    json.len()
}

/// Behind the value that starts at `at`.
fn value_end(json: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = string_end(json, at) - 1,
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
        Members::of(json).map(|(name, value)| (name.into_owned(), value)).collect()
    }

    #[test]
    fn members_come_in_their_order_with_their_own_bytes() {
        let json = r#" { "a" : 1 ,"b":[1, {"x":"]"}] , "\u0063":"d\"}" , "":{} , "e" : null } "#;
        let expected = [("a", "1"), ("b", r#"[1, {"x":"]"}]"#), ("c", r#""d\"}""#), ("", "{}"), ("e", "null")];
        assert_eq!(members(json), expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn what_is_no_object_has_no_members_and_what_is_cut_off_does_no_harm() {
        for json in ["[]", "1", "", "null", r#""{""#] {
            assert_eq!(members(json), [], "{json}");
        }
        let json = r#"{"a":{"b":"c\\"},"d":["#;
        for end in 0..json.len() {
            members(&json[..end]);
        }
    }
}
