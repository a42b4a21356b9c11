//! A plain client on a socket, for tests where the very bytes matter.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than any answer takes; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
pub(crate) struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An answer, taken apart.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl Wire {
    pub(crate) async fn connect(to: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(to).await.expect("connected"), read: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("sent");
    }

    /// Sends as much as the peer takes; it may hang up meanwhile.
    pub(crate) async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok()
    }

    pub(crate) async fn finish_sending(&mut self) {
        self.stream.shutdown().await.expect("half closed");
    }

    /// The same of a connection that the peer may have ended.
    pub(crate) async fn try_finish_sending(&mut self) -> bool {
        self.stream.shutdown().await.is_ok()
    }

    /// Leaves at once: what is under way is reset, not finished.
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("a socket");
    }

    async fn more(&mut self) -> usize {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read)).await;
        match read.expect("an answer in time") {
            Ok(read) => read,
            Err(error) if self.read.is_empty() && error.kind() == std::io::ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("{error}: {:?}", String::from_utf8_lossy(&self.read)),
        }
    }

    /// Everything until `mark`.
    pub(crate) async fn until(&mut self, mark: &str) -> String {
        loop {
            let found = self.read.windows(mark.len()).position(|window| window == mark.as_bytes());
            if let Some(at) = found {
                let taken = self.read.drain(..at + mark.len()).collect();
                return String::from_utf8(taken).expect("text");
            }
            assert!(self.more().await > 0, "hung up before {mark:?}: {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        self.answer_to("GET").await
    }

    pub(crate) async fn answer_to(&mut self, method: &str) -> Answer {
        let head = self.until("\r\n\r\n").await;
        let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
        let mut answer = Answer { status, head, body: String::new() };
        let length: usize = answer.header("content-length").map_or(0, |length| length.parse().expect("a number"));
        if method != "HEAD" && length > 0 {
            while self.read.len() < length {
                assert!(self.more().await > 0, "hung up in a body");
            }
            answer.body = String::from_utf8(self.read.drain(..length).collect()).expect("text");
        }
        answer
    }

    /// The statuses of all answers until the peer hangs up, however it does that.
    pub(crate) async fn statuses(&mut self) -> Vec<u16> {
        while tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.read))
            .await
            .expect("an end")
            .is_ok_and(|read| read > 0)
        {}
        let text = String::from_utf8_lossy(&self.read).into_owned();
        text.split("HTTP/1.").skip(1).filter_map(|answer| answer.split(' ').nth(1)?.parse().ok()).collect()
    }

    /// Whether the peer hangs up without another byte.
    pub(crate) async fn is_hung_up(&mut self) -> bool {
        self.more().await == 0 && self.read.is_empty()
    }
}

/// One request on a connection of its own.
pub(crate) async fn ask(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut wire = Wire::connect(to).await;
    wire.send(request(method, path, headers, body)).await;
    wire.answer_to(method).await
}

/// The bytes of a request to localhost, unless `headers` name another host.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head.push_str("host: localhost\r\n");
    }
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}
