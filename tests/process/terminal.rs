//! What only people see: questions, and how far long work is.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup};
use crate::upstream::Upstream;

/// Runs a subcommand on a terminal of its own, with these answers typed; gives all that was to be seen. Nothing where
/// there is no `script`.
fn on_a_terminal(setup: &Setup, arguments: &[&str], typed: &str) -> Option<String> {
    let command = setup.command(arguments);
    let program = command.get_program().to_str().expect("a plain path");
    let mut script = Command::new("script");
    script.args(["-qec", &format!("{program} {}", arguments.join(" ")), "/dev/null"]).env_clear().env("TERM", "xterm");
    script.env("PATH", "/usr/bin:/bin").env("SHELL", "/bin/sh");
    script.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(setup.dir());
    let spawned = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let Ok(mut child) = spawned else {
        println!("skipped: what people see: `script` is not installed");
        return None;
    };
    child.stdin.take().expect("a pipe").write_all(typed.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn with_dead(setup: &Setup, upstream: &Upstream) -> Relay {
    upstream.fault(r#"[{"path":"/events","status":400,"message":"no such ucc"}]"#);
    let relay = setup.start();
    for user in ["a", "b", "c"] {
        assert_eq!(relay.client().post("/events", &event(user, 1)).expect("an answer").status, 200);
    }
    relay.wait_until_empty(PATIENCE);
    upstream.heal();
    relay
}

#[test]
fn a_question_states_the_count_and_no_changes_nothing() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = with_dead(&setup, &upstream);
    let Some(seen) = on_a_terminal(&setup, &["outbox", "discard", "--all"], "n\n") else { return };
    assert!(seen.contains("Discard for good 3 dead letters? [y/N]") && seen.contains("nothing was changed"), "{seen}");
    assert_eq!(relay.metric("cello_relay_outbox_events", "dead"), 3.0);
    let seen = on_a_terminal(&setup, &["outbox", "discard", "--all"], "y\n").expect("a terminal");
    assert!(seen.contains("3 dead letters discarded"), "{seen}");
    assert_eq!(relay.metric("cello_relay_events_discarded_total", "operator"), 3.0);
}

#[test]
fn a_persons_dead_letters_are_erased_on_a_terminal_only_after_a_question() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = with_dead(&setup, &upstream);
    let question = "Erase 1 dead letter of this person for good? [y/N]";
    let Some(seen) = on_a_terminal(&setup, &["outbox", "erase", "--user", "a"], "n\n") else { return };
    assert!(seen.contains(question) && seen.contains("nothing was changed"), "{seen}");
    assert_eq!(relay.metric("cello_relay_outbox_events", "dead"), 3.0);
    let seen = on_a_terminal(&setup, &["outbox", "erase", "--user", "a"], "y\n").expect("a terminal");
    assert!(seen.contains(question) && seen.contains("1 event erased"), "{seen}");
    let seen = on_a_terminal(&setup, &["outbox", "erase", "--user", "b", "--yes"], "").expect("a terminal");
    assert!(!seen.contains("[y/N]") && seen.contains("1 event erased"), "{seen}");
    drop(relay.terminate());
    let seen = on_a_terminal(&setup, &["outbox", "erase", "--user", "c"], "n\n").expect("a terminal");
    assert!(seen.contains(question) && seen.contains("nothing was changed"), "{seen}");
    let (code, stdout, stderr) = setup.call(&["outbox", "erase", "--user", "c"]);
    assert!(code == 0 && stdout.starts_with("1 event erased"), "a script is not asked: {code} {stdout} {stderr}");
}

#[test]
fn how_far_it_is_shows_on_a_terminal_and_nowhere_else() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = with_dead(&setup, &upstream);
    let arguments = ["outbox", "replay", "--all", "--yes", "--per-second", "2"];
    let Some(seen) = on_a_terminal(&setup, &arguments, "") else { return };
    assert!(seen.contains("replaying") && seen.contains("2/3"), "{seen}");
    relay.wait_until_empty(PATIENCE);
    let (code, stdout, stderr) = setup.call(&arguments);
    assert_eq!((code, stdout.as_str()), (0, "0 dead letters put back into the queue\n"));
    assert_eq!(stderr, "replaying 2 a second; what is left when this is ended stays dead\n");
}
