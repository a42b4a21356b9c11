//! What is in a file: one event a line, an array of events, or events written over several lines.

use std::io::{self, BufRead, Cursor, Read};

use serde_json::value::RawValue;

use crate::cli::exit::{Exit, Failure};

/// What is read at once, to see which form it is. An array must fit; lines go on for ever.
const MAX_WHOLE: u64 = 64 << 20;
/// Longer than any event that a relay takes.
const MAX_LINE: u64 = 16 << 20;

/// An event as it stands in the input; whether it is one is for the relay to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// The line, or the place in the array, from 1.
    pub(super) number: u64,
    pub(super) body: Vec<u8>,
}

/// The events of an input, in order.
pub(super) enum Items<R> {
    /// NDJSON, read as it comes.
    Lines { reader: io::Chain<Cursor<Vec<u8>>, R>, number: u64 },
    /// Everything else.
    Whole(std::iter::Enumerate<std::vec::IntoIter<Vec<u8>>>),
}

impl<R: BufRead> Items<R> {
    /// Sees which form it is: an array; lines, if the first one is JSON by itself; else values one after
    /// the other.
    pub(super) fn read(mut reader: R) -> Result<Self, Failure> {
        let mut first = Vec::new();
        while first.iter().all(u8::is_ascii_whitespace) && first.len() < MAX_WHOLE as usize {
            if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut first)? == 0 {
                break;
            }
        }
        let lines = |head: Vec<u8>, reader| Self::Lines { reader: Cursor::new(head).chain(reader), number: 0 };
        let is_array = without_mark(&first).trim_ascii_start().starts_with(b"[");
        if !is_array && is_json(without_mark(&first)) {
            return Ok(lines(first, reader));
        }
        let mut head = first;
        reader.by_ref().take(MAX_WHOLE).read_to_end(&mut head)?;
        match whole(&head, is_array) {
            Ok(values) => Ok(Self::Whole(values.into_iter().enumerate())),
            Err(error) if is_array => {
                let message = format!("the input begins like a JSON array and is none: {error}");
                Err(Failure::new(Exit::Data, message)
                    .hint("more than 64 MiB of events go as one event a line (NDJSON)"))
            }
            Err(_) => Ok(lines(head, reader)),
        }
    }
}

impl<R: BufRead> Iterator for Items<R> {
    type Item = Result<Item, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Items::Whole(values) => values.next().map(|(place, body)| Ok(Item { number: place as u64 + 1, body })),
            Items::Lines { reader, number } => next_line(reader, number).transpose(),
        }
    }
}

/// The next line that is not blank. Blank ones count, as they do in an editor.
fn next_line(reader: &mut impl BufRead, number: &mut u64) -> Result<Option<Item>, Failure> {
    loop {
        let mut line = Vec::new();
        if reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        *number += 1;
        if line.len() as u64 == MAX_LINE && !line.ends_with(b"\n") {
            return Err(Failure::new(Exit::Data, format!("line {number} is longer than {} MiB", MAX_LINE >> 20)));
        }
        let line = if *number == 1 { without_mark(&line) } else { &line };
        let body = line.trim_ascii();
        if !body.is_empty() {
            return Ok(Some(Item { number: *number, body: body.to_vec() }));
        }
    }
}

/// The values of a text, byte for byte.
fn whole(text: &[u8], is_array: bool) -> Result<Vec<Vec<u8>>, serde_json::Error> {
    let bytes = |value: &RawValue| value.get().as_bytes().to_vec();
    let text = without_mark(text);
    if is_array {
        let values: Vec<&RawValue> = serde_json::from_slice(text)?;
        return Ok(values.into_iter().map(bytes).collect());
    }
    let values = serde_json::Deserializer::from_slice(text).into_iter::<&RawValue>();
    values.map(|value| value.map(bytes)).collect()
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok()
}

/// Without the byte order mark that some editors put first.
fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(u64, String)> {
        let items = Items::read(text.as_bytes()).unwrap();
        let pair = |item: Item| (item.number, String::from_utf8(item.body).unwrap());
        items.map(|item| pair(item.unwrap())).collect()
    }

    fn numbered(values: &[(u64, &str)]) -> Vec<(u64, String)> {
        values.iter().map(|(number, text)| (*number, (*text).to_owned())).collect()
    }

    #[test]
    fn lines_keep_their_bytes_and_their_numbers() {
        assert_eq!(
            read("{\"a\": 1}\n\n{\"b\":2}\r\nnot json\n"),
            numbered(&[(1, "{\"a\": 1}"), (3, "{\"b\":2}"), (4, "not json")])
        );
    }

    #[test]
    fn arrays_and_events_over_several_lines_are_understood() {
        assert_eq!(read("[\n{\"a\": 1},\n{\"b\":2}]"), numbered(&[(1, "{\"a\": 1}"), (2, "{\"b\":2}")]));
        assert_eq!(read("{\n\"a\": 1\n}\n{\n\"b\":2}"), numbered(&[(1, "{\n\"a\": 1\n}"), (2, "{\n\"b\":2}")]));
        assert_eq!(read("\u{feff}{\"a\":1}"), numbered(&[(1, "{\"a\":1}")]));
        assert!(read("").is_empty() && read("[]").is_empty() && read(" \n\n").is_empty());
    }

    #[test]
    fn a_bad_first_line_spoils_only_itself() {
        assert_eq!(read("{\"a\":\n{\"b\":2}\n"), numbered(&[(1, "{\"a\":"), (2, "{\"b\":2}")]));
    }

    #[test]
    fn a_broken_array_is_an_error_that_says_where() {
        let failure = Items::read(&b"[{\"a\":1},"[..]).err().unwrap();
        assert_eq!(failure.exit, Exit::Data);
        assert!(failure.message.contains("line 1"), "{}", failure.message);
    }
}
