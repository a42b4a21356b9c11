//! What SQLite says nothing of: it takes a WAL up to its first wrong byte, as after a power cut, where what lies
//! behind was never answered. Where whole transactions lie behind, bytes have gone bad, and answered events with them.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::sql::{FRAME_BYTES, WAL_HEAD_BYTES};

/// The first four bytes, but for the last bit: which end of a number comes first in sums.
const MAGIC: u32 = 0x377f_0682;

/// The end of a transaction as its frame tells it, the salts of its WAL, and the sum over all frames up to it.
struct Frame {
    is_end: bool,
    salts: [u32; 2],
    sum: [u32; 2],
    bytes: Vec<u8>,
}

impl Frame {
    fn read(from: &mut impl Read) -> Option<Self> {
        let mut bytes = vec![0; FRAME_BYTES as usize];
        from.read_exact(&mut bytes).ok()?;
        let (end, salts, sum) =
            (word(&bytes, 4), [word(&bytes, 8), word(&bytes, 12)], [word(&bytes, 16), word(&bytes, 20)]);
        Some(Self { is_end: end != 0, salts, sum, bytes })
    }

    /// Whether it is what was written behind a frame, or head, with that sum.
    fn follows(&self, sum: [u32; 2], is_big: bool) -> bool {
        let sum = add(add(sum, &self.bytes[..8], is_big), &self.bytes[24..], is_big);
        sum == self.sum
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

/// SQLite's running sum, over pairs of words.
fn add(mut sum: [u32; 2], bytes: &[u8], is_big: bool) -> [u32; 2] {
    for pair in bytes.chunks_exact(8) {
        let [first, second] = [0, 4].map(|at| if is_big { word(pair, at) } else { word(pair, at).swap_bytes() });
        sum[0] = sum[0].wrapping_add(first).wrapping_add(sum[1]);
        sum[1] = sum[1].wrapping_add(second).wrapping_add(sum[0]);
    }
    sum
}

/// How many synced transactions of a WAL lie behind a wrong byte, at least. The last one that is there may have been
/// under way when the power failed, so it does not count.
pub(super) fn transactions_behind_damage(wal: &Path) -> u64 {
    let Ok(file) = File::open(wal) else { return 0 };
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut head = [0; WAL_HEAD_BYTES as usize];
    if file.read_exact(&mut head).is_err() {
        return 0;
    }
    let is_big = word(&head, 0) & 1 == 1;
    let mut sum = [word(&head, 24), word(&head, 28)];
    let mut is_whole = word(&head, 0) & !1 == MAGIC && add([0, 0], &head[..24], is_big) == sum;
    // The order of bytes in sums, and the salts.
    let mut known = is_whole.then(|| (is_big, [word(&head, 16), word(&head, 20)]));
    let mut ends: u64 = 0;
    while let Some(frame) = Frame::read(&mut file) {
        // Of a head that is damaged nothing is known; the first frame that follows another tells.
        if known.is_none() {
            let order = [false, true].into_iter().find(|is_big| frame.follows(sum, *is_big));
            known = order.map(|is_big| (is_big, frame.salts));
        }
        let follows = known.is_some_and(|(is_big, _)| frame.follows(sum, is_big));
        let is_of_this_wal = known.is_some_and(|(_, salts)| salts == frame.salts);
        is_whole &= follows && is_of_this_wal;
        // Where the damage begins, the frame itself may be the end of a transaction. Another that follows none may be
        // what a transaction left that was under way in an earlier power cut.
        let is_first_wrong = !is_whole && ends == 0;
        if !is_whole && frame.is_end && is_of_this_wal && (follows || is_first_wrong) {
            ends += 1;
        }
        sum = frame.sum;
    }
    ends.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::sqlite::sql::Sql;

    /// A WAL of one transaction that makes the tables and ten that change a page each.
    fn wal() -> (tempfile::TempDir, std::path::PathBuf, Vec<u8>) {
        let dir = tempfile::tempdir().unwrap();
        let sql = Sql::open(&dir.path().join("outbox.db")).unwrap();
        sql.create().unwrap();
        for number in 0..10 {
            sql.set_meta("key", &number.to_string()).unwrap();
        }
        let path = dir.path().join("outbox.db-wal");
        let bytes = std::fs::read(&path).unwrap();
        (dir, path, bytes)
    }

    /// The same WAL as a machine of the other order of bytes writes it.
    fn big(wal: &[u8]) -> Vec<u8> {
        let mut bytes = wal.to_vec();
        bytes[3] |= 1;
        let (head, frames) = bytes.split_at_mut(WAL_HEAD_BYTES as usize);
        let mut sum = add([0, 0], &head[..24], true);
        head[24..].copy_from_slice(&sum.map(u32::to_be_bytes).concat());
        for frame in frames.chunks_exact_mut(FRAME_BYTES as usize) {
            sum = add(add(sum, &frame[..8], true), &frame[24..], true);
            frame[16..24].copy_from_slice(&sum.map(u32::to_be_bytes).concat());
        }
        bytes
    }

    #[test]
    fn transactions_behind_a_wrong_byte_are_counted_but_for_the_last() {
        let (_dir, path, sound) = wal();
        assert_eq!(transactions_behind_damage(&path), 0);
        let frames = (sound.len() - WAL_HEAD_BYTES as usize) / FRAME_BYTES as usize;
        // Counted from the end: the frame that is hit, and what it takes with it.
        for (from_end, lost) in [(1, 0), (2, 1), (5, 4), (10, 9)] {
            let mut bytes = sound.clone();
            bytes[WAL_HEAD_BYTES as usize + (frames - from_end) * FRAME_BYTES as usize + 500] ^= 1;
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(transactions_behind_damage(&path), lost, "{from_end}");
        }
    }

    #[test]
    fn behind_a_wrong_byte_only_what_follows_another_frame_is_counted() {
        let (_dir, path, mut bytes) = wal();
        for from_end in [5, 3] {
            let frame = bytes.len() - from_end * FRAME_BYTES as usize;
            bytes[frame + 500] ^= 1;
        }
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(transactions_behind_damage(&path), 3);
    }

    #[test]
    fn no_bit_of_the_head_is_wrong_unseen() {
        let (_dir, path, little) = wal();
        for sound in [big(&little), little] {
            for bit in 0..WAL_HEAD_BYTES as usize * 8 {
                let mut bytes = sound.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                std::fs::write(&path, bytes).unwrap();
                assert!(transactions_behind_damage(&path) >= 9, "bit {bit}");
            }
        }
    }

    #[test]
    fn of_a_frame_that_tells_of_another_wal_what_lies_behind_it_is_counted() {
        let (_dir, path, mut bytes) = wal();
        let (fifth, salts) = (bytes.len() - 5 * FRAME_BYTES as usize, 8);
        bytes[fifth + salts] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(transactions_behind_damage(&path), 3);
    }

    #[test]
    fn a_wal_whose_sums_are_in_the_other_order_of_bytes_is_read_too() {
        let (dir, path, sound) = wal();
        let moved = dir.path().join("moved.db");
        let bytes = big(&sound);
        std::fs::copy(dir.path().join("outbox.db"), &moved).unwrap();
        std::fs::write(dir.path().join("moved.db-wal"), &bytes).unwrap();
        assert_eq!(Sql::open(&moved).unwrap().meta("key").unwrap().as_deref(), Some("9"), "as SQLite reads it");
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(transactions_behind_damage(&path), 0);
        let fifth = bytes.len() - 5 * FRAME_BYTES as usize;
        let mut bytes = bytes;
        bytes[fifth + 500] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(transactions_behind_damage(&path), 4);
    }

    #[test]
    fn what_a_power_cut_leaves_and_what_an_earlier_wal_left_is_no_damage() {
        let (_dir, path, sound) = wal();
        for length in [0, 10, 31, 32, 40, sound.len() - 5000, sound.len() - 1] {
            std::fs::write(&path, &sound[..length]).unwrap();
            assert_eq!(transactions_behind_damage(&path), 0, "{length}");
        }
        std::fs::remove_file(&path).unwrap();
        assert_eq!(transactions_behind_damage(&path), 0);
        // A WAL that starts over is written over the earlier one.
        let (dir, path, _sound) = wal();
        let sql = Sql::open(&dir.path().join("outbox.db")).unwrap();
        sql.checkpoint().unwrap();
        sql.set_meta("key", "again").unwrap();
        assert_eq!(transactions_behind_damage(&path), 0);
    }
}
