//! Why an event was not delivered: the one closed list that metrics, logs, API and dead letters share.

use std::fmt;
use std::str::FromStr;

/// Declares the enum, its stable names and the list of all of them from one table.
macro_rules! reasons {
    ($($variant:ident = $name:literal, $help:literal;)*) => {
        /// A closed reason; its name is stable and the same everywhere.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $help] $variant,)*
        }

        impl Reason {
            /// Every reason there is, in the order of the table.
            pub const ALL: &'static [Reason] = &[$(Reason::$variant,)*];

            /// The stable name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Reason::$variant => $name,)* }
            }
        }
    };
}

reasons! {
    Http400 = "http_400", "Cello answered 400.";
    Http401 = "http_401", "Cello answered 401.";
    Http403 = "http_403", "Cello answered 403.";
    Http404 = "http_404", "Cello answered 404.";
    Http405 = "http_405", "Cello answered 405.";
    Http408 = "http_408", "Cello answered 408.";
    Http409 = "http_409", "Cello answered 409.";
    Http410 = "http_410", "Cello answered 410.";
    Http413 = "http_413", "Cello answered 413.";
    Http422 = "http_422", "Cello answered 422.";
    Http425 = "http_425", "Cello answered 425.";
    Http429 = "http_429", "Cello answered 429.";
    Http3xx = "http_3xx", "A redirect; never followed.";
    Http4xx = "http_4xx", "Any other 4xx.";
    Http5xx = "http_5xx", "Any 5xx.";
    SuccessFalse = "success_false", "A 2xx whose JSON says `\"success\": false`.";
    NotJson = "not_json", "A 2xx (or 1xx) whose body is not JSON.";
    Dns = "dns", "The name of Cello's host could not be resolved.";
    Connect = "connect", "No connection could be made.";
    Tls = "tls", "The TLS handshake failed.";
    Timeout = "timeout", "No answer in time.";
    Reset = "reset", "The connection broke before the answer was complete.";
    Credentials = "credentials", "No valid access token: the keys are missing or refused.";
    MassRefusal = "mass_refusal", "Many different users' events were refused in a row.";
    Exhausted = "exhausted", "Given up: too many strikes over too long a time.";
    Ambiguous = "ambiguous", "The outcome of a sent request is unknown and `forward.ambiguous` is `dead`.";
    Corrupt = "corrupt", "The stored event does not match its checksum.";
    DeadLettersFull = "dead_letters_full", "Refused, but dead letters already take their share of the outbox.";
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of a reason.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("unknown reason")]
pub struct UnknownReason;

impl FromStr for Reason {
    type Err = UnknownReason;

    fn from_str(name: &str) -> Result<Self, UnknownReason> {
        Self::ALL.iter().copied().find(|reason| reason.as_str() == name).ok_or(UnknownReason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_name() {
        for reason in Reason::ALL {
            assert_eq!(reason.as_str().parse(), Ok(*reason));
        }
        assert_eq!("http_418".parse::<Reason>(), Err(UnknownReason));
    }
}
