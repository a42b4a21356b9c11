//! What Cello does not state as refused but is probably a mistake (`ingest.checks`).

use std::borrow::Cow;

use iso_currency::Currency;

use super::context::{Context, EVENT, NEW_USER, SUBSCRIPTION, Section};
use super::field::{Field, Kind};
use super::unchecked::Payload;
use super::{Fault, Trigger, suggest};
use crate::metrics::Warning;

/// Longer strings, in characters, are probably not meant.
const LONG: usize = 255;

/// A longer value is not quoted back.
const QUOTED: usize = 64;

/// `subscription.interval`: the union of what Cello's documents list.
const INTERVALS: [&str; 10] = [
    "one-time",
    "weekly",
    "bi-weekly",
    "monthly",
    "quarterly",
    "semi-annual",
    "yearly",
    "biennial",
    "triennial",
    "lifetime",
];

/// One thing that is odd.
pub(super) struct Hint {
    pub(super) kind: Warning,
    pub(super) field: Cow<'static, str>,
    /// Continues `<field> is …`.
    what: Cow<'static, str>,
    /// The value, only for its sender's eyes.
    quoted: Option<Box<str>>,
    meant: Option<&'static str>,
}

impl Hint {
    fn new(kind: Warning, field: impl Into<Cow<'static, str>>, what: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, field: field.into(), what: what.into(), quoted: None, meant: None }
    }

    fn unknown(kind: Warning, field: &'static str, value: &str, meant: Option<&'static str>) -> Self {
        let quoted = (value.len() <= QUOTED).then(|| Box::from(value));
        Self { quoted, meant, ..Self::new(kind, field, "unknown") }
    }

    /// As a line of an answer's `warnings`.
    pub(super) fn warning(&self) -> String {
        let quoted = self.quoted.as_ref().map(|value| format!(" {value:?}")).unwrap_or_default();
        format!("{}: {}{quoted}{}", self.field, self.what, self.did_you_mean())
    }

    /// As a fault, for `strict`; quotes nothing.
    pub(super) fn fault(&self) -> Fault {
        Fault::new(self.field.clone(), format!("is {}{}", self.what, self.did_you_mean()))
    }

    fn did_you_mean(&self) -> String {
        self.meant.map(|name| format!(", did you mean {name:?}?")).unwrap_or_default()
    }
}

/// Everything that is odd. Fields that Cello refuses anyway are passed over.
pub(super) fn find(payload: &Payload<'_>, context: &Context<'_>) -> Vec<Hint> {
    let mut hints = Vec::new();
    money(payload, &mut hints);
    for (field, value) in [
        ("payload.ucc", &payload.ucc),
        ("payload.newUserId", &payload.new_user_id),
        ("payload.currency", &payload.currency),
    ] {
        length(|| field.into(), value, &mut hints);
    }
    section("event", &EVENT, &context.event, &mut hints);
    section("newUser", &NEW_USER, &context.new_user, &mut hints);
    section("subscription", &SUBSCRIPTION, &context.subscription, &mut hints);
    names(context, &mut hints);
    timestamp(context.timestamp(), &mut hints);
    invoice(payload, context, &mut hints);
    if let (Some(id), Some(user)) = (context.new_user_id().as_text(), payload.new_user_id.as_text())
        && id != user
    {
        hints.push(Hint::new(Warning::UserMismatch, "context.newUser.id", "other than payload.newUserId"));
    }
    hints
}

fn money(payload: &Payload<'_>, hints: &mut Vec<Hint>) {
    if let Some(code) = payload.currency.as_text().filter(|code| !code.is_empty() && !is_currency(code)) {
        let upper = code.trim().to_ascii_uppercase();
        let meant = Currency::from_code(&upper).map(|currency| currency.code());
        let hint = Hint::new(Warning::Currency, "payload.currency", "not an ISO 4217 code");
        hints.push(Hint { meant, ..hint });
    }
    if let Field::Number(digits) = payload.price
        && digits.starts_with('-')
        && digits.parse().is_ok_and(|price: f64| price < 0.0)
    {
        hints.push(Hint::new(Warning::Price, "payload.price", "negative"));
    }
}

/// Case is ignored.
fn is_currency(code: &str) -> bool {
    let Ok(mut code) = <[u8; 3]>::try_from(code.as_bytes()) else { return false };
    code.make_ascii_uppercase();
    std::str::from_utf8(&code).is_ok_and(|code| Currency::from_code(code).is_some())
}

fn length(field: impl FnOnce() -> Cow<'static, str>, value: &Field<'_>, hints: &mut Vec<Hint>) {
    if value.as_text().is_some_and(|text| text.len() > LONG && text.chars().count() > LONG) {
        hints.push(Hint::new(Warning::Length, field(), format!("longer than {LONG} characters")));
    }
}

/// Types and lengths of the known fields of one object of the context.
fn section<const N: usize>(
    name: &'static str,
    fields: &[&'static str; N],
    found: &Section<'_, N>,
    hints: &mut Vec<Hint>,
) {
    if !matches!(found.kind, Kind::Object | Kind::Null) {
        let what = format!("no object (got {})", found.kind.with_article());
        hints.push(Hint::new(Warning::FieldType, format!("context.{name}"), what));
    }
    for (field, value) in fields.iter().zip(&found.fields) {
        let path = || Cow::Owned(format!("context.{name}.{field}"));
        match value {
            Field::Absent => {}
            Field::Text(_) => length(path, value, hints),
            Field::Number(digits) if *field == "seatsUsed" => {
                if digits.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
                    hints.push(Hint::new(Warning::FieldType, path(), "no string and no integer"));
                }
            }
            Field::NoText => hints.push(Hint::new(Warning::FieldType, path(), "no Unicode text")),
            other => {
                let what = format!("no string (got {})", other.kind().with_article());
                hints.push(Hint::new(Warning::FieldType, path(), what));
            }
        }
    }
}

fn names(context: &Context<'_>, hints: &mut Vec<Hint>) {
    if let Some(name) = context.trigger().as_text()
        && Trigger::from_name(name) == Trigger::Other
    {
        let meant = suggest::closest(name, Trigger::known().map(Trigger::as_str));
        hints.push(Hint::unknown(Warning::Trigger, "context.event.trigger", name, meant));
    }
    if let Some(name) = context.interval().as_text().filter(|name| !INTERVALS.contains(name)) {
        let meant = suggest::closest(name, INTERVALS);
        hints.push(Hint::unknown(Warning::Interval, "context.subscription.interval", name, meant));
    }
}

fn timestamp(field: &Field<'_>, hints: &mut Vec<Hint>) {
    let path = "context.event.timestamp";
    match field {
        Field::Absent => {
            hints.push(Hint::new(Warning::Timestamp, path, "missing: the event may be dated at delivery"));
        }
        Field::Text(text) if !is_timestamp(text) => {
            let what = "neither like \"2022-10-05 14:14:34\" nor like \"2022-11-20T03:18:01.620Z\"";
            hints.push(Hint::new(Warning::Timestamp, path, what));
        }
        _ => {}
    }
}

/// Both of Cello's forms: a civil time with a space, or RFC 3339.
fn is_timestamp(text: &str) -> bool {
    let (bytes, rest) = (text.as_bytes(), text.as_bytes().get(19..));
    let colons = [13, 16].iter().all(|at| bytes.get(*at) == Some(&b':'));
    match (bytes.get(10), rest) {
        (Some(b' '), Some([])) => colons && text.parse::<jiff::civil::DateTime>().is_ok(),
        (Some(b'T'), Some(rest)) => {
            colons
                && is_rfc_3339_from_the_fraction_on(rest)
                && text.len() <= 40
                && text.parse::<jiff::Timestamp>().is_ok()
        }
        _ => false,
    }
}

/// The parser takes more of ISO 8601 than Cello says it does: `,5`, `+0200`, `Z[UTC]`.
fn is_rfc_3339_from_the_fraction_on(rest: &[u8]) -> bool {
    let offset = match rest {
        [b'.', fraction @ ..] => &fraction[fraction.iter().take_while(|byte| byte.is_ascii_digit()).count()..],
        _ => rest,
    };
    matches!(offset, b"Z" | b"z" | [b'+' | b'-', _, _, b':', _, _])
}

fn invoice(payload: &Payload<'_>, context: &Context<'_>, hints: &mut Vec<Hint>) {
    let paid = context.trigger().as_text() == Some(Trigger::InvoicePaid.as_str());
    let without = |field: &Field<'_>| field.is_absent() || field.as_text() == Some("");
    if paid {
        let needed = [
            ("context.subscription.invoiceId", context.invoice_id()),
            ("payload.price", &payload.price),
            ("payload.currency", &payload.currency),
        ];
        for (field, _) in needed.into_iter().filter(|(_, value)| without(value)) {
            hints.push(Hint::new(Warning::Invoice, field, "missing, though invoice-paid needs it"));
        }
    } else if !payload.price.is_absent() && payload.currency.is_absent() {
        hints.push(Hint::new(Warning::Currency, "payload.currency", "missing, though there is a price"));
    }
}
