//! The fields of `context` that Cello predefines. Only looked at: the context goes through byte for byte.

use super::cursor::Cursor;
use super::field::{Field, Kind};

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

    /// Of a section that is there twice nothing is kept of the first.
    fn look(&mut self, cursor: &mut Cursor<'a>) {
        self.fields = [const { Field::Absent }; N];
        let (names, fields) = (self.names, &mut self.fields);
        self.kind = cursor.object(|cursor, name| match names.iter().position(|known| *known == name) {
            Some(known) => fields[known] = cursor.field(),
            None => drop(cursor.value()),
        });
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
    /// Looks at the value at the cursor.
    pub(super) fn look(&mut self, cursor: &mut Cursor<'a>) {
        cursor.object(|cursor, name| match &*name {
            "event" => self.event.look(cursor),
            "newUser" => self.new_user.look(cursor),
            "subscription" => self.subscription.look(cursor),
            _ => drop(cursor.value()),
        });
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
