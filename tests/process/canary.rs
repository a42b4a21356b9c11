//! No secret and no personal data leaves by a side door, not even at trace level.

use crate::client::Client;
use crate::relay::{PATIENCE, Setup};
use crate::upstream::Upstream;

const KEY_ID: &str = "canary-key-id";
const SECRET: &str = "canary-secret";
const USER: &str = "canary-user-id";
const EMAIL: &str = "canary@example.com";
const NAME: &str = "Canary Name";
const POSTED_SECRET: &str = "canary-posted-secret";
const BEARER: &str = "canary-bearer";
const MESSAGE: &str = "canary-message";

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
    said += &log;
    for canary in [KEY_ID, SECRET, USER, EMAIL, NAME, POSTED_SECRET, BEARER, MESSAGE, "Bearer "] {
        let line = said.lines().find(|line| line.contains(canary));
        assert!(line.is_none(), "{canary} is in: {}", line.unwrap_or_default());
    }
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
