//! What every outbox promises about dead letters.

use super::*;

#[tokio::test]
async fn a_dead_letter_leaves_the_order_and_takes_its_old_place_when_replayed() {
    each(0, async |subject: Subject| {
        let appended = append(&*subject.store, &["a", "a", "a"]).await;
        let first = subject.claim_one().await;
        subject.settle(first, dead(Reason::Http400)).await;
        let second = subject.claim_one().await;
        assert_eq!(second.id, appended[1], "the dead one is not waited for");
        assert_eq!(subject.state(appended[0]).await, Some(State::Dead));
        assert_eq!(subject.ledger().dead, 1);

        assert_eq!(
            subject.store.replay(Selection::Ids(vec![appended[0]]), Terms::everything()).await.unwrap().count,
            1
        );
        let report = subject.store.lookup(appended[0]).await.unwrap().unwrap();
        assert_eq!((report.state, report.attempts, report.reason), (State::Pending, 0, None));
        assert_eq!((report.message, report.request_id), (None, None), "of its former life");
        assert!(subject.nothing_is_due().await, "its user is busy");
        subject.settle(second, delivered()).await;
        let replayed = subject.claim_one().await;
        assert_eq!((replayed.id, replayed.progress.attempts), (appended[0], 0));
        subject.settle(replayed, delivered()).await;
        let third = subject.claim_one().await;
        assert_eq!(third.id, appended[2]);
        assert_eq!(subject.ledger(), Ledger { accepted: 3, delivered: 2, ..Ledger::default() });
    })
    .await;
}

#[tokio::test]
async fn discarded_events_are_gone_and_counted() {
    each(0, async |subject: Subject| {
        let appended = append(&*subject.store, &["a", "b", "c"]).await;
        for claimed in subject.claim(3).await {
            let reason = if claimed.id == appended[1] { Reason::Http422 } else { Reason::Http400 };
            subject.settle(claimed, dead(reason)).await;
        }
        let filter = Filter { reason: Some(Reason::Http400), ..Filter::default() };
        assert_eq!(subject.store.discard(Selection::Matching(filter.clone())).await.unwrap(), 2);
        assert_eq!(subject.store.discard(Selection::Matching(filter)).await.unwrap(), 0);
        assert_eq!(subject.store.discard(Selection::Ids(appended.clone())).await.unwrap(), 1);
        assert_eq!(subject.ledger(), Ledger { accepted: 3, discarded: 3, ..Ledger::default() });
        assert_eq!(subject.state(appended[0]).await, None);
    })
    .await;
}

#[tokio::test]
async fn a_dead_letter_without_room_is_held_back() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(TestClock::starting_at(start()));
    let limits = Limits { max_events: 0, max_dead: 2 };
    let memory = Memory::bounded(Arc::clone(&clock) as Arc<dyn Clock>, limits);
    let stores: [Box<dyn Store>; 2] =
        [Box::new(memory), sqlite(dir.path(), &clock, |settings| settings.max_bytes = 64 << 20)];
    for store in stores {
        let subject = Subject { store, clock: Arc::clone(&clock), _dir: tempfile::tempdir().unwrap() };
        let large = |user| {
            let mut batch = batch(&[user]);
            batch.events[0].body = vec![b'x'; 17 << 20].into();
            batch
        };
        for first in [batch(&["small"]), large("a")] {
            subject.store.append(first).await.unwrap();
            let claimed = subject.claim_one().await;
            assert_eq!(subject.settle(claimed, dead(Reason::Http400)).await, Settled::Done);
        }
        let id = subject.store.append(large("b")).await.unwrap().ids[0];
        let claimed = subject.claim_one().await;
        assert_eq!(subject.settle(claimed, dead(Reason::Http400)).await, Settled::HeldBack);
        assert!(subject.store.stats().dead_letters_full);
        let report = subject.store.lookup(id).await.unwrap().unwrap();
        assert_eq!((report.state, report.reason), (State::Retrying, Some(Reason::DeadLettersFull)));
        subject.store.discard(Selection::Matching(Filter::default())).await.unwrap();
        assert!(!subject.store.stats().dead_letters_full, "there is room again, though it was not tried yet");
        assert!(subject.nothing_is_due().await);
        append(&*subject.store, &["waits"]).await;
        let claimed = subject.claim_one().await;
        subject.settle(claimed, retry(subject.clock.now().plus(Duration::from_secs(300)), false)).await;
        subject.store.ignore_backoff(true);
        let mut claimed = subject.claim(2).await;
        assert_eq!(users(&claimed), ["waits"], "a drain does not try what was refused again and again");
        subject.settle(claimed.remove(0), delivered()).await;
        assert!(subject.nothing_is_due().await);
        subject.store.ignore_backoff(false);
        subject.clock.advance(Duration::from_secs(301));
        let claimed = subject.claim_one().await;
        assert_eq!(subject.settle(claimed, dead(Reason::Http400)).await, Settled::Done);
    }
}
