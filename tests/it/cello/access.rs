//! Tokens by access keys.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cello_relay::cello::{Access, Probe, ProbeError, Verdict};
use cello_relay::reason::Reason;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use tokio::sync::Barrier;

use super::upstream::{Reply, Seen, Upstream};
use cello_relay::cello::Courier;

use super::{KeyFiles, auth_of, run, settings, values};

/// Gives `t-<key id>` for keys, delivers everything else.
async fn gives_tokens(seen: Seen) -> Reply {
    match seen.path.as_str() {
        "/token" => Reply::token(&format!("t-{}", key_of(&seen)), 18_000),
        _ => Reply::delivered(),
    }
}

fn key_of(seen: &Seen) -> String {
    let body: serde_json::Value = serde_json::from_str(&seen.body).unwrap();
    body["accessKeyId"].as_str().unwrap_or("refresh").to_owned()
}

fn granted(access: &Access) -> bool {
    *access == Access::Granted
}

fn refused(access: &Access) -> bool {
    matches!(access, Access::Refused(_))
}

#[tokio::test]
async fn one_token_serves_a_hundred_deliveries_at_once() {
    let upstream = Upstream::start(gives_tokens).await;
    let running = Arc::new(run(settings(&upstream.url(), values())));
    let deliveries = (0..100).map(|_| {
        let running = running.clone();
        tokio::spawn(async move { running.deliver().await.verdict })
    });
    for delivery in deliveries.collect::<Vec<_>>() {
        assert_eq!(delivery.await.unwrap(), Verdict::Delivered);
    }
    assert_eq!(upstream.seen("/token").len(), 1);
    assert_eq!(upstream.seen("/events").len(), 100);
    assert_eq!(running.metric(r#"upstream_requests_total{operation="events"}"#), 100.0);
    assert_eq!(running.metric(r#"token_refreshes_total{grant="access_key"}"#), 1.0);
    assert_eq!(running.metric("upstream_requests_in_flight"), 0.0);
}

#[tokio::test]
async fn an_idle_token_is_refreshed_by_its_refresh_token_and_then_by_keys() {
    let upstream = Upstream::start(|seen| async move {
        match seen.body.contains("refreshToken") {
            true => Reply::unauthorized(),
            false => Reply::token("t", 1),
        }
    })
    .await;
    let running = run(settings(&upstream.url(), values()));
    let seen = upstream.saw("/token", 3).await;
    assert_eq!(seen[0].body, r#"{"accessKeyId":"key-1","secretAccessKey":"secret-1"}"#);
    assert_eq!(seen[1].body, r#"{"refreshToken":"refresh-t"}"#);
    assert_eq!(seen[2].body, seen[0].body);
    assert_eq!(running.metric(r#"token_refresh_failures_total{reason="rejected"}"#), 1.0);
}

#[tokio::test]
async fn deliveries_go_on_over_the_ends_of_short_lived_tokens() {
    let given = Arc::new(AtomicUsize::new(0));
    let upstream = Upstream::start(move |seen| {
        let given = given.clone();
        async move {
            if seen.path == "/token" {
                return Reply::token(&given.fetch_add(1, Ordering::SeqCst).to_string(), 1);
            }
            let token: usize = seen.header("authorization").trim_start_matches("Bearer ").parse().unwrap();
            match token + 2 >= given.load(Ordering::SeqCst) {
                true => Reply::delivered(),
                false => Reply::json(500, "a token that has ended"),
            }
        }
    })
    .await;
    let running = run(settings(&upstream.url(), values()));
    for tokens in 1..=4 {
        upstream.saw("/token", tokens).await;
        assert_eq!(running.deliver().await.verdict, Verdict::Delivered);
    }
    assert_eq!(running.metric(r#"token_invalidations_total{reason="http_401"}"#), 0.0);
}

#[tokio::test]
async fn whoever_goes_on_where_the_tokens_owner_broke_off_replaces_refused_tokens_as_before() {
    let (given, least_good) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let good = least_good.clone();
    let upstream = Upstream::start(move |seen| {
        let (given, good) = (given.clone(), good.clone());
        async move {
            if seen.path == "/token" {
                return Reply::token(&given.fetch_add(1, Ordering::SeqCst).to_string(), 18_000);
            }
            let token: usize = seen.header("authorization").trim_start_matches("Bearer ").parse().unwrap();
            if token < good.load(Ordering::SeqCst) { Reply::unauthorized() } else { Reply::delivered() }
        }
    })
    .await;
    let mut running = run(settings(&upstream.url(), values()));
    assert_eq!(running.deliver().await.verdict, Verdict::Delivered);
    least_good.store(1, Ordering::SeqCst);
    assert_eq!(running.deliver().await.verdict, Verdict::Delivered, "by the second");
    // So soon after the first it stands.
    least_good.store(2, Ordering::SeqCst);
    assert_eq!(running.deliver().await.status, Some(401));
    running.task.abort();
    running.task = tokio::spawn(running.cello.clone().run());
    upstream.saw("/token", 3).await;
    assert_eq!(running.deliver().await.verdict, Verdict::Delivered, "by the third");
    least_good.store(3, Ordering::SeqCst);
    assert_eq!(running.deliver().await.verdict, Verdict::Delivered, "by the fourth");
}

#[tokio::test]
async fn a_token_that_is_revoked_in_mid_flight_is_replaced_once_for_all() {
    let (tokens, together) = (Arc::new(AtomicUsize::new(0)), Arc::new(Barrier::new(8)));
    let upstream = Upstream::start(move |seen| {
        let (tokens, together) = (tokens.clone(), together.clone());
        async move {
            if seen.path == "/token" {
                return Reply::token(&format!("t{}", tokens.fetch_add(1, Ordering::SeqCst)), 18_000);
            }
            if seen.header("authorization") != "Bearer t0" {
                return Reply::delivered();
            }
            together.wait().await;
            Reply::unauthorized()
        }
    })
    .await;
    let running = Arc::new(run(settings(&upstream.url(), values())));
    let deliveries = (0..8).map(|_| {
        let running = running.clone();
        tokio::spawn(async move { running.deliver().await.verdict })
    });
    for delivery in deliveries.collect::<Vec<_>>() {
        assert_eq!(delivery.await.unwrap(), Verdict::Delivered);
    }
    assert_eq!(upstream.seen("/token").len(), 2);
    assert_eq!(upstream.seen("/events").len(), 16);
    assert_eq!(running.metric(r#"token_invalidations_total{reason="http_401"}"#), 1.0);
}

#[tokio::test]
async fn fresh_tokens_that_are_refused_hold_without_a_storm() {
    let upstream = Upstream::start(|seen| async move {
        match seen.path.as_str() {
            "/token" => Reply::token("t", 18_000),
            _ => Reply::unauthorized(),
        }
    })
    .await;
    let running = run(settings(&upstream.url(), values()));
    for _ in 0..20 {
        let judgement = running.deliver().await;
        assert_eq!((judgement.verdict, judgement.reason), (Verdict::Hold, Some(Reason::Http401)));
    }
    assert!(upstream.seen("/token").len() <= 3, "{}", upstream.seen("/token").len());
}

#[tokio::test]
async fn refused_keys_hold_until_the_files_change() {
    let upstream = Upstream::start(|seen| async move {
        match seen.path == "/token" && key_of(&seen) == "old" {
            true => Reply::json(401, r#"{"message":"Invalid API Credentials"}"#),
            false => gives_tokens(seen).await,
        }
    })
    .await;
    let files = KeyFiles::with("old", "s");
    let running = run(settings(&upstream.url(), files.auth()));
    running.access(refused).await;
    let judgement = running.deliver().await;
    assert_eq!((judgement.verdict, judgement.reason), (Verdict::NoAccess, Some(Reason::Credentials)));
    assert_eq!(running.metric("credentials_last_reload_successful"), 0.0);
    assert!(upstream.seen("/events").is_empty());
    assert_eq!(upstream.seen("/token").len(), 1);

    files.write("new", "s");
    running.access(granted).await;
    assert_eq!(running.deliver().await.verdict, Verdict::Delivered);
    assert_eq!(running.metric("credentials_last_reload_successful"), 1.0);
}

#[tokio::test]
async fn keys_in_a_directory_that_another_takes_the_place_of_are_followed() {
    let both = tempfile::tempdir().unwrap();
    let (at, other) = (both.path().join("keys"), both.path().join("other"));
    let write = |directory: &Path, id: &str| {
        std::fs::create_dir_all(directory).unwrap();
        std::fs::write(directory.join("secret-access-key"), "s").unwrap();
        std::fs::write(directory.join("access-key-id"), id).unwrap();
    };
    write(&at, "first");
    write(&other, "second");
    let upstream = Upstream::start(gives_tokens).await;
    let _running = run(settings(&upstream.url(), auth_of(&at)));
    upstream.saw("/token", 1).await;
    renameat_with(CWD, &at, CWD, &other, RenameFlags::EXCHANGE).unwrap();
    upstream.saw("/token", 2).await;
    write(&at, "third");
    let seen = upstream.saw("/token", 3).await;
    assert_eq!(seen.iter().map(key_of).collect::<Vec<_>>(), ["first", "second", "third"]);
}

#[tokio::test]
async fn missing_keys_hold_until_they_are_there() {
    let upstream = Upstream::start(gives_tokens).await;
    let files = KeyFiles::none();
    let running = run(settings(&upstream.url(), files.auth()));
    running.access(|access| matches!(access, Access::Missing(_))).await;
    assert_eq!(running.deliver().await.verdict, Verdict::NoAccess);
    files.write("new", "s");
    running.access(granted).await;
    assert_eq!(running.deliver().await.verdict, Verdict::Delivered);
}

#[tokio::test]
async fn a_swap_of_the_data_link_of_a_mounted_secret_is_noticed() {
    use std::os::unix::fs::symlink;
    let upstream = Upstream::start(gives_tokens).await;
    let mount = tempfile::tempdir().unwrap();
    let path = |name: &str| mount.path().join(name);
    for (version, id) in [("..1", "old"), ("..2", "new")] {
        std::fs::create_dir(path(version)).unwrap();
        std::fs::write(path(version).join("access-key-id"), id).unwrap();
        std::fs::write(path(version).join("secret-access-key"), "s").unwrap();
    }
    symlink("..1", path("..data")).unwrap();
    for name in ["access-key-id", "secret-access-key"] {
        symlink(format!("..data/{name}"), path(name)).unwrap();
    }
    let running = run(settings(&upstream.url(), auth_of(mount.path())));
    running.access(granted).await;

    symlink("..2", path("..data_tmp")).unwrap();
    std::fs::rename(path("..data_tmp"), path("..data")).unwrap();
    let seen = upstream.saw("/token", 2).await;
    assert_eq!(key_of(&seen[1]), "new");
}

#[tokio::test]
async fn a_malformed_answer_or_refused_new_keys_never_cost_the_good_token() {
    let upstream = Upstream::start(|seen| async move {
        match seen.path.as_str() {
            "/token" if key_of(&seen) == "malformed" => Reply::json(201, r#"{"accessToken": 7}"#),
            "/token" if key_of(&seen) == "refused" => Reply::unauthorized(),
            "/token" => gives_tokens(seen).await,
            _ if seen.header("authorization") == "Bearer t-good" => Reply::delivered(),
            _ => Reply::json(500, ""),
        }
    })
    .await;
    let files = KeyFiles::with("good", "s");
    let running = run(settings(&upstream.url(), files.auth()));
    running.access(granted).await;
    for (changes, key) in ["refused", "malformed"].into_iter().enumerate() {
        files.write(key, "s");
        upstream.saw("/token", 2 + changes).await;
        assert_eq!(running.deliver().await.verdict, Verdict::Delivered, "{key}");
        assert!(granted(&running.cello.access().borrow()), "{key}");
    }
}

#[tokio::test]
async fn a_delivery_waits_for_a_token_no_longer_than_its_timeout() {
    let upstream = Upstream::start(|_| async { Reply::json(503, "") }).await;
    let mut settings = settings(&upstream.url(), values());
    settings.timeout = Duration::from_millis(200);
    let running = run(settings);
    assert_eq!(running.deliver().await.verdict, Verdict::NoAccess);
    assert!(running.metric(r#"token_refresh_failures_total{reason="http_5xx"}"#) >= 1.0);
}

#[tokio::test]
async fn a_probe_says_what_came() {
    let upstream = Upstream::start(|seen| async move {
        match key_of(&seen) == "good" {
            true => Reply::token("t", 18_000),
            false => Reply::json(403, ""),
        }
    })
    .await;
    let files = KeyFiles::with("good", "s");
    let running = run(settings(&upstream.url(), files.auth()));
    assert_eq!(running.cello.probe().await, Ok(Probe::Granted { life: Duration::from_secs(18_000) }));
    files.write("bad", "canary");
    let error = running.cello.probe().await.unwrap_err();
    assert_eq!(error, ProbeError::Refused { base_url: upstream.url(), status: 403 });
    assert!(error.to_string().contains("Access Keys") && !error.to_string().contains("canary"), "{error}");
    std::fs::remove_file(files.path("access-key-id")).unwrap();
    assert!(matches!(running.cello.probe().await, Err(ProbeError::Missing(why)) if why.contains("access-key-id")));
}
