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
        let (database, wal) = (look(&home.database()).ok().flatten(), look(&home.wal()).ok().flatten());
        Self { database: database.map(|(id, _)| id), wal: wal.map(|(id, _)| id), wal_bytes: 0 }
    }

    /// Whether these files still have their names, and the WAL all that SQLite wrote to it; says so too if that
    /// cannot be found out.
    pub(super) fn is_kept(&mut self, home: &Home, sql: &Sql) -> bool {
        let (Ok(database), Ok(wal)) = (look(&home.database()), look(&home.wal())) else { return true };
        let (wal, wal_bytes) = (wal.map(|(id, _)| id), wal.map_or(0, |(_, length)| length));
        self.wal = self.wal.or(wal);
        if database.map(|(id, _)| id) != self.database || wal != self.wal {
            return false;
        }
        self.is_whole(wal_bytes, sql)
    }

    /// Whether the WAL, which is open as `wal`, has all that SQLite wrote to it.
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

    /// The same without SQLite's word: while nobody cuts the WAL on purpose.
    pub(super) fn is_untouched(&self, home: &Home) -> bool {
        let (Ok(database), Ok(wal)) = (look(&home.database()), look(&home.wal())) else { return true };
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
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
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

    fn of(found: &Metadata) -> (FileId, u64) {
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
    fn a_wal_is_whole_after_sqlites_own_cut_and_not_after_anothers() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path());
        let sql = Sql::open(&home.database()).unwrap();
        sql.create().unwrap();
        let mut place = Place::of(&home);
        assert!(place.is_kept(&home, &sql));
        sql.checkpoint_and_truncate().unwrap();
        assert!(place.is_kept(&home, &sql) && home.wal_bytes() == 0);
        sql.set_meta("key", "value").unwrap();
        assert!(place.is_kept(&home, &sql) && home.wal_bytes() > 0);
        fs::OpenOptions::new().write(true).open(home.wal()).unwrap().set_len(home.wal_bytes() - 1).unwrap();
        assert!(!place.is_kept(&home, &sql));
    }
}
