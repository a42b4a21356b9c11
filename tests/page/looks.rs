//! How the page looks: on a phone and on a desk, by day and by night, with everything on it. Pictures are left below
//! `target/tmp/page`.

use serde_json::Value;

use crate::browser::Browser;
use crate::dead_letters::{TOKEN, give_token, refused, with_token};
use crate::load::event;
use crate::relay::{PATIENCE, Setup};
use crate::upstream::Upstream;

/// Texts whose colour is too near to what is behind them (WCAG 2, AA), as `text: ratio`. Disabled buttons may be pale.
const FAINT: &str = r#"(() => {
  const parts = (color) => color.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((part) => (part /= 255) <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const color = parts(getComputedStyle(node).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
    return [255, 255, 255];
  };
  const says = (node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
  const seen = (node) => node.checkVisibility() && !node.disabled && says(node);
  return [...document.querySelectorAll('body *')].filter(seen).map((node) => {
    const [a, b] = [light(parts(getComputedStyle(node).color)), light(behind(node))];
    return [node.textContent.trim().slice(0, 40), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)];
  }).filter(([, ratio]) => ratio < 4.5).map(([text, ratio]) => `${text}: ${ratio.toFixed(2)}`);
})()"#;

/// What reaches over the edge: the page, or an open dialog.
const TOO_WIDE: &str = r#"(() => {
  const wide = document.documentElement.scrollWidth > innerWidth ? ['the page'] : [];
  for (const dialog of document.querySelectorAll('dialog[open]')) {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    if (left < 0 || right > innerWidth || top < 0 || bottom > innerHeight) wide.push(`dialog ${left} ${right} ${top} ${bottom}`);
    if (dialog.scrollWidth > dialog.clientWidth) wide.push(`in the dialog ${dialog.scrollWidth}`);
  }
  return wide;
})()"#;

/// Buttons too small for a finger, as `text: height`.
const TOO_SMALL: &str = r#"[...document.querySelectorAll('button, select, input:not([type=checkbox])')].filter((node) => node.checkVisibility() && node.getBoundingClientRect().height < 28)
  .map((node) => `${node.textContent}: ${node.getBoundingClientRect().height}`)"#;

fn none(browser: &Browser, what: &str, place: &str) {
    let found = browser.value(what);
    assert_eq!(found, Value::Array(Vec::new()), "{place}");
}

/// Looks at what is open now at both widths in both schemes.
fn look(browser: &Browser, name: &str) {
    for width in [1280, 375] {
        browser.width(width);
        for scheme in ["light", "dark"] {
            browser.scheme(scheme);
            let dark = format!("matchMedia('(prefers-color-scheme: dark)').matches === {}", scheme == "dark");
            browser.until(&dark);
            let place = format!("{name}-{width}-{scheme}");
            none(browser, TOO_WIDE, &place);
            none(browser, FAINT, &place);
            if width == 375 {
                none(browser, TOO_SMALL, &place);
            }
            browser.picture(&place);
        }
    }
    browser.width(1280);
    browser.scheme("light");
}

#[test]
fn everything_is_readable_and_fits_on_a_phone_and_on_a_desk_by_day_and_by_night() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let (_setup, relay) = with_token(&upstream);
    refused(&upstream, &relay, &["poisoned", "a-user-whose-id-is-as-long-as-a-uuid-0192f0c1-2b3a-7c4d"], 30);
    let odd = event("odd", 1).replace("\"ucc\"", "\"currency\":\"sheep\",\"ucc\"");
    for (body, status) in [(odd.as_str(), 200), (r#"{"eventName":"ReferralUpdated","payload":{"newUserId":"u"}}"#, 400)]
    {
        assert_eq!(relay.client().post("/events", body).expect("an answer").status, status);
    }
    browser.open(relay.admin);
    browser.until_says("#groups", "http_400");
    browser.until_says("#notes", "payload.ucc");
    look(&browser, "page");
    browser.click("#groups button.link");
    browser.until_count("#listing tbody tr", 50);
    look(&browser, "listing");
    browser.click("#listing td button");
    browser.until_says("#event", "apigw-requestid");
    look(&browser, "event");
    browser.click("[data-key='Reveal personal data']");
    browser.until("document.querySelector('#secret')");
    look(&browser, "token");
    give_token(&browser, TOKEN);
    browser.until_says("#event", "is no ucc");
    look(&browser, "revealed");
    browser.click("#event [autofocus]");
    browser.click("[data-key='discard http_400']");
    browser.until_says("#ask-title", "dead letters for good?");
    look(&browser, "discard");
    browser.click("#ask [autofocus]");
    browser.click("[data-key='replay http_400']");
    browser.until_says("#ask-title", "Replay 61 dead letters?");
    look(&browser, "replay");
    browser.click("#ask [autofocus]");
    browser.click("#flow");
    browser.until_says("#ask-title", "Pause delivery?");
    look(&browser, "pause");
    browser.click("#ask [autofocus]");
    relay.kill();
    browser.until_says("#gone", "does not answer since");
    look(&browser, "gone");
}

#[test]
fn a_revealed_event_is_shown_as_it_is_sent_to_the_last_digit() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let (_setup, relay) = with_token(&upstream);
    upstream.fault(r#"[{"path":"/events","status":400,"message":"no"}]"#);
    let exact = event("u", 1).replace("\"sequence\":1", "\"z\": 12345678901234567890.00,\"a\":\"[1]: {\",\"none\":[ ]");
    assert_eq!(relay.client().post("/events", &exact).expect("an answer").status, 200);
    relay.wait_until_empty(PATIENCE);
    browser.open(relay.admin);
    browser.until_says("#groups", "http_400");
    browser.click("#groups button.link");
    browser.until_count("#listing tbody tr", 1);
    browser.click("#listing td button");
    browser.until_says("#event", "apigw-requestid");
    browser.click("[data-key='Reveal personal data']");
    browser.until("document.querySelector('#secret')");
    give_token(&browser, TOKEN);
    browser.until_says("#event", "\"z\": 12345678901234567890.00,");
    let shown = browser.value("document.querySelector('#event pre').textContent");
    let words = |text: &str| text.split_whitespace().collect::<String>();
    assert_eq!(words(shown.as_str().expect("a text")), words(&exact));
}

#[test]
fn the_listing_is_narrowed_by_state_and_reason_and_a_full_last_page_is_the_last() {
    let Some(browser) = Browser::start() else { return };
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream.base_url());
    // So that it is not being tried again when it is looked for.
    setup.set("FORWARD__BACKOFF_MIN", "5m");
    let relay = setup.start();
    refused(&upstream, &relay, &["a", "b"], 50);
    upstream
        .fault(r#"[{"path":"/events","user":"stuck","status":500},{"path":"/events","user":"other","status":422}]"#);
    for user in ["stuck", "other"] {
        assert_eq!(relay.client().post("/events", &event(user, 1)).expect("an answer").status, 200);
    }
    browser.open(relay.admin);
    browser.until_says("#groups", "http_422");
    browser.until_says("main", "1 retrying");
    browser.click("#by-state option[value=retrying]");
    browser.until_count("#listing tbody tr", 1);
    browser.until_says("#listing", "http_5xx");
    browser.click("#by-state option[value=dead]");
    browser.until_count("#listing tbody tr", 50);
    browser.click("#by-reason option[value=http_422]");
    browser.until_count("#listing tbody tr", 1);
    browser.until_says("#listing", "http_422");
    browser.click("#by-reason option[value=http_400]");
    browser.until_count("#listing tbody tr", 50);
    browser.until_says("#pager", "page 1");
    browser.click("[data-key=next]");
    browser.until_says("#pager", "page 2");
    browser.until_count("#listing tbody tr", 50);
    assert_eq!(browser.value("document.querySelector('[data-key=next]').disabled"), true, "100 are two pages of 50");
}
