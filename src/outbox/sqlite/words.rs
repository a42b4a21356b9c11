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

/// The word of each byte that stands for one.
const MEANT: [Option<&[u8]>; 256] = {
    let mut meant = [None; 256];
    let mut n = 0;
    while n < WORDS.len() {
        meant[CODES[n] as usize] = Some(WORDS[n].as_bytes());
        n += 1;
    }
    meant
};

/// From where to where in [`WORDS`] those stand that begin with a byte.
const BEGINNING: [(u8, u8); 256] = {
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
        if let Some((code, behind)) = word(rest) {
            packed.push(code);
            rest = behind;
            continue;
        }
        let text = if *first == b'"' { 0 } else { memchr(b'"', behind).unwrap_or(behind.len()) };
        packed.extend_from_slice(&rest[..=text]);
        rest = &behind[text..];
    }
    // One that has such bytes of its own would not come back as it was.
    if unpacked_len(&packed) == body.len() { Cow::Owned(packed) } else { Cow::Borrowed(body) }
}

/// The longest word that `text` begins with, and what is behind it.
fn word(text: &[u8]) -> Option<(u8, &[u8])> {
    let [first, second, ..] = text else { return None };
    let (from, to) = BEGINNING[usize::from(*first)];
    (usize::from(from)..usize::from(to)).find_map(|n| {
        let word = WORDS[n].as_bytes();
        // Most that begin alike differ here.
        let behind = if word[1] == *second { text.strip_prefix(word) } else { None };
        Some((CODES[n], behind?))
    })
}

/// The body that was stored. Bytes that were never stored so give anything, which the checksum shows.
pub(super) fn unpacked(stored: &[u8]) -> Vec<u8> {
    if !is_packed(stored) {
        return stored.to_vec();
    }
    let mut body = Vec::with_capacity(unpacked_len(stored));
    let mut rest = stored;
    while let Some(plain) = rest.iter().position(|byte| MEANT[usize::from(*byte)].is_some()) {
        body.extend_from_slice(&rest[..plain]);
        body.extend_from_slice(MEANT[usize::from(rest[plain])].unwrap_or_default());
        rest = &rest[plain + 1..];
    }
    body.extend_from_slice(rest);
    body
}

/// How long the body is that was stored.
fn unpacked_len(stored: &[u8]) -> usize {
    if !is_packed(stored) {
        return stored.len();
    }
    stored.iter().map(|byte| MEANT[usize::from(*byte)].map_or(1, <[u8]>::len)).sum()
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
