//! `check-config --online`: asks for a token once and says what came.

use std::fmt;
use std::time::Duration;

use super::credentials::Reading;
use super::token::Ask;
use super::token::bearer::usable;
use super::token::exchange::{Failure, exchange};
use super::{Auth, Cello};

/// What the probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Cello gave a token that lives so long.
    Granted {
        /// Its life.
        life: Duration,
    },
    /// The bearer token can be read; whether it is accepted is not known.
    BearerRead,
    /// No credentials are configured, none are needed.
    NotNeeded,
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Granted { life } => write!(f, "Cello accepted the access keys; its token lives {} s", life.as_secs()),
            Self::BearerRead => f.write_str("the bearer token can be read (it was not tried)"),
            Self::NotNeeded => f.write_str("cello.auth is \"none\": nothing to try"),
        }
    }
}

/// Why no token can be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// The credentials cannot be read: which, and why.
    #[error("no credentials for Cello: {0}")]
    Missing(String),
    /// Cello refuses the keys.
    #[error(
        "{base_url} refuses the access keys (status {status}); keys are made in the Cello Portal, on the Access Keys \
         page, separately for sandbox and production (switch the environment there)"
    )]
    Refused {
        /// Where it was asked.
        base_url: String,
        /// Cello's status.
        status: u16,
    },
    /// There is no Cello where it was asked.
    #[error("no token from {base_url}: {what}")]
    Elsewhere {
        /// Where it was asked.
        base_url: String,
        /// What came instead.
        what: String,
    },
    /// No token came for another reason.
    #[error("no token from {base_url}: {what}")]
    Failed {
        /// Where it was asked.
        base_url: String,
        /// What came instead.
        what: String,
    },
}

impl Cello {
    /// Asks for a token once, with the credentials as they are now; keeps nothing.
    ///
    /// # Errors
    /// See [`ProbeError`].
    pub async fn probe(&self) -> Result<Probe, ProbeError> {
        let auth = &self.settings.auth;
        if matches!(auth, Auth::None) {
            return Ok(Probe::NotNeeded);
        }
        if let Some(files) = auth.files() {
            files.read_into(&self.readings).await;
        }
        let reading = self.readings.borrow().clone();
        let keys = match (reading, auth) {
            (Reading::Present(content), Auth::Bearer(path)) => {
                let missing = |why| ProbeError::Missing(format!("{}: {why}", path.display()));
                return usable(&content).map(|_| Probe::BearerRead).map_err(missing);
            }
            (Reading::Present(keys), _) => keys,
            (Reading::Missing(why), _) => return Err(ProbeError::Missing(why)),
            (Reading::Unread, _) => return Err(ProbeError::Missing("the credential files keep changing".to_owned())),
        };
        let base_url = self.settings.base_url.clone();
        match exchange(self.bare.clone(), &Ask::Keys(keys), self.settings.timeout).await {
            Ok((granted, _)) => Ok(Probe::Granted { life: granted.life }),
            Err(Failure::Rejected(status)) => Err(ProbeError::Refused { base_url, status }),
            Err(failure) if failure.is_elsewhere() => {
                Err(ProbeError::Elsewhere { base_url, what: failure.to_string() })
            }
            Err(failure) => Err(ProbeError::Failed { base_url, what: failure.to_string() }),
        }
    }
}
