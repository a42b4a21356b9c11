//! What every outbox promises about whose turn it is after a release.

use super::*;

#[tokio::test]
async fn released_events_come_first_again_or_last_when_rotating() {
    each(0, async |subject: Subject| {
        let appended = append(&*subject.store, &["a", "b", "c"]).await;
        for expected in [0, 1, 2, 0, 1] {
            let mut claimed = subject.store.claim(Want { max: 1, rotate: true }).await;
            let claimed = claimed.remove(0);
            assert_eq!(claimed.id, appended[expected]);
            subject.settle(claimed, Outcome::Release).await;
        }
        let all = subject.claim(10).await;
        assert_eq!(ids(&all), appended);
        assert!(all.iter().all(|claimed| claimed.progress.attempts == 0));
    })
    .await;
}

#[tokio::test]
async fn who_was_released_longest_ago_is_next_whatever_becomes_of_others() {
    each(0, async |subject: Subject| {
        append(&*subject.store, &["a", "b", "c", "d"]).await;
        for claimed in subject.claim(2).await.into_iter().rev() {
            subject.settle(claimed, Outcome::Release).await;
        }
        let later = start().plus(Duration::from_secs(3600));
        let outcomes = [Some(delivered()), Some(retry(later, false)), None, None];
        let (mut order, mut held) = (Vec::new(), Vec::new());
        for outcome in outcomes {
            let claimed = subject.store.claim(Want { max: 1, rotate: true }).await.remove(0);
            order.push(claimed.event.user.as_str().to_owned());
            match outcome {
                Some(outcome) => drop(subject.settle(claimed, outcome).await),
                None => held.push(claimed),
            }
        }
        assert_eq!(order, ["c", "d", "b", "a"]);
    })
    .await;
}
