//! Dead letters on the page: grouped, explained, replayed, discarded.

use std::time::{Duration, Instant};

use crate::browser::Browser;
use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup};
use crate::upstream::Upstream;

/// What changes of state need.
pub(crate) const TOKEN: &str = "right-token";

/// A relay whose admin token is [`TOKEN`].
pub(crate) fn with_token(upstream: &Upstream) -> (Setup, Relay) {
    let mut setup = Setup::new(&upstream.base_url());
    let file = setup.dir().join("token");
    std::fs::write(&file, TOKEN).expect("a file");
    setup.set("ADMIN__TOKEN_FILE", file.to_str().expect("a path"));
    let relay = setup.start();
    (setup, relay)
}

/// Answers the page's question for the token.
pub(crate) fn give_token(browser: &Browser, token: &str) {
    browser.until("document.querySelector('#secret')");
    browser.write("#secret", token);
    browser.click("#ask form .main");
}

/// Posts so many events of each user, all of which Cello refuses.
pub(crate) fn refused(upstream: &Upstream, relay: &Relay, users: &[&str], each: u64) {
    upstream.fault(r#"[{"path":"/events","status":400,"message":"<img src=x> is no ucc"}]"#);
    let bodies: Vec<String> = (1..=each).flat_map(|number| users.iter().map(move |user| event(user, number))).collect();
    for batch in bodies.chunks(1_000) {
        let body = format!("[{}]", batch.join(","));
        assert_eq!(relay.client().post("/events/batch", &body).expect("an answer").status, 200);
    }
    relay.wait_until_empty(4 * PATIENCE);
}

#[test]
fn replay_asks_for_the_token_states_the_count_and_delivers() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let (_setup, relay) = with_token(&upstream);
    refused(&upstream, &relay, &["poisoned"], 3);
    browser.open(relay.admin);
    browser.until_says("#groups td.number", "3");
    browser.click("[data-key='replay http_400']");
    give_token(&browser, "wrong-token");
    browser.until_says("#secret-note", "refused that token");
    give_token(&browser, TOKEN);
    browser.until_says("#ask-title", "Replay 3 dead letters?");
    assert_eq!(upstream.arrivals().count(), 0, "a dry run replays nothing");
    upstream.heal();
    browser.click("#ask .main");
    relay.wait_until("all are delivered", |metrics| {
        crate::relay::sum(metrics, "cello_relay_events_delivered_total", "") == 3.0
    });
    browser.until_says("#groups", "None.");
}

#[test]
fn a_replay_sends_one_first_and_shows_it_when_it_dies_again() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let (_setup, relay) = with_token(&upstream);
    refused(&upstream, &relay, &["poisoned", "other"], 2);
    browser.open(relay.admin);
    browser.until_says("#groups td.number", "4");
    browser.click("[data-key='replay http_400']");
    give_token(&browser, TOKEN);
    browser.until_says("#ask-title", "Replay 4 dead letters?");
    browser.until("document.querySelector('#ask [data-key=canary]').checked");
    let before = upstream.received();
    browser.click("#ask .main");
    browser.until_says("#word", "not delivered (dead): the rest stays dead");
    browser.until_says("dialog[open]#event", "apigw-requestid");
    assert_eq!((upstream.received() - before, relay.metric("cello_relay_outbox_events", "dead")), (1, 4.0));
}

#[test]
fn a_replay_that_takes_a_while_can_be_stopped_and_leaves_the_rest_dead() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let (_setup, mut relay) = with_token(&upstream);
    refused(&upstream, &relay, &["poisoned", "other"], 2);
    // Nobody answers the first one, so it goes on until it is stopped.
    upstream.fault(r#"[{"path":"/events","hang":true}]"#);
    browser.open(relay.admin);
    browser.until_says("#groups td.number", "4");
    browser.click("[data-key='replay http_400']");
    give_token(&browser, TOKEN);
    browser.until_says("#ask-title", "Replay 4 dead letters?");
    browser.click("#ask .main");
    browser.until_says("#ask-title", "Replaying…");
    browser.until_says("#ask", "Waiting until the first one is delivered.");
    browser.picture("replaying");
    browser.click("#ask [autofocus]");
    browser.until_says("#word", "Stopped: the rest stays dead.");
    while relay.wait_for_event("operator_action")["outcome"] != "reader_left" {}
    assert_eq!(relay.metric("cello_relay_outbox_events", "dead"), 3.0);
}

#[test]
fn discard_is_asked_twice_and_the_token_once_for_both() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let (_setup, relay) = with_token(&upstream);
    refused(&upstream, &relay, &["poisoned", "other"], 2);
    browser.open(relay.admin);
    browser.until_says("#groups", "http_400");
    browser.write("#query", "other");
    browser.click("#search button");
    browser.until_count("#listing td button", 2);
    browser.click("#listing td button");
    browser.until_says("#event", "[redacted]");
    browser.click("[data-key='discard one']");
    give_token(&browser, TOKEN);
    browser.until_says("#ask-title", "Discard 1 dead letter for good?");
    browser.click("#ask [autofocus]");
    browser.until("!document.querySelector('#ask').open");
    assert_eq!(relay.metric("cello_relay_outbox_events", "dead"), 4.0, "cancelled");
    browser.click("[data-key='discard one']");
    browser.until_says("#ask-title", "Discard 1 dead letter for good?");
    browser.click("#ask .danger");
    browser.until_count("#listing td button", 1);
    browser.until_says("#groups td.number", "3");
    assert_eq!(relay.metric("cello_relay_events_discarded_total", "operator"), 1.0);
}

#[test]
fn what_is_discarded_is_what_the_listing_shows_now() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let (_setup, relay) = with_token(&upstream);
    refused(&upstream, &relay, &["poisoned"], 2);
    upstream.fault(r#"[{"path":"/events","status":422}]"#);
    assert_eq!(relay.client().post("/events", &event("other", 1)).expect("an answer").status, 200);
    browser.open(relay.admin);
    browser.until_says("#groups", "http_422");
    for (reason, count) in [("http_400", 2), ("http_422", 1)] {
        browser.click("#by-state option[value=dead]");
        browser.click(&format!("#by-reason option[value={reason}]"));
        browser.until_count("#listing tbody tr", count);
    }
    browser.click("[data-key='Discard all of these…']");
    give_token(&browser, TOKEN);
    browser.until_says("#ask-title", "Discard 1 dead letter for good?");
    browser.until_says("#ask", "all dead letters for http_422");
    browser.click("#ask .danger");
    browser.until_says("#word", "1 event discarded.");
    browser.until_says("#groups td.number", "2");
}

#[test]
fn personal_data_is_shown_when_asked_for_and_never_becomes_markup() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let (_setup, relay) = with_token(&upstream);
    refused(&upstream, &relay, &["<b>someone</b>"], 1);
    browser.open(relay.admin);
    browser.until_says("#groups", "http_400");
    browser.click("#groups button.link");
    browser.until("document.querySelector('#listing td button')");
    browser.click("#listing td button");
    browser.until_says("#event", "[redacted]");
    browser.click("[data-key='Reveal personal data']");
    give_token(&browser, TOKEN);
    browser.until_says("#event", "<img src=x> is no ucc");
    assert!(browser.text("#event").contains("<b>someone</b>"));
    assert_eq!(browser.value("document.querySelectorAll('main img, dialog img, dialog b').length"), 0);
    assert!(!browser.text("#support").contains("someone"), "the support's block has no personal data");
    browser.click("#event [autofocus]");
    browser.until("[...document.querySelectorAll('dialog')].every((dialog) => dialog.childNodes.length === 0)");
}

#[test]
fn without_a_token_file_the_page_says_what_to_set_and_asks_for_nothing() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    refused(&upstream, &relay, &["poisoned"], 1);
    browser.open(relay.admin);
    browser.until_says("#groups", "http_400");
    browser.click("[data-key='discard http_400']");
    browser.until_says("#word", "set admin.token_file");
    assert_eq!(browser.value("document.querySelector('dialog[open]')"), serde_json::Value::Null);
}

#[test]
fn ten_thousand_dead_letters_are_paged_fifty_at_a_time() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let (_setup, relay) = with_token(&upstream);
    // Fewer users than it takes to hold the queue for a mass refusal.
    let users = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    refused(&upstream, &relay, &users, 1_000);
    browser.open(relay.admin);
    browser.until_says("#figures", "10,000");
    browser.until_says("#groups", "http_400");
    browser.click("#groups button.link");
    browser.until_count("#listing tbody tr", 50);
    let first = browser.text("#listing td button");
    for page in 2..=4 {
        let start = Instant::now();
        browser.click("[data-key=next]");
        browser.until_says("#pager", &format!("page {page}"));
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(browser.value("document.querySelectorAll('#listing tbody tr').length"), 50);
    }
    assert_ne!(browser.text("#listing td button"), first);
    for page in (1..=3).rev() {
        browser.click("[data-key=previous]");
        browser.until_says("#pager", &format!("page {page}"));
    }
    assert_eq!(browser.text("#listing td button"), first);
    let nodes = browser.value("document.querySelectorAll('*').length").as_u64();
    assert!(nodes < Some(2_500), "{nodes:?}");
}
