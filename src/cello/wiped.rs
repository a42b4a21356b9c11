//! Bytes with a secret in them, on their way to Cello or from it: overwritten when the last who has them is done.
//!
//! Keys and tokens themselves are [`secrecy::SecretString`]s, which do the same. What the HTTP client copies into the
//! buffers of its connections is out of reach.

use bytes::Bytes;
use zeroize::{Zeroize, Zeroizing};

/// Shares bytes with the HTTP client, which drops them when it has sent them.
pub(super) fn shared(bytes: Zeroizing<Vec<u8>>) -> Bytes {
    Bytes::from_owner(bytes)
}

/// Overwrites bytes that nobody else has any more.
pub(super) fn wipe(bytes: Bytes) {
    if let Ok(mut bytes) = bytes.try_into_mut() {
        bytes.zeroize();
    }
}

/// Looks at memory that was given back, as whoever reads it by another way would.
#[cfg(test)]
pub(super) mod remains {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    /// The place of bytes that are about to go.
    pub(in crate::cello) struct Place {
        address: u64,
        memory: File,
        /// Made before the bytes go, or it would take their place.
        seen: Vec<u8>,
    }

    impl Place {
        pub(in crate::cello) fn of(bytes: &[u8]) -> Self {
            let memory = File::open("/proc/self/mem").expect("a process may read itself");
            let place = Self { address: bytes.as_ptr() as u64, memory, seen: vec![0; bytes.len()] };
            let mut place = place;
            assert_eq!(place.look(), bytes, "what is there is seen");
            place
        }

        /// What is there now; nothing if the memory is gone altogether.
        fn look(&mut self) -> &[u8] {
            let read = self.memory.read_exact_at(&mut self.seen, self.address);
            if read.is_ok() { &self.seen } else { &[] }
        }

        pub(in crate::cello) fn holds(&mut self, secret: &str) -> bool {
            self.look().windows(secret.len()).any(|window| window == secret.as_bytes())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::remains::Place;
    use super::*;

    /// What is looked for is its end: an allocator writes over the first bytes of what is free.
    const SECRET: &str = "a-canary-that-is-sixty-four-characters-long-and-not-to-be-found.";

    #[test]
    fn bytes_with_a_secret_are_overwritten_when_the_last_who_has_them_drops_them() {
        let bytes = shared(Zeroizing::new(format!("{{\"key\":\"{SECRET}\"}}").into_bytes()));
        let clients = bytes.clone();
        let mut place = Place::of(&bytes);
        drop(bytes);
        assert!(place.holds(&SECRET[32..]) && clients.len() == 74, "it is still to be sent");
        drop(clients);
        assert!(!place.holds(&SECRET[32..]));
    }

    #[test]
    fn an_answer_is_overwritten_once_it_is_read() {
        let bytes = bytes::BytesMut::from(SECRET).freeze();
        let mut place = Place::of(&bytes);
        wipe(bytes);
        assert!(!place.holds(&SECRET[32..]));
    }
}
