//! Refused events, kept so that they can be mended and sent again.

use std::fs::{File, Metadata, OpenOptions, Permissions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::value::RawValue;

use super::input::Item;
use crate::admin::view;
use crate::cli::exit::{Exit, Failure};
use crate::cli::output;

/// So many reasons are shown; more would scroll the first ones away.
const MAX_SHOWN: u64 = 20;

/// A line of the file.
#[derive(Serialize)]
struct Line<'a> {
    line: u64,
    status: u16,
    reason: &'a str,
    /// As it was, or as text if it is not even JSON.
    event: Box<RawValue>,
}

/// Where refused events go. The file is made when the first is refused, for the owner only: events hold
/// personal data. What is there already is looked at before anything is sent.
pub(super) struct Rejects {
    path: Option<PathBuf>,
    /// What the input is, if it is a file.
    input: Option<Metadata>,
    file: Option<BufWriter<File>>,
    count: u64,
}

impl Rejects {
    pub(super) fn new(path: Option<PathBuf>, input: Option<Metadata>) -> Result<Self, Failure> {
        let mut rejects = Self { path, input, file: None, count: 0 };
        if let Some(path) = rejects.path.as_deref().filter(|path| path.exists()) {
            rejects.file = Some(BufWriter::new(open(path, rejects.input.as_ref())?));
        }
        Ok(rejects)
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    pub(super) fn hint(&self) -> String {
        match &self.path {
            Some(path) => format!("they are in {}; mend them and send their \"event\" again", path.display()),
            None => "--rejects FILE keeps them, with the reasons".to_owned(),
        }
    }

    pub(super) fn add(&mut self, item: &Item, status: u16, reason: &str) -> Result<(), Failure> {
        self.count += 1;
        let Some(path) = self.path.clone() else {
            match self.count {
                ..=MAX_SHOWN => output::note(&format!("line {}: {}", item.number, output::printable(reason))),
                count if count == MAX_SHOWN + 1 => output::note("…"),
                _ => {}
            }
            return Ok(());
        };
        if self.file.is_none() {
            self.file = Some(BufWriter::new(open(&path, self.input.as_ref())?));
        }
        let line = Line { line: item.number, status, reason, event: as_json(&item.body) };
        if let Some(file) = &mut self.file {
            serde_json::to_writer(&mut *file, &line).map_err(std::io::Error::from)?;
            file.write_all(b"\n")?;
        }
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<(), Failure> {
        Ok(self.file.as_mut().map_or(Ok(()), Write::flush)?)
    }
}

/// The file, made if it is not there. Nothing is cut: the input is still being read, and what an earlier run left may
/// be half mended.
fn open(path: &Path, input: Option<&Metadata>) -> Result<File, Failure> {
    let failure = |message: &str| Failure::new(Exit::CannotCreate, format!("{} {message}", path.display()));
    let cannot = |error: std::io::Error| failure(&format!("cannot be made: {error}"));
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path).map_err(cannot)?;
    let found = file.metadata().map_err(cannot)?;
    // A pipe, a terminal or /dev/null is left as it is.
    if !found.is_file() {
        return Ok(file);
    }
    if input.is_some_and(|input| (input.dev(), input.ino()) == (found.dev(), found.ino())) {
        return Err(failure("is the input itself: refused events need a file of their own"));
    }
    if found.len() > 0 {
        return Err(failure("is not empty: it may hold the refused events of an earlier run")
            .hint("name another file for --rejects, or move that one away"));
    }
    if found.mode() & 0o077 != 0 {
        let kept = |error| failure(&format!("cannot be kept from others ({error}), and events hold personal data"));
        file.set_permissions(Permissions::from_mode(0o600)).map_err(kept)?;
    }
    Ok(file)
}

/// The bytes themselves on one line if they are JSON (where a line break is never part of a value), else
/// a JSON string of them.
fn as_json(body: &[u8]) -> Box<RawValue> {
    RawValue::from_string(view::one_line(body)).unwrap_or_else(|_| {
        serde_json::value::to_raw_value(&String::from_utf8_lossy(body)).expect("a string is always JSON")
    })
}
