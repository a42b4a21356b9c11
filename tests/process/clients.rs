//! Clients as apps have them, in nine kinds: written against Cello, then pointed at the relay. Each runs twice, first
//! with the base URL of a stand-in for Cello and then with that of a relay; nothing else is changed and the same comes
//! back. What only the relay offers follows: batches, gzip, chunks, `Expect: 100-continue`, kept-alive connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::relay::{PATIENCE, Setup};
use crate::tap::Tap;
use crate::upstream::Upstream;

/// What a client prints of its calls to Cello and of those to the relay in Cello's place.
const AS_CELLO: &str = "token 201\nrefresh 201\nevent 200 true\nrefused 400\ncode 200 true\nlink 200 ";
/// What it prints of the relay's own.
const OF_THE_RELAY: &str = "batch 200 2\nlines 200 2\ngzip 200 true\nchunked 200 true\nlarge 200 10\nposts 100\n";
/// What arrives: how many events of each user, numbered from 0.
const ARRIVALS: [(&str, u64); 7] =
    [("batch", 2), ("chunked", 1), ("document", 1), ("gzip", 1), ("large", 10), ("lines", 2), ("posts", 100)];

/// A client in `tests/files/clients`.
struct Client {
    file: &'static str,
    /// What runs the file; the first that can is taken.
    interpreters: &'static [&'static [&'static str]],
    /// A call of the interpreter that succeeds where it has what the file needs.
    able: &'static [&'static str],
    /// Whether it can ask `Expect: 100-continue`.
    asks: bool,
}

/// What the client printed.
fn run(client: &Client, interpreter: &[&str], base: SocketAddr, mode: &str) -> String {
    let [program, arguments @ ..] = interpreter else { unreachable!("a program") };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/clients").join(client.file);
    let mut command = Command::new(program);
    command.args(arguments).arg(file).args([&format!("http://{base}"), mode]);
    command.env("GOCACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("go-cache"));
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}: {said}{}", client.file, String::from_utf8_lossy(&output.stderr));
    said
}

/// The first interpreter that has all that the client needs.
fn interpreter(client: &Client) -> Option<&'static [&'static str]> {
    let able = |interpreter: &&&[&str]| {
        let mut command = Command::new(interpreter[0]);
        let status = command.args(client.able).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    client.interpreters.iter().find(able).copied()
}

/// The whole promise to one client.
fn is_served(client: &Client) {
    let Some(interpreter) = interpreter(client) else {
        println!(
            "skipped: the client {}: {}, or what it needs of it, is not installed",
            client.file,
            client.interpreters[0].join(" ")
        );
        return;
    };
    let cello = Upstream::start();
    let address = cello.base_url().trim_start_matches("http://").parse().expect("an address");
    let direct = run(client, interpreter, address, "cello");
    assert!(direct.starts_with(AS_CELLO) && direct.lines().count() == 6, "{direct}");
    assert_eq!(cello.arrivals().count(), 1);

    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let tap = Tap::before(relay.ingest);
    let through = run(client, interpreter, tap.address, "relay");
    assert_eq!(through, direct + OF_THE_RELAY);
    for (expected, header) in
        [(true, "content-encoding: gzip"), (true, "transfer-encoding: chunked"), (client.asks, "expect: 100-continue")]
    {
        assert_eq!(tap.heard(header), expected, "{}: {header}", client.file);
    }
    // Two: fetch of Node takes turns between its connections.
    let posts = tap.on_busiest(2, "POST /events HTTP/1.1\r\n");
    assert!(posts >= 100, "{}: at most {posts} posts on two connections", client.file);

    relay.wait_until_empty(PATIENCE);
    let mut arrived: BTreeMap<String, Vec<Option<u64>>> = BTreeMap::new();
    for arrival in upstream.events() {
        let event: Value = serde_json::from_slice(&arrival.body).expect("JSON");
        let (user, context) = (event["payload"]["newUserId"].as_str().expect("a user"), &event["context"]);
        let padding = context["pad"].as_str().map(str::len);
        assert_eq!(padding, Some(if user == "large" { 200_000 } else { 0 }), "{}: {user}", client.file);
        arrived.entry(user.to_owned()).or_default().push(context["n"].as_u64());
    }
    let expected = ARRIVALS.map(|(user, count)| (user.to_owned(), (0..count).map(Some).collect()));
    assert_eq!(arrived, BTreeMap::from(expected), "{}: all of them, once and in order", client.file);
}

/// One test a client.
macro_rules! clients {
    ($($name:ident = $file:literal, $interpreters:expr, $able:expr, $asks:literal;)*) => {
        $(#[test]
        fn $name() {
            is_served(&Client { file: $file, interpreters: $interpreters, able: $able, asks: $asks });
        })*

        #[test]
        fn every_client_in_the_folder_is_run() {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/files/clients");
            let mut there: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name()).collect();
            let mut run = vec![$($file),*];
            there.sort();
            run.sort_unstable();
            assert_eq!(there, run);
        }
    };
}

clients! {
    curl_needs_another_base_url_and_nothing_else = "curl.sh", &[&["sh"]], &["-c", "command -v curl && command -v gzip"], true;
    pythons_urllib_needs_another_base_url_and_nothing_else = "urllib_client.py", &[&["python3"]], &["--version"], false;
    pythons_requests_needs_another_base_url_and_nothing_else = "requests_client.py", &[&["python3"], &["/usr/bin/python3"]], &["-c", "import requests"], false;
    nodes_fetch_needs_another_base_url_and_nothing_else = "fetch.mjs", &[&["node"]], &["-e", "fetch"], true;
    javas_http_client_needs_another_base_url_and_nothing_else = "Client.java", &[&["java"]], &["--list-modules"], true;
    go_needs_another_base_url_and_nothing_else = "client.go", &[&["go", "run"]], &["version"], true;
    ruby_needs_another_base_url_and_nothing_else = "client.rb", &[&["ruby"]], &["-rnet/http", "-e", ""], true;
    php_needs_another_base_url_and_nothing_else = "client.php", &[&["php"]], &["-r", "exit(extension_loaded('curl') ? 0 : 1);"], true;
    perl_needs_another_base_url_and_nothing_else = "client.pl", &[&["perl"]], &["-MHTTP::Tiny", "-MJSON::PP", "-MIO::Compress::Gzip", "-e", "1"], false;
}
