//! What fuzz targets may see of this module; in no other build.

use std::time::Duration;

use secrecy::ExposeSecret;

/// What was read from an answer to `POST /token`.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenAnswer {
    /// The access token.
    pub token: String,
    /// How long it lives.
    pub life: Duration,
    /// Whether that was taken for lack of a better word.
    pub unsaid: bool,
    /// The refresh token.
    pub refresh: Option<String>,
    /// How long it lives, if that was said.
    pub refresh_life: Option<Duration>,
}

/// Reads the body of a 2xx; `None` if there is no token in it that can be used.
#[must_use]
pub fn token_answer(body: &[u8]) -> Option<TokenAnswer> {
    let (granted, unsaid) = super::exchange::read(body)?;
    Some(TokenAnswer {
        token: granted.value.expose_secret().to_owned(),
        life: granted.life,
        unsaid,
        refresh: granted.refresh.map(|token| token.expose_secret().to_owned()),
        refresh_life: granted.refresh_life,
    })
}
