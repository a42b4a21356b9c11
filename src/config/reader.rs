//! Reads merged text into types and collects what is wrong, so that one run reports everything.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::fault::{Fault, REDACTED};
use super::layers::{self, Merged};
use super::units;

/// A typed view of the merged layers.
///
/// A value that cannot be read is a fault, and the type's default stands in for it: settings made
/// from a reader are worth something only if it has no faults.
pub(super) struct Reader {
    values: Merged,
    faults: Vec<Fault>,
}

impl Reader {
    pub(super) fn new(values: Merged, faults: Vec<Fault>) -> Self {
        Self { values, faults }
    }

    /// All values, and all that was wrong.
    pub(super) fn finish(self) -> (Merged, Vec<Fault>) {
        (self.values, self.faults)
    }

    /// The text as given; empty is "not set".
    pub(super) fn text(&self, key: &str) -> &str {
        self.values.get(key).map_or_else(|| panic!("{key} is not in default.toml"), |given| given.text.trim())
    }

    /// Whether somebody gave a value, if only an empty one.
    pub(super) fn is_given(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|given| given.origin != layers::DEFAULT)
    }

    /// Shows another value than the given one in the effective configuration.
    pub(super) fn derive(&mut self, key: &str, text: String, origin: &str) {
        self.values.insert(key.to_owned(), layers::Given { text, origin: origin.to_owned() });
    }

    /// Records that a key's value is wrong. A key's first fault is enough.
    pub(super) fn object(&mut self, key: &str, reason: impl Into<String>) {
        if self.faults.iter().any(|fault| fault.key == key) {
            return;
        }
        let given = self.values.get(key);
        let shown = |text: &str| {
            if layers::is_secret(key) && !text.is_empty() { REDACTED.to_owned() } else { without_userinfo(text) }
        };
        self.faults.push(Fault {
            key: key.to_owned(),
            value: given.map(|given| shown(&given.text)),
            origin: given.map(|given| given.origin.clone()),
            reason: reason.into(),
        });
    }

    /// Whether nothing was wrong with these keys so far: only then can they be compared.
    pub(super) fn are_sound(&self, keys: &[&str]) -> bool {
        !self.faults.iter().any(|fault| keys.contains(&fault.key.as_str()))
    }

    fn read<T: Default>(&mut self, key: &str, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        let parsed =
            if self.text(key).is_empty() { Err("must not be empty".to_owned()) } else { parse(self.text(key)) };
        parsed.unwrap_or_else(|reason| {
            self.object(key, reason);
            T::default()
        })
    }

    /// A duration; may be zero.
    pub(super) fn duration(&mut self, key: &str) -> Duration {
        self.read(key, units::duration)
    }

    /// A duration that must not be zero.
    pub(super) fn time(&mut self, key: &str) -> Duration {
        self.read(key, |text| match units::duration(text)? {
            Duration::ZERO => Err("must be longer than 0".to_owned()),
            time => Ok(time),
        })
    }

    /// A duration that is not shorter than another.
    pub(super) fn time_of(&mut self, key: &str, least: Duration) -> Duration {
        self.read(key, |text| match units::duration(text)? {
            time if time < least => Err(format!("must be at least {}s", least.as_secs())),
            time => Ok(time),
        })
    }

    /// A duration that must not be zero, or none.
    pub(super) fn optional_time(&mut self, key: &str) -> Option<Duration> {
        (!self.text(key).is_empty()).then(|| self.time(key))
    }

    /// A duration, or none.
    pub(super) fn optional_duration(&mut self, key: &str) -> Option<Duration> {
        (!self.text(key).is_empty()).then(|| self.duration(key))
    }

    /// A size in bytes; may be zero.
    pub(super) fn size(&mut self, key: &str) -> u64 {
        self.read(key, units::size)
    }

    /// A size of something that is held in memory.
    pub(super) fn memory(&mut self, key: &str) -> usize {
        self.read(key, |text| match units::size(text)? {
            0 => Err("must be more than 0".to_owned()),
            size => usize::try_from(size).map_err(|_| "is too large".to_owned()),
        })
    }

    /// A whole number from `least` to `most`.
    pub(super) fn count<T: Default + TryFrom<u64>>(&mut self, key: &str, least: u64, most: u64) -> T {
        self.read(key, |text| match units::count(text)? {
            number if number < least => Err(format!("must be at least {least}")),
            number if number > most => Err(format!("must be at most {most}")),
            number => T::try_from(number).map_err(|_| "is too large".to_owned()),
        })
    }

    /// `true` or `false`.
    pub(super) fn switch(&mut self, key: &str) -> bool {
        self.read(key, units::switch)
    }

    /// One of a few words.
    pub(super) fn choice<T: Default + Copy>(&mut self, key: &str, choices: &[(&str, T)]) -> T {
        self.read(key, |text| match choices.iter().find(|(word, _)| *word == text) {
            Some((_, choice)) => Ok(*choice),
            None => Err(format!("must be {}", one_of(choices.iter().map(|(word, _)| *word)))),
        })
    }

    /// A list of words; may be empty.
    pub(super) fn list(&self, key: &str) -> Vec<String> {
        units::list(self.text(key))
    }

    /// Addresses to listen on; may be empty.
    pub(super) fn addresses(&mut self, key: &str) -> Vec<SocketAddr> {
        let mut addresses = Vec::new();
        for part in self.list(key) {
            match part.parse() {
                Ok(address) if addresses.contains(&address) => self.object(key, format!("names {part} twice")),
                Ok(address) => addresses.push(address),
                Err(_) => {
                    let hint = "must be IP:port, as in 127.0.0.1:8745 or [::1]:8745";
                    self.object(key, format!("{part}: {hint} (a list, or separated by commas)"));
                }
            }
        }
        addresses
    }

    /// Addresses to listen on, at least one.
    pub(super) fn some_addresses(&mut self, key: &str) -> Vec<SocketAddr> {
        let addresses = self.addresses(key);
        if addresses.is_empty() {
            self.object(key, "must name at least one address, as in 127.0.0.1:8745");
        }
        addresses
    }

    /// A path.
    pub(super) fn path(&mut self, key: &str) -> PathBuf {
        self.read(key, |text| Ok(PathBuf::from(text)))
    }

    /// A path, or none.
    pub(super) fn optional_path(&self, key: &str) -> Option<PathBuf> {
        let text = self.text(key);
        (!text.is_empty()).then(|| PathBuf::from(text))
    }
}

/// `"a", "b" or "c"`
fn one_of<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.map(|word| format!("{word:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// `https://user:password@host` is shown as `https://[redacted]@host`.
pub(super) fn without_userinfo(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{REDACTED}{}", &rest[at..]),
        None => text.to_owned(),
    }
}
