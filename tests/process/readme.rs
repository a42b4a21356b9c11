//! Every example of the README runs, against a relay and a stand-in for Cello.

use std::process::{Command, Stdio};

use crate::relay::{PATIENCE, Setup};
use crate::upstream::Upstream;

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
