//! How a body lies in its row: what nearly every event says takes one byte a word.
//!
//! A body is JSON in UTF-8, which has no use for some bytes: control characters other than white space, and those that
//! UTF-8 never has. Each of them stands for a word here, which halves a usual event, and with it what is written and
//! what a volume holds. A body is packed if it begins with the head that every event has; all others lie as they are, as do
//! dead letters and the rows of files before version 5.

use std::borrow::Cow;

use memchr::memchr;

/// What every event begins with; its code marks a packed body.
const HEAD: &str = r#"{"eventName":"ReferralUpdated","payload":{"ucc":""#;

/// A word's place says which of [`CODES`] stands for it in files that exist, so that none may ever be changed, moved or
/// added. Those that begin alike stand together, longer ones before their own beginnings.
const WORDS: [&str; 40] = [
    HEAD,
    r#"": {""#,
    r#"":{""#,
    r#"": ""#,
    r#"":""#,
    r#"": "#,
    r#"":"#,
    r#"", ""#,
    r#"",""#,
    r#""}, ""#,
    r#""},""#,
    r#""}}"#,
    "charge-refunded",
    "context",
    "currency",
    "demo-call-attended",
    "demo-call-booked",
    "demo-call-canceled",
    "email",
    "event",
    "invoice-paid",
    "invoiceId",
    "interval",
    "id",
    "monthly",
    "newUserId",
    "newUser",
    "new-signup",
    "name",
    "organizationId",
    "productKey",
    "price",
    "subscription-canceled",
    "subscription-created",
    "subscription-updated",
    "subscription",
    "seatsUsed",
    "timestamp",
    "trigger",
    "yearly",
];

/// The bytes that stand for words, [`HEAD`]'s first.
const CODES: [u8; WORDS.len()] = {
    let mut codes = [0; WORDS.len()];
    let (mut byte, mut n) = (1, 0);
    while n < codes.len() {
        if byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r') || matches!(byte, 0xC0 | 0xC1 | 0xF5..) {
            codes[n] = byte;
            n += 1;
        }
        byte += 1;
    }
    codes
};

/// So many bytes are one number.
const IN_A_NUMBER: usize = size_of::<u64>();

/// A word, so that most are found and written in one step.
#[derive(Clone, Copy)]
struct Word {
    text: &'static [u8],
    code: u8,
    /// Its first bytes in one number …
    start: u64,
    /// … and which bits of it are the word's.
    mask: u64,
}

/// In the order of [`WORDS`].
static TABLE: [Word; WORDS.len()] = {
    let mut table = [Word { text: &[], code: 0, start: 0, mask: 0 }; WORDS.len()];
    let mut n = 0;
    while n < WORDS.len() {
        let text = WORDS[n].as_bytes();
        (table[n].text, table[n].code) = (text, CODES[n]);
        let mut at = 0;
        while at < text.len() && at < IN_A_NUMBER {
            table[n].start |= (text[at] as u64) << (8 * at);
            table[n].mask |= 0xFF << (8 * at);
            at += 1;
        }
        n += 1;
    }
    table
};

/// Where in [`TABLE`] the word of a byte stands, if it stands for one.
static MEANT: [Option<u8>; 256] = {
    let mut meant = [None; 256];
    let mut n = 0;
    while n < WORDS.len() {
        meant[CODES[n] as usize] = Some(n as u8);
        n += 1;
    }
    meant
};

/// How long a byte is when it is unpacked.
static LENGTHS: [u8; 256] = {
    let mut lengths = [1; 256];
    let mut n = 0;
    while n < WORDS.len() {
        lengths[CODES[n] as usize] = WORDS[n].len() as u8;
        n += 1;
    }
    lengths
};

/// From where to where in [`TABLE`] those stand that begin with a byte.
static BEGINNING: [(u8, u8); 256] = {
    let mut beginning = [(0, 0); 256];
    let mut n = 1;
    while n < WORDS.len() {
        let first = WORDS[n].as_bytes()[0] as usize;
        if beginning[first].1 == 0 {
            beginning[first].0 = n as u8;
        }
        n += 1;
        beginning[first].1 = n as u8;
    }
    beginning
};

/// What is stored of a body.
pub(super) fn packed(body: &[u8]) -> Cow<'_, [u8]> {
    let Some(mut rest) = body.strip_prefix(HEAD.as_bytes()) else { return Cow::Borrowed(body) };
    let mut packed = Vec::with_capacity(body.len());
    packed.push(CODES[0]);
    // Words begin at a quote, behind one, or behind another word.
    while let [first, behind @ ..] = rest {
        if let Some(word) = word(rest) {
            packed.push(word.code);
            rest = &rest[word.text.len()..];
            continue;
        }
        let text = if *first == b'"' { 0 } else { memchr(b'"', behind).unwrap_or(behind.len()) };
        packed.extend_from_slice(&rest[..=text]);
        rest = &behind[text..];
    }
    // One that has such bytes of its own would not come back as it was.
    if unpacked_len(&packed) == body.len() { Cow::Owned(packed) } else { Cow::Borrowed(body) }
}

/// The longest word that `text` begins with.
fn word(text: &[u8]) -> Option<&'static Word> {
    let (from, to) = BEGINNING[usize::from(*text.first()?)];
    if from == to {
        return None;
    }
    let start = match text.first_chunk() {
        Some(bytes) => u64::from_le_bytes(*bytes),
        // No word has a zero.
        None => text.iter().rev().fold(0, |start, byte| start << 8 | u64::from(*byte)),
    };
    let begins = |word: &&Word| {
        start & word.mask == word.start && (word.text.len() <= IN_A_NUMBER || text.starts_with(word.text))
    };
    TABLE[usize::from(from)..usize::from(to)].iter().find(begins)
}

/// The body that was stored. Bytes that were never stored so give anything, which the checksum shows.
pub(super) fn unpacked(stored: &[u8]) -> Vec<u8> {
    if !is_packed(stored) {
        return stored.to_vec();
    }
    let mut body = vec![0; unpacked_len(stored)];
    let mut at = 0;
    for byte in stored {
        let rest = &mut body[at..];
        let Some(n) = MEANT[usize::from(*byte)] else {
            rest[0] = *byte;
            at += 1;
            continue;
        };
        let word = &TABLE[usize::from(n)];
        match rest.first_chunk_mut() {
            // What is too much of it is written over.
            Some(start) if word.text.len() <= IN_A_NUMBER => *start = word.start.to_le_bytes(),
            _ => rest[..word.text.len()].copy_from_slice(word.text),
        }
        at += word.text.len();
    }
    body
}

/// How long the body is that was stored.
fn unpacked_len(stored: &[u8]) -> usize {
    if !is_packed(stored) {
        return stored.len();
    }
    stored.iter().map(|byte| usize::from(LENGTHS[usize::from(*byte)])).sum()
}

fn is_packed(stored: &[u8]) -> bool {
    stored.first() == Some(&CODES[0])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert_eq, proptest};

    use super::*;
    use crate::event::{Checks, read};

    const COMPACT: &str = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"u-1","newUserId":"n-1","price":4900,"currency":"EUR"},"context":{"newUser":{"id":"n-1","email":"n@example.com","name":"A Name","organizationId":"o-1"},"event":{"trigger":"invoice-paid","timestamp":"2026-11-20T03:18:01.620Z"},"subscription":{"id":"s-1","invoiceId":"i-1","interval":"monthly","productKey":"Pro","seatsUsed":12}}}"#;
    const SPACED: &str = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"u-1","newUserId":"n-1"},"context":{"event": {"trigger": "new-signup", "timestamp": "2022-10-05 14:14:34"}, "newUser": {"id": "n-1", "email": "n@example.com"}}}"#;

    #[test]
    fn what_services_post_takes_less_than_half_and_comes_back_as_it_was() {
        for posted in [COMPACT, SPACED] {
            let body = read(posted.as_bytes(), Checks::Warn).unwrap().event.body;
            let stored = packed(&body);
            assert!(stored.len() * 2 < body.len(), "{} of {}", stored.len(), body.len());
            assert_eq!((unpacked(&stored), unpacked_len(&stored)), (body.to_vec(), body.len()));
        }
    }

    /// A code that moves to another word would change events that are stored already.
    #[test]
    fn what_was_stored_once_is_read_as_it_was() {
        let codes: Vec<u8> =
            (1..=31).filter(|byte| ![9, 10, 13].contains(byte)).chain([192, 193]).chain(245..=254).collect();
        assert_eq!(CODES, codes[..]);
        let words = crc32c::crc32c(WORDS.join("\n").as_bytes());
        assert_eq!((WORDS.len(), words), (40, 1_726_066_630));
        let cases: [(&[u8], &str); 2] = [
            (
                b"\x01u-1\x0b\x1d\x05n-1\x0e\x11\x03\x17\x03\xfd\x05\x1f\x0e\x1e\x03\x1b\x05n-1\x0f}",
                r#"u-1","newUserId":"n-1"},"context":{"event":{"trigger":"new-signup"},"newUser":{"id":"n-1"}}}"#,
            ),
            // Words within a text are not looked for.
            (
                b"\x01u-1\x0b\x1d\x05my event id\x0b\xf6\x071,\"\x12\x05EUR\x0e\x11\x07{}}",
                r#"u-1","newUserId":"my event id","price":1,"currency":"EUR"},"context":{}}"#,
            ),
        ];
        for (stored, body) in cases.map(|(stored, rest)| (stored, format!("{HEAD}{rest}"))) {
            assert_eq!((&*packed(body.as_bytes()), unpacked(stored)), (stored, body.clone().into()));
        }
    }

    #[test]
    fn no_word_hides_another_and_none_has_a_byte_that_text_may_have() {
        for (n, word) in WORDS.iter().enumerate() {
            assert!(WORDS[n + 1..].iter().all(|later| !later.starts_with(word)), "{word}");
            let firsts = WORDS[1..].iter().map(|word| word.as_bytes()[0]);
            let places: Vec<usize> =
                firsts.enumerate().filter(|(_, first)| *first == word.as_bytes()[0]).map(|(n, _)| n).collect();
            assert!(places.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{word}: {places:?}");
        }
        let text: Vec<u8> =
            (' '..='\u{7FF}').chain(['\t', '\n', '\r', '\u{FFFF}', '\u{10FFFF}']).collect::<String>().into();
        assert!(CODES.iter().all(|code| !text.contains(code)));
    }

    #[test]
    fn a_body_that_has_such_a_byte_of_its_own_stays_as_it_is() {
        let body = [COMPACT.as_bytes(), b"\x02"].concat();
        assert_eq!(packed(&body), body);
    }

    proptest! {
        #[test]
        fn whatever_is_stored_comes_back(
            is_event in any::<bool>(),
            parts in proptest::collection::vec((0..WORDS.len(), ".{0,8}|[\"{}:, ]{0,4}"), 0..20),
        ) {
            let text: String = parts.iter().map(|(word, text)| format!("{}{text}", &WORDS[*word])).collect();
            let body = if is_event { format!("{HEAD}{text}") } else { format!("{{{text}") };
            let stored = packed(body.as_bytes());
            prop_assert_eq!(unpacked_len(&stored), body.len());
            prop_assert_eq!(unpacked(&stored), body.into_bytes());
        }

        #[test]
        fn bytes_that_were_never_stored_so_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let stored = [&CODES[..1], &bytes[..]].concat();
            prop_assert_eq!(unpacked(&stored).len(), unpacked_len(&stored));
        }
    }
}
