//! A map of bounded size that forgets what was not touched for longest.

use std::collections::HashMap;

/// Remembers at least the last `room` keys, at most twice as many.
///
/// Two generations: what is touched moves to the young one; when that is full, the old one is
/// dropped and the young one grows old.
pub(super) struct Recent<V> {
    young: HashMap<u64, V>,
    old: HashMap<u64, V>,
    room: usize,
}

impl<V> Recent<V> {
    pub(super) fn new(room: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), room: room.max(1) }
    }

    /// Remembers a value and gives back the one that was known.
    pub(super) fn replace(&mut self, key: u64, value: V) -> Option<V> {
        if !self.young.contains_key(&key) && self.young.len() >= self.room {
            self.old = std::mem::take(&mut self.young);
        }
        let old = self.old.remove(&key);
        self.young.insert(key, value).or(old)
    }

    /// The value of a key, if it is still remembered.
    pub(super) fn get(&self, key: u64) -> Option<&V> {
        self.young.get(&key).or_else(|| self.old.get(&key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_is_given_back_also_from_the_old_generation() {
        let mut recent = Recent::new(2);
        assert_eq!(recent.replace(1, 'a'), None);
        assert_eq!(recent.replace(1, 'b'), Some('a'));
        assert_eq!((recent.replace(2, 'c'), recent.replace(3, 'd')), (None, None));
        assert_eq!(recent.replace(1, 'e'), Some('b'));
        assert_eq!(recent.get(2), Some(&'c'));
    }

    #[test]
    fn the_last_keys_are_remembered_and_the_size_is_bounded() {
        let mut recent = Recent::new(100);
        for key in 0..10_000 {
            recent.replace(key, ());
            assert!(recent.young.len() + recent.old.len() <= 200);
        }
        assert!((9_900..10_000).all(|key| recent.get(key).is_some()));
        assert!(recent.get(5).is_none());
    }
}
