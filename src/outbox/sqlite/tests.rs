//! What a store is opened with, and how an opening fails.

use super::*;

#[test]
fn a_store_that_keeps_all_has_room_without_end_and_remembers_for_longer_than_anybody_lives() {
    let Settings { dir, upstream, remember, key_remember, max_bytes, remember_max, key_max_bytes, .. } =
        Settings::keeping_all(Path::new("outbox"), "https://api.example");
    assert_eq!((dir.as_path(), upstream.as_str()), (Path::new("outbox"), "https://api.example"));
    for time in [remember, key_remember] {
        assert_eq!(time.as_secs() / 86_400 / 365, 100);
    }
    for room in [max_bytes, remember_max, key_max_bytes] {
        assert!((1 << 60..i64::MAX as u64).contains(&room), "{room}: SQLite has to hold it too");
    }
}

#[test]
fn an_opening_that_fails_tells_what_can_be_done_about_it() {
    let failed = |failure| open_error(Path::new("/var/outbox.db"), failure).to_string();
    let code = |code| {
        let error = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        failed(Failure::Fault(Fault::from(error)))
    };
    assert_eq!(code(rusqlite::ffi::SQLITE_READONLY), "/var/outbox.db is read-only");
    assert!(code(rusqlite::ffi::SQLITE_PERM).starts_with("no permission for /var/outbox.db"));
    for other in [rusqlite::ffi::SQLITE_IOERR_READ, rusqlite::ffi::SQLITE_CORRUPT] {
        let said = rusqlite::ffi::Error::new(other);
        assert_eq!(code(other), format!("cannot open the outbox: {said}"));
    }
    let missing = OpenError::Missing { path: PathBuf::from("/var/outbox") };
    assert_eq!(failed(Failure::Refused(missing)), "there is no outbox in /var/outbox");
}
