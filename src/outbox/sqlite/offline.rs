//! Looks into a stopped relay's outbox, and binds it to another upstream.

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::binding;
use super::fault::{Fault, OpenError};
use super::reader::{View, read_error};
use super::recovery;
use super::salvage::{Damage, Places, Salvage};
use super::sql::Sql;
use super::store::check_version;
use super::volume::{Home, Lock};
use super::{Settings, Sqlite};
use crate::clock::SystemClock;
use crate::event::{EventId, UserId};
use crate::outbox::{DeadLetters, Detail, Erased, Filter, Ledger, Listed, Outbox, ReadError};
use crate::reason::Reason;

/// Rows whose checksums are compared at a time.
const SLICE: u64 = 1024;

/// The outbox of a relay that does not run; looking changes nothing.
pub struct Offline {
    sql: Sql,
    file: PathBuf,
    /// What can be reached in spite of damage, and whether any was met so far.
    places: Places,
    is_damaged: Cell<bool>,
    /// Damaged files that were moved aside.
    quarantined: Vec<String>,
    /// No relay starts while this looks. None is needed for what was moved aside.
    _lock: Option<Lock>,
}

/// Opens the outbox in `dir` for reading.
///
/// # Errors
/// See [`OpenError`]; [`OpenError::Locked`] if a relay runs on it, [`OpenError::Missing`] if there is none.
pub fn offline(dir: &Path) -> Result<Offline, OpenError> {
    let home = Home::new(dir);
    let is_there = home.database().try_exists().map_err(|error| OpenError::of_file(dir, error))?;
    if !is_there && home.quarantine().is_none() {
        return Err(OpenError::Missing { path: dir.to_path_buf() });
    }
    let lock = home.lock()?;
    if let Some(name) = home.quarantine() {
        // Nothing of it is here, or nothing says so: only an opening that may write can go on with that.
        return Err(OpenError::Damaged { reason: still_in(&[name]) });
    }
    let opened = Sql::open_read_only(home.database()).and_then(|sql| sql.version().map(|version| (sql, version)));
    // A first start that was cut off before it made the tables.
    let is_empty = opened.as_ref().map_or_else(is_unfinished, |(_, version)| *version == 0);
    if is_empty {
        return Err(OpenError::Missing { path: dir.to_path_buf() });
    }
    let (sql, version) = opened.map_err(|error| of_fault(&error.into()))?;
    check_version(version)?;
    Ok(Offline::of(sql, home.database().to_owned(), home.damaged_names(), Some(lock)))
}

/// Opens a damaged file that was moved aside: one in `dir`, or elsewhere if `file` is a path to it.
///
/// # Errors
/// See [`OpenError`]; [`OpenError::Missing`] if there is no such file.
pub fn aside(dir: &Path, file: &Path) -> Result<Offline, OpenError> {
    let path = if file.is_file() { file.to_path_buf() } else { dir.join(file) };
    if !path.is_file() {
        return Err(OpenError::Missing { path });
    }
    let opened = Sql::open_read_only(&path).and_then(|sql| sql.version().map(|version| (sql, version)));
    let (sql, version) = opened.map_err(|error| of_fault(&error.into()))?;
    check_version(version)?;
    Ok(Offline::of(sql, path, Vec::new(), None))
}

/// Only while a new file becomes one with a WAL has it a rollback journal, and nothing else.
fn is_unfinished(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    code == Some(rusqlite::ffi::SQLITE_READONLY_ROLLBACK)
}

fn of_fault(fault: &Fault) -> OpenError {
    match fault {
        Fault::Damaged(_) => OpenError::Damaged { reason: fault.text() },
        _ => OpenError::Io { doing: "read the outbox", reason: fault.text() },
    }
}

impl Offline {
    fn of(sql: Sql, file: PathBuf, quarantined: Vec<String>, lock: Option<Lock>) -> Self {
        let (places, is_damaged) = (Places::default(), Cell::new(false));
        Self { sql, file, places, is_damaged, quarantined, _lock: lock }
    }

    fn view(&self) -> View<'_> {
        View { sql: &self.sql, flying: &[] }
    }

    fn salvage(&self) -> Salvage<'_> {
        Salvage { sql: &self.sql, places: &self.places }
    }

    /// What the sound file says; `None` if damage was met, now or before.
    fn unless_damaged<T>(&self, look: impl FnOnce(&View<'_>) -> rusqlite::Result<T>) -> Result<Option<T>, OpenError> {
        if self.is_damaged.get() {
            return Ok(None);
        }
        match look(&self.view()).map_err(Fault::from) {
            Ok(found) => Ok(Some(found)),
            Err(Fault::Damaged(_)) => {
                self.is_damaged.set(true);
                Ok(None)
            }
            Err(fault) => Err(of_fault(&fault)),
        }
    }

    /// A page of events, by sequence; of a damaged file what can be read.
    ///
    /// # Errors
    /// If the file cannot be read at all.
    pub fn list(&self, filter: &Filter, after: Option<EventId>, limit: usize) -> Result<Vec<Listed>, OpenError> {
        let found = self.unless_damaged(|view| view.list(filter, after, limit))?;
        // SQLite does not notice rows that lie in another order.
        let is_in_order = |lines: &Vec<Listed>| {
            let seqs = || after.iter().map(|id| id.seq()).chain(lines.iter().map(|line| line.id.seq()));
            seqs().zip(seqs().skip(1)).all(|(one, next)| one < next)
        };
        let found = found.filter(is_in_order);
        self.is_damaged.set(found.is_none());
        Ok(found.unwrap_or_else(|| self.salvage().list(filter, after, limit)))
    }

    /// One event with its last attempts and its body; of a damaged file what can be read.
    ///
    /// # Errors
    /// If the file cannot be read at all.
    pub fn show(&self, id: EventId) -> Result<Option<Detail>, OpenError> {
        let found = self.unless_damaged(|view| view.show(id))?;
        Ok(found.unwrap_or_else(|| self.salvage().show(id)))
    }

    /// How much can be read, if damage was met so far; looks at everything then.
    #[must_use]
    pub fn damage(&self) -> Option<Damage> {
        self.is_damaged.get().then(|| self.salvage().damage())
    }

    /// What ever happened to the events of this outbox, and how many that wait have failed before.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn counts(&self) -> Result<(Ledger, u64), OpenError> {
        self.sql.books().map(|books| (books.ledger, books.failed)).map_err(|error| of_fault(&error.into()))
    }

    /// What ever happened to the events of this outbox.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn ledger(&self) -> Result<Ledger, OpenError> {
        self.counts().map(|(ledger, _)| ledger)
    }

    /// The names of damaged files that were moved aside.
    #[must_use]
    pub fn quarantined(&self) -> &[String] {
        &self.quarantined
    }

    /// Says which damaged files have more that can be read than is in this one yet, if there are any: a relay that starts
    /// goes on with that. Says nothing if this one cannot tell.
    #[must_use]
    pub fn unrecovered(&self) -> Option<String> {
        let files = recovery::unfinished(&self.sql).ok().flatten().filter(|files| !files.is_empty());
        files.as_deref().map(still_in)
    }

    /// The base URL that its events are for.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn upstream(&self) -> Result<Option<String>, OpenError> {
        binding::base_url(&self.sql).map_err(|error| of_fault(&error.into()))
    }

    /// From now on its events are for `upstream`; durable on return.
    ///
    /// # Errors
    /// If the file cannot be written; then nothing has changed.
    pub fn rebind(&self, upstream: &str) -> Result<(), OpenError> {
        let write = || {
            let sql = Sql::open(&self.file)?;
            sql.begin()?;
            binding::bind(&sql, upstream)?;
            sql.commit()
        };
        write().map_err(|error| OpenError::Io { doing: "write to the outbox", reason: Fault::from(error).text() })
    }

    /// Checks the whole file: SQLite's structure, every checksum, and the ledger against the rows.
    /// The findings, at most a few; none if it is sound.
    ///
    /// # Errors
    /// If the file cannot be read at all.
    pub fn check(&self) -> Result<Vec<String>, ReadError> {
        self.findings().or_else(|error| {
            let unread = read_error(&error);
            // Damage that is met while reading is a finding too.
            if matches!(Fault::from(error), Fault::Damaged(_)) { Ok(vec![unread.to_string()]) } else { Err(unread) }
        })
    }

    /// How many events are not what was stored. Those that the relay found itself are dead letters for that.
    fn count_damaged(&self) -> rusqlite::Result<u64> {
        let (mut next, mut damaged, mut is_more) = (0, 0, true);
        while is_more {
            let read = self.sql.events_in_order(next, SLICE, |row| {
                (next, damaged) = (row.seq + 1, damaged + u64::from(!row.is_intact()));
                true
            });
            is_more = read? == SLICE;
        }
        (next, is_more) = (0, true);
        while is_more {
            let read = self.sql.whole_dead_in_order(next, SLICE, |dead| {
                let is_news = dead.reason != Reason::Corrupt.as_str() && !dead.row.is_intact();
                (next, damaged) = (dead.row.seq + 1, damaged + u64::from(is_news));
                true
            });
            is_more = read? == SLICE;
        }
        Ok(damaged)
    }

    fn findings(&self) -> rusqlite::Result<Vec<String>> {
        let mut findings = self.sql.check()?;
        if !findings.is_empty() {
            return Ok(findings);
        }
        let damaged = self.count_damaged()?;
        match damaged {
            0 => {}
            1 => findings.push("1 event does not match its checksum".to_owned()),
            _ => findings.push(format!("{damaged} events do not match their checksums")),
        }
        if let Some(unrecovered) = self.unrecovered() {
            findings.push(unrecovered);
            return Ok(findings);
        }
        let (events, dead, _) = self.sql.count_below(u64::MAX)?;
        let ledger = self.sql.books()?.ledger;
        if (events, dead) != (ledger.undelivered(), ledger.dead) {
            let (undelivered, booked) = (ledger.undelivered(), ledger.dead);
            findings.push(format!(
                "the ledger says {undelivered} undelivered and {booked} dead; there are {events} and {dead}"
            ));
        }
        let stranded = self.sql.stranded()?;
        if stranded > 0 {
            findings.push(format!("{stranded} events wait where no relay would find them"));
        }
        Ok(findings)
    }
}

fn still_in(files: &[String]) -> String {
    format!("not all that can be read of {} has come over yet", files.join(", "))
}

/// Erases a person from a stopped relay's outbox in `dir`, as [`DeadLetters::erase`] does in a running one.
///
/// # Errors
/// See [`OpenError`]; [`OpenError::Locked`] if a relay runs on it, [`OpenError::Missing`] if there is none.
pub async fn erase_stopped(dir: &Path, user: UserId) -> Result<Erased, OpenError> {
    let stopped = offline(dir)?;
    let io = |error: ReadError| OpenError::Io { doing: "erase from the outbox", reason: error.0 };
    let upstream = stopped.upstream()?.unwrap_or_default();
    drop(stopped);
    // Nothing is forgotten on this occasion but the person.
    let outbox = Sqlite::open(Settings::keeping_all(dir, &upstream), Arc::new(SystemClock), Arc::default())?;
    let mut erased = outbox.erase(user.clone()).await;
    if erased.is_err() {
        // Damage that is met on the way ends an order; the next one is taken when what can be read has come over.
        erased = outbox.erase(user).await;
    }
    outbox.close().await;
    erased.map_err(io)
}

#[cfg(test)]
#[path = "offline/tests.rs"]
mod tests;
