use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::clock::Timestamp;

/// 2022-10-05T14:14:34.007Z
const NOW: Timestamp = Timestamp::from_millis(1_664_979_274_007);

fn home() -> (TempDir, Home) {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(dir.path());
    (dir, home)
}

fn rights(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn the_directory_is_made_with_what_is_missing_above_it_and_is_for_its_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let home = Home::new(&dir.path().join("some/where/outbox"));
    home.create().unwrap();
    assert_eq!(rights(&dir.path().join("some/where/outbox")), 0o700);
    assert_eq!(rights(&dir.path().join("some/where")) & 0o700, 0o700);
    home.create().expect("it is there");
}

#[test]
fn a_directory_that_another_makes_at_the_same_time_will_do() {
    let dir = tempfile::tempdir().unwrap();
    make_dir(dir.path(), 0o700).expect("it is there");
}

#[test]
fn where_no_directory_can_be_made_that_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let Err(OpenError::Create { path, .. }) = Home::new(&file.join("outbox")).create() else { panic!("made") };
    assert_eq!(path, file.join("outbox"));
}

#[test]
fn a_path_without_a_directory_is_below_the_present_one() {
    assert!(is_here(Path::new("")) && is_here(Path::new("/")) && !is_here(Path::new("/no/such")));
    assert_eq!(parent(Path::new("outbox")), Some(Path::new(".")));
    assert_eq!(parent(Path::new("var/outbox")), Some(Path::new("var")));
    assert_eq!(parent(Path::new("/")), None);
}

#[test]
fn names_that_cannot_be_made_durable_are_no_success() {
    let (dir, home) = home();
    home.sync().unwrap();
    drop(dir);
    assert!(home.sync().is_err());
}

#[test]
fn a_second_lock_names_the_holder() {
    let (dir, home) = home();
    let held = home.lock().unwrap();
    let holder = || {
        let Err(OpenError::Locked { holder }) = home.lock() else { panic!("locked twice") };
        holder
    };
    let named = holder();
    assert!(named.starts_with(&format!("process {} on ", std::process::id())), "{named}");
    fs::write(dir.path().join("lock"), b"").unwrap();
    assert_eq!(holder(), "another process", "on a full disk it could not be written down");
    drop(held);
    assert!(home.lock().is_ok());
}

#[test]
fn only_a_full_disk_or_quota_may_keep_the_holder_from_being_written_down() {
    for full in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
        assert!(unless_full(Err(full.into())).is_ok());
    }
    let (dir, home) = home();
    home.lock().unwrap();
    let unwritable = File::open(dir.path().join("lock")).unwrap();
    assert!(write_holder(&unwritable).is_err());
}

#[test]
fn a_lock_on_a_file_that_others_do_not_see_is_none() {
    let (dir, home) = home();
    let held = home.lock().unwrap();
    assert!(home.is_locked_by(&held));
    fs::remove_file(dir.path().join("lock")).unwrap();
    assert!(!home.is_locked_by(&held), "gone");
    let other = home.lock().unwrap();
    assert!(!home.is_locked_by(&held) && home.is_locked_by(&other), "replaced");
}

#[test]
fn an_empty_database_is_made_for_its_owner_alone_and_one_that_is_there_is_kept() {
    let (_dir, home) = home();
    home.create_database().unwrap();
    assert_eq!((fs::read(home.database()).unwrap(), rights(home.database())), (Vec::new(), 0o600));
    fs::write(home.database(), b"events").unwrap();
    home.create_database().unwrap();
    assert_eq!(fs::read(home.database()).unwrap(), b"events");
}

#[test]
fn a_volume_is_measured_in_bytes() {
    let (dir, home) = home();
    let stat = rustix::fs::statvfs(dir.path()).unwrap();
    let (total, free) = (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize);
    let space = home.space().unwrap();
    assert_eq!(space.total, total);
    // Others write to that volume too.
    assert!((free / 2..=free.saturating_mul(2)).contains(&space.free), "{} of {free}", space.free);
}

#[test]
fn the_reserve_takes_its_room_and_gives_it_up_but_once() {
    let (dir, home) = home();
    assert_eq!(home.reserve_bytes(), 0);
    assert!(!home.free_reserve());
    home.make_reserve(1 << 20).unwrap();
    assert_eq!(home.reserve_bytes(), 1 << 20);
    let taken = fs::metadata(dir.path().join("reserve")).unwrap().blocks() * 512;
    assert!(taken >= 1 << 20, "{taken}: a hole is no room");
    assert!(home.free_reserve() && !home.free_reserve());
    assert_eq!(home.reserve_bytes(), 0);
}

#[test]
fn a_reserve_that_the_volume_has_no_room_for_leaves_nothing() {
    let (dir, home) = home();
    assert!(home.make_reserve(i64::MAX as u64).is_err());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn the_wal_is_as_long_as_its_file() {
    let (_dir, home) = home();
    assert_eq!(home.wal_bytes(), 0);
    fs::write(home.wal(), b"frames").unwrap();
    assert_eq!(home.wal_bytes(), 6);
}

#[test]
fn a_damaged_file_never_replaces_an_earlier_one() {
    let (_dir, home) = home();
    let stem = "outbox-20221005T141434007Z";
    let names = ["", "-2", "-3"].map(|again| format!("{stem}{again}.damaged.db"));
    for (count, expected) in names.iter().enumerate() {
        assert_eq!(home.damaged_files(), count as u64);
        fs::write(home.database(), expected).unwrap();
        assert_eq!(home.begin_quarantine(NOW).unwrap(), *expected);
        home.move_aside(expected).unwrap();
        home.end_quarantine().unwrap();
        assert_eq!(fs::read_to_string(home.named(expected)).unwrap(), *expected);
    }
    let mut sorted = names.to_vec();
    sorted.sort();
    assert_eq!(home.damaged_names(), sorted);
}

#[test]
fn a_move_that_was_begun_goes_on_under_the_same_name_until_it_is_ended() {
    let (dir, home) = home();
    assert_eq!(home.quarantine(), None);
    let name = home.begin_quarantine(NOW).unwrap();
    assert_eq!(home.quarantine().as_ref(), Some(&name));
    let later = Timestamp::from_millis(NOW.as_millis() + 1);
    assert_eq!(home.begin_quarantine(later).unwrap(), name);
    fs::write(dir.path().join("quarantine"), &name[..20]).unwrap();
    assert_eq!(home.quarantine(), None, "one that was not written whole was not acted on");
    home.end_quarantine().unwrap();
    assert_ne!(home.begin_quarantine(later).unwrap(), name);
}

#[test]
fn a_move_that_was_cut_off_goes_on_with_the_wal_that_it_moved_and_not_with_one_that_a_look_made_since() {
    let (_dir, home) = home();
    fs::write(home.database(), b"pages").unwrap();
    fs::write(home.named("a.damaged.db-wal"), b"frames").unwrap();
    fs::write(home.wal(), b"").unwrap();
    home.move_aside("a.damaged.db").unwrap();
    assert_eq!(fs::read(home.named("a.damaged.db-wal")).unwrap(), b"frames");
    assert!(home.named("a.damaged.db").exists() && !home.wal().exists());
}

#[test]
fn the_database_is_moved_with_its_companions_and_not_without_one_that_cannot_be() {
    let (dir, home) = home();
    fs::write(home.database(), b"pages").unwrap();
    fs::write(home.wal(), b"frames").unwrap();
    fs::create_dir(dir.path().join("a.damaged.db-wal")).unwrap();
    assert!(home.move_aside("a.damaged.db").is_err());
    assert!(home.database().exists() && home.wal().exists() && home.damaged_files() == 0);
    home.move_aside("b.damaged.db").unwrap();
    assert!(!home.database().exists() && !home.wal().exists());
    assert_eq!(fs::read(home.named("b.damaged.db-wal")).unwrap(), b"frames");
    fs::write(home.database(), b"fresh").unwrap();
    home.move_aside("b.damaged.db").expect("that was done before");
    assert_eq!(fs::read(home.database()).unwrap(), b"fresh");
}
