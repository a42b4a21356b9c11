//! What the relay is compared with, each in a process of its own (`--role NAME`).

use std::convert::Infallible;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use crate::client;

/// One event for the simple store, and who waits for it.
type ToStore = (serde_json::Value, oneshot::Sender<()>);

/// Plays one role: `bare`, `bare=MILLISECONDS` (answers that late), `simple=FOLDER`, or
/// `client=ADDRESS,COUNT,CONCURRENCY`. Servers run until they are killed and say their address on stdout.
pub(crate) fn serve(role: &str) {
    // The relay's own flavour.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    if let Some(order) = role.strip_prefix("client=") {
        return runtime.block_on(client::post_all(order));
    }
    let simple = role.strip_prefix("simple=").map(simple_store);
    let latency = role
        .strip_prefix("bare=")
        .map_or(Duration::ZERO, |text| Duration::from_millis(text.parse().expect("milliseconds")));
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        println!("{}", listener.local_addr().expect("an address"));
        std::io::stdout().flush().expect("a pipe");
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket option");
            let simple = simple.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(request, simple.clone(), latency));
                let mut server = hyper::server::conn::http1::Builder::new();
                // No timer a request, as the relay has none. A client that goes away is none of the bench's business.
                drop(server.header_read_timeout(None).serve_connection(TokioIo::new(stream), service).await);
            });
        }
    });
}

/// Reads the body and answers: without looking at it, after storing it, or as Cello would.
async fn answer(
    request: Request<Incoming>,
    simple: Option<mpsc::Sender<ToStore>>,
    latency: Duration,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let token = request.uri().path() == "/token";
    #[expect(clippy::disallowed_methods, reason = "the bench's own load, bounded by its generator")]
    let body = request.into_body().collect().await.expect("a body").to_bytes();
    if let Some(store) = simple {
        let value = serde_json::from_slice(&body).expect("JSON");
        let (done, stored) = oneshot::channel();
        store.send((value, done)).await.expect("the store runs");
        stored.await.expect("the store answers");
    }
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
    let (status, text) = if token {
        (StatusCode::CREATED, r#"{"accessToken":"a","expiresIn":18000,"refreshToken":"r"}"#)
    } else {
        (StatusCode::OK, r#"{"success": true}"#)
    };
    let mut answer = Response::new(Full::from(text));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(answer)
}

/// The simplest honest server: parse to a tree, insert, group commit with `synchronous=FULL`, answer.
fn simple_store(dir: &str) -> mpsc::Sender<ToStore> {
    let database = rusqlite::Connection::open(std::path::Path::new(dir).join("simple.db")).expect("a database");
    database
        .execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE event(id INTEGER PRIMARY KEY, user TEXT, body TEXT)")
        .expect("a schema");
    let (sender, mut receiver) = mpsc::channel::<ToStore>(1024);
    std::thread::spawn(move || {
        while let Some(first) = receiver.blocking_recv() {
            let mut waiting = vec![first];
            while let Ok(next) = receiver.try_recv() {
                waiting.push(next);
            }
            database.execute_batch("BEGIN").expect("a transaction");
            for (value, _) in &waiting {
                let mut insert =
                    database.prepare_cached("INSERT INTO event(user, body) VALUES (?1, ?2)").expect("a statement");
                let user = value["payload"]["newUserId"].as_str();
                insert.execute((user, value.to_string())).expect("an insert");
            }
            database.execute_batch("COMMIT").expect("a commit");
            for (_, done) in waiting {
                // Its client may be gone.
                done.send(()).ok();
            }
        }
    });
    sender
}
