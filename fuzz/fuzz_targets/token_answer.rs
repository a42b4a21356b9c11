//! The answer to `POST /token`: a token comes out of it only if there is one that can be used.
#![no_main]

mod json;

use std::time::Duration;

use cello_relay::cello::fuzzing::{TokenAnswer, token_answer};
use json::{get, members, text};
use libfuzzer_sys::fuzz_target;

const KNOWN: [&str; 4] = ["accessToken", "expiresIn", "refreshToken", "refreshTokenExpiresIn"];

fuzz_target!(|body: &[u8]| {
    match (std::str::from_utf8(body), token_answer(body)) {
        (Ok(body), got) => assert_eq!(got, model(body)),
        // Bytes that are no text are passed over where nobody reads them.
        (Err(_), Some(got)) => assert_eq!(Some(got), model(&String::from_utf8_lossy(body))),
        (Err(_), None) => {}
    }
});

fn model(body: &str) -> Option<TokenAnswer> {
    serde_json::from_str::<serde::de::IgnoredAny>(body).ok()?;
    let members = members(body)?;
    if KNOWN.iter().any(|known| members.iter().filter(|(name, _)| name == known).count() > 1) {
        return None;
    }
    let token = get(&members, "accessToken").and_then(text)?;
    let fits_a_header = !token.is_empty() && token.bytes().all(|byte| byte == b'\t' || byte >= b' ' && byte != 0x7f);
    let seconds = |name| {
        let seconds: f64 = serde_json::from_str(get(&members, name)?).ok()?;
        (seconds.is_finite() && seconds >= 1.0).then(|| Duration::from_secs_f64(seconds.min(365.0 * 86_400.0)))
    };
    let life = seconds("expiresIn");
    fits_a_header.then(|| TokenAnswer {
        token,
        life: life.unwrap_or(Duration::from_secs(60)),
        unsaid: life.is_none(),
        refresh: get(&members, "refreshToken").and_then(text).filter(|token| !token.is_empty()),
        refresh_life: seconds("refreshTokenExpiresIn"),
    })
}
