//! Reads that fail. SQLite tells some of them as damage, but what cannot be read now may be read in a moment: a volume that
//! was away, say. Only what can be read, and is wrong, is damaged.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tokio::time::Instant;

use super::place::is_absence;

/// An opening waits so long for reads to work again …
const PATIENCE: Duration = Duration::from_secs(5);
/// … and looks so often.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A copy waits so long: nothing is handed out meanwhile, but all is taken in. Then what cannot be read is given up.
const GIVE_UP_AFTER: Duration = Duration::from_secs(600);

/// Since when a file that is copied cannot be read.
#[derive(Debug, Default)]
pub(super) struct Unread {
    since: Option<Instant>,
}

impl Unread {
    /// Whether a read that failed may work later.
    pub(super) fn is_worth_waiting(&mut self, database: &Path, now: Instant) -> bool {
        if read_all(database).is_ok() {
            self.since = None;
            return false;
        }
        now - *self.since.get_or_insert(now) < GIVE_UP_AFTER
    }
}

/// Whether that database could not be read, and now can be. Waits some seconds for that.
pub(super) fn was_unread(database: &Path) -> bool {
    let mut failed = false;
    for _ in 0..PATIENCE.as_millis() / LOOK_EVERY.as_millis() {
        if read_all(database).is_ok() {
            return failed;
        }
        failed = true;
        // On the store's own thread, or before anything is served.
        thread::park_timeout(LOOK_EVERY);
    }
    false
}

/// Reads a database and its WAL, if there is one, for nothing but the errors.
pub(super) fn read_all(database: &Path) -> io::Result<()> {
    let mut wal = database.as_os_str().to_owned();
    wal.push("-wal");
    read_file(database)?;
    read_file(&PathBuf::from(wal)).or_else(|error| if is_absence(&error) { Ok(()) } else { Err(error) })
}

fn read_file(path: &Path) -> io::Result<()> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 256 << 10]);
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_waited_for_until_it_can_be_or_ten_minutes_are_over() {
        let dir = tempfile::tempdir().unwrap();
        let (path, aside) = (dir.path().join("a.db"), dir.path().join("b.db"));
        fs::write(&path, b"pages").unwrap();
        let (mut unread, start) = (Unread::default(), Instant::now());
        let mut waits = |minutes: u64| unread.is_worth_waiting(&path, start + Duration::from_secs(60 * minutes));
        assert!(!waits(0), "it can be read: what is wrong with it is damage");
        fs::rename(&path, &aside).unwrap();
        assert_eq!([1, 10, 11, 12].map(&mut waits), [true, true, false, false]);
        fs::rename(&aside, &path).unwrap();
        assert!(!waits(13));
        fs::rename(&path, &aside).unwrap();
        assert!(waits(14), "the next time is another");
    }

    #[test]
    fn a_database_is_read_with_its_wal_and_one_without_a_wal_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        assert!(read_all(&path).is_err());
        fs::write(&path, vec![1; 1 << 20]).unwrap();
        assert!(read_all(&path).is_ok() && !was_unread(&path));
        // No file, and so none that can be read.
        fs::create_dir(dir.path().join("a.db-wal")).unwrap();
        assert!(read_all(&path).is_err());
    }
}
