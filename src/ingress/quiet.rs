//! Log lines that could be as many as requests: one of a kind in a while, with the number left out.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// One line of a kind in this time.
const EVERY: Duration = Duration::from_secs(10);

/// Which kinds were logged when. Kinds are constants, so this stays small.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    kinds: Mutex<Vec<Kind>>,
}

#[derive(Debug)]
struct Kind {
    name: &'static str,
    logged: Instant,
    suppressed: u64,
}

impl Quiet {
    /// Whether a line of this kind may be written now; if so, how many were not since the last.
    pub(super) fn lets(&self, name: &'static str, now: Instant) -> Option<u64> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kind) = kinds.iter_mut().find(|kind| kind.name == name) else {
            kinds.push(Kind { name, logged: now, suppressed: 0 });
            return Some(0);
        };
        if now.saturating_duration_since(kind.logged) < EVERY {
            kind.suppressed += 1;
            return None;
        }
        kind.logged = now;
        Some(std::mem::take(&mut kind.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_of_a_kind_is_written_in_ten_seconds_with_the_number_left_out() {
        let (quiet, start) = (Quiet::default(), Instant::now());
        assert_eq!(quiet.lets("price", start), Some(0));
        assert_eq!(quiet.lets("price", start), None);
        assert_eq!(quiet.lets("price", start + EVERY - Duration::from_millis(1)), None);
        assert_eq!(quiet.lets("currency", start), Some(0));
        assert_eq!(quiet.lets("price", start + EVERY), Some(2));
    }
}
