//! Whether the open files still have their names. A directory that is removed or moved away, or a file
//! that another takes the place of, goes on taking writes and syncs without an error; but no later start
//! finds what was written. So nobody is answered before the names were looked at once more.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::sql::Sql;
use super::volume::Home;

/// Device and number of a file. While the file is open no other gets them.
type FileId = (u64, u64);

/// The files that a store writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    database: Option<FileId>,
    /// `None` until there is one.
    wal: Option<FileId>,
}

impl Place {
    /// What has the names of database and WAL now.
    pub(super) fn of(home: &Home) -> Self {
        Self { database: id(&home.database()).ok().flatten(), wal: id(&home.wal()).ok().flatten() }
    }

    /// Whether these files still have their names; says so too if that cannot be found out.
    pub(super) fn is_kept(&mut self, home: &Home) -> bool {
        let (Ok(database), Ok(wal)) = (id(&home.database()), id(&home.wal())) else { return true };
        self.wal = self.wal.or(wal);
        database == self.database && wal == self.wal
    }

    /// Whether that open file is the WAL.
    pub(super) fn is_wal(&self, file: &fs::File) -> bool {
        file.metadata().is_ok_and(|meta| self.wal == Some((meta.dev(), meta.ino())))
    }
}

fn id(path: &Path) -> std::io::Result<Option<FileId>> {
    match fs::metadata(path) {
        Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
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
        let _open = fs::File::open(home.database()).unwrap();
        let mut place = Place::of(&home);
        assert!(place.is_kept(&home));
        fs::write(home.wal(), b"").unwrap();
        assert!(place.is_kept(&home), "the first WAL");
        fs::rename(home.wal(), dir.path().join("wal")).unwrap();
        assert!(!place.is_kept(&home), "the WAL is gone");
        fs::rename(dir.path().join("wal"), home.wal()).unwrap();
        assert!(place.is_kept(&home));
        fs::remove_dir_all(dir.path().join("outbox")).unwrap();
        assert!(!place.is_kept(&home), "the directory is gone");
        make();
        assert!(!place.is_kept(&home), "another has its name");
    }
}
