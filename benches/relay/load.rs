//! A closed-loop load generator: each connection posts, waits for the answer and posts again.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What one run gave.
pub(crate) struct Load {
    /// Requests answered with 200.
    pub(crate) answered: u64,
    /// How long it really took.
    pub(crate) took: Duration,
    /// Sorted.
    pub(crate) latencies: Vec<Duration>,
}

impl Load {
    pub(crate) fn per_second(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }

    pub(crate) fn latency(&self, share: f64) -> Duration {
        let index = ((self.latencies.len() as f64 * share) as usize).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(index).copied().unwrap_or_default()
    }
}

/// Posts for `time` over so many connections.
pub(crate) fn run(address: SocketAddr, connections: usize, time: Duration) -> Load {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let start = Instant::now();
        let mut posters = JoinSet::new();
        for connection in 0..connections {
            posters.spawn(post(address, connection, start + time));
        }
        let mut latencies = Vec::new();
        while let Some(done) = posters.join_next().await {
            latencies.extend(done.expect("a poster that did not panic"));
        }
        let took = start.elapsed();
        latencies.sort_unstable();
        Load { answered: latencies.len() as u64, took, latencies }
    })
}

async fn post(address: SocketAddr, connection: usize, until: Instant) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    stream.set_nodelay(true).expect("a socket option");
    let mut latencies = Vec::with_capacity(64 * 1024);
    let mut buffer = vec![0; 4096];
    for number in 0.. {
        let sent = Instant::now();
        if sent >= until {
            break;
        }
        stream.write_all(&request(connection, number)).await.expect("a request written");
        read_answer(&mut stream, &mut buffer).await;
        latencies.push(sent.elapsed());
    }
    latencies
}

/// A request of about 480 bytes of body; users rotate, so that order per user does not serialise it all.
fn request(connection: usize, number: u64) -> Vec<u8> {
    let user = format!("user-{connection:03}-{:06}", number % 1_000_000);
    let body = format!(
        r#"{{"eventName":"ReferralUpdated","payload":{{"ucc":"cello-ucc-1234","newUserId":"{user}","price":4900,"currency":"EUR"}},"context":{{"newUser":{{"id":"{user}","email":"new.user.{user}@example.com","name":"Some New User","organizationId":"organization-0042"}},"event":{{"trigger":"invoice-paid","timestamp":"2026-11-20T03:18:01.620Z"}},"subscription":{{"id":"subscription-000042","invoiceId":"invoice-{number:012}","interval":"monthly","seatsUsed":"12","productKey":"Pro Plan"}}}}}}"#
    );
    format!(
        "POST /events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Reads one answer whole; anything but 200 ends the run.
async fn read_answer(stream: &mut TcpStream, buffer: &mut [u8]) {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await.expect("an answer");
        assert!(read > 0, "the server closed the connection");
        filled += read;
        let Some(head) = find(&buffer[..filled], b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&buffer[..head]);
        assert!(text.starts_with("HTTP/1.1 200"), "{text}\n{}", String::from_utf8_lossy(&buffer[head..filled]));
        let length =
            text.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if filled >= head + 4 + length.unwrap_or(0) {
            return;
        }
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
