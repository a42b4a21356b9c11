//! The relay at one moment: what the status and the reasons are made from.

use crate::cello::TokenStatus;
use crate::clock::Timestamp;
use crate::forwarder;
use crate::ingress::door::Note;
use crate::outbox::Stats;

/// Everything that is known of the relay. Holds no personal data and no secret.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// The moment.
    pub now: Timestamp,
    /// When this process began.
    pub started_at: Timestamp,
    /// Whether it was told to end, not only to drain.
    pub is_ending: bool,
    /// What does not change while it runs.
    pub about: About,
    /// The outbox as of its last commit.
    pub stats: Stats,
    /// Who empties it.
    pub forwarder: forwarder::Snapshot,
    /// The access token.
    pub token: TokenStatus,
    /// By how many seconds this clock is ahead of Cello's.
    pub clock_skew: Option<i64>,
    /// When events were last lost while this process ran.
    pub lost_at: Option<Timestamp>,
    /// The last warnings and refusals, newest first.
    pub door: Vec<Note>,
}

/// What does not change while a relay runs.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// `sandbox`, `production` or `custom`.
    pub environment: String,
    /// Where Cello is.
    pub base_url: String,
    /// `persistent` or `pod`.
    pub durability: String,
    /// How calls to it are authenticated.
    pub auth: Auth,
}

/// `cello.auth`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Auth {
    /// With a token that Cello gives for access keys.
    #[default]
    Keys,
    /// With what `cello.bearer_token_file` holds; there are no keys.
    Bearer,
    /// Not at all.
    None,
}
