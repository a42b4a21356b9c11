//! The bytes that are stored and sent: the known fields only, in one buffer.

use bytes::Bytes;

use super::field::Field;

const UCC: &[u8] = br#"{"eventName":"ReferralUpdated","payload":{"ucc":"#;
const USER: &[u8] = br#","newUserId":"#;
const PRICE: &[u8] = br#","price":"#;
const CURRENCY: &[u8] = br#","currency":"#;
const CONTEXT: &[u8] = br#"},"context":"#;
const END: &[u8] = b"}";

/// Writes the event. `price` keeps its digits, `context` its bytes.
pub(super) fn encode(ucc: &str, user: &str, price: &Field<'_>, currency: &Field<'_>, context: &str) -> Bytes {
    let price = if let Field::Number(digits) = price { *digits } else { "" };
    let currency = currency.as_text();
    let mut length = [UCC, USER, CONTEXT, END].map(<[u8]>::len).iter().sum::<usize>() + context.len();
    length += quoted_len(ucc) + quoted_len(user);
    length += if price.is_empty() { 0 } else { PRICE.len() + price.len() };
    length += currency.map_or(0, |currency| CURRENCY.len() + quoted_len(currency));
    // A buffer that is full needs no second allocation to be shared.
    let mut out = Vec::with_capacity(length);
    out.extend_from_slice(UCC);
    string(&mut out, ucc);
    out.extend_from_slice(USER);
    string(&mut out, user);
    if !price.is_empty() {
        out.extend_from_slice(PRICE);
        out.extend_from_slice(price.as_bytes());
    }
    if let Some(currency) = currency {
        out.extend_from_slice(CURRENCY);
        string(&mut out, currency);
    }
    out.extend_from_slice(CONTEXT);
    out.extend_from_slice(context.as_bytes());
    out.extend_from_slice(END);
    Bytes::from(out)
}

/// How long a JSON string is that needs no escape.
fn quoted_len(text: &str) -> usize {
    text.len() + 2
}

/// Writes a JSON string.
fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string to memory does not fail");
}
