//! How the store fails: when it is opened, and while it runs.

use std::io;
use std::path::PathBuf;

use rusqlite::{ErrorCode, ffi};

use super::place::is_absence;
use super::sql::sqlite_failure;
use crate::metrics::StoreError;

/// Why an outbox could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the outbox is in use by {holder}")]
    Locked {
        /// Process id and host, as the holder wrote them.
        holder: String,
    },
    /// The directory or a file in it cannot be made.
    #[error("cannot create {}: {source}", path.display())]
    Create {
        /// What was to be made.
        path: PathBuf,
        /// Why it was not.
        source: io::Error,
    },
    /// The disk, or SQLite on it, failed.
    #[error("cannot {doing}: {reason}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What was said.
        reason: String,
    },
    /// The process may not read or write there.
    #[error("no permission for {}; the user of this process has to own it", path.display())]
    Permission {
        /// Where.
        path: PathBuf,
    },
    /// The volume is mounted read-only.
    #[error("{} is read-only", path.display())]
    ReadOnly {
        /// Where.
        path: PathBuf,
    },
    /// Locks and syncs of network file systems cannot be trusted.
    #[error("{} is on a network file system ({kind}); set outbox.allow_network_fs = true to take the risk", path.display())]
    NetworkFs {
        /// Where.
        path: PathBuf,
        /// Which kind.
        kind: &'static str,
    },
    /// A newer release wrote the file.
    #[error("the outbox has schema version {found}, this release knows up to {known}; run the newer release again")]
    TooNew {
        /// The file's version.
        found: i64,
        /// The newest that can be opened.
        known: i64,
    },
    /// The outbox holds events for another base URL.
    #[error(
        "the outbox holds {undelivered} undelivered and {dead} dead events for {bound}, but {configured} is configured; \
         drain it with the old URL, or run `cello-relay outbox rebind --yes`"
    )]
    OtherUpstream {
        /// The base URL its events were accepted for.
        bound: String,
        /// The base URL of the settings.
        configured: String,
        /// How many wait.
        undelivered: u64,
        /// How many are dead.
        dead: u64,
    },
    /// There is no outbox in that directory.
    #[error("there is no outbox in {}", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// The file is damaged, and nothing may be changed now.
    #[error("the outbox is damaged: {reason}")]
    Damaged {
        /// What was found.
        reason: String,
    },
}

impl OpenError {
    /// An error of the file system, told apart by kind.
    pub(super) fn of_file(path: &std::path::Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::PermissionDenied => OpenError::Permission { path },
            io::ErrorKind::ReadOnlyFilesystem => OpenError::ReadOnly { path },
            _ => OpenError::Create { path, source },
        }
    }
}

/// How a running store fails.
#[derive(Debug)]
pub(super) enum Fault {
    /// No room on the disk; the transaction is undone and the file sound.
    Full(rusqlite::Error),
    /// The file is damaged.
    Damaged(rusqlite::Error),
    /// The file lost its name or its head, or its WAL was cut: what is written to it is found by no later start.
    Gone,
    /// Anything else: what is on disk is not known until the file was opened anew.
    Broken(rusqlite::Error),
}

impl From<rusqlite::Error> for Fault {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Fault::Full(error),
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Fault::Damaged(error),
            // SQLite did not notice, but this is no file of ours: a statement does not fit the schema, a row
            // that must be there is missing or taken, a value has another type than its column.
            Some(ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch) => Fault::Damaged(error),
            _ if is_foreign(&error) => Fault::Damaged(error),
            _ => Fault::Broken(error),
        }
    }
}

fn is_foreign(error: &rusqlite::Error) -> bool {
    use rusqlite::Error::{
        FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType, QueryReturnedNoRows, SqlInputError,
        SqliteFailure, Utf8Error,
    };
    match error {
        InvalidColumnType(..)
        | FromSqlConversionFailure(..)
        | IntegralValueOutOfRange(..)
        | Utf8Error(..)
        | QueryReturnedNoRows => true,
        SqlInputError { error, .. } | SqliteFailure(error, _) => error.extended_code == ffi::SQLITE_ERROR,
        _ => false,
    }
}

/// Whether what failed lacked room on the disk, or in this user's share of it.
pub(super) fn lacks_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Fault {
    /// That a file beside the database had no room.
    pub(super) fn full() -> Self {
        Fault::Full(sqlite_failure(ffi::SQLITE_FULL))
    }

    /// That a file of the store could not be opened.
    pub(super) fn of_opening(error: &io::Error) -> Self {
        if is_absence(error) {
            return Fault::Gone;
        }
        // For want of descriptors or memory, say: the file is as it was.
        Fault::Broken(sqlite_failure(ffi::SQLITE_CANTOPEN))
    }

    /// The label it is counted under.
    pub(super) fn label(&self) -> StoreError {
        match self {
            Fault::Full(_) => StoreError::Full,
            Fault::Damaged(_) => StoreError::Corrupt,
            Fault::Gone => StoreError::Io,
            Fault::Broken(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreError::Busy,
                Some(ErrorCode::SystemIoFailure | ErrorCode::CannotOpen) => StoreError::Io,
                Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => StoreError::Readonly,
                _ => StoreError::Other,
            },
        }
    }

    /// What SQLite said; never holds a value of a row.
    pub(super) fn text(&self) -> String {
        let (Fault::Full(error) | Fault::Damaged(error) | Fault::Broken(error)) = self else {
            return "its files were removed, moved away, cut or overwritten".to_owned();
        };
        match error {
            rusqlite::Error::SqliteFailure(code, _) => code.to_string(),
            rusqlite::Error::InvalidColumnType(column, ..) => format!("column {column} has another type"),
            other => other.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rusqlite::types::Type;

    use super::*;

    fn failure(code: i32) -> Fault {
        Fault::from(rusqlite::Error::SqliteFailure(ffi::Error::new(code), Some("a value of a row".to_owned())))
    }

    #[test]
    fn only_damage_counts_as_damage() {
        for code in [ffi::SQLITE_CORRUPT, ffi::SQLITE_CORRUPT_INDEX, ffi::SQLITE_NOTADB] {
            assert!(matches!(failure(code), Fault::Damaged(_)), "{code}");
        }
        assert!(matches!(failure(ffi::SQLITE_FULL), Fault::Full(_)));
        for code in [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_BUSY, ffi::SQLITE_READONLY, ffi::SQLITE_NOMEM] {
            assert!(matches!(failure(code), Fault::Broken(_)), "{code}");
        }
    }

    #[test]
    fn what_does_not_fit_the_schema_is_no_file_of_ours() {
        for code in [ffi::SQLITE_CONSTRAINT_UNIQUE, ffi::SQLITE_MISMATCH, ffi::SQLITE_ERROR] {
            assert!(matches!(failure(code), Fault::Damaged(_)), "{code}");
        }
        let file = rusqlite::Connection::open_in_memory().unwrap();
        for sql in ["SELECT 1 WHERE 0", "SELECT 'text'", "SELECT -1", "SELECT nothing"] {
            let read = file.query_row(sql, [], |row| row.get::<_, u32>(0));
            assert!(matches!(Fault::from(read.unwrap_err()), Fault::Damaged(_)), "{sql}");
        }
        let text = file.query_row("SELECT CAST(x'ff' AS TEXT)", [], |row| row.get::<_, String>(0));
        assert!(matches!(Fault::from(text.unwrap_err()), Fault::Damaged(_)), "what is no text");
        assert!(matches!(Fault::from(rusqlite::Error::InvalidQuery), Fault::Broken(_)), "a fault of ours");
    }

    #[test]
    fn each_failure_has_its_label() {
        for (code, label) in [
            (ffi::SQLITE_FULL, StoreError::Full),
            (ffi::SQLITE_CORRUPT, StoreError::Corrupt),
            (ffi::SQLITE_BUSY, StoreError::Busy),
            (ffi::SQLITE_LOCKED, StoreError::Busy),
            (ffi::SQLITE_IOERR_WRITE, StoreError::Io),
            (ffi::SQLITE_CANTOPEN, StoreError::Io),
            (ffi::SQLITE_READONLY, StoreError::Readonly),
            (ffi::SQLITE_PERM, StoreError::Readonly),
            (ffi::SQLITE_NOMEM, StoreError::Other),
        ] {
            assert_eq!(failure(code).label(), label, "{code}");
        }
        assert_eq!(Fault::Gone.label(), StoreError::Io);
    }

    #[test]
    fn only_a_file_that_is_not_there_is_gone() {
        for (kind, gone) in [
            (io::ErrorKind::NotFound, true),
            (io::ErrorKind::NotADirectory, true),
            (io::ErrorKind::PermissionDenied, false),
            (io::Error::from_raw_os_error(24).kind(), false),
        ] {
            let fault = Fault::of_opening(&kind.into());
            assert_eq!(matches!(fault, Fault::Gone), gone, "{kind}");
            assert_eq!(matches!(fault, Fault::Broken(_)), !gone, "{kind}");
            assert_eq!(fault.label(), StoreError::Io, "{kind}");
        }
    }

    #[test]
    fn a_failure_is_told_in_words_and_without_a_value_of_a_row() {
        assert_eq!(failure(ffi::SQLITE_BUSY).text(), ffi::Error::new(ffi::SQLITE_BUSY).to_string());
        assert_eq!(Fault::Gone.text(), "its files were removed, moved away, cut or overwritten");
        let column = rusqlite::Error::InvalidColumnType(3, "a value of a row".to_owned(), Type::Text);
        assert_eq!(Fault::from(column).text(), "column 3 has another type");
        assert_eq!(Fault::from(rusqlite::Error::QueryReturnedNoRows).text(), "Query returned no rows");
    }

    #[test]
    fn what_the_file_system_refuses_is_told_apart() {
        let told = |kind: io::ErrorKind| OpenError::of_file(Path::new("/var/outbox"), kind.into()).to_string();
        assert!(told(io::ErrorKind::PermissionDenied).starts_with("no permission for /var/outbox"));
        assert_eq!(told(io::ErrorKind::ReadOnlyFilesystem), "/var/outbox is read-only");
        assert!(told(io::ErrorKind::NotADirectory).starts_with("cannot create /var/outbox: "));
    }
}
