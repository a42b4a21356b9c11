//! A batch: taken whole if every event in it would be taken alone, refused whole otherwise.
#![no_main]

use cello_relay::event::{Checked, Checks, read};
use cello_relay::ingress::fuzzing::batch;
use libfuzzer_sys::fuzz_target;
use serde_json::value::RawValue;

const MOST: usize = 6;
const BODY: usize = 300;

// The first byte says in which of the two forms.
fuzz_target!(|input: &[u8]| {
    let Some((form, body)) = input.split_first() else { return };
    let lines = form & 1 == 1;
    let got = batch(body, lines, MOST, BODY);
    match (model(body, lines), got) {
        (Some(expected), Ok(got)) => {
            let seen = |checked: &Checked| (checked.event.clone(), checked.stripped.clone(), checked.stripped_count);
            let (expected, got): (Vec<_>, Vec<_>) =
                (expected.iter().map(seen).collect(), got.iter().map(seen).collect());
            assert_eq!(expected, got);
        }
        (None, Err(status)) => assert!(status == 400 || status == 413, "{status}"),
        (expected, got) => panic!("the model says {expected:?}, the relay {got:?}"),
    }
});

fn model(body: &[u8], lines: bool) -> Option<Vec<Checked>> {
    let body = std::str::from_utf8(body).ok()?;
    let parts: Vec<&str> = if lines {
        body.split('\n').filter(|line| !line.trim_ascii().is_empty()).collect()
    } else {
        serde_json::from_str::<Vec<&RawValue>>(body).ok()?.into_iter().map(RawValue::get).collect()
    };
    if parts.is_empty() || parts.len() > MOST {
        return None;
    }
    let each = parts.into_iter().map(|part| read(part.as_bytes(), Checks::Warn).ok().filter(|_| part.len() <= BODY));
    each.collect()
}
