//! Files that the process may have open. Each connection is one, and apps that never close theirs must not use up what
//! the store, probes and calls to Cello need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::listeners::CONTROL_LIMITS;
use crate::cello::CONNECTING_MAX;

/// All but connections of apps, and those to Cello that are in use: those that are being made; those of operators, probes
/// and Prometheus; the store's files, twice while it is opened anew; listeners, keys, lookups of names.
const OTHERS: usize = CONNECTING_MAX + 3 * CONTROL_LIMITS.max_connections + 64;

/// Takes as many as its hard limit says. What is given without asking (1,024, most often) is for programs that cannot
/// count further.
pub(crate) fn raise_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Refused where the system's own maximum is lower; then what is given has to do.
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).ok();
}

/// How many of `wanted` connections apps may have, where `calls` to Cello are made at the same time.
pub(super) fn left_for_apps(wanted: usize, calls: usize) -> usize {
    let limit = getrlimit(Resource::Nofile).current.map_or(usize::MAX, |most| most as usize);
    wanted.min(left_of(limit, OTHERS + calls))
}

/// All but what others need; where that is nearly all, they have to do with half.
fn left_of(limit: usize, others: usize) -> usize {
    limit.saturating_sub(others).max(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_get_what_others_do_not_need_and_half_of_little() {
        let left = |limit| left_of(limit, 300);
        assert_eq!((left(1_024), left(600), left(400), left(20)), (724, 300, 200, 10));
        assert_eq!(left_of(usize::MAX, 300), usize::MAX - 300);
    }
}
