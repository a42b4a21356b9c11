//! What an operator sees of the token.

use crate::cello::Access;
use crate::clock::Timestamp;
use crate::reason::Reason;

/// The token as its owner last told of it. Holds no secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenStatus {
    /// Whether calls can be authenticated.
    pub access: Access,
    /// When the token in use was given.
    pub obtained_at: Option<Timestamp>,
    /// When the token in use, or the last one, ends.
    pub expires_at: Option<Timestamp>,
    /// When it is to be replaced; past while Cello gives no newer one.
    pub refresh_at: Option<Timestamp>,
    /// What kept a newer one away; gone once one came.
    pub last_error: Option<(Timestamp, String)>,
    /// The same by name, where Cello was asked.
    pub failure: Option<Reason>,
    /// Cello refuses the keys that are configured now, even if an older token still lives.
    pub keys_refused: bool,
}

/// One word for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenState {
    /// None there, and none was.
    None,
    /// In use.
    Valid,
    /// In use, and overdue to be replaced.
    Ageing,
    /// The last one ended before another came.
    Expired,
    /// Cello refuses the keys.
    Refused,
    /// None there yet; asking failed and is tried again.
    BackingOff,
}

impl TokenState {
    /// The name in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            TokenState::None => "none",
            TokenState::Valid => "valid",
            TokenState::Ageing => "ageing",
            TokenState::Expired => "expired",
            TokenState::Refused => "refused",
            TokenState::BackingOff => "backing_off",
        }
    }
}

impl TokenStatus {
    /// One word for how it stands at `now`.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> TokenState {
        let over = |moment: Option<Timestamp>| moment.is_some_and(|at| at <= now);
        match self.access {
            Access::Refused(_) => TokenState::Refused,
            Access::Missing(_) => TokenState::None,
            Access::Granted if over(self.expires_at) => TokenState::Expired,
            // A failure must have been told: refreshing takes a moment even when all is well.
            Access::Granted if over(self.refresh_at) && self.last_error.is_some() => TokenState::Ageing,
            Access::Granted if self.obtained_at.is_none() => TokenState::None,
            Access::Granted => TokenState::Valid,
            Access::Waiting if over(self.expires_at) => TokenState::Expired,
            Access::Waiting if self.last_error.is_some() => TokenState::BackingOff,
            Access::Waiting => TokenState::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    /// They are read from outside.
    #[test]
    fn the_names_stay() {
        use TokenState::{Ageing, BackingOff, Expired, None, Refused, Valid};
        let names = [None, Valid, Ageing, Expired, Refused, BackingOff].map(TokenState::as_str);
        assert_eq!(names, ["none", "valid", "ageing", "expired", "refused", "backing_off"]);
    }

    #[test]
    fn each_standing_has_its_word() {
        let held = TokenStatus {
            access: Access::Granted,
            obtained_at: Some(at(0)),
            expires_at: Some(at(100)),
            refresh_at: Some(at(70)),
            ..TokenStatus::default()
        };
        let failed = TokenStatus { last_error: Some((at(75), "status 500".to_owned())), ..held.clone() };
        assert_eq!((held.state(at(10)), held.state(at(71))), (TokenState::Valid, TokenState::Valid));
        assert_eq!(failed.state(at(80)), TokenState::Ageing);
        let waiting = TokenStatus { access: Access::Waiting, ..failed.clone() };
        assert_eq!((failed.state(at(100)), waiting.state(at(100))), (TokenState::Expired, TokenState::Expired));
        let never = TokenStatus { expires_at: None, ..waiting };
        assert_eq!(
            (never.state(at(1)), TokenStatus::default().state(at(1))),
            (TokenState::BackingOff, TokenState::None)
        );
        assert_eq!(TokenStatus { access: Access::Refused(at(1)), ..failed }.state(at(2)), TokenState::Refused);
        let open = TokenStatus { access: Access::Granted, ..TokenStatus::default() };
        assert_eq!(open.state(at(1)), TokenState::None, "without authentication there is no token");
    }
}
