//! Values as people write them: durations, sizes, switches and lists. Pure.

use std::time::Duration;

/// Longer than anything meant, and short enough that no sum of times overflows.
const LONGEST: Duration = Duration::from_secs(3_650 * 86_400);

/// `500ms`, `30s`, `5m`, `1h`, `7d`, and sums of them such as `1h30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    let mut millis: u64 = 0;
    loop {
        let (number, after) = leading_number(rest, "a duration like 500ms, 30s, 5m, 1h or 7d")?;
        let (unit, after) = after.split_at(after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len()));
        let factor = match unit.trim() {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            "" => return Err(format!("has no unit: write {number}s, {number}m or {number}h")),
            _ => return Err("has an unknown unit: use ms, s, m, h or d".to_owned()),
        };
        let sum = number.checked_mul(factor).and_then(|part| millis.checked_add(part));
        millis = sum.filter(|sum| *sum <= LONGEST.as_millis() as u64).ok_or("is longer than 3650d")?;
        if after.is_empty() {
            return Ok(Duration::from_millis(millis));
        }
        rest = after;
    }
}

/// `512B`, `256KiB`, `64MiB`, `1GiB`, `1TiB`.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = leading_number(text.trim(), "a size like 512B, 256KiB, 64MiB or 1GiB")?;
    let shift = match unit.trim() {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        "" => return Err(format!("has no unit: write {number}B, {number}KiB or {number}MiB")),
        "K" | "k" | "KB" | "kB" | "Ki" | "KIB" | "kib" => {
            return Err(format!("has an unknown unit: write {number}KiB"));
        }
        "M" | "MB" | "Mi" | "MIB" | "mib" => return Err(format!("has an unknown unit: write {number}MiB")),
        "G" | "GB" | "Gi" | "GIB" | "gib" => return Err(format!("has an unknown unit: write {number}GiB")),
        _ => return Err("has an unknown unit: use B, KiB, MiB, GiB or TiB".to_owned()),
    };
    // What is stored and compared are SQLite's signed 64 bits.
    let bytes = number.checked_mul(1 << shift).filter(|bytes| i64::try_from(*bytes).is_ok());
    bytes.ok_or_else(|| "is too large".to_owned())
}

/// A whole number without a unit; `10_000` reads as `10000`.
pub(super) fn count(text: &str) -> Result<u64, String> {
    let digits = text.trim().replace('_', "");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("must be a whole number, 0 or more".to_owned());
    }
    digits.parse().map_err(|_| "is too large".to_owned())
}

/// `true` or `false`; nothing else, so that no one has to remember what `off` or `0` means.
pub(super) fn switch(text: &str) -> Result<bool, String> {
    match text.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// The parts of a comma-separated string; blanks around and empty parts are dropped.
pub(super) fn list(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

fn leading_number<'a>(text: &'a str, wanted: &str) -> Result<(u64, &'a str), String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    if rest.starts_with('.') {
        return Err("must be a whole number of its unit: take a smaller unit".to_owned());
    }
    if digits.is_empty() {
        return Err(format!("must be {wanted}"));
    }
    let number = digits.parse().map_err(|_| "is too large".to_owned())?;
    Ok((number, rest))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_in_every_unit_and_in_sums() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("1h30m", 5_400_000),
            ("0s", 0),
            (" 2s ", 2_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_refused_with_the_way_to_write_it() {
        assert_eq!(duration("30"), Err("has no unit: write 30s, 30m or 30h".to_owned()));
        assert_eq!(duration("1h30"), Err("has no unit: write 30s, 30m or 30h".to_owned()));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "-1s", "1.5s", "1w", "1 hour", "99999999999999999999s", "99999999999d", "∞"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_size_without_a_unit_or_with_a_decimal_one_is_refused_with_the_way_to_write_it() {
        assert_eq!(size("64"), Err("has no unit: write 64B, 64KiB or 64MiB".to_owned()));
        assert_eq!(size("64Mi"), Err("has an unknown unit: write 64MiB".to_owned()));
        for text in ["", "KiB", "-1KiB", "1.5GiB", "1XiB", "99999999TiB", "99999999999999999999B"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn lists_are_split_at_commas() {
        assert_eq!(list(" a, b ,,c"), ["a", "b", "c"]);
        assert!(list("  ").is_empty());
    }

    proptest! {
        #[test]
        fn every_whole_duration_reads_as_written(number in 0u64..3_000, unit in 0usize..5) {
            let (name, millis) = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)][unit];
            prop_assert_eq!(duration(&format!("{number}{name}")), Ok(Duration::from_millis(number * millis)));
        }

        #[test]
        fn every_whole_size_reads_as_written(number in 0u64..8_000_000, unit in 0usize..4) {
            let (name, bytes) = [("B", 1u64), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)][unit];
            prop_assert_eq!(size(&format!("{number}{name}")), Ok(number * bytes));
        }

        #[test]
        fn no_text_makes_a_parser_panic_or_a_duration_overflow(text in "\\PC{0,24}") {
            if let Ok(read) = duration(&text) {
                prop_assert!(read <= LONGEST);
            }
            drop((size(&text), count(&text), switch(&text), list(&text)));
        }
    }
}
