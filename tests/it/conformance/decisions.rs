//! What every outbox promises about operators' decisions.

use cello_relay::event::{EventId, UserId};
use cello_relay::outbox::DeadGroup;

use super::*;

/// One dead letter of each of these users, for these reasons.
async fn bury(subject: &Subject, deaths: &[(&str, Reason)]) -> Vec<EventId> {
    let users: Vec<&str> = deaths.iter().map(|(user, _)| *user).collect();
    let appended = append(&*subject.store, &users).await;
    for (_, reason) in deaths {
        let claimed = subject.claim_one().await;
        subject.settle(claimed, dead(*reason)).await;
    }
    appended
}

fn all() -> Selection {
    Selection::Matching(Filter::default())
}

fn of(user: &str) -> Filter {
    Filter { user: Some(UserId::new(user)), ..Filter::default() }
}

#[tokio::test]
async fn what_cello_may_have_counted_is_replayed_only_if_that_is_said() {
    each(0, async |subject| {
        let deaths = [("a", Reason::Http422), ("b", Reason::Timeout), ("c", Reason::Ambiguous), ("d", Reason::Http5xx)];
        bury(&subject, &deaths).await;
        let listed = subject.store.list(Filter::default(), None, 10).await.unwrap();
        assert_eq!(listed.iter().map(|line| line.may_be_counted).collect::<Vec<_>>(), [false, true, true, true]);
        let done = subject.store.replay(all(), Terms::default()).await.unwrap();
        assert_eq!((done.count, done.passed_over, subject.ledger().dead), (1, 3, 3));
        let done = subject.store.replay(all(), Terms::everything()).await.unwrap();
        assert_eq!((done.count, done.passed_over, subject.ledger().dead), (3, 0, 0));
    })
    .await;
}

#[tokio::test]
async fn a_decision_about_hundreds_of_dead_letters_takes_each_of_them_once() {
    each(0, async |subject| {
        let users: Vec<String> = (0..300).map(|n| format!("user-{n}")).collect();
        bury(&subject, &users.iter().map(|user| (user.as_str(), Reason::Ambiguous)).collect::<Vec<_>>()).await;
        let done = subject.store.replay(all(), Terms::default()).await.unwrap();
        assert_eq!((done.count, done.passed_over), (0, 300));
        assert_eq!(subject.store.discard(all()).await.unwrap(), 300);
    })
    .await;
}

#[tokio::test]
async fn that_cello_may_have_an_event_is_known_though_no_attempt_was_burned_for_it() {
    each(0, async |subject| {
        let id = append(&*subject.store, &["a"]).await[0];
        let claimed = subject.claim_one().await;
        subject.settle(claimed, Outcome::Unsure { attempt: attempt(Reason::Timeout) }).await;
        let shown = subject.store.show(id).await.unwrap().unwrap();
        let told = Attempt { message: None, ..attempt(Reason::Timeout) };
        assert_eq!((shown.attempts, shown.unsure, shown.listed.report.attempts), (vec![], Some(told), 0));
        let claimed = subject.claim_one().await;
        subject.settle(claimed, dead(Reason::Http422)).await;
        let passed_over = subject.store.replay(all(), Terms::default()).await.unwrap().passed_over;
        assert_eq!(passed_over, 1, "a refusal of the second does not say that the first was refused");
        // Its end is the end of it.
        subject.store.replay(all(), Terms::everything()).await.unwrap();
        let claimed = subject.claim_one().await;
        subject.settle(claimed, delivered()).await;
        bury(&subject, &[("a", Reason::Http422)]).await;
        assert_eq!(subject.store.replay(all(), Terms::default()).await.unwrap().count, 1);
    })
    .await;
}

#[tokio::test]
async fn what_may_have_been_counted_in_a_former_life_stays_so_when_its_attempts_are_forgotten() {
    each(0, async |subject| {
        let id = bury(&subject, &[("a", Reason::Timeout)]).await[0];
        subject.store.replay(all(), Terms::everything()).await.unwrap();
        for _ in 0..ATTEMPTS_KEPT {
            let claimed = subject.claim_one().await;
            let attempt = attempt(Reason::Http429);
            subject.settle(claimed, Outcome::Retry { at: start(), strike: false, attempt }).await;
        }
        let claimed = subject.claim_one().await;
        subject.settle(claimed, dead(Reason::Http422)).await;
        let shown = subject.store.show(id).await.unwrap().unwrap();
        assert!(shown.attempts.iter().all(|attempt| attempt.reason != Reason::Timeout));
        assert!(shown.listed.may_be_counted && shown.unsure.is_some());
    })
    .await;
}

#[tokio::test]
async fn an_erasure_forgets_the_keys_of_the_person_and_of_nobody_else() {
    each(0, async |subject| {
        let send = async |users: &[&str], key: &str| {
            let key = Key { route: Route::Batch, key: key.into(), body: [0; 32], notes: "".into() };
            let sent = Batch { key: Some(key), ..batch(users) };
            subject.store.append(sent).await.unwrap().replayed.is_some()
        };
        // Of one request nothing but the person's event is left.
        let requests: [(&[&str], &str, bool); 6] = [
            (&["1"], "signup-user-1", false),
            (&["10"], "signup-user-10", true),
            (&["1"], "0a8b", false),
            (&["1", "1"], "0a8c", false),
            (&["1", "2"], "0a8d", true),
            (&["2"], "0a8e", true),
        ];
        for (users, key, _) in requests {
            assert!(!send(users, key).await);
        }
        assert_eq!(subject.store.erase(UserId::new("1")).await.unwrap().keys, 3);
        for (users, key, is_kept) in requests {
            assert_eq!(send(users, key).await, is_kept, "{key}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_limited_replay_goes_on_where_it_ended_and_takes_each_once() {
    each(0, async |subject| {
        let deaths = [("a", Reason::Http422), ("b", Reason::Http422), ("c", Reason::Http422)];
        let buried = bury(&subject, &deaths).await;
        let two = Terms { limit: 2, ..Terms::default() };
        let first = subject.store.replay(all(), two).await.unwrap();
        assert_eq!((first.count, first.next), (2, Some(buried[1])));
        // They die again: a pass that goes on after them does not replay them for ever.
        for claimed in subject.claim(2).await {
            subject.settle(claimed, dead(Reason::Http422)).await;
        }
        let rest = subject.store.replay(all(), Terms { after: first.next, ..two }).await.unwrap();
        assert_eq!((rest.count, rest.next, subject.ledger().dead), (1, None, 2));
        assert_eq!(subject.state(buried[2]).await, Some(State::Pending));
        let ids = Selection::Ids(vec![buried[2], buried[0], buried[0]]);
        assert_eq!(subject.store.replay(ids, Terms::default()).await.unwrap().count, 1);
    })
    .await;
}

#[tokio::test]
async fn two_operators_who_replay_the_same_replay_it_once() {
    each(0, async |subject| {
        bury(&subject, &[("a", Reason::Http422), ("b", Reason::Http422)]).await;
        let (store, terms) = (&subject.store, Terms::default());
        let (one, other) = tokio::join!(store.replay(all(), terms), store.replay(all(), terms));
        assert_eq!(one.unwrap().count + other.unwrap().count, 2);
        assert_eq!(users(&subject.claim(10).await), ["a", "b"]);
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_tells_that_later_events_of_its_user_went() {
    each(0, async |subject| {
        let buried = bury(&subject, &[("a", Reason::Http422), ("b", Reason::Http422)]).await;
        append(&*subject.store, &["a"]).await;
        let claimed = subject.claim_one().await;
        subject.settle(claimed, delivered()).await;
        let overtaken = async |id| subject.store.show(id).await.unwrap().unwrap().overtaken_at;
        assert!(overtaken(buried[0]).await.is_some_and(|at| at >= start()));
        assert_eq!(overtaken(buried[1]).await, None);
        // One that dies later is passed by what comes later.
        subject.clock.advance(Duration::from_secs(60));
        let later = bury(&subject, &[("a", Reason::Http422)]).await[0];
        assert_eq!(overtaken(later).await, None);
        append(&*subject.store, &["a"]).await;
        let claimed = subject.claim_one().await;
        subject.settle(claimed, delivered()).await;
        assert!(overtaken(later).await.is_some_and(|at| at >= start().plus(Duration::from_secs(60))));
        assert!(overtaken(buried[0]).await.is_some());
    })
    .await;
}

#[tokio::test]
async fn that_later_events_went_is_told_as_long_as_one_of_the_user_is_dead() {
    each(0, async |subject| {
        let buried = bury(&subject, &[("a", Reason::Http422), ("a", Reason::Http422)]).await;
        let deliver = async |subject: &Subject| {
            let claimed = subject.claim_one().await;
            subject.settle(claimed, delivered()).await;
        };
        let replay = async |id| {
            subject.store.replay(Selection::Ids(vec![id]), Terms::everything()).await.unwrap();
        };
        let overtaken = async |id| subject.store.show(id).await.unwrap().and_then(|shown| shown.overtaken_at);
        append(&*subject.store, &["a"]).await;
        deliver(&subject).await;
        let at = overtaken(buried[0]).await;
        assert!(at.is_some());
        replay(buried[0]).await;
        assert_eq!((overtaken(buried[0]).await, overtaken(buried[1]).await), (None, at), "who waits is not overtaken");
        subject.clock.advance(Duration::from_secs(60));
        deliver(&subject).await;
        assert_eq!(overtaken(buried[1]).await, at, "what went before it did not overtake it");
        replay(buried[1]).await;
        let claimed = subject.claim_one().await;
        subject.settle(claimed, dead(Reason::Http422)).await;
        assert_eq!(overtaken(buried[1]).await, None, "nobody was dead any more");
    })
    .await;
}

#[tokio::test]
async fn dead_letters_are_counted_by_reason_most_first() {
    each(0, async |subject| {
        bury(&subject, &[("a", Reason::Http422), ("b", Reason::Exhausted), ("c", Reason::Exhausted)]).await;
        let oldest = subject.store.list(Filter::default(), None, 1).await.unwrap()[0].id.accepted_at();
        let group = |reason, count| DeadGroup { reason: Some(reason), count, oldest };
        let groups = subject.store.dead_groups().await.unwrap();
        assert_eq!(groups, [group(Reason::Exhausted, 2), group(Reason::Http422, 1)]);
    })
    .await;
}

#[tokio::test]
async fn a_listing_filters_by_age_user_state_and_reason() {
    each(0, async |subject| {
        bury(&subject, &[("a", Reason::Http422)]).await;
        subject.clock.advance(Duration::from_secs(60));
        append(&*subject.store, &["a", "b"]).await;
        let claimed = subject.claim_one().await;
        let later = start().plus(Duration::from_secs(3600));
        subject.settle(claimed, retry(later, false)).await;
        let found = async |filter| {
            let lines = subject.store.list(filter, None, 10).await.unwrap();
            lines
                .iter()
                .map(|line| format!("{} {}", line.user.as_str(), line.report.state.as_str()))
                .collect::<Vec<_>>()
        };
        let minute = start().plus(Duration::from_secs(60));
        assert_eq!(found(Filter { since: Some(minute), ..Filter::default() }).await, ["a retrying", "b pending"]);
        assert_eq!(
            found(Filter { until: Some(start().plus(Duration::from_secs(59))), ..Filter::default() }).await,
            ["a dead"]
        );
        assert_eq!(found(of("a")).await, ["a dead", "a retrying"]);
        assert_eq!(found(Filter { state: Some(State::Retrying), ..Filter::default() }).await, ["a retrying"]);
        assert_eq!(found(Filter { state: Some(State::Pending), ..Filter::default() }).await, ["b pending"]);
        assert_eq!(found(Filter { reason: Some(Reason::Http5xx), ..Filter::default() }).await, ["a retrying"]);
        let reason = Some(Reason::Http422);
        assert_eq!(found(Filter { reason, ..of("a") }).await, ["a dead"]);
    })
    .await;
}

#[tokio::test]
async fn a_page_is_full_and_no_fuller_however_far_apart_its_lines_lie() {
    each(0, async |subject| {
        let rare = append(&*subject.store, &["rare"]).await;
        // More than one look takes in.
        append(&*subject.store, &vec!["other"; 17_000]).await;
        let rare = [rare, append(&*subject.store, &["rare", "rare", "rare"]).await].concat();
        for limit in [1, 2, 3, 9] {
            let page = subject.store.list(of("rare"), None, limit).await.unwrap();
            let page: Vec<EventId> = page.iter().map(|line| line.id).collect();
            assert_eq!(page, rare[..limit.min(4)]);
        }
        assert!(subject.store.list(of("rare"), None, 0).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_person_is_erased_in_every_state_and_nobody_else_is() {
    each(0, async |subject| {
        bury(&subject, &[("gone", Reason::Http422), ("stays", Reason::Http422)]).await;
        append(&*subject.store, &["gone", "gone", "stays", "gone"]).await;
        let claimed = subject.claim(1).await.remove(0);
        subject.settle(claimed, retry(start().plus(Duration::from_secs(3600)), false)).await;
        let erased = subject.store.erase(UserId::new("gone")).await.unwrap();
        assert_eq!((erased.pending, erased.retrying, erased.dead, erased.in_flight), (2, 1, 1, 0));
        assert!(erased.is_overwritten);
        let ledger = subject.ledger();
        assert_eq!((ledger.erased, ledger.dead, ledger.undelivered()), (4, 1, 1));
        assert!(subject.store.list(of("gone"), None, 10).await.unwrap().is_empty());
        // Who is erased can come back, and the others go on.
        append(&*subject.store, &["gone"]).await;
        assert_eq!(users(&subject.claim(10).await), ["stays", "gone"]);
    })
    .await;
}

#[tokio::test]
async fn what_is_in_flight_is_erased_once_it_has_landed() {
    each(0, async |subject| {
        append(&*subject.store, &["gone", "gone"]).await;
        let claimed = subject.claim_one().await;
        let erasing = subject.store.erase(UserId::new("gone"));
        let landing = async {
            // The second is erased while the first is in flight.
            while subject.ledger().erased == 0 {
                tokio::task::yield_now().await;
            }
            subject.settle(claimed, retry(start(), false)).await;
        };
        let (erased, ()) = tokio::join!(erasing, landing);
        let erased = erased.unwrap();
        assert_eq!((erased.pending, erased.retrying, erased.in_flight), (1, 1, 0));
        assert_eq!((subject.ledger().erased, subject.ledger().undelivered()), (2, 0));
        assert!(subject.nothing_is_due().await);
    })
    .await;
}
