//! The layers of a configuration, merged: defaults, files, environment, flags.
//!
//! Values stay text here. What they mean is decided when the key's type reads them, so that a key id
//! `0123` keeps its zero whatever layer it comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use config::{ConfigError, File, FileFormat, Map, Source, Value, ValueKind};

use super::Sources;
use super::environment::{self, Name};
use super::fault::{Fault, REDACTED};

/// The lowest layer, and the reference of all keys.
pub(super) const DEFAULTS: &str = include_str!("../../config/default.toml");
/// What the origin of a default is called.
pub(super) const DEFAULT: &str = "default";
/// What the origin of a flag is called.
const FLAG: &str = "--set";
/// Values that are never shown, and come from the environment only.
const SECRETS: [&str; 2] = ["cello.access_key_id", "cello.secret_access_key"];
/// How alike a key must be to be offered for an unknown one.
const ALIKE: f64 = 0.7;

/// A value as given, and by whom.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// Text; a list's parts are joined by commas.
    pub(super) text: String,
    /// A file, a variable, [`FLAG`] or [`DEFAULT`].
    pub(super) origin: String,
}

/// All keys with the value that won.
pub(super) type Merged = BTreeMap<String, Given>;

/// Whether a key's value is never shown.
pub(super) fn is_secret(key: &str) -> bool {
    SECRETS.contains(&key)
}

/// Merges the layers. What cannot be used is reported and left out.
pub(super) fn merge(sources: &Sources, faults: &mut Vec<Fault>, warnings: &mut Vec<String>) -> Merged {
    let schema = Schema::of_defaults();
    let mut builder = config::Config::builder().add_source(schema.defaults.clone());
    for file in sources.all_files() {
        builder = builder.add_source(file_layer(&file, &schema, faults));
    }
    let environment = environment_layer(&sources.environment, &schema, faults, warnings);
    let flags = flag_layer(&sources.flags, &schema, faults);
    let built = builder.add_source(environment).add_source(flags).build().and_then(|config| config.collect());
    let merged = flatten(built.expect("layers hold known keys and plain values only"), "", DEFAULT);
    let text_of = |value: &Value| text(value).expect("layers hold plain values only");
    let origin_of = |value: &Value| value.origin().unwrap_or(DEFAULT).to_owned();
    merged.iter().map(|(key, value)| (key.clone(), Given { text: text_of(value), origin: origin_of(value) })).collect()
}

/// The keys there are: those of the defaults.
pub(super) struct Schema {
    defaults: Layer,
}

impl Schema {
    pub(super) fn of_defaults() -> Self {
        let parsed = File::from_str(DEFAULTS, FileFormat::Toml).collect();
        let table = parsed.expect("default.toml is part of the program, and a test reads it");
        Self { defaults: Layer(flatten(table, "", DEFAULT)) }
    }

    fn has(&self, key: &str) -> bool {
        self.defaults.0.contains_key(key)
    }

    pub(super) fn has_section(&self, section: &str) -> bool {
        self.defaults.0.keys().any(|key| key.split('.').next() == Some(section))
    }

    /// The known key most like this one, if any is.
    pub(super) fn nearest(&self, key: &str) -> Option<&str> {
        let likeness = |known: &str| strsim::jaro_winkler(known, key).max(same_name(known, key));
        let best = self.defaults.0.keys().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
        (likeness(best) >= ALIKE).then_some(best)
    }

    /// A fault for a key that does not exist. Its value is not kept: it may be a misspelled secret's.
    fn unknown(&self, key: &str, origin: &str, spell: fn(&str) -> String) -> Fault {
        let meant = self.nearest(key).map(|near| format!("; did you mean {}?", spell(near))).unwrap_or_default();
        Fault {
            key: key.to_owned(),
            value: None,
            origin: Some(origin.to_owned()),
            reason: format!("unknown key{meant}"),
        }
    }
}

/// The right key in the wrong section is near, too; the nearer, the more alike the sections are.
fn same_name(known: &str, key: &str) -> f64 {
    let name = |key: &str| key.rsplit('.').next().map(str::to_owned);
    if name(known) == name(key) { 0.95 + 0.05 * strsim::jaro_winkler(known, key) } else { 0.0 }
}

/// One layer: known keys, plain values. `Debug` shows keys alone, since values may be secret.
#[derive(Clone, Default)]
struct Layer(BTreeMap<String, Value>);

impl fmt::Debug for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ConfigError> {
        Ok(self.0.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

fn file_layer(path: &Path, schema: &Schema, faults: &mut Vec<Fault>) -> Layer {
    let origin = path.display().to_string();
    let about_file = |reason: String| Fault { key: origin.clone(), value: None, origin: None, reason };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            faults.push(about_file(format!("cannot be read: {error}")));
            return Layer::default();
        }
    };
    let table = match File::from_str(&text, FileFormat::Toml).collect() {
        Ok(table) => table,
        Err(error) => {
            faults.push(about_file(format!("is not valid TOML: {}", without_quotations(&error.to_string()))));
            return Layer::default();
        }
    };
    let mut layer = Layer::default();
    for (key, value) in flatten(table, "", &origin) {
        if !schema.has(&key) {
            faults.push(schema.unknown(&key, &origin, str::to_owned));
        } else if let Some(text) = self::text(&value) {
            admit(&mut layer, &key, text, &origin, faults);
        } else {
            let reason = "must be a string, a number, true, false or a list of those".to_owned();
            faults.push(Fault { key, value: None, origin: Some(origin.clone()), reason });
        }
    }
    layer
}

/// A secret in a file or a flag is a fault, unless it is empty; all else goes into the layer.
fn admit(layer: &mut Layer, key: &str, text: String, origin: &str, faults: &mut Vec<Fault>) {
    if is_secret(key) {
        if !text.is_empty() {
            let variable = environment::variable(key);
            faults.push(Fault {
                key: key.to_owned(),
                value: Some(REDACTED.to_owned()),
                origin: Some(origin.to_owned()),
                reason: format!(
                    "a secret is taken from {variable} or from a file of its own ({key}_file), nowhere else"
                ),
            });
        }
        return;
    }
    layer.0.insert(key.to_owned(), Value::new(Some(&origin.to_owned()), text));
}

fn environment_layer(
    environment: &[(String, String)],
    schema: &Schema,
    faults: &mut Vec<Fault>,
    warnings: &mut Vec<String>,
) -> Layer {
    let mut layer = Layer::default();
    for (name, value) in environment {
        match environment::classify(name, schema) {
            Name::Foreign => {}
            Name::Key(key) if schema.has(&key) => {
                layer.0.insert(key, Value::new(Some(name), value.as_str()));
            }
            Name::Key(key) => faults.push(schema.unknown(&key, name, environment::variable)),
            Name::Misspelled(right) => faults.push(Fault {
                key: name.clone(),
                value: None,
                origin: None,
                reason: format!("section and key are separated by two underscores: write {right}"),
            }),
            Name::Stray => warnings.push(format!("{name}: is no setting and is ignored")),
        }
    }
    layer
}

fn flag_layer(flags: &[(String, String)], schema: &Schema, faults: &mut Vec<Fault>) -> Layer {
    let mut layer = Layer::default();
    for (key, value) in flags {
        if schema.has(key) {
            admit(&mut layer, key, value.clone(), FLAG, faults);
        } else {
            faults.push(schema.unknown(key, FLAG, str::to_owned));
        }
    }
    layer
}

/// `section.key → value`, with `origin` on every value that has none.
fn flatten(table: Map<String, Value>, prefix: &str, origin: &str) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        let origin = value.origin().unwrap_or(origin).to_owned();
        match value.kind {
            ValueKind::Table(inner) => flat.extend(flatten(inner, &key, &origin)),
            kind => _ = flat.insert(key, Value::new(Some(&origin), kind)),
        }
    }
    flat
}

/// A plain value as text; a list of plain values as its parts joined by commas.
fn text(value: &Value) -> Option<String> {
    match &value.kind {
        ValueKind::String(text) => Some(text.clone()),
        ValueKind::Array(parts) => {
            let parts: Option<Vec<String>> = parts.iter().map(text).collect();
            parts.map(|parts| parts.join(","))
        }
        ValueKind::Table(_) | ValueKind::Nil => None,
        plain => Some(plain.to_string()),
    }
}

/// A parser's message without the lines it quotes, which may hold a secret.
fn without_quotations(message: &str) -> String {
    let own = message.lines().map(str::trim).filter(|line| !line.is_empty() && !line.contains('|'));
    own.collect::<Vec<_>>().join(": ")
}
