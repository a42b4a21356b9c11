use secrecy::ExposeSecret;

use super::*;

/// A machine with a clock that the test owns.
struct Bench {
    machine: Machine,
    now: Instant,
    rng: fastrand::Rng,
}

fn keys(name: &str) -> Arc<Secrets> {
    Arc::new(Secrets::new(vec![name.into(), "secret".into()]))
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

impl Bench {
    /// With keys `k1`, not yet tried.
    fn new() -> Self {
        let mut bench = Self { machine: Machine::default(), now: Instant::now(), rng: fastrand::Rng::with_seed(7) };
        bench.machine.credentials(Some(keys("k1")));
        bench
    }

    /// With a token of 100 s, and a refresh token.
    fn with_token() -> Self {
        let mut bench = Self::new();
        bench.grant(100.0, Some("r1"));
        bench
    }

    fn pass(&mut self, by: f64) -> &mut Self {
        self.now += seconds(by);
        self
    }

    /// What is asked for now: the key's name or the refresh token.
    fn asks(&mut self) -> Option<String> {
        match self.machine.next(self.now) {
            Next::Ask(Ask::Keys(keys)) => Some(keys.expose(0).to_owned()),
            Next::Ask(Ask::Refresh(token)) => Some(token.expose_secret().to_owned()),
            Next::Wait(_) => None,
        }
    }

    /// How long nothing is done.
    fn waits(&mut self) -> Option<f64> {
        match self.machine.next(self.now) {
            Next::Wait(until) => until.map(|until| until.duration_since(self.now).as_secs_f64()),
            Next::Ask(ask) => panic!("asks: {ask:?}"),
        }
    }

    fn ask(&mut self) -> Ask {
        match self.machine.next(self.now) {
            Next::Ask(ask) => ask,
            Next::Wait(_) => panic!("nothing is asked for"),
        }
    }

    fn grant(&mut self, life: f64, refresh: Option<&str>) -> bool {
        let ask = self.ask();
        let granted =
            Granted { value: "t".into(), life: seconds(life), refresh: refresh.map(Into::into), refresh_life: None };
        self.machine.granted(self.now, &ask, granted, &mut self.rng)
    }

    fn refuse(&mut self) {
        let ask = self.ask();
        self.machine.refused(self.now, &ask, Refusal::Rejected, &mut self.rng);
    }

    fn fail(&mut self) {
        let ask = self.ask();
        self.machine.refused(self.now, &ask, Refusal::Failed(None), &mut self.rng);
    }

    fn reject(&mut self, generation: u64) -> Rejected {
        self.machine.rejected(self.now, generation, &mut self.rng)
    }

    fn generation(&self) -> Option<u64> {
        self.machine.token().map(|(token, _)| token.generation)
    }
}

#[test]
fn a_token_is_renewed_at_70_percent_of_its_life_by_the_refresh_token() {
    let mut bench = Bench::with_token();
    let wait = bench.waits().unwrap();
    assert!((wait - 70.0).abs() < 0.001, "{wait}");
    assert_eq!(bench.pass(69.9).asks(), None);
    assert_eq!(bench.pass(0.2).asks().as_deref(), Some("r1"));
    assert_eq!(bench.generation(), Some(1), "the old one is used meanwhile");
    bench.grant(100.0, None);
    assert_eq!(bench.generation(), Some(2));
    assert_eq!(bench.pass(71.0).asks().as_deref(), Some("r1"), "no new refresh token came: the old one is kept");
}

#[test]
fn a_refused_refresh_token_gives_way_to_the_keys_at_once() {
    let mut bench = Bench::with_token();
    bench.pass(71.0).refuse();
    assert_eq!(bench.asks().as_deref(), Some("k1"));
}

#[test]
fn a_refresh_token_that_keeps_failing_gives_way_to_the_keys() {
    let mut bench = Bench::with_token();
    bench.pass(71.0);
    for _ in 0..REFRESH_TRIES {
        assert_eq!(bench.asks().as_deref(), Some("r1"));
        bench.fail();
        bench.pass(60.0);
    }
    assert_eq!(bench.asks().as_deref(), Some("k1"));
}

#[test]
fn a_refresh_token_is_not_used_past_its_end() {
    let mut bench = Bench::new();
    let ask = bench.ask();
    let (value, refresh) = ("t".into(), Some("r1".into()));
    let granted = Granted { value, life: seconds(100.0), refresh, refresh_life: Some(seconds(50.0)) };
    bench.machine.granted(bench.now, &ask, granted, &mut bench.rng);
    assert_eq!(bench.pass(71.0).asks().as_deref(), Some("k1"));
}

#[test]
fn failures_are_retried_after_1_s_doubled_to_60_s_and_the_token_is_used_to_its_end() {
    let mut bench = Bench::with_token();
    bench.pass(71.0);
    for full in [1.0, 2.0, 4.0] {
        bench.fail();
        let wait = bench.waits().unwrap();
        assert!((full / 2.0..=full).contains(&wait), "{wait} of {full}");
        assert_eq!(bench.generation(), Some(1));
        bench.pass(wait);
    }
    bench.pass(30.0).asks();
    assert_eq!((bench.generation(), bench.machine.standing()), (None, Standing::Waiting));
    for _ in 0..8 {
        bench.fail();
        let wait = bench.waits().unwrap();
        bench.pass(wait);
    }
    bench.fail();
    assert!((30.0..=60.0).contains(&bench.waits().unwrap()));
}

#[test]
fn without_a_token_it_is_failing_from_the_first_failure_until_a_token_comes() {
    let mut bench = Bench::new();
    bench.asks();
    assert!(!bench.machine.is_failing(), "the first attempt is under way");
    for _ in 0..2 {
        bench.fail();
        assert!(bench.machine.is_failing());
        bench.pass(60.0).asks();
        assert!(bench.machine.is_failing(), "the next attempt is under way");
    }
    bench.grant(100.0, None);
    assert!(!bench.machine.is_failing());
    bench.pass(71.0).fail();
    assert!(!bench.machine.is_failing(), "the old token is used");
}

#[test]
fn cellos_retry_after_is_kept() {
    let mut bench = Bench::new();
    let ask = bench.ask();
    bench.machine.refused(bench.now, &ask, Refusal::Failed(Some(seconds(90.0))), &mut bench.rng);
    assert_eq!(bench.waits(), Some(90.0));
}

#[test]
fn refused_keys_are_tried_again_after_5_minutes_and_at_once_when_they_change() {
    let mut bench = Bench::new();
    bench.refuse();
    assert_eq!((bench.machine.standing(), bench.waits()), (Standing::Refused, Some(300.0)));
    bench.pass(300.0).refuse();
    bench.machine.credentials(Some(keys("k1")));
    assert_eq!(bench.asks(), None, "the same keys are no news");
    bench.machine.credentials(Some(keys("k2")));
    assert_eq!(bench.asks().as_deref(), Some("k2"));
    bench.grant(100.0, None);
    assert_eq!(bench.machine.standing(), Standing::Granted);
}

#[test]
fn changed_keys_are_tried_at_once_and_the_old_token_is_used_until_they_gave_one() {
    let mut bench = Bench::with_token();
    bench.machine.credentials(Some(keys("k2")));
    assert_eq!((bench.asks().as_deref(), bench.generation()), (Some("k2"), Some(1)));
    assert!(bench.grant(100.0, Some("r2")), "rotated");
    assert_eq!(bench.pass(71.0).asks().as_deref(), Some("r2"), "nothing of the old keys is left");
}

#[test]
fn while_changed_keys_are_refused_the_old_ones_go_on() {
    let mut bench = Bench::with_token();
    bench.machine.credentials(Some(keys("k2")));
    bench.refuse();
    assert_eq!((bench.machine.standing(), bench.machine.keys()), (Standing::Granted, Standing::Refused));
    assert_eq!(bench.pass(71.0).asks().as_deref(), Some("r1"));
    bench.refuse();
    assert_eq!(bench.asks().as_deref(), Some("k1"));
    bench.refuse();
    bench.pass(30.0).asks();
    assert_eq!(bench.machine.standing(), Standing::Refused, "now both are");
}

#[test]
fn missing_keys_leave_the_token_in_use_and_are_taken_up_when_they_are_back() {
    let mut bench = Bench::new();
    bench.grant(100.0, None);
    bench.machine.credentials(None);
    assert_eq!((bench.machine.standing(), bench.machine.keys()), (Standing::Granted, Standing::Missing));
    assert_eq!(bench.pass(100.0).asks(), None);
    assert_eq!((bench.machine.standing(), bench.waits()), (Standing::Missing, None));
    bench.machine.credentials(Some(keys("k1")));
    assert_eq!(bench.asks().as_deref(), Some("k1"));
}

#[test]
fn refused_keys_that_then_are_missing_are_not_waited_for() {
    let mut bench = Bench::new();
    bench.ask();
    bench.refuse();
    assert!(bench.waits().is_some());
    bench.machine.credentials(None);
    assert_eq!((bench.machine.standing(), bench.waits()), (Standing::Missing, None));
}

#[test]
fn a_401_forgets_the_token_and_asks_at_once_and_only_once() {
    let mut bench = Bench::with_token();
    assert_eq!(bench.reject(1), Rejected::Forgotten);
    assert_eq!((bench.generation(), bench.asks().as_deref()), (None, Some("r1")));
    bench.grant(100.0, None);
    assert_eq!(bench.reject(1), Rejected::Superseded, "a late 401 for the old token");
    assert_eq!((bench.generation(), bench.asks()), (Some(2), None));
}

#[test]
fn a_401_while_no_other_token_can_be_asked_for_stands_and_the_token_is_replaced_when_one_can() {
    let mut limited = Bench::with_token();
    let ask = limited.pass(71.0).ask();
    limited.machine.refused(limited.now, &ask, Refusal::Failed(Some(seconds(20.0))), &mut limited.rng);
    assert_eq!((limited.pass(1.0).reject(1), limited.generation()), (Rejected::Stands, Some(1)));
    assert_eq!((limited.asks(), limited.waits()), (None, Some(19.0)), "Cello's wish is kept");
    assert_eq!(limited.pass(19.0).asks().as_deref(), Some("k1"));

    let mut refused = Bench::with_token();
    refused.pass(71.0).refuse();
    refused.refuse();
    assert_eq!((refused.reject(1), refused.generation()), (Rejected::Stands, Some(1)));
    assert_eq!(refused.machine.standing(), Standing::Granted, "until it ends");
    refused.machine.credentials(Some(keys("k2")));
    assert_eq!(refused.asks().as_deref(), Some("k2"));

    let mut missing = Bench::new();
    missing.grant(100.0, None);
    missing.machine.credentials(None);
    assert_eq!((missing.reject(1), missing.asks()), (Rejected::Stands, None));
    missing.machine.credentials(Some(keys("k1")));
    assert_eq!(missing.asks().as_deref(), Some("k1"), "what was refused is replaced");
}

#[test]
fn a_fresh_token_that_is_refused_stays_and_its_401_stands() {
    let mut bench = Bench::with_token();
    bench.reject(1);
    bench.grant(100.0, None);
    assert_eq!(bench.reject(2), Rejected::Stands);
    assert_eq!((bench.generation(), bench.asks()), (Some(2), None));
    assert_eq!(bench.pass(1.0).asks().as_deref(), Some("k1"), "what the refresh token gives is refused");
}

#[test]
fn tokens_that_are_all_refused_are_asked_for_a_few_times_in_ten_minutes() {
    let mut bench = Bench::with_token();
    let end = bench.now + seconds(600.0);
    let mut asked = 0;
    while bench.now < end {
        while bench.asks().is_some() {
            bench.grant(18_000.0, None);
            asked += 1;
        }
        let generation = bench.generation().unwrap();
        bench.reject(generation);
        bench.pass(0.1);
    }
    assert!((6..=25).contains(&asked), "{asked}");
}

#[test]
fn after_a_quiet_time_a_401_is_the_first_again() {
    let mut bench = Bench::with_token();
    for _ in 0..4 {
        bench.pass(61.0);
        let generation = bench.generation().unwrap();
        assert_eq!(bench.reject(generation), Rejected::Forgotten);
        bench.grant(1_000.0, None);
    }
    bench.pass(300.0);
    assert_eq!(bench.reject(5), Rejected::Forgotten);
    bench.grant(1_000.0, None);
    assert_eq!(bench.pass(1.0).reject(6), Rejected::Forgotten, "the pause is the first again: 1 s at most");
}

#[test]
fn what_is_due_and_cannot_be_done_is_not_waited_for() {
    let mut bench = Bench::new();
    bench.grant(100.0, None);
    assert_eq!(bench.machine.renew_at(), Some(bench.now + seconds(70.0)));
    bench.machine.credentials(None);
    bench.pass(70.0);
    let wait = bench.waits().unwrap();
    assert!((wait - 30.0).abs() < 0.001, "{wait}: a busy loop until the token ends");
}

#[test]
fn a_life_of_one_second_makes_no_busy_loop() {
    let mut bench = Bench::new();
    bench.grant(1.0, None);
    let wait = bench.waits().unwrap();
    assert!((0.69..=0.71).contains(&wait), "{wait}");
}

#[test]
fn no_secret_is_shown() {
    let mut bench = Bench::with_token();
    bench.machine.credentials(Some(Arc::new(Secrets::new(vec!["canary-1".into(), "canary-2".into()]))));
    let ask = bench.ask();
    let granted =
        Granted { value: "canary-3".into(), life: seconds(9.0), refresh: Some("canary-4".into()), refresh_life: None };
    bench.machine.granted(bench.now, &ask, granted, &mut bench.rng);
    let shown = format!("{:?} {ask:?} {:?}", bench.machine, bench.machine.token());
    assert!(!shown.contains("canary"), "{shown}");
}
