//! The bytes that are stored and sent: the known fields only, in one buffer.

use bytes::Bytes;

use super::field::Field;

/// Writes the event. `price` keeps its digits, `context` its bytes.
pub(super) fn encode(ucc: &str, user: &str, price: &Field<'_>, currency: &Field<'_>, context: &str) -> Bytes {
    let price = if let Field::Number(digits) = price { *digits } else { "" };
    let currency = currency.as_text();
    let strings = ucc.len() + user.len() + currency.map_or(0, str::len);
    let mut out = Vec::with_capacity(128 + strings + price.len() + context.len());
    out.extend_from_slice(br#"{"eventName":"ReferralUpdated","payload":{"ucc":"#);
    string(&mut out, ucc);
    out.extend_from_slice(br#","newUserId":"#);
    string(&mut out, user);
    if !price.is_empty() {
        out.extend_from_slice(br#","price":"#);
        out.extend_from_slice(price.as_bytes());
    }
    if let Some(currency) = currency {
        out.extend_from_slice(br#","currency":"#);
        string(&mut out, currency);
    }
    out.extend_from_slice(br#"},"context":"#);
    out.extend_from_slice(context.as_bytes());
    out.push(b'}');
    Bytes::from(out)
}

/// Writes a JSON string.
fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string to memory does not fail");
}
