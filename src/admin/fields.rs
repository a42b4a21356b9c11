//! The fields of a request's JSON object, taken strictly.
//!
//! A misspelt `dry_run`, or one that is `"true"` in quotes, must not turn a question into a deed.

use serde_json::Value;

use super::reply::Refusal;

/// Refuses fields that are not in `known`.
pub(super) fn only(body: &Value, known: &[&str]) -> Result<(), Refusal> {
    let mut names = body.as_object().into_iter().flat_map(|fields| fields.keys());
    match names.find(|name| !known.contains(&name.as_str())) {
        None => Ok(()),
        Some(unknown) if known.is_empty() => Err(Refusal::bad(format!("unknown field {unknown}; there are none"))),
        Some(unknown) => Err(Refusal::bad(format!("unknown field {unknown}; known: {}", known.join(", ")))),
    }
}

/// `true` or `false`; absent and `null` are `false`.
pub(super) fn flag(body: &Value, name: &str) -> Result<bool, Refusal> {
    match body.get(name) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(_) => Err(Refusal::bad(format!("{name} must be true or false"))),
    }
}

/// A whole number over 0, if there is one.
pub(super) fn whole(body: &Value, name: &str) -> Result<Option<u64>, Refusal> {
    let number = match body.get(name) {
        None | Some(Value::Null) => return Ok(None),
        Some(number) => number_of(number),
    };
    let number = number.filter(|number| *number > 0);
    number.map(Some).ok_or_else(|| Refusal::bad(format!("{name} must be a whole number over 0")))
}

/// The largest number that is taken: beyond it, not every JSON parser knows one from the next.
pub(super) const MAX_NUMBER: u64 = 1 << 53;

/// A whole number; JSON makes no difference between 5 and 5.0.
pub(super) fn number_of(value: &Value) -> Option<u64> {
    let whole = |number: &f64| *number >= 0.0 && number.fract() == 0.0;
    let number = value.as_u64().or_else(|| value.as_f64().filter(whole).map(|number| number as u64));
    number.filter(|number| *number <= MAX_NUMBER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_flag_that_is_not_true_or_false_is_refused_and_never_taken_for_no() {
        let flag = |value: Value| flag(&json!({ "dry_run": value }), "dry_run").ok();
        assert_eq!((flag(json!(true)), flag(json!(false)), flag(json!(null))), (Some(true), Some(false), Some(false)));
        for odd in [json!("true"), json!(1), json!([]), json!({})] {
            assert_eq!(flag(odd.clone()), None, "{odd}");
        }
    }

    #[test]
    fn a_misspelt_field_is_refused() {
        assert!(only(&json!({"user": "u", "dryRun": true}), &["user", "dry_run"]).is_err());
        assert!(only(&json!({"user": "u", "dry_run": true}), &["user", "dry_run"]).is_ok());
        assert!(only(&json!({"seconds": 1}), &[]).is_err() && only(&json!({}), &[]).is_ok());
    }

    #[test]
    fn a_whole_number_may_have_a_point_but_no_fraction() {
        let whole = |value: Value| whole(&json!({ "seconds": value }), "seconds").ok();
        assert_eq!(
            (whole(json!(5)), whole(json!(5.0)), whole(json!(null))),
            (Some(Some(5)), Some(Some(5)), Some(None))
        );
        for odd in [json!(0), json!(-1), json!(1.5), json!("5"), json!(1e300), json!(MAX_NUMBER + 1)] {
            assert_eq!(whole(odd.clone()), None, "{odd}");
        }
    }
}
