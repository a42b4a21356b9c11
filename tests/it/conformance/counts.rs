//! What every outbox promises about its counts.

use super::*;

#[tokio::test]
async fn the_counts_tell_what_waits_flies_and_failed_and_since_when() {
    each(0, async |subject: Subject| {
        let counts = |subject: &Subject| {
            let stats = subject.store.stats();
            assert!(stats.refusing.is_none() && !stats.dead_letters_full, "without bounds nothing is ever full");
            (stats.pending(), stats.in_flight, stats.retrying, stats.oldest)
        };
        assert_eq!(counts(&subject), (0, 0, 0, None));
        let begun = append(&*subject.store, &["a", "b"]).await[0].accepted_at();
        subject.clock.advance(Duration::from_secs(60));
        let later = append(&*subject.store, &["c", "d"]).await[0].accepted_at();
        assert_eq!(counts(&subject), (4, 0, 0, Some(begun)));
        let mut claimed = subject.claim(3).await;
        assert_eq!(counts(&subject), (1, 3, 0, Some(begun)));
        let due = subject.clock.now().plus(Duration::from_secs(60));
        subject.settle(claimed.remove(0), retry(due, true)).await;
        assert_eq!(counts(&subject), (1, 2, 1, Some(begun)));
        subject.clock.advance(Duration::from_secs(61));
        let a = subject.claim_one().await;
        assert_eq!(counts(&subject), (1, 3, 0, Some(begun)), "what flies again is not counted as failed");
        subject.settle(a, delivered()).await;
        subject.settle(claimed.remove(0), dead(Reason::Http400)).await;
        assert_eq!(counts(&subject), (1, 1, 0, Some(later)), "the dead are not among those that wait");
    })
    .await;
}

#[tokio::test]
async fn that_an_outbox_is_full_is_told_before_it_refuses() {
    each(3, async |subject: Subject| {
        let refusing = |subject: &Subject| subject.store.stats().refusing;
        append(&*subject.store, &["a", "b"]).await;
        assert_eq!(refusing(&subject), None);
        let claimed = subject.claim_one().await;
        subject.settle(claimed, dead(Reason::Http400)).await;
        assert_eq!(refusing(&subject), None, "one is dead, one waits");
        append(&*subject.store, &["c"]).await;
        assert_eq!(refusing(&subject), Some(AppendError::Full(Bound::Events)));
        let claimed = subject.claim_one().await;
        subject.settle(claimed, delivered()).await;
        assert_eq!(refusing(&subject), None);
    })
    .await;
}
