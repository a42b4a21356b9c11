//! JSON as the models of the targets see it: an object is the list of its members, none forgotten.

use std::collections::HashSet;
use std::fmt;

use serde::Deserializer;
use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in their order, repeated ones included, with each value's own bytes; `None` if
/// it is no object, or if a name is no Unicode text.
pub fn members(json: &str) -> Option<Vec<(String, &str)>> {
    struct Members;
    impl<'a> Visitor<'a> for Members {
        type Value = Vec<(String, &'a str)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut members = Vec::new();
            while let Some((name, value)) = map.next_entry::<String, &'a RawValue>()? {
                members.push((name, value.get()));
            }
            Ok(members)
        }
    }
    serde_json::Deserializer::from_str(json).deserialize_map(Members).ok()
}

/// Whether no name occurs twice.
#[allow(dead_code, reason = "not all targets need it")]
pub fn all_different(members: &[(String, &str)]) -> bool {
    let mut seen = HashSet::new();
    members.iter().all(|(name, _)| seen.insert(name))
}

/// The value of that name, if it is there and not `null`.
pub fn get<'a>(members: &[(String, &'a str)], name: &str) -> Option<&'a str> {
    members.iter().find(|(is, _)| is == name).map(|(_, value)| *value).filter(|value| *value != "null")
}

/// The text of a JSON string.
pub fn text(json: &str) -> Option<String> {
    serde_json::from_str(json).ok()
}
