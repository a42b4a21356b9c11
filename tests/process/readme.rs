//! Every example of the README runs, against a relay and a stand-in for Cello.

use std::process::{Command, Stdio};

use crate::relay::{PATIENCE, Setup};
use crate::upstream::{UNREACHABLE, Upstream};

const README: &str = include_str!("../../README.md");

/// The fenced blocks of one language that are marked `test`; `js read` are those of reads in that language.
fn blocks(language: &str) -> Vec<String> {
    let opening = format!("```{language} test\n");
    let bodies = README.split(&opening).skip(1).map(|rest| rest.split("\n```").next().expect("a block").to_owned());
    bodies.collect()
}

/// Runs the blocks that post events: each prints its event's id, and all events arrive.
fn run(language: &str, file: &str, command: &[&str], expected: usize) {
    let arrived = run_blocks(language, file, command, expected, &["-7"]);
    assert!(arrived.is_none_or(|arrived| arrived == expected), "{arrived:?}");
}

/// Runs the block that reads; what it prints has all of `said`.
fn run_read(language: &str, file: &str, command: &[&str], said: &[&str]) {
    run_blocks(&format!("{language} read"), file, command, 1, said);
}

/// Writes each block to a file and runs it with `command`; the file's name is appended. Tells how many
/// events arrived, or nothing if the program is not installed.
#[expect(clippy::print_stdout, reason = "tests/run counts what is skipped")]
fn run_blocks(language: &str, file: &str, command: &[&str], expected: usize, wanted: &[&str]) -> Option<usize> {
    let [program, arguments @ ..] = command else { unreachable!("a program") };
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
    if !found.is_ok_and(|status| status.success()) {
        println!("skipped: the {language} example of the README: {program} is not installed");
        return None;
    }
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let blocks = blocks(language);
    assert_eq!(blocks.len(), expected, "examples in {language}");
    for block in blocks {
        let path = setup.dir().join(file);
        std::fs::write(&path, block.replace("127.0.0.1:8745", &relay.ingest.to_string())).expect("a file");
        let output = Command::new(program).args(arguments).arg(&path).env("GOCACHE", setup.dir().join("go")).output();
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stdout);
        let complete = output.status.success() && wanted.iter().all(|wanted| said.contains(wanted));
        assert!(complete, "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
    relay.wait_until_empty(PATIENCE);
    Some(upstream.arrivals().count())
}

#[test]
fn the_curl_examples_run() {
    run("sh", "example.sh", &["sh"], 2);
}

#[test]
fn the_python_example_runs() {
    run("python", "example.py", &["python3"], 1);
}

#[test]
fn the_node_example_runs() {
    run("js", "example.js", &["node"], 1);
}

#[test]
fn the_go_example_runs() {
    run("go", "example.go", &["go", "run"], 1);
}

#[test]
fn the_java_example_runs() {
    run("java", "Report.java", &["java"], 1);
}

/// All commands in shell blocks that are not run as they stand.
fn commands() -> Vec<String> {
    let blocks = README.split("```sh\n").skip(1).map(|rest| rest.split("```").next().expect("a block"));
    let lines = blocks.flat_map(str::lines).map(|line| line.split(['#', '>']).next().unwrap_or_default().trim());
    lines.filter(|line| line.starts_with("cello-relay ")).map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_readme_is_one_that_the_binary_has() {
    let mut setup = Setup::new(UNREACHABLE);
    // Understood, and then nothing to do it on: a wrong address for those that serve, no relay for the others.
    setup.set("INGEST__LISTEN", "192.0.2.1:1");
    let commands = commands();
    assert!(commands.len() >= 10, "{commands:?}");
    for command in commands {
        let command = command
            .replace("127.0.0.1:8780", "192.0.2.1:1")
            .replace("60s", "10ms")
            .replace("demo --once", "demo --help");
        let known = command.replace("ID", "01a2056c-0d3c-7000-9dab-07ca8203be76");
        let arguments: Vec<&str> = known.split(' ').skip(1).collect();
        let (code, _, stderr) = setup.call(&arguments);
        assert!(code != 64, "{command}: {stderr}");
    }
    for name in listed(&setup.call(&["--help"]).1) {
        assert!(README.contains(&format!("cello-relay {name}")), "{name} is not in the README");
    }
}

#[test]
fn every_exit_code_of_the_help_is_in_the_readme() {
    let help = Setup::new(UNREACHABLE).call(&["--help"]).1;
    let codes = help.split("Exit codes:").nth(1).expect("exit codes");
    let table = README.split("| exit code |").nth(1).expect("a table").split("\n\n").next().expect("its end");
    for code in codes.split(|c: char| !c.is_ascii_digit()).filter(|code| !code.is_empty()) {
        let row = |line: &str| line.split('|').nth(1).is_some_and(|cell| cell.split([',', ' ']).any(|one| one == code));
        assert!(table.lines().any(row), "{code} is not in the table");
    }
}

/// The commands that a help text lists.
fn listed(help: &str) -> Vec<&str> {
    let commands = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("commands");
    commands.lines().filter_map(|line| line.trim().split(' ').next()).filter(|name| *name != "help").collect()
}

#[test]
fn the_curl_examples_of_reads_run() {
    run_read("sh", "example.sh", &["sh"], &["activeUcc", r#""valid":true"#]);
}

#[test]
fn the_python_example_of_reads_runs() {
    run_read("python", "example.py", &["python3"], &["moonly.cello.so/"]);
}

#[test]
fn the_javascript_example_of_reads_runs() {
    run_read("js", "example.js", &["node"], &["valid: true"]);
}

#[test]
fn the_java_example_of_reads_runs() {
    run_read("java", "Reward.java", &["java"], &["percentage"]);
}

#[test]
fn there_is_an_example_for_each_trigger_that_passes_the_strict_checks() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("INGEST__CHECKS", "strict");
    let relay = setup.start();
    let examples = blocks("ndjson").remove(0);
    let headers = [("Content-Type", "application/x-ndjson")];
    let answer = relay.client().request("POST", "/events/batch", &headers, &examples).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert!(answer.json().get("warnings").is_none() && answer.json().get("stripped").is_none(), "{}", answer.body);
    for trigger in cello_relay::event::Trigger::known() {
        assert!(examples.contains(&format!(r#""{}""#, trigger.as_str())), "no example for {}", trigger.as_str());
    }
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 9);
}
