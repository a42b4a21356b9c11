//! The base URL that a file's events are for. Events accepted for one never go to another.
//!
//! A wrong byte makes another URL of it, and the relay would not start on its own file: so its checksum lies beside it.

use rusqlite::Result;

use super::sql::Sql;

const UPSTREAM: &str = "upstream";
const CHECKSUM: &str = "upstream_crc";

/// What a file is bound to, as the one who asks sees it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// The same base URL, or none.
    Here,
    /// Another one.
    Elsewhere(String),
    /// The same, and the file is damaged there.
    Damaged,
}

impl Binding {
    /// Whether a file's events are for `upstream`.
    pub(super) fn of(sql: &Sql, upstream: &str) -> Result<Self> {
        let Some(url) = base_url(sql)?.filter(|url| url != upstream) else { return Ok(Binding::Here) };
        // One that cannot be read says nothing: what may be for another environment is not sent to this one.
        let is_damaged = sql.meta(CHECKSUM).is_ok_and(|stored| stored == Some(checksum(upstream)));
        Ok(if is_damaged { Binding::Damaged } else { Binding::Elsewhere(url) })
    }
}

/// The base URL as it is in the file.
pub(super) fn base_url(sql: &Sql) -> Result<Option<String>> {
    sql.meta(UPSTREAM)
}

/// From now on the file's events are for `upstream`.
pub(super) fn bind(sql: &Sql, upstream: &str) -> Result<()> {
    sql.set_meta(UPSTREAM, upstream)?;
    sql.set_meta(CHECKSUM, &checksum(upstream))
}

fn checksum(upstream: &str) -> String {
    format!("{:08x}", crc32c::crc32c(upstream.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::sqlite::testing::Bench;

    const OURS: &str = "https://api.example";
    const OTHERS: &str = "https://api.examlle";

    #[test]
    fn a_file_is_for_the_base_url_that_it_was_bound_to_last() {
        let sql = Bench::with(&[], 0).store.sql;
        for (bound, other) in [(OURS, OTHERS), (OTHERS, OURS)] {
            bind(&sql, bound).unwrap();
            assert_eq!(base_url(&sql).unwrap().as_deref(), Some(bound));
            assert_eq!(Binding::of(&sql, bound).unwrap(), Binding::Here);
            assert_eq!(Binding::of(&sql, other).unwrap(), Binding::Elsewhere(bound.to_owned()));
        }
    }

    #[test]
    fn a_base_url_that_became_another_one_by_a_wrong_byte_is_damage_and_no_other_base_url() {
        let sql = Bench::with(&[], 0).store.sql;
        bind(&sql, OURS).unwrap();
        sql.set_meta(UPSTREAM, OTHERS).unwrap();
        assert_eq!(Binding::of(&sql, OURS).unwrap(), Binding::Damaged);
        assert_eq!(Binding::of(&sql, "https://third.example").unwrap(), Binding::Elsewhere(OTHERS.to_owned()));
        // A wrong checksum takes nothing from a base URL that is right.
        bind(&sql, OURS).unwrap();
        sql.set_meta(CHECKSUM, "0").unwrap();
        assert_eq!(Binding::of(&sql, OURS).unwrap(), Binding::Here);
    }

    #[test]
    fn a_checksum_that_cannot_be_read_makes_no_other_base_url_ours() {
        let bench = Bench::with(&[], 0);
        bind(&bench.store.sql, OTHERS).unwrap();
        let file = rusqlite::Connection::open(bench.env.home.database()).unwrap();
        let sql = "UPDATE meta SET value = CAST(x'ff' AS TEXT) WHERE key = ?";
        assert_eq!(file.execute(sql, [CHECKSUM]).unwrap(), 1);
        assert_eq!(Binding::of(&bench.store.sql, OURS).unwrap(), Binding::Elsewhere(OTHERS.to_owned()));
    }

    #[test]
    fn a_file_that_was_bound_without_a_checksum_is_for_its_base_url_and_one_that_was_not_for_any() {
        let sql = Bench::with(&[], 0).store.sql;
        sql.forget_meta(CHECKSUM).unwrap();
        sql.set_meta(UPSTREAM, OTHERS).unwrap();
        assert_eq!(Binding::of(&sql, OTHERS).unwrap(), Binding::Here);
        assert_eq!(Binding::of(&sql, OURS).unwrap(), Binding::Elsewhere(OTHERS.to_owned()));
        sql.forget_meta(UPSTREAM).unwrap();
        assert_eq!(Binding::of(&sql, OURS).unwrap(), Binding::Here);
    }
}
