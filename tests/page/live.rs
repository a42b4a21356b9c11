//! What the page shows while the relay works, is gone, and is back.

use crate::browser::{Browser, ENTER, ESCAPE, TAB};
use crate::client::Client;
use crate::load::event;
use crate::relay::{PATIENCE, Relay, Setup};
use crate::upstream::{UNREACHABLE, Upstream};

fn post(relay: &Relay, user: &str) {
    assert_eq!(relay.client().post("/events", &event(user, 1)).expect("an answer").status, 200);
}

#[test]
fn the_page_is_served_with_a_policy_that_lets_it_talk_to_its_relay_only() {
    let setup = Setup::new(UNREACHABLE);
    let relay = setup.start();
    let tcp = Client::connect(relay.admin).and_then(|mut client| client.get("/")).expect("an answer");
    let socket = Client::socket(&setup.socket()).and_then(|mut client| client.get("/")).expect("an answer");
    for answer in [tcp, socket] {
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/html; charset=utf-8")));
        let policy = answer.header("content-security-policy").expect("a policy");
        assert!(policy.contains("default-src 'none'; connect-src 'self'") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
    }
    let posted = Client::connect(relay.admin).and_then(|mut client| client.post("/", "{}")).expect("an answer");
    assert_eq!((posted.status, posted.header("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn the_page_follows_the_relay_without_an_error_or_an_outside_request() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    browser.requests();
    browser.open(relay.admin);
    browser.until_says("#headline", "Healthy");
    post(&relay, "somebody");
    browser.until_says("#figures", "of 1 accepted");
    for width in [375, 1280] {
        browser.width(width);
        let widest = browser.value("document.documentElement.scrollWidth").as_u64();
        assert!(widest <= Some(width.into()), "{widest:?} at {width}");
    }
    let own = format!("http://{}/", relay.admin);
    let sent = browser.requests();
    assert!(sent.iter().any(|url| url.ends_with("/api/status")), "{sent:?}");
    // `chrome:` is the browser's own picture of a control.
    let inside = |url: &str| [own.as_str(), "data:", "chrome:"].into_iter().any(|start| url.starts_with(start));
    let outside: Vec<_> = sent.iter().filter(|url| !inside(url)).collect();
    assert!(outside.is_empty(), "{outside:?}");
}

/// Else the click of whoever presses just then would be lost.
#[test]
fn a_button_stays_the_same_one_while_the_page_is_refreshed_around_it() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    crate::dead_letters::refused(&upstream, &relay, &["poisoned"], 1);
    browser.open(relay.admin);
    browser.until_says("#groups", "http_400");
    browser.value("window.pressed = document.querySelector(\"[data-key='discard http_400']\")");
    browser.value("window.told = document.querySelector('#groups').textContent");
    browser.until("document.querySelector('#groups').textContent !== told");
    crate::dead_letters::refused(&upstream, &relay, &["another"], 1);
    browser.until_says("#groups td.number", "2");
    assert_eq!(browser.value("pressed.isConnected"), true);
}

#[test]
fn a_relay_that_is_gone_is_told_with_its_last_state_and_comes_back_by_itself() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    let admin = relay.admin;
    post(&relay, "somebody");
    relay.wait_until_empty(PATIENCE);
    browser.open(admin);
    browser.until_says("#figures", "of 1 accepted");
    relay.kill();
    browser.until_says("#gone", "does not answer since");
    browser.until("document.body.classList.contains('gone') && !document.querySelector('#gone').hidden");
    assert!(browser.text("#figures").contains("of 1 accepted"), "the last state stays");
    setup.set("ADMIN__LISTEN", &admin.to_string());
    let _relay = setup.start();
    browser.until("!document.body.classList.contains('gone') && document.querySelector('#gone').hidden");
}

#[test]
fn an_event_is_found_opened_and_left_by_keyboard_alone() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":400,"message":"no such ucc"}]"#);
    let setup = Setup::new(&upstream.base_url());
    let relay = setup.start();
    post(&relay, "walker");
    relay.wait_until_empty(PATIENCE);
    browser.open(relay.admin);
    browser.until_says("#groups", "http_400");
    browser.press("/");
    browser.until("document.activeElement.id === 'query'");
    browser.press("walker");
    browser.press(ENTER);
    browser.until("document.querySelector('#listing td button')");
    browser.until("document.activeElement.id === 'events-title'");
    let on_event = "document.activeElement.closest('#listing') !== null";
    for _ in 0..12 {
        browser.press(TAB);
        if browser.value(on_event) == true {
            break;
        }
    }
    browser.until(on_event);
    let ring = "getComputedStyle(document.activeElement).outlineStyle !== 'none'";
    assert_eq!(browser.value(ring), true, "focus is visible");
    browser.press(ENTER);
    browser.until_says("dialog[open]#event", "apigw-requestid");
    browser.press(ESCAPE);
    browser.until("document.querySelector('dialog[open]') === null");
    browser.until(on_event);
}

#[test]
fn delivery_is_paused_and_resumed() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let (_setup, relay) = crate::dead_letters::with_token(&upstream);
    browser.open(relay.admin);
    browser.until("!document.querySelector('#flow').disabled");
    browser.click("#flow");
    browser.until_says("#ask-title", "Pause delivery?");
    browser.click("#ask .main");
    crate::dead_letters::give_token(&browser, crate::dead_letters::TOKEN);
    browser.until("document.querySelector('#flow').textContent === 'Resume'");
    post(&relay, "somebody");
    browser.until_says("#figures", "of 1 accepted");
    assert_eq!(upstream.received(), 0);
    browser.click("#flow");
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 1);
}
