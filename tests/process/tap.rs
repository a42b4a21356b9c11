//! A wire with an ear on it: passes bytes on to the relay, and keeps what clients really sent.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What came on each connection, in the order in which they were made.
type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

/// Listens on a port of its own until the test process ends.
pub(crate) struct Tap {
    pub(crate) address: SocketAddr,
    heard: Heard,
}

impl Tap {
    /// A tap in front of `target`.
    pub(crate) fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let heard = Heard::default();
        let all = Arc::clone(&heard);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let all = Arc::clone(&all);
                std::thread::spawn(move || pass(client, target, &all));
            }
        });
        Self { address, heard }
    }

    /// Whether a request had this header; lower case, as `name: value`.
    pub(crate) fn heard(&self, header: &str) -> bool {
        let line = format!("\r\n{header}\r\n");
        self.texts().iter().any(|text| text.to_ascii_lowercase().contains(&line))
    }

    /// How many requests with this line the busiest connections carried, so many of them taken together.
    pub(crate) fn on_busiest(&self, connections: usize, line: &str) -> usize {
        let mut counts: Vec<_> = self.texts().iter().map(|text| text.matches(line).count()).collect();
        counts.sort_unstable_by(|one, other| other.cmp(one));
        counts.iter().take(connections).sum()
    }

    fn texts(&self) -> Vec<String> {
        let heard = self.heard.lock().expect("no thread panicked");
        heard.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect()
    }
}

/// Joins a client and the relay; when one side ends, so does that way of the other.
fn pass(mut client: TcpStream, target: SocketAddr, all: &Heard) -> Option<()> {
    let mut relay = TcpStream::connect(target).ok()?;
    relay.set_nodelay(true).and_then(|()| client.set_nodelay(true)).ok()?;
    let (mut answers, mut back) = (relay.try_clone().ok()?, client.try_clone().ok()?);
    std::thread::spawn(move || {
        drop(io::copy(&mut answers, &mut back));
        drop(back.shutdown(Shutdown::Write));
    });
    let place = {
        let mut all = all.lock().expect("no thread panicked");
        all.push(Vec::new());
        all.len() - 1
    };
    let mut part = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = client.read(&mut part) {
        all.lock().expect("no thread panicked")[place].extend_from_slice(&part[..length]);
        relay.write_all(&part[..length]).ok()?;
    }
    relay.shutdown(Shutdown::Write).ok()
}
