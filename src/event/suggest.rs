//! "Did you mean …?"

/// Longer names are not compared: the time it takes grows with the square.
const COMPARED: usize = 64;

/// How alike (0–1) two names must be for one to be meant by the other.
const ALIKE: f64 = 0.85;

/// The name that was probably meant.
pub(super) fn closest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    if name.len() > COMPARED {
        return None;
    }
    let name = name.to_lowercase().replace(['_', ' '], "-");
    let scored = known.into_iter().map(|known| (strsim::jaro_winkler(&name, known), known));
    let best = scored.max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (best.0 >= ALIKE).then_some(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_name_leads_to_the_known_one_and_a_foreign_one_to_none() {
        let known = ["new-signup", "invoice-paid"];
        assert_eq!(closest("new-sigup", known), Some("new-signup"));
        assert_eq!(closest("NEW_SIGNUP", known), Some("new-signup"));
        assert_eq!(closest("user-left", known), None);
        let as_long_as_is_compared = "new-signup".repeat(7)[..COMPARED].to_owned();
        assert_eq!(closest(&as_long_as_is_compared, [as_long_as_is_compared.as_str()]), Some(&*as_long_as_is_compared));
        let longer = as_long_as_is_compared + "x";
        assert_eq!(closest(&longer, [longer.as_str()]), None, "the very same");
    }
}
