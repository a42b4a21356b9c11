//! What fuzz targets may see of this module; in no other build.

use super::target::{Target, route};

/// The path that Cello would be asked for, and the decoded segment in it; `None` if the read is refused.
#[must_use]
pub fn read_path(path: &str) -> Option<(String, String)> {
    let (route, segment) = route(path)?;
    let target = Target::check(route, segment).ok()?;
    Some((target.path().to_string(), target.value().to_owned()))
}
