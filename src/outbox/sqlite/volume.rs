//! The directory of an outbox and the volume it is on: making it, locking it, measuring it.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};

use super::fault::{OpenError, lacks_room};
use super::file_system::FileSystem;

const DATABASE: &str = "outbox.db";
const LOCK: &str = "lock";
const RESERVE: &str = "reserve";
/// Holds the name of a damaged database while it is moved.
const QUARANTINE: &str = "quarantine";
/// What a damaged database is called: `outbox-<UTC date time>.damaged.db`.
const DAMAGED: &str = ".damaged.db";
/// SQLite's companions of a database file.
const COMPANIONS: [&str; 2] = ["-wal", "-shm"];

/// The files of an outbox. What else is in the directory is left alone (`lost+found`, say).
#[derive(Clone, Debug)]
pub(super) struct Home {
    dir: Arc<Path>,
    /// Each commit looks at these two.
    database: Arc<Path>,
    wal: Arc<Path>,
}

impl Home {
    pub(super) fn new(dir: &Path) -> Self {
        let wal = dir.join(format!("{DATABASE}-wal")).into();
        Self { dir: dir.into(), database: dir.join(DATABASE).into(), wal }
    }

    pub(super) fn database(&self) -> &Path {
        &self.database
    }

    pub(super) fn wal(&self) -> &Path {
        &self.wal
    }

    /// Makes the directory, for this user only; its parents with the usual rights. All of these names
    /// are durable on return.
    pub(super) fn create(&self) -> Result<(), OpenError> {
        if self.dir.is_dir() {
            // A crash may have come between making and syncing it. One that was mounted or made by
            // others may lie where this user cannot look; they have made it last.
            let synced = parent(&self.dir).map(sync_dir);
            tracing::trace!(?synced, "the name of the outbox directory");
            return Ok(());
        }
        let missing: Vec<&Path> = self.dir.ancestors().skip(1).take_while(|dir| !is_here(dir)).collect();
        for dir in missing.into_iter().rev() {
            make_dir(dir, 0o777)?;
        }
        make_dir(&self.dir, 0o700)
    }

    /// Makes an empty database file, for this user only; SQLite gives its companions the same rights.
    pub(super) fn create_database(&self) -> Result<(), OpenError> {
        let path = self.database();
        let made = private().read(true).append(true).create(true).open(path);
        made.map_err(|error| OpenError::of_file(path, error))?;
        self.sync().map_err(|error| OpenError::of_file(&self.dir, error))
    }

    /// Makes renamed and new names durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        sync_dir(&self.dir)
    }

    /// Locks the outbox against other processes until the result is dropped.
    pub(super) fn lock(&self) -> Result<Lock, OpenError> {
        let path = self.dir.join(LOCK);
        let opened = private().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = opened.map_err(|error| OpenError::of_file(&path, error))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                write_holder(&file).map_err(|error| OpenError::of_file(&path, error))?;
                Ok(Lock { file })
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                let read = file.read_to_string(&mut holder);
                let unknown = read.is_err() || holder.trim().is_empty();
                let holder = if unknown { "another process".to_owned() } else { holder.trim().to_owned() };
                Err(OpenError::Locked { holder })
            }
            Err(error) => Err(OpenError::of_file(&path, error.into())),
        }
    }

    /// Whether that lock is on the file that others see.
    pub(super) fn is_locked_by(&self, lock: &Lock) -> bool {
        let (named, held) = (fs::metadata(self.dir.join(LOCK)), lock.file.metadata());
        named.is_ok_and(|named| held.is_ok_and(|held| (named.dev(), named.ino()) == (held.dev(), held.ino())))
    }

    /// What it lies on.
    pub(super) fn file_system(&self) -> Result<FileSystem, OpenError> {
        FileSystem::of(&self.dir).map_err(|error| OpenError::of_file(&self.dir, error))
    }

    /// Size of the volume and what this user may still take of it.
    pub(super) fn space(&self) -> io::Result<Space> {
        let stat = rustix::fs::statvfs(&*self.dir)?;
        Ok(Space { total: stat.f_blocks * stat.f_frsize, free: stat.f_bavail * stat.f_frsize })
    }

    /// Bytes of the WAL file.
    pub(super) fn wal_bytes(&self) -> u64 {
        fs::metadata(self.wal()).map_or(0, |meta| meta.len())
    }

    /// Bytes of the reserve.
    pub(super) fn reserve_bytes(&self) -> u64 {
        fs::metadata(self.dir.join(RESERVE)).map_or(0, |meta| meta.len())
    }

    /// Takes room on the volume for harder times.
    pub(super) fn make_reserve(&self, bytes: u64) -> io::Result<()> {
        let path = self.dir.join(RESERVE);
        let file = private().write(true).create(true).truncate(true).open(&path)?;
        let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes);
        if let Err(error) = allocated {
            drop(file);
            fs::remove_file(&path)?;
            return Err(error.into());
        }
        Ok(())
    }

    /// Gives that room up; says whether there was any.
    pub(super) fn free_reserve(&self) -> bool {
        fs::remove_file(self.dir.join(RESERVE)).is_ok()
    }

    /// The dated name that the damaged database is to be moved to, durably written down; the same one
    /// if that was begun before.
    pub(super) fn begin_quarantine(&self, now: crate::clock::Timestamp) -> io::Result<String> {
        if let Some(name) = self.quarantine() {
            return Ok(name);
        }
        let stamp: String = now.to_string().chars().filter(char::is_ascii_alphanumeric).collect();
        let mut name = format!("outbox-{stamp}{DAMAGED}");
        let mut again = 1;
        while self.dir.join(&name).exists() {
            again += 1;
            name = format!("outbox-{stamp}-{again}{DAMAGED}");
        }
        let mut file = private().write(true).create(true).truncate(true).open(self.dir.join(QUARANTINE))?;
        file.write_all(name.as_bytes())?;
        file.sync_all()?;
        self.sync()?;
        Ok(name)
    }

    /// The name of a move that was begun and not ended.
    pub(super) fn quarantine(&self) -> Option<String> {
        // One that was not written whole was not acted on.
        fs::read_to_string(self.dir.join(QUARANTINE)).ok().filter(|name| name.ends_with(DAMAGED))
    }

    /// The move is done, and what follows of it is in the fresh file.
    pub(super) fn end_quarantine(&self) -> io::Result<()> {
        fs::remove_file(self.dir.join(QUARANTINE))?;
        self.sync()
    }

    /// Moves the damaged database aside with its companions, unless that was done before.
    pub(super) fn move_aside(&self, name: &str) -> io::Result<()> {
        if self.dir.join(name).exists() {
            return Ok(());
        }
        // The database last, when the others' move is durable: it tells whether all were moved.
        for suffix in COMPANIONS.into_iter().chain([""]) {
            if suffix.is_empty() {
                self.sync()?;
            }
            let (here, there) =
                (self.dir.join(format!("{DATABASE}{suffix}")), self.dir.join(format!("{name}{suffix}")));
            // A move that was cut off had moved the real one; whoever looked into the database since made another.
            let is_moved = !suffix.is_empty() && there.try_exists()? && there.is_file();
            match if is_moved { fs::remove_file(here) } else { fs::rename(here, there) } {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.sync()
    }

    /// Where a file of that name is.
    pub(super) fn named(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// How many damaged databases lie here.
    pub(super) fn damaged_files(&self) -> u64 {
        self.damaged_names().len() as u64
    }

    /// The names of the damaged databases that lie here.
    pub(super) fn damaged_names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| name.ends_with(DAMAGED)).collect();
        names.sort();
        names
    }
}

/// Held while the outbox is open.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

/// A volume's size and what is left of it, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Space {
    pub(super) total: u64,
    pub(super) free: u64,
}

/// The directory that a path is in; `None` for the root.
fn parent(path: &Path) -> Option<&Path> {
    path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent })
}

fn is_here(dir: &Path) -> bool {
    dir.as_os_str().is_empty() || dir.is_dir()
}

/// Makes a directory whose parent is there, durably.
fn make_dir(dir: &Path, mode: u32) -> Result<(), OpenError> {
    match DirBuilder::new().mode(mode).create(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(OpenError::of_file(dir, error)),
        _ => {}
    }
    parent(dir).map_or(Ok(()), sync_dir).map_err(|error| OpenError::of_file(dir, error))
}

/// Makes the names in a directory durable.
fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn write_holder(mut file: &File) -> io::Result<()> {
    let (pid, host) = (std::process::id(), rustix::system::uname());
    let holder = format!("process {pid} on {}\n", host.nodename().to_string_lossy());
    unless_full(file.set_len(0).and_then(|()| file.write_all(holder.as_bytes())))
}

/// Best effort on a full disk or over a quota: the lock holds whether or not its holder could be written down.
fn unless_full(written: io::Result<()>) -> io::Result<()> {
    written.or_else(|error| if lacks_room(&error) { Ok(()) } else { Err(error) })
}

#[cfg(test)]
#[path = "volume/tests.rs"]
mod tests;
