//! The path of a read: what Cello is asked for is one of four fixed paths with one harmless segment.
#![no_main]

use cello_relay::reads::fuzzing::read_path;
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;

fuzz_target!(|path: &str| {
    let Some((upstream, value)) = read_path(path) else { return };
    let segments: Vec<&str> = upstream.split('/').skip(1).collect();
    let segment = match segments[..] {
        ["referral-codes", "active-link", segment] => segment,
        ["referral-codes", segment] if !segment.eq_ignore_ascii_case("active-link") => segment,
        ["new-users", segment, "reward"] | ["referrers", segment, "depersonalize"] => segment,
        _ => panic!("{path} led to {upstream}"),
    };
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
    assert!(segment.bytes().all(harmless) && segment != "." && segment != "..", "{upstream}");
    assert_eq!(percent_decode_str(segment).decode_utf8().as_deref(), Ok(&*value));
    assert!(!value.is_empty() && !value.chars().any(char::is_control));
});
