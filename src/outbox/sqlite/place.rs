//! Whether the open files still have their names. A directory that is removed or moved away, or a file
//! that another takes the place of, goes on taking writes and syncs without an error; but no later start
//! finds what was written. The same goes for a WAL that is cut in place. So nobody is answered before names and
//! length were looked at once more.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;

use super::sql::{FRAME_BYTES, Sql, WAL_HEAD_BYTES};
use super::volume::Home;

/// Device and number of a file. While the file is open no other gets them.
type FileId = (u64, u64);

/// The files that a store writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    database: Option<FileId>,
    /// `None` until there is one.
    wal: Option<FileId>,
    /// How long it was when it was looked at last.
    wal_bytes: u64,
}

impl Place {
    /// What has the names of database and WAL now.
    pub(super) fn of(home: &Home) -> Self {
        let (database, wal) = (look(home.database()).ok().flatten(), look(home.wal()).ok().flatten());
        Self { database: database.map(|(id, _)| id), wal: wal.map(|(id, _)| id), wal_bytes: 0 }
    }

    /// Looks whether these files still have their names, and the WAL all that SQLite wrote to it; says so too if that
    /// cannot be found out. The next look compares with this one.
    pub(super) fn is_kept(&mut self, home: &Home, sql: &Sql) -> bool {
        let (Ok(database), Ok(wal)) = (look(home.database()), look(home.wal())) else { return true };
        let (wal, wal_bytes) = (wal.map(|(id, _)| id), wal.map_or(0, |(_, length)| length));
        self.wal = self.wal.or(wal);
        if database.map(|(id, _)| id) != self.database || wal != self.wal {
            return false;
        }
        self.is_whole(wal_bytes, sql)
    }

    /// The same of the WAL alone, which is open as `wal`.
    pub(super) fn holds_all(&mut self, wal: &File, sql: &Sql) -> bool {
        seen::file(wal).map_or(true, |(_, length)| self.is_whole(length, sql))
    }

    /// Only where it is shorter than before is SQLite asked whether that was its own doing.
    fn is_whole(&mut self, wal_bytes: u64, sql: &Sql) -> bool {
        let is_whole = wal_bytes >= self.wal_bytes || wal_bytes >= needed(sql);
        self.wal_bytes = wal_bytes;
        is_whole
    }

    /// How long the WAL was when it was looked at last.
    pub(super) fn wal_bytes(&self) -> u64 {
        self.wal_bytes
    }

    /// Whether all is as at the last look, without SQLite's word: while nobody cuts the WAL on purpose.
    pub(super) fn is_untouched(&self, home: &Home) -> bool {
        let (Ok(database), Ok(wal)) = (look(home.database()), look(home.wal())) else { return true };
        let is_whole = wal.is_none_or(|(_, length)| length >= self.wal_bytes);
        database.map(|(id, _)| id) == self.database && wal.map(|(id, _)| id) == self.wal && is_whole
    }

    /// Whether that open file is the WAL.
    pub(super) fn is_wal(&self, file: &File) -> bool {
        seen::file(file).is_ok_and(|(id, _)| self.wal == Some(id))
    }
}

/// The least that the WAL's frames take.
fn needed(sql: &Sql) -> u64 {
    let frames = sql.wal_frames().unwrap_or(0);
    if frames == 0 { 0 } else { WAL_HEAD_BYTES + frames * FRAME_BYTES }
}

/// What has that name, and its length.
fn look(path: &Path) -> std::io::Result<Option<(FileId, u64)>> {
    match seen::path(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Nothing has that name; any other error leaves it open.
pub(super) fn is_absence(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Identity and length, and no times: whoever is told a file's times makes the kernel give its next change a time of its
/// own (Linux 6.13), and that time is written with each sync of the data, which nearly doubles what the sync takes.
mod seen {
    use std::fs::Metadata;
    use std::io::Result;
    use std::os::unix::fs::MetadataExt;

    use super::{File, FileId, Path};

    pub(super) fn path(path: &Path) -> Result<(FileId, u64)> {
        #[cfg(target_os = "linux")]
        if let Ok(found) = linux::statx(rustix::fs::CWD, path, rustix::fs::AtFlags::empty()) {
            return Ok(found);
        }
        path.metadata().map(|found| of(&found))
    }

    pub(super) fn file(file: &File) -> Result<(FileId, u64)> {
        #[cfg(target_os = "linux")]
        if let Ok(found) = linux::statx(file, "", rustix::fs::AtFlags::EMPTY_PATH) {
            return Ok(found);
        }
        file.metadata().map(|found| of(&found))
    }

    pub(super) fn of(found: &Metadata) -> (FileId, u64) {
        ((found.dev(), found.ino()), found.len())
    }

    /// Some sandboxes do not know the call.
    #[cfg(target_os = "linux")]
    mod linux {
        use std::os::fd::AsFd;

        use rustix::fs::{AtFlags, StatxFlags, makedev};

        use super::FileId;

        pub(super) fn statx(
            dir: impl AsFd,
            path: impl rustix::path::Arg,
            flags: AtFlags,
        ) -> rustix::io::Result<(FileId, u64)> {
            let found = rustix::fs::statx(dir, path, flags, StatxFlags::INO | StatxFlags::SIZE)?;
            Ok(((makedev(found.stx_dev_major, found.stx_dev_minor), found.stx_ino), found.stx_size))
        }
    }
}

/// The connection to a database that has lost its name: all that is left of it, to be copied from.
pub(super) struct Orphan {
    /// What it goes by in the fresh file; `None` until there is one.
    pub(super) name: Option<String>,
    pub(super) sql: Sql,
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn cut(home: &Home, length: u64) {
        fs::OpenOptions::new().write(true).open(home.wal()).unwrap().set_len(length).unwrap();
    }

    #[test]
    fn a_place_is_lost_by_removal_and_by_replacement_and_not_by_a_first_wal() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(&dir.path().join("outbox"));
        let make = || {
            home.create().unwrap();
            fs::write(home.database(), b"").unwrap();
        };
        make();
        let _open = File::open(home.database()).unwrap();
        let mut place = Place::of(&home);
        let sql = Sql::open(&dir.path().join("other")).unwrap();
        let mut is_kept = || place.is_kept(&home, &sql);
        assert!(is_kept());
        fs::write(home.wal(), b"").unwrap();
        assert!(is_kept(), "the first WAL");
        fs::rename(home.wal(), dir.path().join("wal")).unwrap();
        assert!(!is_kept(), "the WAL is gone");
        fs::rename(dir.path().join("wal"), home.wal()).unwrap();
        assert!(is_kept());
        fs::remove_dir_all(dir.path().join("outbox")).unwrap();
        assert!(!is_kept(), "the directory is gone");
        make();
        assert!(!is_kept(), "another has its name");
    }

    #[test]
    fn what_cannot_be_found_out_is_no_loss() {
        let dir = tempfile::tempdir().unwrap();
        let (at, moved) = (dir.path().join("outbox"), dir.path().join("moved"));
        let home = Home::new(&at);
        home.create().unwrap();
        fs::write(home.database(), b"").unwrap();
        let mut place = Place::of(&home);
        let sql = Sql::open(&dir.path().join("other")).unwrap();
        fs::rename(&at, &moved).unwrap();
        std::os::unix::fs::symlink(&at, &at).unwrap();
        assert!(place.is_kept(&home, &sql) && place.is_untouched(&home), "a link without an end");
        fs::remove_file(&at).unwrap();
        assert!(!place.is_kept(&home, &sql) && !place.is_untouched(&home));
        fs::write(&at, b"").unwrap();
        assert!(!place.is_kept(&home, &sql) && !place.is_untouched(&home), "a file in its place");
        fs::remove_file(&at).unwrap();
        fs::rename(&moved, &at).unwrap();
        assert!(place.is_kept(&home, &sql) && place.is_untouched(&home));
    }

    #[test]
    fn while_nobody_cuts_the_wal_on_purpose_a_shorter_one_was_cut() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let sql = Sql::open(home.database()).unwrap();
        sql.create().unwrap();
        let mut place = Place::of(&home);
        assert!(place.is_untouched(&home));
        assert!(place.is_kept(&home, &sql));
        assert_eq!(place.wal_bytes(), home.wal_bytes());
        let (wal, other) = (File::open(home.wal()).unwrap(), File::open(home.database()).unwrap());
        assert!(place.is_wal(&wal) && !place.is_wal(&other));
        sql.set_meta("key", "value").unwrap();
        assert!(place.is_untouched(&home), "it grows");
        fs::rename(home.wal(), dir.path().join("wal")).unwrap();
        assert!(!place.is_untouched(&home), "it is gone");
        fs::copy(dir.path().join("wal"), home.wal()).unwrap();
        assert!(!place.is_untouched(&home), "another has its name");
        fs::rename(dir.path().join("wal"), home.wal()).unwrap();
        assert!(place.is_untouched(&home) && place.holds_all(&wal, &sql));
        cut(&home, place.wal_bytes() - 1);
        assert!(!place.is_untouched(&home) && !place.holds_all(&wal, &sql));
        fs::rename(home.database(), dir.path().join("moved")).unwrap();
        cut(&home, u64::from(u32::MAX));
        assert!(!place.is_untouched(&home), "the database is gone");
    }

    #[test]
    fn a_file_is_known_by_the_same_number_and_length_whichever_way_it_is_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"length").unwrap();
        let found = seen::path(&path).unwrap();
        assert_eq!(found.1, 6);
        assert_eq!(seen::file(&File::open(&path).unwrap()).unwrap(), found);
        assert_eq!(seen::of(&path.metadata().unwrap()), found, "where the kernel has no statx");
    }

    #[test]
    fn a_wal_is_whole_after_sqlites_own_cut_and_not_after_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let sql = Sql::open(home.database()).unwrap();
        sql.create().unwrap();
        let mut place = Place::of(&home);
        assert!(place.is_kept(&home, &sql));
        sql.checkpoint_and_truncate().unwrap();
        assert!(place.is_kept(&home, &sql) && home.wal_bytes() == 0);
        sql.set_meta("key", "value").unwrap();
        assert!(place.is_kept(&home, &sql) && home.wal_bytes() > 0);
        sql.set_meta("key", "again").unwrap();
        assert!(place.is_kept(&home, &sql));
        let longer = home.wal_bytes();
        sql.checkpoint_and_truncate().unwrap();
        sql.set_meta("key", "fresh").unwrap();
        assert!((1..longer).contains(&home.wal_bytes()) && place.is_kept(&home, &sql), "cut and begun anew");
        sql.set_meta("key", "more").unwrap();
        assert!(place.is_kept(&home, &sql));
        // A frame and more is gone, but not all.
        cut(&home, home.wal_bytes() - FRAME_BYTES - 1);
        assert!(!place.is_kept(&home, &sql));
    }
}
