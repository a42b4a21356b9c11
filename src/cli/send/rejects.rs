//! Refused events, kept so that they can be mended and sent again.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

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
/// personal data.
pub(super) struct Rejects {
    path: Option<PathBuf>,
    file: Option<BufWriter<File>>,
    count: u64,
}

impl Rejects {
    pub(super) fn new(path: Option<PathBuf>) -> Self {
        Self { path, file: None, count: 0 }
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
            let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
            let cannot =
                |error| Failure::new(Exit::CannotCreate, format!("{} cannot be made: {error}", path.display()));
            self.file = Some(BufWriter::new(opened.map_err(cannot)?));
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

/// The bytes themselves on one line if they are JSON (where a line break is never part of a value), else
/// a JSON string of them.
fn as_json(body: &[u8]) -> Box<RawValue> {
    RawValue::from_string(view::one_line(body)).unwrap_or_else(|_| {
        serde_json::value::to_raw_value(&String::from_utf8_lossy(body)).expect("a string is always JSON")
    })
}
