//! The id an event gets when it is stored.

use std::fmt;
use std::str::FromStr;

use uuid::fmt::Hyphenated;
use uuid::{Uuid, Variant};

use crate::clock::Timestamp;

const SEQ_BITS: u32 = 48;
const SALT_BITS: u32 = 26;

/// A UUID v7 that carries the event's place in the outbox.
///
/// The 74 bits that RFC 9562 leaves free hold the append sequence (48 bits) and a random salt
/// (26 bits). So an id sorts by time and then by order, leads straight to its row, and the store
/// needs no index by id. A file's sequence starts at a random number, so two relays do not make the
/// same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(u128);

impl EventId {
    /// The largest sequence number that fits.
    pub const MAX_SEQ: u64 = (1 << SEQ_BITS) - 1;

    /// The largest salt that fits.
    pub const MAX_SALT: u32 = (1 << SALT_BITS) - 1;

    /// Bytes of its text.
    pub const TEXT_BYTES: usize = Hyphenated::LENGTH;

    /// Packs time, place and salt; bits that do not fit are cut off.
    #[must_use]
    pub fn new(accepted_at: Timestamp, seq: u64, salt: u32) -> Self {
        let ms = u128::try_from(accepted_at.as_millis()).unwrap_or(0) & ((1 << 48) - 1);
        let free = (u128::from(seq & Self::MAX_SEQ) << SALT_BITS) | u128::from(salt & Self::MAX_SALT);
        let (rand_a, rand_b) = (free >> 62, free & ((1 << 62) - 1));
        Self((ms << 80) | (0x7 << 76) | (rand_a << 64) | (0b10 << 62) | rand_b)
    }

    /// When the event was accepted.
    #[must_use]
    pub fn accepted_at(self) -> Timestamp {
        Timestamp::from_millis((self.0 >> 80) as i64)
    }

    /// The append sequence number.
    #[must_use]
    pub fn seq(self) -> u64 {
        (self.free() >> SALT_BITS) as u64
    }

    /// The random part.
    #[must_use]
    pub fn salt(self) -> u32 {
        (self.free() as u32) & Self::MAX_SALT
    }

    /// Its text, written into `buffer`.
    pub fn write_to(self, buffer: &mut [u8; Self::TEXT_BYTES]) -> &str {
        Uuid::from_u128(self.0).as_hyphenated().encode_lower(buffer)
    }

    fn free(self) -> u128 {
        let (rand_a, rand_b) = ((self.0 >> 64) & 0xfff, self.0 & ((1 << 62) - 1));
        (rand_a << 62) | rand_b
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_u128(self.0).as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

/// The text is not an event id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not an event id")]
pub struct NotAnId;

impl FromStr for EventId {
    type Err = NotAnId;

    fn from_str(text: &str) -> Result<Self, NotAnId> {
        let id = Uuid::try_parse(text).map_err(|_| NotAnId)?;
        if id.get_version_num() != 7 || id.get_variant() != Variant::RFC4122 {
            return Err(NotAnId);
        }
        Ok(Self(id.as_u128()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_uuid_v7_that_gives_back_what_it_was_made_of() {
        let at = Timestamp::from_millis(1_764_000_000_123);
        let id = EventId::new(at, 0xabcd_1234_5678, 0x2ab_cdef);
        assert_eq!((id.accepted_at(), id.seq(), id.salt()), (at, 0xabcd_1234_5678, 0x2ab_cdef));
        let uuid = Uuid::from_str(&id.to_string()).expect("a uuid");
        assert_eq!((uuid.get_version_num(), uuid.get_variant()), (7, Variant::RFC4122));
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn ids_sort_by_time_then_by_sequence() {
        let at = Timestamp::from_millis;
        let ids = [EventId::new(at(1), 9, 7), EventId::new(at(2), 3, 9), EventId::new(at(2), 4, 1)];
        assert!(ids.is_sorted());
    }

    #[test]
    fn other_texts_and_other_uuids_are_no_ids() {
        let another_variant = "019ab4ab-6c7b-7abc-0d15-9e1fb0f6ed1d";
        for text in ["", "x", "6fa459ea-ee8a-3ca4-894e-db77e160355e", another_variant] {
            assert_eq!(text.parse::<EventId>(), Err(NotAnId), "{text}");
        }
    }
}
