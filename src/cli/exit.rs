//! How a command ends: its exit code, what went wrong, and what to do next.

use std::io::{self, Write};
use std::process::ExitCode;

use crate::cello::BuildError;
use crate::config::Faults;
use crate::outbox::sqlite::OpenError;

/// The exit codes (those of sysexits.h, where it has one).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// A probe said no.
    Unhealthy = 1,
    /// Bad arguments.
    Usage = 64,
    /// The outbox is damaged or too new; events of a file were refused.
    Data = 65,
    /// Not reachable, or not in time.
    Unavailable = 69,
    /// A bug.
    Software = 70,
    /// A file or directory cannot be made.
    CannotCreate = 73,
    /// Reading or writing failed, or no thread could be started.
    Io = 74,
    /// Locked by another process, or the port is in use: try again later.
    Temporary = 75,
    /// Not allowed.
    Permission = 77,
    /// The configuration is wrong.
    Config = 78,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// Why a command did not do what was asked.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub exit: Exit,
    /// What went wrong; nothing is written if it is empty.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
}

impl Failure {
    /// A failure without a hint.
    #[must_use]
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Writes it to stderr and gives its exit code.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        let mut text = String::new();
        if !self.message.is_empty() {
            text.push_str(&format!("cello-relay: {}\n", self.message));
        }
        if let Some(hint) = &self.hint {
            text.push_str(&format!("  hint: {hint}\n"));
        }
        // If stderr is gone, the exit code still tells.
        drop(io::stderr().write_all(text.as_bytes()));
        self.exit.into()
    }
}

impl From<Faults> for Failure {
    fn from(faults: Faults) -> Self {
        Self::new(Exit::Config, faults.to_string())
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        Self::new(Exit::Config, error.to_string())
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let exit = match &error {
            OpenError::Locked { .. } => Exit::Temporary,
            OpenError::Create { .. } | OpenError::ReadOnly { .. } => Exit::CannotCreate,
            OpenError::Io { .. } | OpenError::Missing { .. } => Exit::Io,
            OpenError::Permission { .. } => Exit::Permission,
            OpenError::NetworkFs { .. } | OpenError::OtherUpstream { .. } => Exit::Config,
            OpenError::TooNew { .. } | OpenError::Damaged { .. } => Exit::Data,
        };
        Self::new(exit, error.to_string())
    }
}

/// Of our own input and output. A reader that has seen enough (`| head`) is no failure.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::new(Exit::Ok, ""),
            io::ErrorKind::PermissionDenied => Self::new(Exit::Permission, error.to_string()),
            _ => Self::new(Exit::Io, error.to_string()),
        }
    }
}
