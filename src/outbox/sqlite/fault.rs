//! How the store fails: when it is opened, and while it runs.

use std::io;
use std::path::PathBuf;

use rusqlite::ErrorCode;

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
    /// The file lost its name, or its WAL was cut: what is written to it is found by no later start.
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
        SqliteFailure,
    };
    match error {
        InvalidColumnType(..) | FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | QueryReturnedNoRows => {
            true
        }
        SqlInputError { error, .. } | SqliteFailure(error, _) => error.extended_code == rusqlite::ffi::SQLITE_ERROR,
        _ => false,
    }
}

impl Fault {
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
            return "its files were removed, moved away or cut".to_owned();
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
    use super::*;

    #[test]
    fn only_damage_counts_as_damage() {
        let failure = |code| Fault::from(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None));
        assert!(matches!(failure(rusqlite::ffi::SQLITE_CORRUPT), Fault::Damaged(_)));
        assert!(matches!(failure(rusqlite::ffi::SQLITE_NOTADB), Fault::Damaged(_)));
        assert!(matches!(failure(rusqlite::ffi::SQLITE_FULL), Fault::Full(_)));
        assert!(matches!(failure(rusqlite::ffi::SQLITE_IOERR_FSYNC), Fault::Broken(_)));
        assert!(matches!(failure(rusqlite::ffi::SQLITE_BUSY), Fault::Broken(_)));
    }
}
