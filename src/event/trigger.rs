//! What happened, as far as metrics may tell: a closed list.

/// `context.event.trigger`, reduced to the known ones of `cello/FACTS.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// `new-signup`
    NewSignup,
    /// `demo-call-booked`
    DemoCallBooked,
    /// `demo-call-attended`
    DemoCallAttended,
    /// `demo-call-canceled`
    DemoCallCanceled,
    /// `subscription-created`
    SubscriptionCreated,
    /// `subscription-updated`
    SubscriptionUpdated,
    /// `subscription-canceled`
    SubscriptionCanceled,
    /// `invoice-paid`
    InvoicePaid,
    /// `charge-refunded`
    ChargeRefunded,
    /// A trigger that Cello does not list.
    Other,
    /// No trigger at all.
    None,
}

impl Trigger {
    /// All of them; the position is the number that is stored, so only ever append.
    pub const ALL: [Trigger; 11] = [
        Trigger::NewSignup,
        Trigger::DemoCallBooked,
        Trigger::DemoCallAttended,
        Trigger::DemoCallCanceled,
        Trigger::SubscriptionCreated,
        Trigger::SubscriptionUpdated,
        Trigger::SubscriptionCanceled,
        Trigger::InvoicePaid,
        Trigger::ChargeRefunded,
        Trigger::Other,
        Trigger::None,
    ];

    /// Cello's spelling, and the metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Trigger::NewSignup => "new-signup",
            Trigger::DemoCallBooked => "demo-call-booked",
            Trigger::DemoCallAttended => "demo-call-attended",
            Trigger::DemoCallCanceled => "demo-call-canceled",
            Trigger::SubscriptionCreated => "subscription-created",
            Trigger::SubscriptionUpdated => "subscription-updated",
            Trigger::SubscriptionCanceled => "subscription-canceled",
            Trigger::InvoicePaid => "invoice-paid",
            Trigger::ChargeRefunded => "charge-refunded",
            Trigger::Other => "other",
            Trigger::None => "none",
        }
    }

    /// The triggers that Cello knows.
    pub fn known() -> impl Iterator<Item = Trigger> {
        Self::ALL.into_iter().filter(|trigger| !matches!(trigger, Trigger::Other | Trigger::None))
    }

    /// The known trigger of that name, or [`Trigger::Other`].
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self::known().find(|trigger| trigger.as_str() == name).unwrap_or(Trigger::Other)
    }

    /// The number that is stored.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The trigger of a stored number; one that a newer release wrote is [`Trigger::Other`].
    #[must_use]
    pub fn from_code(code: u8) -> Self {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(Trigger::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_numbers_lead_back_to_their_trigger() {
        for trigger in Trigger::ALL {
            assert_eq!(Trigger::from_code(trigger.code()), trigger);
        }
        assert_eq!(Trigger::from_code(250), Trigger::Other);
    }

    #[test]
    fn only_cellos_own_names_are_known() {
        assert_eq!(Trigger::from_name("invoice-paid"), Trigger::InvoicePaid);
        assert_eq!(Trigger::from_name("none"), Trigger::Other);
    }
}
