//! What Cello states as refused, and the step from [`Unchecked`] to [`Event`].

use std::borrow::Cow;

use super::field::{Field, Kind};
use super::{Checked, Checks, Event, Fault, STRIPPED_NAMED, TWICE, Trigger, Unchecked, UserId, encode, hints};

/// A stripped field's name is cut to so many characters.
const NAME_SHOWN: usize = 64;

/// At most so many repeated names are listed.
const TWICE_LISTED: usize = 20;

impl Unchecked<'_> {
    /// Validates and strips.
    ///
    /// # Errors
    /// All faults at once.
    pub fn check(self, checks: Checks) -> Result<Checked, Vec<Fault>> {
        let mut faults = Vec::new();
        if let Some(kind) = self.kind.filter(|kind| *kind != Kind::Object) {
            return Err(vec![wrong("body", "an object", kind)]);
        }
        self.repeated(&mut faults);
        self.required(&mut faults);
        let raw_context = self.raw_context(&mut faults);
        let context = &self.context;
        let hints = if checks == Checks::Off { Vec::new() } else { hints::find(&self.payload, context) };
        if checks == Checks::Strict {
            // Said once: what is wrong for Cello is not also odd.
            let stated: Vec<Cow<'static, str>> = faults.iter().map(|fault| fault.field.clone()).collect();
            faults.extend(hints.iter().filter(|hint| !stated.contains(&hint.field)).map(hints::Hint::fault));
        }
        let (Some(ucc), Some(user), true) =
            (self.payload.ucc.as_text(), self.payload.new_user_id.as_text(), faults.is_empty())
        else {
            return Err(faults);
        };
        let trigger = match context.trigger() {
            Field::Absent => Trigger::None,
            field => field.as_text().map_or(Trigger::Other, Trigger::from_name),
        };
        let body = encode::encode(ucc, user, &self.payload.price, &self.payload.currency, raw_context);
        let event = Event { user: UserId::new(user), trigger, body, trace: None };
        let warnings = hints.iter().map(|hint| (hint.kind, hint.warning())).collect();
        Ok(Checked { event, stripped: self.stripped(), stripped_count: self.stripped_count(), warnings })
    }

    /// Names that occur twice in the envelope or the payload.
    fn repeated(&self, faults: &mut Vec<Fault>) {
        let known = self.twice.iter().chain(&self.payload.twice).map(|path| Cow::Borrowed(*path));
        let unknown = repeated(&self.unknown).into_iter().map(|name| Cow::Owned(shown("", name)));
        let inner = repeated(&self.payload.unknown).into_iter().map(|name| Cow::Owned(shown("payload.", name)));
        let all = known.chain(unknown).chain(inner).take(TWICE_LISTED);
        faults.extend(all.map(|path| Fault::new(path, TWICE)));
    }

    fn required(&self, faults: &mut Vec<Fault>) {
        match &self.event_name {
            Field::Absent => faults.push(missing("eventName", &self.unknown)),
            field if field.as_text() == Some("ReferralUpdated") => {}
            _ => faults.push(Fault::new("eventName", "must be \"ReferralUpdated\"")),
        }
        if let Some(kind) = self.payload_kind.filter(|kind| !matches!(kind, Kind::Object | Kind::Null)) {
            faults.push(wrong("payload", "an object", kind));
            return;
        }
        if self.payload_kind.is_none_or(|kind| kind == Kind::Null) {
            faults.push(missing("payload", &self.unknown));
        }
        let unknown = &self.payload.unknown;
        required_text("payload.ucc", &self.payload.ucc, unknown, faults);
        required_text("payload.newUserId", &self.payload.new_user_id, unknown, faults);
        match &self.payload.price {
            Field::Absent => {}
            Field::Number(digits) if digits.parse().is_ok_and(f64::is_finite) => {}
            Field::Number(_) => faults.push(Fault::new("payload.price", "is too large a number")),
            other => faults.push(wrong("payload.price", "a number", other.kind())),
        }
        match &self.payload.currency {
            Field::Absent | Field::Text(_) => {}
            other => faults.push(not_text("payload.currency", other)),
        }
    }

    /// The context's own bytes, `{}` if there is none.
    fn raw_context(&self, faults: &mut Vec<Fault>) -> &str {
        match self.raw_context.map(|json| (json, Kind::of(json))) {
            Some((json, Kind::Object)) => json,
            None | Some((_, Kind::Null)) => "{}",
            Some((_, kind)) => {
                faults.push(wrong("context", "an object", kind));
                "{}"
            }
        }
    }

    fn stripped_count(&self) -> usize {
        self.payload.unknown.len() + self.unknown.len()
    }

    fn stripped(&self) -> Vec<String> {
        let payload = self.payload.unknown.iter().map(|name| shown("payload.", name));
        payload.chain(self.unknown.iter().map(|name| shown("", name))).take(STRIPPED_NAMED).collect()
    }
}

/// A field's path for an answer; a long name is cut.
fn shown(prefix: &str, name: &str) -> String {
    match name.char_indices().nth(NAME_SHOWN) {
        Some((end, _)) => format!("{prefix}{}…", &name[..end]),
        None => format!("{prefix}{name}"),
    }
}

/// The names that occur more than once. Sorts: a body may hold very many names.
fn repeated<'n>(names: &'n [Cow<'_, str>]) -> Vec<&'n str> {
    let mut sorted: Vec<&str> = names.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    let mut twice: Vec<&str> = sorted.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    twice.dedup();
    twice
}

/// A required field that is not there; perhaps under a name that is spelled otherwise.
fn missing(path: &'static str, unknown: &[Cow<'_, str>]) -> Fault {
    let name = path.rsplit('.').next().unwrap_or(path);
    let is_meant = |other: &&Cow<'_, str>| letters(other).eq(letters(name));
    match unknown.iter().find(is_meant) {
        Some(other) => {
            Fault::new(path, format!("is required (there is {:?}, did you mean {name:?}?)", shown("", other)))
        }
        None => Fault::new(path, "is required"),
    }
}

/// What is left of a name when nothing is made of its case and its dashes.
fn letters(name: &str) -> impl Iterator<Item = u8> {
    name.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase())
}

fn required_text(path: &'static str, field: &Field<'_>, unknown: &[Cow<'_, str>], faults: &mut Vec<Fault>) {
    match field {
        Field::Absent => faults.push(missing(path, unknown)),
        Field::Text(text) if text.is_empty() => faults.push(Fault::new(path, "must not be empty")),
        Field::Text(_) => {}
        other => faults.push(not_text(path, other)),
    }
}

fn not_text(path: &'static str, field: &Field<'_>) -> Fault {
    match field {
        Field::NoText => Fault::new(path, "must be Unicode text (half a surrogate pair in it)"),
        Field::Number(_) => Fault::new(path, "must be a string (got a number: quote it)"),
        other => wrong(path, "a string", other.kind()),
    }
}

fn wrong(path: &'static str, must_be: &str, got: Kind) -> Fault {
    Fault::new(path, format!("must be {must_be} (got {})", got.with_article()))
}
