//! What clippy cannot see: the shape of the house. Each rule is one function and one test.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files longer than this need a split.
const MAX_LINES: usize = 400;
/// A function longer than this does not fit a screen.
const MAX_FUNCTION_LINES: usize = 70;

/// Which modules a module may use (`crate::…`), from the map in `lib.rs`. Every module may use `clock`,
/// `reason`, `metrics`, `sync` and `event`'s plain types.
const MAY_USE: &[(&str, &[&str])] = &[
    ("clock", &[]),
    ("reason", &[]),
    ("event", &["clock", "metrics", "event"]),
    ("metrics", &["event", "reason", "metrics"]),
    ("http", &["metrics", "http"]),
    ("outbox", &["event", "clock", "metrics", "reason", "outbox"]),
    ("ingress", &["event", "outbox", "metrics", "http", "clock", "reason", "ingress"]),
    ("reads", &["cello", "metrics", "http", "clock", "reads"]),
    ("forwarder", &["outbox", "cello", "clock", "metrics", "event", "reason", "forwarder"]),
    ("cello", &["clock", "metrics", "event", "reason", "cello"]),
    ("ops", &["metrics", "outbox", "http", "clock", "ops"]),
    (
        "admin",
        &[
            "outbox",
            "forwarder",
            "cello",
            "ingress",
            "http",
            "clock",
            "event",
            "reason",
            "metrics",
            "telemetry",
            "admin",
        ],
    ),
    ("telemetry", &["metrics", "telemetry"]),
    ("simulator", &["http", "clock", "simulator"]),
    ("config", &["app", "admin", "cello", "forwarder", "ingress", "ops", "outbox", "reads", "telemetry", "config"]),
    (
        "app",
        &[
            "admin",
            "cello",
            "clock",
            "forwarder",
            "http",
            "ingress",
            "metrics",
            "ops",
            "outbox",
            "reads",
            "telemetry",
            "app",
        ],
    ),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(below: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(below)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the project") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn name(path: &Path) -> String {
    path.strip_prefix(root()).expect("below the root").display().to_string()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a readable file")
}

/// The part of a source file that is not its inline tests.
fn product(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod tests {").next().expect("a first part")
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let too_long: Vec<String> = rust_files("src")
        .iter()
        .map(|path| (name(path), read(path).lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(name, lines)| format!("{name}: {lines} lines"))
        .collect();
    assert!(too_long.is_empty(), "over {MAX_LINES} lines: {too_long:#?}");
}

#[test]
fn every_function_fits_a_screen() {
    let mut too_long = Vec::new();
    for path in rust_files("src") {
        let text = read(&path);
        let mut start: Option<(usize, usize, String)> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            let signature = code.split('(').next().unwrap_or_default();
            if start.is_none()
                && signature.split(' ').any(|word| word == "fn")
                && !code.ends_with(';')
                && !code.starts_with("//")
            {
                start = Some((number, indent, signature.to_owned()));
            }
            if let Some((from, at, signature)) = &start
                && indent == *at
                && code.starts_with('}')
                && code == "}"
            {
                if number - from + 1 > MAX_FUNCTION_LINES {
                    too_long.push(format!("{}:{}: {signature}: {} lines", name(&path), from + 1, number - from + 1));
                }
                start = None;
            } else if start.as_ref().is_some_and(|(from, at, _)| {
                number > *from && indent <= *at && code.ends_with(" }") && code.contains("fn ")
            }) {
                start = None;
            }
            if start.as_ref().is_some_and(|(from, ..)| *from == number) && code.ends_with('}') && code.contains('{') {
                start = None;
            }
        }
    }
    assert!(too_long.is_empty(), "over {MAX_FUNCTION_LINES} lines: {too_long:#?}");
}

#[test]
fn modules_use_only_what_the_map_allows() {
    let mut wrong = Vec::new();
    for path in rust_files("src") {
        let name = name(&path);
        let module = name.trim_start_matches("src/").split(['/', '.']).next().expect("a module").to_owned();
        let Some((_, allowed)) = MAY_USE.iter().find(|(of, _)| *of == module) else { continue };
        for used in read(&path)
            .split("crate::")
            .skip(1)
            .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
        {
            let used = used.unwrap_or_default();
            let anyones = ["clock", "reason", "metrics", "event", "sync"];
            if !used.is_empty() && used != module && !allowed.contains(&used) && !anyones.contains(&used) {
                wrong.push(format!("{name} uses crate::{used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_simulator_shares_no_code_with_what_it_judges() {
    for path in rust_files("src/simulator") {
        let text = read(&path);
        for judged in ["crate::cello", "crate::event", "crate::ingress", "crate::forwarder", "crate::outbox"] {
            assert!(!text.contains(judged), "{} uses {judged}", name(&path));
        }
    }
}

#[test]
fn the_backoff_crate_is_used_in_one_file() {
    let users: Vec<String> =
        rust_files("src").iter().filter(|path| read(path).contains("use backoff::")).map(|path| name(path)).collect();
    assert_eq!(users, ["src/forwarder/backoff.rs"]);
}

#[test]
fn the_store_is_named_only_where_it_is_wired_or_configured() {
    for path in rust_files("src") {
        let name = name(&path);
        let allowed = ["src/outbox", "src/app", "src/config", "src/cli"].iter().any(|prefix| name.starts_with(prefix));
        assert!(allowed || !product(&read(&path)).contains("outbox::sqlite"), "{name} names the SQLite store");
    }
}

#[test]
fn nothing_is_left_to_do() {
    for path in rust_files("src").iter().chain(&rust_files("tests")) {
        if name(path) == "tests/tidy.rs" {
            continue;
        }
        for mark in ["TODO", "FIXME", "XXX", "todo!(", "unimplemented!("] {
            assert!(!read(path).contains(mark), "{} has a {mark}", name(path));
        }
    }
}

/// The names in backticks that read like sentences: those of tests, unless they are of metrics.
fn tests_named(page: &str) -> Vec<&str> {
    let sentence = |name: &&str| {
        let words = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        name.matches('_').count() >= 3 && name.chars().all(words) && !name.starts_with("cello_relay_")
    };
    page.split('`').skip(1).step_by(2).filter(sentence).collect()
}

/// The names of all tests in a source file.
fn tests_in(text: &str) -> impl Iterator<Item = &str> {
    // In macros and `proptest!` the attribute may be lines away, so every function of a file with tests counts.
    let tested =
        text.contains("test]") || text.contains("test(") || text.contains("proptest!") || text.contains("clients! {");
    let functions = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next());
    let listed = text.lines().filter_map(|line| line.trim().split_once(" = \"")).map(|(name, _)| name);
    functions.chain(listed).filter(move |_| tested)
}

#[test]
fn every_test_and_check_that_the_pages_name_is_there() {
    let texts: Vec<String> = rust_files("src").iter().chain(&rust_files("tests")).map(|path| read(path)).collect();
    let known: HashSet<&str> = texts.iter().flat_map(|text| tests_in(text)).collect();
    for (page, at_least) in [("SECURITY.md", 60), ("tests/README.md", 60)] {
        let text = read(&root().join(page));
        let named = tests_named(&text);
        assert!(named.len() >= at_least, "{page} names {} tests", named.len());
        let missing: Vec<_> = named.iter().filter(|name| !known.contains(*name)).collect();
        assert!(missing.is_empty(), "{page} names tests that are not there: {missing:#?}");
        let files = text.split('`').skip(1).step_by(2).filter(|name| name.starts_with("tests/") && !name.contains(' '));
        for file in files {
            assert!(root().join(file).exists(), "{page} names {file}");
        }
    }
}

/// Tests of these files are what the promises were tried with: the page names each.
const PROVING: &[&str] = &[
    "process/power",
    "process/power/takeover",
    "process/kill",
    "process/crash",
    "process/disk",
    "process/moving",
    "process/upstream_faults",
    "process/soak",
    "it/forwarder/histories",
    "it/cello/h2",
    "it/cello/hostile",
    "it/ingress/hostile",
    "it/ingress/neighbours",
    "it/outbox_damage",
    "it/outbox_flips",
];

#[test]
fn the_page_names_every_test_that_proves_a_promise() {
    let page = read(&root().join("tests/README.md"));
    let mut missing = Vec::new();
    for file in PROVING {
        let text = read(&root().join(format!("tests/{file}.rs")));
        // The function after each attribute, further attributes passed over.
        let tests: Vec<&str> =
            text.split("test]\n").skip(1).filter_map(|rest| rest.split("fn ").nth(1)?.split('(').next()).collect();
        assert!(!tests.is_empty(), "tests/{file}.rs has tests");
        missing.extend(tests.into_iter().filter(|test| !page.contains(&format!("`{test}`"))).map(str::to_owned));
    }
    assert!(missing.is_empty(), "tests/README.md does not name {missing:#?}");
}

#[test]
fn every_log_event_is_in_the_table_of_logs_and_every_one_of_the_table_is_logged() {
    let page = read(&root().join("deploy/logs.md"));
    let told: HashSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .filter(|name| *name != "event")
        .collect();
    let is_product = |path: &&PathBuf| !path.ends_with("tests.rs");
    let sources: Vec<String> = rust_files("src").iter().filter(is_product).map(|path| read(path)).collect();
    let product: String = sources.iter().map(|text| product(text)).collect();
    let logged: HashSet<&str> = product.split("event = \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert!(logged.len() > 40, "{logged:?}");
    let untold: Vec<_> = logged.difference(&told).collect();
    assert!(untold.is_empty(), "deploy/logs.md does not name {untold:?}");
    // Some names are chosen in the code.
    let unknown: Vec<_> = told.iter().filter(|name| !product.contains(&format!("\"{name}\""))).collect();
    assert!(unknown.is_empty(), "deploy/logs.md names what is never logged: {unknown:?}");
}

#[test]
fn what_nobody_can_do_has_its_guard() {
    let text = read(&root().join("SECURITY.md"));
    let rows = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| ---") && !line.contains("guarded by"));
    for row in rows {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, _, cannot, guard, _] = cells[..] else { panic!("not three cells: {row}") };
        assert!(cannot.is_empty() || guard.contains('`'), "no test guards: {row}");
    }
}

#[test]
fn unsafe_code_is_forbidden_everywhere() {
    let manifest = read(&root().join("Cargo.toml"));
    assert!(manifest.contains("\nunsafe_code = \"forbid\"\n"));
    for path in rust_files("src").iter().chain(&rust_files("tests")).chain(&rust_files("benches")) {
        let text = read(path);
        let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let found = lines.into_iter().find(|line| line.contains("unsafe {") || line.contains("unsafe fn"));
        assert!(found.is_none() || path.ends_with("tests/tidy.rs"), "{}: {found:?}", name(path));
    }
}

#[test]
fn there_is_no_mod_rs() {
    assert!(rust_files("src").iter().all(|path| !path.ends_with("mod.rs")));
}
