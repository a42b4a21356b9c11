//! `Retry-After`: whatever Cello says, the wait is none, or 1 s–10 min.
#![no_main]

use std::time::Duration;

use cello_relay::cello::fuzzing::retry_after;
use cello_relay::clock::Timestamp;
use libfuzzer_sys::fuzz_target;

// The first eight bytes are the time.
fuzz_target!(|input: &[u8]| {
    let Some((now, value)) = input.split_first_chunk::<8>() else { return };
    let Ok(value) = std::str::from_utf8(value) else { return };
    let now = i64::from_le_bytes(*now);
    let wait = retry_after(value, Timestamp::from_millis(now));
    let value = value.trim();
    let expected_ms = if !value.is_empty() && value.chars().all(|c| c.is_ascii_digit()) {
        Some(value.parse::<u64>().map_or(i128::MAX, |seconds| i128::from(seconds) * 1000))
    } else {
        let date = httpdate::parse_http_date(value).ok();
        let since_1970 = date.and_then(|date| date.duration_since(std::time::UNIX_EPOCH).ok());
        since_1970.map(|since| since.as_millis() as i128 - i128::from(now))
    };
    assert_eq!(wait, expected_ms.map(|ms| Duration::from_millis(ms.clamp(1_000, 600_000) as u64)), "{value:?}");
});
