//! At most one line per subject and window: a relay that fails must not fill the disk with saying so.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// One line per subject in this time; the rest is counted.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Subjects remembered at the same time. They come from closed lists, so this is never reached unless
/// by mistake, and then the memory is bounded all the same.
const MAX_SUBJECTS: usize = 512;

/// What a line is about: its `event`, and why.
pub(super) type Subject = (String, String);

/// Lets the first line of a subject through, then one per [`WINDOW`].
#[derive(Default)]
pub(super) struct Limiter {
    subjects: HashMap<Subject, Slot>,
}

struct Slot {
    written_at: Instant,
    suppressed: u64,
}

impl Limiter {
    /// `None`: keep quiet. `Some(n)`: write, and say that `n` like it were not written before it.
    pub(super) fn admit(&mut self, subject: Subject, now: Instant) -> Option<u64> {
        if let Some(slot) = self.subjects.get_mut(&subject) {
            if now.saturating_duration_since(slot.written_at) < WINDOW {
                slot.suppressed += 1;
                return None;
            }
            slot.written_at = now;
            return Some(std::mem::take(&mut slot.suppressed));
        }
        if self.subjects.len() >= MAX_SUBJECTS {
            self.subjects.clear();
        }
        self.subjects.insert(subject, Slot { written_at: now, suppressed: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(event: &str, reason: &str) -> Subject {
        (event.to_owned(), reason.to_owned())
    }

    #[test]
    fn one_line_per_subject_and_window_is_let_through_and_the_rest_is_counted() {
        let (mut limiter, start) = (Limiter::default(), Instant::now());
        let mut admit =
            |ms: u64| limiter.admit(about("delivery_failed", "http_5xx"), start + Duration::from_millis(ms));
        assert_eq!([admit(0), admit(1), admit(9_999)], [Some(0), None, None]);
        assert_eq!([admit(10_000), admit(10_001)], [Some(2), None]);
        assert_eq!(admit(20_000), Some(1));
    }

    #[test]
    fn subjects_do_not_silence_each_other() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        assert_eq!(limiter.admit(about("delivery_failed", "http_5xx"), now), Some(0));
        assert_eq!(limiter.admit(about("delivery_failed", "timeout"), now), Some(0));
        assert_eq!(limiter.admit(about("token_failed", "timeout"), now), Some(0));
    }

    #[test]
    fn memory_is_bounded_whatever_the_subjects() {
        let (mut limiter, now) = (Limiter::default(), Instant::now());
        for number in 0..10 * MAX_SUBJECTS {
            limiter.admit(about(&number.to_string(), ""), now);
        }
        assert!(limiter.subjects.len() <= MAX_SUBJECTS);
    }
}
