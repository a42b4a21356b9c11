//! Configuration: layers in, every component's `Settings` out, or one report of all that is wrong.
//!
//! ```text
//! config/default.toml ◁ files ◁ environment ◁ flags      layers   text, and where each came from
//!                    └──────────▷ reader ▷ sections       types, each key read once
//!                                            └──▷ checks  what only shows when values are compared
//! ```
//!
//! Nothing is read from the process: the environment is handed in.

mod checks;
mod environment;
mod fault;
mod layers;
mod reader;
mod sections;
mod units;
mod upstream;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use sha2::{Digest, Sha256};

pub use fault::{Fault, Faults};
pub(crate) use units::duration;

use crate::app::Settings;
use fault::REDACTED;
use reader::Reader;

/// Where a configuration comes from.
#[derive(Clone, Default)]
pub struct Sources {
    /// TOML files, each winning over the one before. If none is given, those of `CELLO_RELAY_CONFIG`.
    pub files: Vec<PathBuf>,
    /// The process's environment.
    pub environment: Vec<(String, String)>,
    /// `section.key` and value.
    pub flags: Vec<(String, String)>,
}

/// Shows no values: any of them may be secret.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").field("files", &self.files).finish_non_exhaustive()
    }
}

impl Sources {
    /// The files of the flags, else those of the environment.
    fn all_files(&self) -> Vec<PathBuf> {
        if !self.files.is_empty() {
            return self.files.clone();
        }
        let listed = self.environment.iter().find(|(name, _)| name == environment::CONFIG);
        listed.map(|(_, list)| units::list(list).into_iter().map(PathBuf::from).collect()).unwrap_or_default()
    }
}

/// A configuration that holds together.
#[derive(Clone)]
pub struct Loaded {
    /// What the relay is built from.
    pub settings: Settings,
    /// What is legal but may surprise.
    pub warnings: Vec<String>,
    /// Twelve hex digits that change whenever a setting does; secrets do not count.
    pub hash: String,
    /// Every key's value and where it came from, sorted by key; secrets are `[redacted]`.
    pub effective: Vec<Effective>,
}

/// Shows no values: any of them may be secret.
impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("hash", &self.hash).field("warnings", &self.warnings).finish_non_exhaustive()
    }
}

/// A key's value as it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// `section.key`
    pub key: String,
    /// As given; a list's parts are joined by commas; secrets are `[redacted]`.
    pub value: String,
    /// A file, an environment variable, `--set`, `default`, or the key it was derived from.
    pub origin: String,
}

/// Loads and checks a configuration.
///
/// # Errors
/// All that is wrong with it, at once.
pub fn load(sources: &Sources) -> Result<Loaded, Faults> {
    let (mut faults, mut warnings) = (Vec::new(), Vec::new());
    let merged = layers::merge(sources, &mut faults, &mut warnings);
    let mut reader = Reader::new(merged, faults);
    let settings = sections::settings(&mut reader, &sources.environment);
    checks::refuse(&mut reader, &settings);
    warnings.extend(checks::warnings(&reader, &settings));
    let (values, faults) = reader.finish();
    if !faults.is_empty() {
        return Err(Faults(faults));
    }
    let effective = effective(&values);
    Ok(Loaded { settings, warnings, hash: hash(&effective), effective })
}

/// Where a relay of this configuration is found: all that a client command needs to know.
#[derive(Clone, Debug)]
pub struct Whereabouts {
    /// `ingest.listen`
    pub ingest: Vec<SocketAddr>,
    /// `ingest.token_file`
    pub ingest_token_file: Option<PathBuf>,
    /// `ops.listen`
    pub ops: Vec<SocketAddr>,
    /// `admin.socket`
    pub socket: PathBuf,
    /// `outbox.dir`
    pub dir: PathBuf,
    /// `outbox.durability`
    pub durability: String,
    /// `shutdown.deadline`
    pub deadline: Duration,
}

/// Reads only what leads to a running relay, from the same sources. Faults elsewhere, such as missing
/// access keys, do not matter.
///
/// # Errors
/// Files that cannot be read, flags and variables that are no settings, and what is wrong with the few keys that are
/// needed.
pub fn whereabouts(sources: &Sources) -> Result<Whereabouts, Faults> {
    let (mut unread, mut ignored) = (Vec::new(), Vec::new());
    let merged = layers::merge(sources, &mut unread, &mut ignored);
    // A flag or variable that is left out may be what names the relay: without it, an order goes to another one. A key
    // in a file that the relay reads too may be for its next start only, and probes must not fail over it.
    let files: Vec<String> = sources.all_files().iter().map(|file| file.display().to_string()).collect();
    unread.retain(|fault| fault.origin.as_ref().is_none_or(|origin| !files.contains(origin)));
    let mut reader = Reader::new(merged, unread);
    let whereabouts = Whereabouts {
        ingest: reader.some_addresses("ingest.listen"),
        ingest_token_file: reader.optional_path("ingest.token_file"),
        ops: reader.some_addresses("ops.listen"),
        socket: sections::socket(&mut reader),
        dir: reader.path("outbox.dir"),
        durability: reader.text("outbox.durability").to_owned(),
        deadline: reader.duration("shutdown.deadline"),
    };
    let (_, faults) = reader.finish();
    if faults.is_empty() { Ok(whereabouts) } else { Err(Faults(faults)) }
}

/// The base URL that events would go to, from the same sources. Missing access keys do not matter, but
/// nothing may be misspelled.
///
/// # Errors
/// What cannot be used in any layer, and what is wrong with the base URL.
pub fn upstream(sources: &Sources) -> Result<String, Faults> {
    let (mut faults, mut ignored) = (Vec::new(), Vec::new());
    let merged = layers::merge(sources, &mut faults, &mut ignored);
    let mut reader = Reader::new(merged, faults);
    let (_, base_url) = upstream::base_url(&mut reader);
    let (_, faults) = reader.finish();
    if faults.is_empty() { Ok(base_url) } else { Err(Faults(faults)) }
}

fn effective(values: &layers::Merged) -> Vec<Effective> {
    let shown = |key: &str, text: &str| match layers::is_secret(key) && !text.is_empty() {
        true => REDACTED.to_owned(),
        false => text.to_owned(),
    };
    let entry = |(key, given): (&String, &layers::Given)| Effective {
        key: key.clone(),
        value: shown(key, &given.text),
        origin: given.origin.clone(),
    };
    values.iter().map(entry).collect()
}

fn hash(effective: &[Effective]) -> String {
    let mut hasher = Sha256::new();
    for entry in effective {
        hasher.update(format!("{}={}\n", entry.key, entry.value));
    }
    hasher.finalize().iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}
