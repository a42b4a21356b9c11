//! A bare hyper client: what draining a backlog is compared with.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::requests::Template;

/// Posts as many events as the order `ADDRESS,COUNT,CONCURRENCY` says; prints the seconds it took.
pub(crate) async fn post_all(order: &str) {
    let mut parts = order.split(',');
    let mut part = || parts.next().expect("ADDRESS,COUNT,CONCURRENCY").to_owned();
    let (address, count, concurrency) = (part(), part(), part());
    let left = Arc::new(AtomicU64::new(count.parse().expect("a count")));
    let start = Instant::now();
    let mut posters = JoinSet::new();
    for _ in 0..concurrency.parse().expect("a concurrency") {
        posters.spawn(post(address.clone(), Arc::clone(&left)));
    }
    posters.join_all().await;
    println!("{}", start.elapsed().as_secs_f64());
}

async fn post(address: String, left: Arc<AtomicU64>) {
    let stream = TcpStream::connect(&address).await.expect("the stand-in listens");
    stream.set_nodelay(true).expect("a socket option");
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("a connection");
    tokio::spawn(connection);
    let mut template = Template::event();
    let take = |left: u64| left.checked_sub(1);
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
        let body = Bytes::copy_from_slice(template.next_body());
        let request = Request::post("/events").header(HOST, &address).header(CONTENT_TYPE, "application/json");
        let answer = sender.send_request(request.body(Full::new(body)).expect("a request")).await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        #[expect(clippy::disallowed_methods, reason = "the answers of the bench's own stand-in")]
        answer.into_body().collect().await.expect("a body");
    }
}
