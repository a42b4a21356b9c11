//! The memory of a relay holds keys and personal data: a crash writes none of it down, and nobody else reads it.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Instant;

use crate::relay::{PATIENCE, Relay, Setup, by_user};
use crate::upstream::{UNREACHABLE, Upstream};

/// A user of a relay that is started by root.
const NOBODY: u32 = 65_533;

/// A shell in which whatever crashes may leave a core dump of any size.
fn where_dumps_are_allowed() -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"ulimit -S -c "$(ulimit -H -c)"; exec "$0" "$@""#]);
    shell
}

#[test]
fn a_crash_leaves_no_core_dump() {
    let setup = Setup::new(UNREACHABLE);
    let relay = setup.start_by(where_dumps_are_allowed());
    let limits = fs::read_to_string(format!("/proc/{}/limits", relay.pid())).expect("a running process");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");
    let ended = relay.abort();
    assert_eq!((ended.signal(), ended.core_dumped()), (Some(6), false), "{ended:?}");

    // The test can see a dump where there is one.
    let mut crash = where_dumps_are_allowed();
    crash.args(["sh", "-c", "kill -ABRT $$"]).current_dir(setup.dir());
    if !crash.status().expect("it runs").core_dumped() {
        println!("skipped: whether core dumps are off: this machine makes none of anything");
    }
}

#[test]
fn other_processes_of_the_relays_user_read_neither_its_memory_nor_its_keys() {
    let own = fs::metadata("/proc/self").expect("a process").uid();
    let setup = Setup::new(UNREACHABLE);
    let mut command = setup.command(&["run"]);
    if own == 0 {
        let Some(as_nobody) = setup.command_as(NOBODY, &[], &["run"]) else {
            println!("skipped: what others of a user read of its relay: another user cannot run it here");
            return;
        };
        command = as_nobody;
    }
    let relay = Relay::start(command);
    for secret in ["environ", "mem", "maps"] {
        let path = format!("/proc/{}/{secret}", relay.pid());
        let user = if own == 0 { NOBODY } else { own };
        assert_ne!(fs::metadata(&path).expect("a running process").uid(), user, "{path} is its user's");
        if own == 0 {
            let read = by_user(NOBODY, &["head", "-c1", &path]).output().expect("it runs");
            assert!(!read.status.success() && read.stdout.is_empty(), "{path} was read");
        } else {
            assert_eq!(fs::read(&path).expect_err("a closed file").kind(), ErrorKind::PermissionDenied, "{path}");
        }
    }
    // What it tells about itself it still finds out.
    let metrics = relay.metrics();
    for name in ["process_open_fds", "process_max_fds", "process_resident_memory_bytes", "process_start_time_seconds"] {
        assert!(crate::relay::sum(&metrics, name, "") > 0.0, "{name}:\n{metrics}");
    }
}

/// How often the text is in memory that the process may write to; `None` if it cannot be looked at.
fn copies_in_memory(pid: u32, text: &str) -> Option<usize> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).ok()?;
    let memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut copies = 0;
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, to) = line.split(' ').next()?.split_once('-')?;
        let (from, to) = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        let mut bytes = vec![0; usize::try_from(to - from).ok()?];
        // What was given back since is not there.
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            copies += memchr::memmem::find_iter(&bytes, text).count();
        }
    }
    Some(copies)
}

#[test]
fn keys_that_were_replaced_are_gone_from_memory() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let keys = setup.dir().join("keys");
    fs::create_dir(&keys).expect("a folder");
    let put = |which: &str| {
        let write = |name: &str, key: String| fs::write(keys.join(name), key).expect("a file");
        write("access-key-id", format!("canary-id-{which}\n"));
        write("secret-access-key", format!("canary-secret-of-many-characters-{which}\n"));
    };
    put("the-first-of-two");
    setup.unset("CELLO__ACCESS_KEY_ID").unset("CELLO__SECRET_ACCESS_KEY");
    setup.set("CELLO__CREDENTIALS_DIR", keys.to_str().expect("a path"));
    let mut relay = setup.start();
    let deliver = |relay: &Relay| {
        let event = r#"{"eventName":"ReferralUpdated","payload":{"ucc":"a","newUserId":"b"}}"#;
        relay.client().post("/events", event).expect("an answer");
        relay.wait_until_empty(PATIENCE);
    };
    deliver(&relay);
    // Its start would be written over by an allocator anyway.
    let pid = relay.pid();
    let copies = || copies_in_memory(pid, "characters-the-first-of-two");
    let Some(in_use) = copies() else {
        println!("skipped: what is left of keys: the memory of a relay can be read by root only");
        return;
    };
    assert!(in_use > 0, "keys in use are seen");
    put("the-second-one");
    relay.wait_for_event("credentials_changed");
    upstream.revoke_tokens();
    // The last copies are in the buffer of a connection, which the next requests write over.
    let give_up_at = Instant::now() + PATIENCE;
    while copies() != Some(0) {
        assert!(Instant::now() < give_up_at, "{:?} copies are left", copies());
        deliver(&relay);
    }
}
