//! The `Idempotency-Key` of each event of an input.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

/// Gives keys made of an event's bytes and of how many of the same bytes came before it: the same for a second run, for
/// an input whose first events are gone, and for one that begins with others; and two equal events are still two.
#[derive(Default)]
pub(super) struct Keys {
    /// By the first bytes of the digest, as inputs can be long: for two that meet by chance, the key of the later one
    /// depends on both.
    seen: HashMap<u64, u32>,
}

impl Keys {
    /// The key of the next event.
    pub(super) fn next(&mut self, body: &[u8]) -> String {
        let whole: [u8; 32] = Sha256::digest(body).into();
        let begin = whole.iter().take(8).fold(0, |begin, byte| begin << 8 | u64::from(*byte));
        let times = self.seen.entry(begin).or_default();
        *times += 1;
        let digest = Sha256::new().chain_update(format!("{times}\n")).chain_update(body).finalize();
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("send-{hex}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(bodies: &[&str]) -> Vec<String> {
        let mut keys = Keys::default();
        bodies.iter().map(|body| keys.next(body.as_bytes())).collect()
    }

    #[test]
    fn an_event_keeps_its_key_when_those_before_it_are_gone_and_equal_ones_are_two() {
        let [first, twin, other]: [String; 3] = keys(&["a", "a", "b"]).try_into().expect("three");
        assert_ne!(first, twin, "equal events are two");
        assert_eq!(keys(&["b"])[0], other, "whatever came before");
        assert_eq!(keys(&["c", "a", "b", "a"])[1..], [first, other, twin]);
        assert_ne!(keys(&["1\na"]), keys(&["a"]));
        assert!(keys(&["a"])[0].len() <= 255);
    }
}
