//! What lies between the relay and Cello: TLS, a path in the base URL, a proxy, another relay.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cello_relay::simulator::{Options, TlsFiles};
use tempfile::TempDir;

use crate::load::{Book, event, write};
use crate::relay::{PATIENCE, Relay, Setup, sum};
use crate::upstream::{Upstream, numbered};

/// A certificate for `localhost` that signs itself.
struct Certificate {
    dir: TempDir,
}

impl Certificate {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        std::fs::write(dir.path().join("cert.pem"), made.cert.pem()).expect("a file");
        std::fs::write(dir.path().join("key.pem"), made.signing_key.serialize_pem()).expect("a file");
        Self { dir }
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("cert.pem")
    }

    /// A stand-in with this certificate.
    fn upstream(&self) -> Upstream {
        let tls = Some(TlsFiles { cert: self.file(), key: self.dir.path().join("key.pem") });
        Upstream::with(Options { tls, ..Options::default() })
    }
}

/// A relay that trusts `trusted`.
fn setup_tls(upstream: &Upstream, trusted: &Certificate) -> Setup {
    let mut setup = Setup::new(&upstream.base_url().replace("127.0.0.1", "localhost"));
    setup.set("CELLO__CA_FILE", trusted.file().to_str().expect("a path"));
    setup
}

fn post(relay: &Relay, number: u64) {
    assert_eq!(relay.client().post("/events", &event("u", number)).expect("an answer").status, 200);
}

#[test]
fn an_upstream_whose_ca_is_configured_is_trusted() {
    let certificate = Certificate::new();
    let upstream = certificate.upstream();
    let setup = setup_tls(&upstream, &certificate);
    let relay = setup.start();
    post(&relay, 1);
    relay.wait_until_empty(PATIENCE);
    assert_eq!(upstream.arrivals().count(), 1);
}

#[test]
fn an_upstream_of_another_ca_gets_nothing_and_shows_as_tls() {
    let upstream = Certificate::new().upstream();
    let another = Certificate::new();
    let setup = setup_tls(&upstream, &another);
    let relay = setup.start();
    post(&relay, 1);
    relay.wait_until("no failure shows", |metrics| {
        sum(metrics, "cello_relay_upstream_request_failures_total", "\"tls\"") >= 2.0
    });
    assert_eq!(upstream.received() + upstream.token_calls(), 0);
    assert_eq!(relay.metric("cello_relay_outbox_events", "dead"), 0.0);
}

#[test]
fn a_base_url_with_a_path_and_a_trailing_slash_is_kept() {
    let (address, paths) = serve_paths();
    let setup = Setup::new(&format!("http://{address}/team/cello/"));
    let relay = setup.start();
    post(&relay, 1);
    relay.wait_until_empty(PATIENCE);
    let paths = paths.lock().expect("no panic").clone();
    assert_eq!(paths, ["POST /team/cello/token", "POST /team/cello/events"]);
}

/// Answers everything as a token and as an event at once; remembers methods and paths.
fn serve_paths() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let paths = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&paths);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                while let Some(head) = read_head(&mut stream) {
                    let length = head.iter().find_map(|line| line.strip_prefix("content-length: "));
                    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
                    stream.read_exact(&mut vec![0; length]).expect("a body");
                    let request = head[0].trim_end_matches(" http/1.1").to_owned();
                    let (method, path) = request.split_once(' ').expect("a request line");
                    seen.lock().expect("no panic").push(format!("{} {path}", method.to_uppercase()));
                    let body = r#"{"accessToken":"t","expiresIn":18000,"success":true}"#;
                    let head = format!("HTTP/1.1 201 Created\r\ncontent-length: {}\r\n\r\n", body.len());
                    drop(stream.get_mut().write_all((head + body).as_bytes()));
                }
            });
        }
    });
    (address, paths)
}

/// The lines of a request's head, in lower case; none at the end of the connection.
fn read_head(stream: &mut BufReader<TcpStream>) -> Option<Vec<String>> {
    let lines = stream.lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let head: Vec<String> = lines.map(|line| line.to_lowercase()).collect();
    (!head.is_empty()).then_some(head)
}

#[test]
fn https_goes_through_the_proxy_of_the_environment() {
    let certificate = Certificate::new();
    let upstream = certificate.upstream();
    let (proxy, targets) = serve_connect();
    let mut setup = setup_tls(&upstream, &certificate);
    setup.raw("HTTPS_PROXY", &format!("http://{proxy}"));
    let relay = setup.start();
    post(&relay, 1);
    relay.wait_until_empty(PATIENCE);
    let target = upstream.base_url().replace("https://127.0.0.1", "localhost");
    let through = targets.lock().expect("no panic").clone();
    assert!(!through.is_empty() && through.iter().all(|seen| *seen == target), "{through:?}");
    assert_eq!(relay.terminate().0, Some(0));

    setup.raw("NO_PROXY", "localhost");
    let relay = setup.start();
    post(&relay, 2);
    relay.wait_until_empty(PATIENCE);
    assert_eq!(targets.lock().expect("no panic").len(), through.len(), "NO_PROXY goes past it");
    assert_eq!(upstream.arrivals().count(), 2);
}

/// A proxy that knows only CONNECT; remembers where to.
fn serve_connect() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("an address");
    let targets = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&targets);
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = BufReader::new(stream);
            let Some(head) = read_head(&mut stream) else { continue };
            let target = head[0].split(' ').nth(1).expect("a target").to_owned();
            seen.lock().expect("no panic").push(target.clone());
            let Ok(upstream) = TcpStream::connect(target) else { continue };
            // What the client said before the tunnel stood would be lost; a TLS client waits.
            let client = stream.into_inner();
            (&client).write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").expect("a client");
            for (mut from, mut to) in [(&client, &upstream), (&upstream, &client)]
                .map(|(from, to)| (from.try_clone().expect("a socket"), to.try_clone().expect("a socket")))
            {
                std::thread::spawn(move || {
                    drop(std::io::copy(&mut from, &mut to));
                    drop(to.shutdown(std::net::Shutdown::Both));
                });
            }
        }
    });
    (address, targets)
}

#[test]
fn a_hop_over_a_relay_with_a_bearer_token_doubles_nothing() {
    let upstream = Upstream::start();
    let mut gateway = Setup::new(&upstream.base_url());
    let token = gateway.dir().join("token");
    std::fs::write(&token, "a-shared-bearer-token-of-the-hop\n").expect("a file");
    let token = token.to_str().expect("a path").to_owned();
    gateway.set("INGEST__TOKEN_FILE", &token);
    hop(&upstream, &mut gateway, |sidecar| {
        sidecar.set("CELLO__AUTH", "bearer").set("CELLO__BEARER_TOKEN_FILE", &token);
    });
}

#[test]
fn a_hop_over_a_relay_without_authentication_doubles_nothing() {
    let upstream = Upstream::start();
    let mut gateway = Setup::new(&upstream.base_url());
    hop(&upstream, &mut gateway, |sidecar| {
        sidecar.set("CELLO__AUTH", "none");
    });
}

/// Sidecar → gateway → stand-in; the gateway is killed three times on the way. It may itself send an event
/// twice, then with the same key; no event may come to it twice, that is, leave it under two keys.
fn hop(upstream: &Upstream, gateway_setup: &mut Setup, auth: impl FnOnce(&mut Setup)) {
    let mut gateway = gateway_setup.start();
    let address = gateway.ingest;
    gateway_setup.set("INGEST__LISTEN", &address.to_string());
    let mut sidecar_setup = Setup::new(&format!("http://{address}"));
    auth(&mut sidecar_setup);
    sidecar_setup.unset("CELLO__ACCESS_KEY_ID").unset("CELLO__SECRET_ACCESS_KEY");
    sidecar_setup.set("FORWARD__BACKOFF_MAX", "1s");
    let sidecar = sidecar_setup.start();
    let book = Book::default();
    for _ in 0..3 {
        let delivered = sidecar.metric("cello_relay_events_delivered_total", "");
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let (book, ingest) = (&book, sidecar.ingest);
                scope.spawn(move || write(book, ingest, writer, 5, 100));
            }
            sidecar.wait_until("nothing moves", |metrics| {
                sum(metrics, "cello_relay_events_delivered_total", "") >= delivered + 30.0
            });
            gateway.kill();
        });
        std::thread::park_timeout(Duration::from_millis(300));
        gateway = gateway_setup.start();
    }
    sidecar.wait_until_empty(PATIENCE);
    gateway.wait_until_empty(PATIENCE);
    upstream.arrivals().assert_complete_and_in_order(&book.acked());
    let mut keys: BTreeMap<(String, u64), BTreeSet<String>> = BTreeMap::new();
    for arrival in upstream.events() {
        let key = arrival.headers.idempotency_key.as_deref().expect("a key").to_owned();
        keys.entry(numbered(&arrival)).or_default().insert(key);
    }
    let doubled: Vec<_> = keys.iter().filter(|(_, keys)| keys.len() > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
    assert_eq!(keys.len(), book.count());
}
