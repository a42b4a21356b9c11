//! `Retry-After` (RFC 9110, 10.2.3), in both forms. Pure: `now` is passed in.

use std::time::{Duration, UNIX_EPOCH};

use crate::clock::Timestamp;

/// However short the server's wish, so much time is left between calls.
const LEAST: Duration = Duration::from_secs(1);
/// However long the server's wish, delivery is tried again after so much time.
const MOST: Duration = Duration::from_secs(600);

/// How long to wait: seconds, or the time left until an HTTP date, clamped to 1 s–10 min; `None` if
/// the value is neither.
pub(super) fn parse(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wish = if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // Only a number too large for 64 bits fails here.
        value.parse().map_or(MOST, Duration::from_secs)
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        let ms = date.duration_since(UNIX_EPOCH).ok()?.as_millis();
        Timestamp::from_millis(i64::try_from(ms).ok()?).since(now)
    };
    Some(wish.clamp(LEAST, MOST))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sun, 06 Nov 1994 08:49:37 GMT
    const NOW: Timestamp = Timestamp::from_millis(784_111_777_000);

    fn seconds(value: &str) -> Option<u64> {
        parse(value, NOW).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_are_taken_as_they_are_within_the_clamp() {
        assert_eq!(seconds("7"), Some(7));
        assert_eq!(seconds(" 30 "), Some(30));
        assert_eq!(seconds("0"), Some(1));
        assert_eq!(seconds("601"), Some(600));
        assert_eq!(seconds("99999999999999999999999999"), Some(600));
    }

    #[test]
    fn a_date_is_the_time_left_until_it() {
        assert_eq!(seconds("Sun, 06 Nov 1994 08:50:07 GMT"), Some(30));
        assert_eq!(seconds("Sunday, 06-Nov-94 08:50:07 GMT"), Some(30));
        assert_eq!(seconds("Sun, 06 Nov 1994 08:00:00 GMT"), Some(1), "the past");
        assert_eq!(seconds("Mon, 07 Nov 1994 08:49:37 GMT"), Some(600), "tomorrow");
    }

    #[test]
    fn anything_else_is_no_wish() {
        for value in ["", " ", "-5", "1.5", "+3", "soon", "1e3", "Sun, 06 Nov", "\u{661}"] {
            assert_eq!(seconds(value), None, "{value}");
        }
    }
}
