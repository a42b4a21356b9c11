//! Secrets in files: read from one consistent view, and read again when they change.

mod changes;
mod watch_files;

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use tokio::sync::watch;
use zeroize::Zeroizing;

pub(super) use watch_files::follow;

/// More than any key or token has.
const MAX_FILE: u64 = 64 * 1024;
/// More than `read_to_end` tries out on the stack where it has less room.
const SPARE: usize = 64;
/// So often files that change while they are read are read again.
const READS: usize = 5;

/// The contents of one or more files (or values), compared as a whole.
pub(super) struct Secrets(Vec<SecretString>);

impl Secrets {
    #[cfg(test)]
    pub(super) fn new(values: Vec<SecretString>) -> Self {
        Self(values)
    }

    /// The content of the file at that place in the list.
    pub(super) fn expose(&self, index: usize) -> &str {
        self.0.get(index).map_or("", ExposeSecret::expose_secret)
    }
}

impl PartialEq for Secrets {
    fn eq(&self, other: &Self) -> bool {
        let (one, two) = (&self.0, &other.0);
        one.len() == two.len() && one.iter().zip(two).all(|(one, two)| one.expose_secret() == two.expose_secret())
    }
}

impl Eq for Secrets {}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets([redacted])")
    }
}

/// What was found when the files were last read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    /// Not read yet.
    Unread,
    /// All there.
    Present(Arc<Secrets>),
    /// One of them is missing, empty or unreadable: a sentence that names it.
    Missing(String),
}

impl Reading {
    /// Values that are in no file.
    pub(super) fn of_values(values: impl IntoIterator<Item = SecretString>) -> Self {
        let values: Vec<_> = values.into_iter().collect();
        if values.iter().any(|value| value.expose_secret().is_empty()) {
            return Self::Missing("an access key of the environment is empty".to_owned());
        }
        Self::Present(Arc::new(Secrets(values)))
    }
}

/// Files that are read together.
#[derive(Clone, Debug)]
pub(super) struct Files(Arc<[PathBuf]>);

impl Files {
    pub(super) fn new(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        Self(paths.into_iter().collect())
    }

    /// Their directories.
    pub(super) fn directories(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().map(|path| match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        })
    }

    /// Reads all until two passes agree, so that the contents belong together; `None` if they keep
    /// changing. Blocks.
    pub(super) fn read(&self) -> Option<Reading> {
        let mut last = self.pass();
        for _ in 1..READS {
            let again = self.pass();
            if again == last {
                return Some(last);
            }
            last = again;
        }
        None
    }

    /// Reads and tells the watchers if something changed.
    pub(super) async fn read_into(self, readings: &watch::Sender<Reading>) {
        let read = tokio::task::spawn_blocking(move || self.read()).await;
        if let Ok(Some(reading)) = read {
            readings.send_if_modified(|old| {
                let changed = *old != reading;
                *old = reading;
                changed
            });
        }
    }

    fn pass(&self) -> Reading {
        let contents: Result<Vec<_>, String> = self.0.iter().map(|path| read_one(path)).collect();
        match contents {
            Ok(contents) => Reading::Present(Arc::new(Secrets(contents))),
            Err(why) => Reading::Missing(why),
        }
    }
}

/// The content without one trailing newline.
fn read_one(path: &Path) -> Result<SecretString, String> {
    let wrong = |why: &str| format!("{}: {why}", path.display());
    let unreadable = |error: std::io::Error| wrong(&error.to_string());
    // A pipe or a terminal would be waited for without end.
    let found = std::fs::metadata(path).map_err(unreadable)?;
    if !found.is_file() {
        return Err(wrong("it is not a regular file"));
    }
    // Room for all of it at once, and so much that nothing is read by way of the stack: growing and passing on would
    // leave copies behind that nobody overwrites.
    let mut bytes = Zeroizing::new(Vec::with_capacity(found.len().min(MAX_FILE) as usize + SPARE));
    File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(wrong("it is too large to be a key"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not UTF-8"))?;
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if text.is_empty() { Err(wrong("it is empty")) } else { Ok(SecretString::from(text)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        std::fs::write(&path, content).unwrap();
        read_one(&path).map(|secret| secret.expose_secret().to_owned())
    }

    #[test]
    fn one_trailing_newline_is_trimmed_and_nothing_else() {
        assert_eq!(read(b"0123").unwrap(), "0123");
        assert_eq!(read(b"0123\n").unwrap(), "0123");
        assert_eq!(read(b"0123\r\n").unwrap(), "0123");
        assert_eq!(read(b" 0123 \n\n").unwrap(), " 0123 \n");
    }

    #[test]
    fn what_cannot_be_a_key_is_missing_and_named_without_its_content() {
        for content in [&b""[..], b"\n", b"\xff\xfe", &[b'x'; 70_000]] {
            let why = read(content).unwrap_err();
            assert!(why.contains("/key: ") && !why.contains("xxx"), "{why}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(read_one(dir.path()).unwrap_err().contains("regular"));
    }

    #[test]
    fn contents_are_compared_and_never_shown() {
        let [one, same, other] = ["canary", "canary", "x"].map(|text| Secrets::new(vec![text.into()]));
        assert!(one == same && one != other);
        assert!(!format!("{one:?}").contains("canary"));
    }

    #[test]
    fn a_file_without_a_directory_is_looked_for_in_the_current_one() {
        let files = Files::new([PathBuf::from("key"), PathBuf::from("/a/b")]);
        assert_eq!(files.directories().collect::<Vec<_>>(), [Path::new("."), Path::new("/a")]);
    }
}
