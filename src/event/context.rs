//! The fields of `context` that Cello predefines. Only looked at: the context goes through byte for byte.

use super::field::{Field, Kind};
use super::members::Members;

/// What is known of a context. Of a name that occurs twice the last one counts, as for most parsers.
#[derive(Debug, Default)]
pub(super) struct Context<'a> {
    pub(super) event: Section<'a, 2>,
    pub(super) new_user: Section<'a, 4>,
    pub(super) subscription: Section<'a, 5>,
}

/// One of its objects, with the known fields in the order of its list of names.
#[derive(Debug)]
pub(super) struct Section<'a, const N: usize> {
    pub(super) kind: Kind,
    pub(super) fields: [Field<'a>; N],
    names: &'static [&'static str; N],
}

pub(super) const EVENT: [&str; 2] = ["trigger", "timestamp"];
pub(super) const NEW_USER: [&str; 4] = ["id", "email", "name", "organizationId"];
pub(super) const SUBSCRIPTION: [&str; 5] = ["id", "interval", "invoiceId", "productKey", "seatsUsed"];

impl<'a, const N: usize> Section<'a, N> {
    fn new(names: &'static [&'static str; N]) -> Self {
        Self { kind: Kind::Null, fields: [const { Field::Absent }; N], names }
    }

    fn look(&mut self, json: &'a str) {
        self.kind = Kind::of(json);
        for (name, value) in Members::of(json) {
            if let Some(known) = self.names.iter().position(|known| *known == name) {
                self.fields[known] = Field::of(value);
            }
        }
    }
}

impl Default for Section<'_, 2> {
    fn default() -> Self {
        Self::new(&EVENT)
    }
}

impl Default for Section<'_, 4> {
    fn default() -> Self {
        Self::new(&NEW_USER)
    }
}

impl Default for Section<'_, 5> {
    fn default() -> Self {
        Self::new(&SUBSCRIPTION)
    }
}

impl<'a> Context<'a> {
    /// Looks at a context that is known to be a JSON object.
    pub(super) fn look(json: &'a str) -> Self {
        let mut context = Self::default();
        for (name, value) in Members::of(json) {
            match &*name {
                "event" => context.event.look(value),
                "newUser" => context.new_user.look(value),
                "subscription" => context.subscription.look(value),
                _ => {}
            }
        }
        context
    }

    pub(super) fn trigger(&self) -> &Field<'a> {
        &self.event.fields[0]
    }

    pub(super) fn timestamp(&self) -> &Field<'a> {
        &self.event.fields[1]
    }

    pub(super) fn new_user_id(&self) -> &Field<'a> {
        &self.new_user.fields[0]
    }

    pub(super) fn interval(&self) -> &Field<'a> {
        &self.subscription.fields[1]
    }

    pub(super) fn invoice_id(&self) -> &Field<'a> {
        &self.subscription.fields[2]
    }
}
