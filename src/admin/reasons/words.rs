//! Numbers, times and spans as people say them.

use std::time::Duration;

use super::Snapshot;
use crate::clock::Timestamp;

/// `1,204`
pub(super) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut said = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            said.push(',');
        }
        said.push(digit);
    }
    said
}

/// `1 event`, `1,204 events`
pub(super) fn count_of(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", number(count), if count == 1 { "" } else { "s" })
}

/// `5 s`, `38 min`, `2 h 10 min`, `3 d 4 h`
pub(super) fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    let two = |whole: u64, unit: &str, rest: u64, small: &str| match rest {
        0 => format!("{whole} {unit}"),
        rest => format!("{whole} {unit} {rest} {small}"),
    };
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "min"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// `14:02 UTC`; with the date if that is not within half a day of now.
pub(super) fn time(moment: Timestamp, now: Timestamp) -> String {
    let text = moment.to_string();
    let far = now.since(moment).max(moment.since(now)) > Duration::from_secs(12 * 3_600);
    let minute = if far { text.get(..16) } else { text.get(11..16) };
    format!("{} UTC", minute.unwrap_or(&text).replace('T', " "))
}

/// `1.5 GiB`
pub(super) fn bytes(bytes: u64) -> String {
    let (mut size, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if size < 1024.0 {
            break;
        }
        (size, unit) = (size / 1024.0, larger);
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{size:.1} {unit}") }
}

/// For the start of a sentence.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// `1,204 events wait, the oldest 38 min`
pub(super) fn waiting(snapshot: &Snapshot) -> String {
    match snapshot.stats.ledger.undelivered() {
        0 => "no event waits".to_owned(),
        1 => format!("1 event waits, for {}", span(snapshot.stats.oldest_age(snapshot.now))),
        count => {
            let oldest = span(snapshot.stats.oldest_age(snapshot.now));
            format!("{} wait, the oldest {oldest}", count_of(count, "event"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_spans_sizes_and_times_are_said_as_people_do() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(number), ["0", "999", "1,000", "1,234,567"]);
        let spans = [5, 119, 120, 2_280, 7_200, 7_860, 273_600].map(|seconds| span(Duration::from_secs(seconds)));
        assert_eq!(spans, ["5 s", "119 s", "2 min", "38 min", "2 h", "2 h 11 min", "3 d 4 h"]);
        assert_eq!([bytes(512), bytes(1 << 20), bytes(3 << 29)], ["512 B", "1.0 MiB", "1.5 GiB"]);
        let now = Timestamp::from_millis(1_664_979_274_007);
        assert_eq!(time(now, now), "14:14 UTC");
        assert_eq!(time(now.minus(Duration::from_secs(100_000)), now), "2022-10-04 10:27 UTC");
    }
}
