//! The bearer token of `ingest.token_file`.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tokio::time::Instant;
use tracing::{info, warn};
use zeroize::Zeroizing;

use super::StartError;

/// The file is read again when this time has passed since the last look, so a rotated token is known soon.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// A token that follows its file.
pub(super) struct Bearer {
    path: PathBuf,
    current: Mutex<Current>,
}

struct Current {
    token: SecretString,
    looked_at: Instant,
    /// The last look found no token. Told of once, and once that it is over.
    is_stale: bool,
}

impl Bearer {
    pub(super) fn open(path: PathBuf, now: Instant) -> Result<Self, StartError> {
        match read(&path) {
            Ok(token) => Ok(Self { path, current: Mutex::new(Current { token, looked_at: now, is_stale: false }) }),
            Err(why) => Err(StartError::Token { path, why }),
        }
    }

    /// The token. While its file is missing or empty the last one stands.
    pub(super) fn token(&self, now: Instant) -> SecretString {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(current.looked_at) >= LOOK_EVERY {
            current.looked_at = now;
            current.take(read(&self.path), &self.path);
        }
        current.token.clone()
    }

    /// Compares in constant time.
    pub(super) fn is(&self, offered: &str, now: Instant) -> bool {
        let token = self.token(now);
        token.expose_secret().as_bytes().ct_eq(offered.as_bytes()).into()
    }
}

impl Current {
    /// A restart would not start with a file without a token: whoever looks after it must hear of it before.
    fn take(&mut self, found: Result<SecretString, String>, path: &Path) {
        let was_stale = std::mem::replace(&mut self.is_stale, found.is_err());
        match found {
            Ok(token) => {
                self.token = token;
                if was_stale {
                    info!(event = "ingest_token_readable", "the file of ingest.token_file can be read again");
                }
            }
            Err(why) if !was_stale => warn!(
                event = "ingest_token_unreadable",
                path = %path.display(),
                why,
                "the file of ingest.token_file cannot be read: the token that it held stands, until a restart"
            ),
            Err(_) => {}
        }
    }
}

pub(super) fn read(path: &Path) -> Result<SecretString, String> {
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| error.to_string())?);
    let token = text.trim();
    if token.is_empty() {
        return Err("is empty".to_owned());
    }
    Ok(SecretString::from(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_rotated_token_replaces_the_old_one_and_an_emptied_file_does_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("token");
        std::fs::write(&path, "first\n").expect("written");
        let bearer = Bearer::open(path.clone(), Instant::now()).expect("a token");
        std::fs::write(&path, "second\n").expect("written");
        assert!(bearer.is("first", Instant::now()));
        tokio::time::advance(LOOK_EVERY).await;
        assert!(bearer.is("second", Instant::now()) && !bearer.is("first", Instant::now()));
        std::fs::write(&path, "\n").expect("written");
        tokio::time::advance(LOOK_EVERY).await;
        assert!(bearer.is("second", Instant::now()) && !bearer.is("", Instant::now()));
    }

    #[tokio::test]
    async fn an_empty_token_file_is_refused_at_start() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(Bearer::open(file.path().to_owned(), Instant::now()).is_err());
    }
}
