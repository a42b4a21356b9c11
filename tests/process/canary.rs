//! No secret and no personal data leaves by a side door, not even at trace level.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::client::Client;
use crate::relay::{PATIENCE, Relay, Setup};
use crate::upstream::Upstream;

const KEY_ID: &str = "canary-key-id";
const SECRET: &str = "canary-secret";
const USER: &str = "canary-user-id";
const EMAIL: &str = "canary@example.com";
const NAME: &str = "Canary Name";
const POSTED_SECRET: &str = "canary-posted-secret";
const BEARER: &str = "canary-bearer";
const MESSAGE: &str = "canary-message";
const ADMIN_TOKEN: &str = "canary-admin-token";
/// How tokens of the stand-in begin.
const TOKENS: [&str; 2] = ["sim-access-", "sim-refresh-"];
const ALL: [&str; 12] =
    [KEY_ID, SECRET, USER, EMAIL, NAME, POSTED_SECRET, BEARER, MESSAGE, ADMIN_TOKEN, "Bearer ", TOKENS[0], TOKENS[1]];

fn canary_event(user: &str) -> String {
    format!(
        r#"{{"eventName":"ReferralUpdated","payload":{{"ucc":"c","newUserId":"{user}"}},"context":{{"newUser":{{"id":"other","email":"{EMAIL}","name":"{NAME}"}},"event":{{"trigger":"canary-trigger"}}}}}}"#
    )
}

#[test]
fn keys_tokens_and_personal_data_are_in_no_log_metric_or_error() {
    let upstream = Upstream::start();
    upstream.fault(&format!(r#"[{{"path":"/events","user":"{USER}-bad","status":400,"message":"{MESSAGE} {USER}"}}]"#));
    let mut setup = Setup::new(&upstream.base_url());
    setup.set("LOG__LEVEL", "trace").set("LOG__DELIVERIES", "true");
    setup.set("CELLO__ACCESS_KEY_ID", KEY_ID).set("CELLO__SECRET_ACCESS_KEY", SECRET);
    let relay = setup.start();
    let mut client = relay.client();
    let mut said = String::new();
    for user in [USER, "canary-user-id-bad"] {
        let headers = [("Authorization", BEARER), ("Idempotency-Key", USER)];
        said += &client.request("POST", "/events", &headers[..1], &canary_event(user)).expect("an answer").body;
    }
    for wrong in [
        format!(r#"{{"eventName":"{NAME}","payload":{{"ucc":5,"newUserId":["{USER}"]}},"context":"{EMAIL}"}}"#),
        format!(r#"{{"eventName":"{USER}" "{EMAIL}"}}"#),
        canary_event(USER).replace(r#""ucc""#, r#""newUserId":"x","ucc""#),
        format!(r#"["{USER}"]"#),
    ] {
        let answer = client.post("/events", &wrong).expect("an answer");
        assert_eq!(answer.status, 400, "{}", answer.body);
        said += &answer.body;
    }
    let keys = format!(r#"{{"accessKeyId":"{KEY_ID}","secretAccessKey":"{POSTED_SECRET}"}}"#);
    said += &client.post("/token", &keys).expect("an answer").body;
    said += &client.post("/token", &format!(r#"{{"refreshToken":"{POSTED_SECRET}"}}"#)).expect("an answer").body;
    for path in [
        format!("/referral-codes/active-link/{USER}"),
        format!("/new-users/{USER}%2f../reward"),
        format!("/referrers/{USER}/depersonalize"),
    ] {
        said += &client.get(&path).expect("an answer").body;
    }
    relay.wait_until_empty(PATIENCE);
    upstream.revoke_tokens();
    said += &client.post("/events", &canary_event(USER)).expect("an answer").body;
    relay.wait_until_empty(PATIENCE);
    let mut ops = Client::connect(relay.ops).expect("the ops listener");
    for path in ["/metrics", "/readyz", "/livez"] {
        said += &ops.get(path).expect("an answer").body;
    }
    let mut socket = Client::socket(&setup.socket()).expect("the control socket");
    for path in ["/api/status", "/api/events", "/api/export"] {
        said += &socket.get(path).expect("an answer").body;
    }
    let (code, log) = relay.terminate();
    assert_eq!(code, Some(0));
    assert!(log.contains("\"DEBUG\"") || log.contains("\"debug\"") || log.lines().count() > 5, "the log is on:\n{log}");
    for detail in ["refusal_detail", "warning_detail"] {
        assert!(log.contains(detail), "single requests are in the log, {detail}:\n{log}");
    }
    assert!(!log.contains("canary-trigger"), "what an app wrote is not:\n{log}");
    said += &log;
    assert_silent(&said);
}

fn assert_silent(said: &str) {
    for canary in ALL {
        let line = said.lines().find(|line| line.contains(canary));
        assert!(line.is_none(), "{canary} is in: {}", line.unwrap_or_default());
    }
}

/// A relay at trace level that ends at once, with canaries for keys; what it writes to stderr goes to a file.
fn start_with_canaries(setup: &mut Setup) -> Relay {
    setup.set("LOG__LEVEL", "trace").set("LOG__DELIVERIES", "true").set("SHUTDOWN__DEADLINE", "0s");
    setup.set("CELLO__ACCESS_KEY_ID", KEY_ID).set("CELLO__SECRET_ACCESS_KEY", SECRET);
    let mut command = setup.command(&["run"]);
    command.stderr(fs::File::create(setup.dir().join("stderr")).expect("a file"));
    Relay::start(command)
}

/// The names of all that lies in the relay's directory, and below.
fn names(folder: &Path) -> String {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .map(|path| format!("{}\n{}", path.display(), if path.is_dir() { names(&path) } else { String::new() }))
        .collect()
}

/// What the subcommand printed; it must have done its work.
fn printed(setup: &Setup, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = setup.call(arguments);
    assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
    stdout + &stderr
}

/// What every operator may see, of a running relay and of a stopped one.
fn looked_at(setup: &Setup, id: &str) -> String {
    let looks: [&[&str]; 8] = [
        &["outbox", "stats"],
        &["outbox", "stats", "--json"],
        &["outbox", "list"],
        &["outbox", "list", "--json"],
        &["outbox", "list", "--user", USER],
        &["outbox", "show", id],
        &["outbox", "show", id, "--json"],
        &["outbox", "export"],
    ];
    looks.iter().map(|arguments| printed(setup, arguments)).collect()
}

#[test]
fn operators_see_no_secret_and_no_personal_data_unless_they_ask_to_reveal_it() {
    let upstream = Upstream::start();
    upstream.fault(&format!(
        r#"[{{"path":"/events","user":"{USER}-bad","status":400,"message":"{MESSAGE}"}},
            {{"path":"/events","user":"{USER}-stuck","status":500,"message":"{MESSAGE}"}}]"#
    ));
    let mut setup = Setup::new(&upstream.base_url());
    let (token, report) = (setup.dir().join("token"), setup.dir().join("report"));
    fs::write(&token, ADMIN_TOKEN).expect("a file");
    setup.set("ADMIN__TOKEN_FILE", token.to_str().expect("a path"));
    setup.set("SHUTDOWN__REPORT_FILE", report.to_str().expect("a path"));
    let relay = start_with_canaries(&mut setup);
    let mut ids = Vec::new();
    for user in ["", "-stuck", "-gone", "-bad"] {
        let body = canary_event(&format!("{USER}{user}"));
        let headers = [("Authorization", BEARER), ("Idempotency-Key", USER)];
        let answer = relay.client().request("POST", "/events", &headers[..1], &body).expect("an answer").json();
        ids.push(answer["id"].as_str().expect("an id").to_owned());
    }
    let dead = ids.pop().expect("the last");
    relay.wait_until("the refused event is no dead letter", |metrics| {
        let of = |state| crate::relay::sum(metrics, "cello_relay_outbox_events", state);
        of("\"dead\"") == 1.0 && of("\"pending\"") + of("\"in_flight\"") == 0.0
    });

    let mut said =
        looked_at(&setup, &dead) + &printed(&setup, &["check-config"]) + &printed(&setup, &["check-config", "--json"]);
    let mut admin = Client::connect(relay.admin).expect("the admin listener");
    for path in ["/", "/api/status", "/api/dead", "/api/events", &format!("/api/events/{dead}"), "/openapi.json"] {
        let answer = admin.get(path).expect("an answer");
        assert_eq!(answer.status, 200, "{path}");
        // The page's own code names the scheme.
        said += &answer.body.replace("Bearer $", "");
    }
    for (token, status) in [(POSTED_SECRET, 403), (ADMIN_TOKEN, 200)] {
        let authorization = format!("Bearer {token}");
        let headers = [("Authorization", authorization.as_str()), ("Content-Type", "application/json")];
        for (path, body) in [
            ("/api/replay", format!(r#"{{"filter":{{"user":"{USER}-bad"}},"dry_run":true}}"#)),
            ("/api/erase", format!(r#"{{"user":"{USER}-gone","yes":true}}"#)),
        ] {
            let answer = admin.request("POST", path, &headers, &body).expect("an answer");
            assert_eq!(answer.status, status, "{path}: {}", answer.body);
            said += &answer.body;
        }
    }
    let revealed =
        printed(&setup, &["outbox", "show", &dead, "--reveal"]) + &printed(&setup, &["outbox", "export", "--reveal"]);
    assert!([MESSAGE, USER, EMAIL, NAME].iter().all(|canary| revealed.contains(canary)), "{revealed}");

    let (code, log) = relay.terminate();
    assert_eq!(code, Some(0));
    assert!(log.contains("\"operator_action\""), "orders are in the log:\n{log}");
    let ended = fs::read_to_string(&report).expect("a report");
    assert!(ended.contains("undelivered=1 dead=1"), "{ended}");
    said += &(log + &ended + &looked_at(&setup, &dead) + &printed(&setup, &["outbox", "check"]) + &names(setup.dir()));
    said += &fs::read_to_string(setup.dir().join("stderr")).expect("a file");
    assert_silent(&said);
}

#[test]
fn a_stored_relay_holds_no_key_and_no_token() {
    let upstream = Upstream::start();
    upstream.fault(&format!(r#"[{{"path":"/events","user":"{USER}-stuck","status":500}}]"#));
    let mut setup = Setup::new(&upstream.base_url());
    let relay = start_with_canaries(&mut setup);
    let mut client = relay.client();
    for user in ["-fine", "-stuck"] {
        let body = canary_event(&format!("{USER}{user}"));
        assert_eq!(
            client.request("POST", "/events", &[("Authorization", BEARER)], &body).expect("an answer").status,
            200
        );
    }
    let keys = format!(r#"{{"accessKeyId":"{POSTED_SECRET}","secretAccessKey":"{POSTED_SECRET}"}}"#);
    assert_eq!(client.post("/token", &keys).expect("an answer").status, 201);
    relay.wait_until("nothing was tried", |metrics| {
        crate::relay::sum(metrics, "cello_relay_outbox_events", "\"retrying\"") == 1.0
    });
    let everything = || -> Vec<u8> {
        let files = fs::read_dir(setup.outbox()).expect("a folder").map(|entry| entry.expect("an entry").path());
        files.filter(|path| path.is_file()).flat_map(|path| fs::read(path).expect("a readable file")).collect()
    };
    let holds = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    let running = everything();
    drop(relay.terminate());
    for bytes in [running, everything()] {
        assert!(holds(&bytes, &format!("{USER}-stuck")), "what waits is there");
        for secret in [KEY_ID, SECRET, POSTED_SECRET, BEARER, TOKENS[0], TOKENS[1]] {
            assert!(!holds(&bytes, secret), "{secret} is in a file");
        }
    }
}

#[test]
fn damage_is_told_of_without_what_was_damaged() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":500}]"#);
    let mut setup = Setup::new(&upstream.base_url());
    let relay = start_with_canaries(&mut setup);
    for batch in 0..3 {
        let events = (0..1000).map(|number| canary_event(&format!("{USER}-{batch}-{number}")));
        let answer = relay.client().post("/events/batch", &format!("[{}]", events.collect::<Vec<_>>().join(",")));
        assert_eq!(answer.expect("an answer").status, 200);
    }
    drop(relay.terminate());
    let file = fs::OpenOptions::new().write(true).open(setup.outbox().join("outbox.db")).expect("the database");
    let length = file.metadata().expect("a file").len();
    // Pages in the middle, where events are.
    file.write_all_at(&[b'#'; 6000], length / 2 / 4096 * 4096).expect("written");
    drop(file);
    let (code, checked, complaints) = setup.call(&["outbox", "check"]);
    assert_eq!(code, 65, "{checked}{complaints}");
    // The damage is met while the queue is read.
    upstream.heal();
    let relay = start_with_canaries(&mut setup);
    relay.wait_until("nothing is moved aside", |_| names(&setup.outbox()).contains("damaged"));
    relay.wait_until_empty(PATIENCE);
    assert!(upstream.arrivals().count() > 0 && relay.metric("cello_relay_events_lost_total", "") > 0.0);
    let mut socket = Client::socket(&setup.socket()).expect("the control socket");
    let status = socket.get("/api/status").expect("an answer").body;
    let metrics = relay.metrics();
    let (_, log) = relay.terminate();
    assert!(log.contains("damaged"), "{log}");
    let stderr = fs::read_to_string(setup.dir().join("stderr")).expect("a file");
    assert_silent(&[checked, complaints, status, metrics, log, stderr, names(setup.dir())].join("\n"));
}

#[test]
fn errors_of_the_configuration_show_no_secret() {
    let mut setup = Setup::new("http://user:canary-password@127.0.0.1:9");
    setup
        .set("CELLO__SECRET_ACCESS_KEY", SECRET)
        .set("CELLO__SECRET_ACESS_KEY", SECRET)
        .set("FORWARD__TIMEOUT", "soon");
    let (code, stdout, stderr) = setup.call(&["check-config"]);
    assert_eq!(code, 78, "{stdout}{stderr}");
    let said = stdout + &stderr;
    assert!(!said.contains(SECRET) && !said.contains("canary-password"), "{said}");
}
