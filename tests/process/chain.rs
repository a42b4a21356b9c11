//! Sidecar → gateway → Cello: a relay that forwards to a relay, and either of them killed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use crate::client::{Answer, Client};
use crate::load::{Book, event, write};
use crate::relay::{PATIENCE, Relay, Setup, sum};
use crate::upstream::{Upstream, numbered};

const BEARER: &str = "a-shared-bearer-token-of-the-hop";
const KEY_ID: &str = "canary-key-id";
const SECRET: &str = "canary-secret-key";
/// Threads that post to the sidecar at the same time.
const WRITERS: usize = 4;
/// Users of one writer.
const USERS: usize = 3;
/// What a writer posts in a round at most; a kill of the sidecar ends it sooner.
const MOST: usize = 120;

/// What Cello does to every so many events of a round, beside taking its time.
const FAULTS: [&str; 4] = [
    r#"[{"path":"/events","latency":"5ms"},{"path":"/events","every":7,"status":500}]"#,
    r#"[{"path":"/events","latency":"5ms"},{"path":"/events","every":3,"status":429,"retryAfter":1}]"#,
    r#"[{"path":"/events","latency":"5ms"},{"path":"/events","every":7,"reset":"after"}]"#,
    r#"{"rules":[{"path":"/events","latency":"5ms"}],"revokeTokens":true}"#,
];

/// Two relays in a row. A relay that was killed is absent until it is started again.
struct Chain {
    gateway_setup: Setup,
    sidecar_setup: Setup,
    gateway: Option<Relay>,
    sidecar: Option<Relay>,
}

impl Chain {
    /// Both run; the gateway alone has Cello's keys. `between` may put something on the hop.
    fn start(upstream: &Upstream, between: impl FnOnce(SocketAddr) -> SocketAddr) -> Self {
        Self::with(upstream, between, |_| {}, |_| {})
    }

    /// The same with other settings of gateway and sidecar.
    fn with(
        upstream: &Upstream,
        between: impl FnOnce(SocketAddr) -> SocketAddr,
        of_gateway: impl FnOnce(&mut Setup),
        of_sidecar: impl FnOnce(&mut Setup),
    ) -> Self {
        let mut gateway_setup = Setup::new(&upstream.base_url());
        let token = gateway_setup.dir().join("token");
        std::fs::write(&token, format!("{BEARER}\n")).expect("a file");
        let token = token.to_str().expect("a path").to_owned();
        gateway_setup.set("CELLO__ACCESS_KEY_ID", KEY_ID).set("CELLO__SECRET_ACCESS_KEY", SECRET);
        gateway_setup.set("INGEST__TOKEN_FILE", &token).set("FORWARD__BACKOFF_MAX", "1s");
        of_gateway(&mut gateway_setup);
        let gateway = gateway_setup.start();
        gateway_setup.set("INGEST__LISTEN", &gateway.ingest.to_string());
        let mut sidecar_setup = Setup::new(&format!("http://{}", between(gateway.ingest)));
        sidecar_setup.unset("CELLO__ACCESS_KEY_ID").unset("CELLO__SECRET_ACCESS_KEY");
        sidecar_setup.set("CELLO__AUTH", "bearer").set("CELLO__BEARER_TOKEN_FILE", &token);
        sidecar_setup.set("FORWARD__BACKOFF_MAX", "1s");
        of_sidecar(&mut sidecar_setup);
        let sidecar = sidecar_setup.start();
        Self { gateway_setup, sidecar_setup, gateway: Some(gateway), sidecar: Some(sidecar) }
    }

    fn gateway(&self) -> &Relay {
        self.gateway.as_ref().expect("the gateway runs")
    }

    fn sidecar(&self) -> &Relay {
        self.sidecar.as_ref().expect("the sidecar runs")
    }

    /// Events that came to the gateway a second time since it was started, and were answered from memory.
    fn replayed(&self) -> f64 {
        self.gateway().metric("cello_relay_events_deduplicated_total", "")
    }

    fn restart(&mut self) {
        self.gateway.get_or_insert_with(|| self.gateway_setup.start());
        self.sidecar.get_or_insert_with(|| self.sidecar_setup.start());
    }

    fn wait_until_empty(&self) {
        self.sidecar().wait_until_empty(PATIENCE);
        self.gateway().wait_until_empty(PATIENCE);
    }

    /// What the ledgers of sidecar and gateway say of `entry`.
    fn ledgers(&self, entry: &str) -> [u64; 2] {
        [&self.sidecar_setup, &self.gateway_setup].map(|setup| {
            let mut socket = Client::socket(&setup.socket()).expect("the control socket");
            let status = socket.get("/api/status").expect("an answer").json();
            status["ledger"][entry].as_u64().unwrap_or_else(|| panic!("no {entry} in {status}"))
        })
    }
}

#[test]
fn killing_sidecar_or_gateway_at_any_time_loses_nothing_and_doubles_nothing_on_the_hop() {
    let rounds = if crate::long() { 200 } else { 24 };
    let upstream = Upstream::start();
    let mut chain = Chain::start(&upstream, |gateway| gateway);
    let book = Book::default();
    let mut random = fastrand::Rng::with_seed(20_261_123);
    let mut replayed = 0.0;
    for round in 0..rounds {
        upstream.fault(FAULTS[round % FAULTS.len()]);
        replayed += kill_under_load(&mut chain, &upstream, &book, round % 3, Duration::from_millis(random.u64(1..150)));
        chain.restart();
    }
    upstream.heal();
    chain.wait_until_empty();
    replayed += chain.replayed();

    let faults = upstream.stats()["byStatus"].clone();
    for status in ["500", "429", "401"] {
        assert!(faults[status].as_u64() > Some(0), "no {status} was met: {faults}");
    }
    let doubled_at_cello = upstream.arrivals().assert_complete_and_in_order(&book.acked());
    let mut keys: BTreeMap<(String, u64), BTreeSet<String>> = BTreeMap::new();
    for arrival in upstream.events() {
        let key = arrival.headers.idempotency_key.as_deref().expect("a key").to_owned();
        keys.entry(numbered(&arrival)).or_default().insert(key);
    }
    let doubled: Vec<_> = keys.iter().filter(|(_, keys)| keys.len() > 1).collect();
    assert!(doubled.is_empty(), "left the gateway under two ids: {doubled:?}");
    let all = keys.len() as u64;
    assert_eq!(chain.ledgers("accepted"), [all, all], "sidecar and gateway took each event once");
    assert_eq!(chain.ledgers("delivered"), [all, all]);
    assert!(replayed > 0.0, "no kill made the sidecar send again: nothing was tried");
    println!(
        "{rounds} rounds of kill -9 of sidecar, gateway or both, Cello answering {faults}: {} events answered, {all} stored, lost 0, out of order 0; \
         at least {replayed} sent again on the hop, doubled there 0; {doubled_at_cello} doubled between gateway and Cello",
        book.count(),
    );
}

/// Lets all writers post, and kills the sidecar (0), the gateway (1) or both (2) some time `after` the next
/// arrival at Cello. Tells how many replays die with the gateway's counter.
fn kill_under_load(chain: &mut Chain, upstream: &Upstream, book: &Book, whom: usize, after: Duration) -> f64 {
    let ingest = chain.sidecar().ingest;
    let mut replayed = 0.0;
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            scope.spawn(move || write(book, ingest, writer, USERS, MOST));
        }
        upstream.wait_for_arrival();
        // The moment of the kill is meant to be arbitrary; nothing waits for anything here.
        std::thread::park_timeout(after);
        if whom != 0 {
            replayed = chain.replayed();
            chain.gateway.take().expect("the gateway runs").kill();
        }
        if whom != 1 {
            chain.sidecar.take().expect("the sidecar runs").kill();
        }
    });
    replayed
}

#[test]
fn an_event_is_followed_from_the_sidecar_by_request_ids_to_cello() {
    let upstream = Upstream::start();
    let chain = Chain::start(&upstream, |gateway| gateway);
    let taken = chain.sidecar().client().post("/events", &event("u", 1)).expect("an answer").json();
    chain.wait_until_empty();
    let path = format!("/events/{}", taken["id"].as_str().expect("an id"));
    let at_sidecar = chain.sidecar().client().get(&path).expect("an answer").json();
    assert_eq!(at_sidecar["state"], "delivered", "{at_sidecar}");
    let path = format!("/events/{}", at_sidecar["requestId"].as_str().expect("the gateway's id"));
    let at_gateway = with_bearer(chain.gateway(), &path);
    assert_eq!(at_gateway["state"], "delivered", "{at_gateway}");
    assert_eq!(at_gateway["requestId"], *upstream.events()[0].request_id);
}

fn with_bearer(gateway: &Relay, path: &str) -> Value {
    let authorization = format!("Bearer {BEARER}");
    let answer = gateway.client().request("GET", path, &[("Authorization", &authorization)], "");
    answer.expect("an answer").json()
}

#[test]
fn a_full_gateway_leaves_the_events_with_the_sidecar_until_it_has_room() {
    let upstream = Upstream::start();
    upstream.fault(r#"[{"path":"/events","status":503}]"#);
    let small = |gateway: &mut Setup| _ = gateway.set("OUTBOX__MAX_EVENTS", "10");
    let chain = Chain::with(&upstream, |gateway| gateway, small, |_| {});
    let book = Book::default();
    write(&book, chain.sidecar().ingest, 0, 6, 60);
    assert_eq!(book.count(), 60, "the app never waits for the gateway");
    chain.gateway().wait_until("the gateway is full and says so", |metrics| {
        sum(metrics, "cello_relay_events_rejected_total", "outbox_full") >= 2.0
    });
    assert_eq!(chain.gateway().metric("cello_relay_outbox_events", ""), 10.0);
    let held = chain.sidecar().metrics();
    assert_eq!(sum(&held, "cello_relay_outbox_events", ""), 50.0, "what found no room waits in front of it: {held}");
    assert_eq!(sum(&held, "cello_relay_events_dead_lettered_total", ""), 0.0);
    upstream.heal();
    chain.wait_until_empty();
    assert_eq!(upstream.arrivals().assert_complete_and_in_order(&book.acked()), 0);
    assert_eq!(chain.ledgers("delivered"), [60, 60]);
}

/// What Cello itself says to `path`.
fn of_cello(upstream: &Upstream, path: &str) -> Answer {
    let address = upstream.base_url().trim_start_matches("http://").parse().expect("an address");
    let mut client = Client::connect(address).expect("Cello");
    let keys = r#"{"accessKeyId":"a","secretAccessKey":"b"}"#;
    let token = client.post("/token", keys).expect("an answer").json();
    let authorization = format!("Bearer {}", token["accessToken"].as_str().expect("a token"));
    client.request("GET", path, &[("Authorization", &authorization)], "").expect("an answer")
}

#[test]
fn reads_go_through_the_hop_and_are_what_cello_said() {
    let upstream = Upstream::start();
    let chain = Chain::start(&upstream, |gateway| gateway);
    for path in ["/referral-codes/active-link/u-1", "/referral-codes/code-1", "/new-users/u-1/reward"] {
        let through = chain.sidecar().client().get(path).expect("an answer");
        assert_eq!((through.status, through.body), (200, of_cello(&upstream, path).body), "{path}");
    }
    let unknown = chain.sidecar().client().get("/referral-codes/active-link/").expect("an answer");
    assert_eq!(unknown.status, 404);
}

#[test]
fn a_person_is_erased_through_the_hop_only_if_both_relays_allow_it_and_then_once() {
    let allow = |setup: &mut Setup| _ = setup.set("READS__ALLOW_DEPERSONALIZE", "true");
    for (at_gateway, at_sidecar, status, sent) in [(false, false, 403, 0), (false, true, 403, 0), (true, true, 204, 1)]
    {
        let upstream = Upstream::start();
        let of = |allowed: bool| {
            move |setup: &mut Setup| {
                if allowed {
                    allow(setup)
                }
            }
        };
        let chain = Chain::with(&upstream, |gateway| gateway, of(at_gateway), of(at_sidecar));
        let answer =
            chain.sidecar().client().request("POST", "/referrers/u-1/depersonalize", &[], "").expect("an answer");
        assert_eq!(answer.status, status, "{}", answer.body);
        assert_eq!(status == 403, answer.body.contains("reads.allow_depersonalize"), "{}", answer.body);
        assert_eq!(upstream.stats()["reads"], sent);
    }
}

#[test]
fn keys_and_tokens_of_cello_stay_at_the_gateway() {
    let upstream = Upstream::start();
    let overheard = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&overheard);
    let chain = Chain::start(&upstream, |gateway| overhear(gateway, heard));
    let mut client = chain.sidecar().client();
    assert_eq!(client.post("/events", &event("u", 1)).expect("an answer").status, 200);
    assert_eq!(client.get("/referral-codes/active-link/u").expect("an answer").status, 200);
    let asked = format!(r#"{{"accessKeyId":"app","secretAccessKey":"{BEARER}"}}"#);
    let given = client.post("/token", &asked).expect("an answer");
    assert_eq!(given.status, 201);
    chain.wait_until_empty();
    assert!(upstream.token_calls() > 0, "the gateway asked Cello for a token");

    let heard = String::from_utf8_lossy(&overheard.lock().expect("no panic")).into_owned();
    assert!(heard.contains(BEARER) && heard.contains("POST /events"), "the hop is heard: {heard}");
    for secret in [KEY_ID, SECRET, "accessToken", "POST /token"] {
        assert!(!heard.contains(secret), "{secret} on the hop: {heard}");
    }
}

/// Passes connections on to `target` and keeps all that is said in both directions.
fn overhear(target: SocketAddr, heard: Arc<Mutex<Vec<u8>>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(target) else { continue };
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                let heard = Arc::clone(&heard);
                std::thread::spawn(move || pass_on(from, to, &heard));
            }
        }
    });
    address
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, heard: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        heard.lock().expect("no panic").extend_from_slice(&buffer[..length]);
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
}
