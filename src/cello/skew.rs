//! How far this machine's clock is from Cello's, by the `Date` of its answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use hyper::header::{DATE, HeaderMap};

use crate::clock::Timestamp;

const UNKNOWN: i64 = i64::MIN;
/// A `Date` has whole seconds: on average it is half a second old when it is written.
const HALF_A_SECOND_MS: i64 = 500;

/// The last difference seen; shared by all clones.
#[derive(Clone, Debug)]
pub(super) struct Skew(Arc<AtomicI64>);

impl Default for Skew {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(UNKNOWN)))
    }
}

impl Skew {
    /// Looks at an answer that came at `now`; one without a valid `Date` says nothing.
    pub(super) fn see(&self, headers: &HeaderMap, now: Timestamp) {
        let Some(date) = date(headers) else { return };
        let date = date.as_millis().saturating_add(HALF_A_SECOND_MS);
        self.0.store(now.as_millis().saturating_sub(date), Ordering::Relaxed);
    }

    /// By how many whole seconds this machine's clock is ahead of Cello's; negative if behind.
    pub(super) fn seconds(&self) -> Option<i64> {
        let ms = self.0.load(Ordering::Relaxed);
        (ms != UNKNOWN).then_some(ms / 1000)
    }
}

/// The `Date` of an answer, if it is a valid one.
pub(super) fn date(headers: &HeaderMap) -> Option<Timestamp> {
    let text = headers.get(DATE)?.to_str().ok()?;
    let date = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    Some(Timestamp::from_millis(i64::try_from(date.as_millis()).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATE_MS: i64 = 784_111_777_000;

    fn seen(date: &str, now: i64) -> Option<i64> {
        let (skew, mut headers) = (Skew::default(), HeaderMap::new());
        headers.insert(DATE, date.parse().unwrap());
        skew.see(&headers, Timestamp::from_millis(now));
        skew.clone().seconds()
    }

    #[test]
    fn a_clock_is_ahead_behind_or_right_by_the_date_of_an_answer() {
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(seen(date, DATE_MS), Some(0));
        assert_eq!(seen(date, DATE_MS + 999), Some(0));
        assert_eq!(seen(date, DATE_MS + 90_600), Some(90));
        assert_eq!(seen(date, DATE_MS - 120_000), Some(-120));
    }

    #[test]
    fn an_answer_without_a_valid_date_says_nothing() {
        assert_eq!(seen("yesterday", DATE_MS), None);
        assert_eq!(Skew::default().seconds(), None);
    }
}
