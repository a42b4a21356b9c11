//! Counts of everything that came in.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counts since the start, or since events were last forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    /// Events that came in.
    pub received: u64,
    /// Events that Cello has stored.
    pub counted: u64,
    /// Answers to events; those that got none are missing here.
    pub by_status: BTreeMap<u16, u64>,
    /// Token requests by grant.
    pub token_calls: TokenCalls,
    /// Requests of the other routes.
    pub reads: u64,
    /// Events that counted although one with the same idempotency key had.
    pub duplicates: u64,
    /// Events that counted with a lower `context.sequence` than one before of the same user.
    pub out_of_order: u64,
    /// Fields that Cello strips.
    pub unknown_fields: u64,
    /// Different users whose events counted.
    pub users: u64,
    /// Events no longer kept, or never: only counted.
    pub not_kept: u64,
}

/// Token requests by grant, whatever the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TokenCalls {
    /// With access keys.
    pub access_key: u64,
    /// With a refresh token.
    pub refresh_token: u64,
    /// With neither.
    pub malformed: u64,
    /// Of all these, not answered with tokens.
    pub refused: u64,
}
