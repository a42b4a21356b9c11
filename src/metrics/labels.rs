//! The closed sets of label values.

use super::Label;
use crate::event::Trigger;
use crate::reason::Reason;

/// Declares a closed set of label values.
macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $value:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $(#[doc = concat!("`", $value, "`")] $variant,)* }

        impl Label for $name {
            const ALL: &'static [Self] = &[$($name::$variant,)*];
            fn as_str(self) -> &'static str { match self { $($name::$variant => $value,)* } }
            fn index(self) -> usize { self as usize }
        }
    };
}

labels! {
    /// `route`: the template, never the path as received.
    Route { Events = "events", Batch = "batch", Read = "read", Other = "other", }
}
labels! {
    /// What is read through the relay.
    ReadRoute {
        ReferralCode = "referral_code", ActiveLink = "active_link", Reward = "reward", Depersonalize = "depersonalize",
    }
}
labels! {
    /// `code` of an answer of the relay: those that occur, and one for the rest.
    Code {
        C200 = "200", C201 = "201", C204 = "204", C400 = "400", C401 = "401", C403 = "403", C404 = "404", C405 = "405",
        C408 = "408", C413 = "413", C415 = "415", C422 = "422", C429 = "429", C500 = "500", C502 = "502", C503 = "503",
        C504 = "504", Other = "other",
    }
}
labels! {
    /// Why an event was refused at the door.
    Rejection {
        InvalidJson = "invalid_json", Schema = "schema", TooLarge = "too_large", MediaType = "media_type",
        OutboxFull = "outbox_full", Disk = "disk", Draining = "draining", Host = "host", Unauthorized = "unauthorized",
        KeyReused = "key_reused",
    }
}
labels! {
    /// Why a field was stripped.
    Stripped { Unknown = "unknown", }
}
labels! {
    /// What an accepted event was warned about.
    Warning {
        Currency = "currency", Price = "price", Length = "length", Trigger = "trigger", Interval = "interval",
        Timestamp = "timestamp", Invoice = "invoice", UserMismatch = "user_mismatch", FieldType = "type",
    }
}
labels! {
    /// Where an undelivered or dead event is.
    Place { Pending = "pending", InFlight = "in_flight", Retrying = "retrying", Dead = "dead", }
}
labels! {
    /// Why an operator ended events.
    Discarded { Operator = "operator", Erased = "erased", }
}
labels! {
    /// Why an event was lost.
    Lost { Corrupt = "corrupt", }
}
labels! {
    /// What the store was doing when it failed.
    StoreError { Busy = "busy", Full = "full", Io = "io", Corrupt = "corrupt", Readonly = "readonly", Other = "other", }
}
labels! {
    /// What Cello is asked for.
    Operation { Token = "token", Events = "events", Read = "read", }
}
labels! {
    /// How a token is asked for.
    Grant { AccessKey = "access_key", RefreshToken = "refresh_token", }
}
labels! {
    /// Why a token was not given.
    RefreshFailure {
        Rejected = "rejected", Http429 = "http_429", Http5xx = "http_5xx", Network = "network", Decode = "decode",
        Missing = "missing", Other = "other",
    }
}
labels! {
    /// Why a token was thrown away.
    Invalidation { Http401 = "http_401", Rotated = "rotated", }
}
labels! {
    /// The life of the process.
    Phase { Starting = "starting", Serving = "serving", Terminating = "terminating", Draining = "draining", }
}
labels! {
    /// Log levels that are counted.
    LogLevel { Error = "error", Warn = "warn", Info = "info", }
}

impl Label for Reason {
    const ALL: &'static [Self] = Reason::ALL;
    fn as_str(self) -> &'static str {
        Reason::as_str(self)
    }
    fn index(self) -> usize {
        self as usize
    }
}

impl Label for Trigger {
    const ALL: &'static [Self] = &Trigger::ALL;
    fn as_str(self) -> &'static str {
        Trigger::as_str(self)
    }
    fn index(self) -> usize {
        self as usize
    }
}

impl Code {
    /// The label of a status.
    #[must_use]
    pub fn of(status: hyper::StatusCode) -> Self {
        Self::ALL.iter().copied().find(|code| code.as_str() == status.as_str()).unwrap_or(Code::Other)
    }
}
