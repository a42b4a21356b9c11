//! An operator's pause, kept over restarts in a small file beside the outbox.
//!
//! A file of its own, so that the pause stays when a damaged outbox file is moved aside. It is synced before
//! the answer: who was told "paused" can rely on it, whatever happens to the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::clock::Timestamp;
use crate::forwarder::Pause;

const NAME: &str = "paused";
const NEW: &str = "paused.new";

/// Where the pause is kept.
#[derive(Clone, Debug)]
pub struct PauseFile {
    dir: PathBuf,
}

impl PauseFile {
    /// In this directory, which is the outbox's.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// The pause that is kept, also one that is over by now. A file that cannot be understood is taken for a
    /// pause without an end: what an operator stopped must not start by accident.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub fn read(&self) -> io::Result<Option<Pause>> {
        match fs::read(self.dir.join(NAME)) {
            Ok(text) => Ok(Some(parse(&text).unwrap_or(Pause { since: Timestamp::default(), until: None }))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Keeps a pause; it is durable when this returns.
    ///
    /// # Errors
    /// The disk; an older pause is kept then.
    pub fn write(&self, pause: Pause) -> io::Result<()> {
        let new = self.dir.join(NEW);
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        let until = pause.until.map(Timestamp::as_millis);
        writeln!(file, "{}", json!({"sinceMs": pause.since.as_millis(), "untilMs": until}))?;
        file.sync_all()?;
        fs::rename(new, self.dir.join(NAME))?;
        self.sync()
    }

    /// Forgets the pause, durably.
    ///
    /// # Errors
    /// The disk; it may be kept then.
    pub fn remove(&self) -> io::Result<()> {
        match fs::remove_file(self.dir.join(NAME)) {
            Ok(()) => self.sync(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

fn parse(text: &[u8]) -> Option<Pause> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let until = match &value["untilMs"] {
        Value::Null => None,
        until => Some(Timestamp::from_millis(until.as_i64()?)),
    };
    Some(Pause { since: Timestamp::from_millis(value["sinceMs"].as_i64()?), until })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_read_again_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = PauseFile::new(dir.path());
        assert_eq!(file.read().unwrap(), None);
        file.remove().unwrap();
        let at = Timestamp::from_millis;
        for until in [None, Some(at(90_000))] {
            let pause = Pause { since: at(5), until };
            file.write(pause).unwrap();
            assert_eq!(file.read().unwrap(), Some(pause));
        }
        file.remove().unwrap();
        assert_eq!(file.read().unwrap(), None);
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_a_pause() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["", "{", "{\"sinceMs\":1,\"untilMs\":\"soon\"}"] {
            fs::write(dir.path().join(NAME), text).unwrap();
            assert_eq!(PauseFile::new(dir.path()).read().unwrap().unwrap().until, None, "{text}");
        }
    }
}
