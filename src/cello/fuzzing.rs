//! What fuzz targets may see of this module; in no other build.

use std::time::Duration;

use crate::clock::Timestamp;

pub use super::token::fuzzing::{TokenAnswer, token_answer};

/// How long a `Retry-After` asks to wait.
#[must_use]
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    super::retry_after::parse(value, now)
}
