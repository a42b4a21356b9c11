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
    // A buffer that is full needs no second allocation to be shared.
    let mut out = Vec::with_capacity(plain_len(ucc, user, price, currency, context));
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

/// How long the event is if no string of it needs an escape.
fn plain_len(ucc: &str, user: &str, price: &str, currency: Option<&str>, context: &str) -> usize {
    let quoted = |text: &str| text.len() + 2;
    let price = if price.is_empty() { 0 } else { PRICE.len() + price.len() };
    let currency = currency.map_or(0, |currency| CURRENCY.len() + quoted(currency));
    let names = UCC.len() + USER.len() + CONTEXT.len() + END.len();
    names + quoted(ucc) + quoted(user) + price + currency + context.len()
}

/// Writes a JSON string.
fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string to memory does not fail");
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;

    #[test]
    fn it_is_known_before_how_long_an_event_without_escapes_gets() {
        for price in [None, Some("12.50")] {
            for currency in [None, Some("EUR")] {
                let (price_field, currency_field) = (
                    price.map_or(Field::Absent, Field::Number),
                    currency.map_or(Field::Absent, |currency| Field::Text(Cow::Borrowed(currency))),
                );
                let body = encode("code", "user-1", &price_field, &currency_field, r#"{"a":1}"#);
                let known = plain_len("code", "user-1", price.unwrap_or_default(), currency, r#"{"a":1}"#);
                assert_eq!(body.len(), known, "{price:?} {currency:?}");
            }
        }
    }
}
