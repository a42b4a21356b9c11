//! Leases that were lost while their events may be being sent: an erasure waits for these sends too.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Events in flight when their opening ended, by sequence and opening, each for as long as a send may take.
#[derive(Debug)]
pub(super) struct Astray {
    until: BTreeMap<(u64, u64), Instant>,
    send_within: Duration,
}

impl Astray {
    pub(super) fn new(send_within: Duration) -> Self {
        Self { until: BTreeMap::new(), send_within }
    }

    /// An opening has ended, and these were in flight.
    pub(super) fn lose(&mut self, seqs: &[u64], epoch: u64, now: Instant) {
        self.until.retain(|_, until| now < *until);
        self.until.extend(seqs.iter().map(|seq| ((*seq, epoch), now + self.send_within)));
    }

    /// Whoever had that lease has ended it: nothing is being sent by it.
    pub(super) fn end(&mut self, seq: u64, epoch: u64) {
        self.until.remove(&(seq, epoch));
    }

    /// Whether an event may be being sent.
    pub(super) fn holds(&self, seq: u64, now: Instant) -> bool {
        self.until.range((seq, 0)..=(seq, u64::MAX)).any(|(_, until)| now < *until)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.until.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn what_was_in_flight_is_astray_until_each_of_its_leases_ended_or_a_send_would_be_over() {
        let (mut astray, start) = (Astray::new(MINUTE), Instant::now());
        assert!(astray.is_empty());
        astray.lose(&[1, 2], 1, start);
        astray.lose(&[1], 2, start);
        let held = |astray: &Astray, at| [0, 1, 2, 3].map(|seq| astray.holds(seq, at));
        assert_eq!(held(&astray, start), [false, true, true, false]);
        astray.end(2, 2);
        astray.end(1, 1);
        assert_eq!(
            held(&astray, start),
            [false, true, true, false],
            "another of its leases is not known to have ended"
        );
        astray.end(1, 2);
        assert_eq!(held(&astray, start), [false, false, true, false]);
        assert_eq!(held(&astray, start + MINUTE), [false; 4]);
        astray.lose(&[], 3, start + MINUTE);
        assert!(astray.is_empty(), "and then it is forgotten");
    }
}
