//! Where lines go: a log that nobody reads costs lines, never events.

use std::io::{self, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A reader that is behind is waited for so long, once; after that lines are lost until it reads again.
const PATIENCE: Duration = Duration::from_millis(50);

/// A pipe, terminal, socket or file whose writes fail with [`io::ErrorKind::WouldBlock`] where they would wait for a
/// reader. That holds for what a pipe takes in one piece, 4 KiB, which is more than a line.
pub(super) struct Outlet<W> {
    inner: W,
    is_stuck: bool,
}

impl<W: Write + AsFd> Outlet<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, is_stuck: false }
    }

    fn has_room(&self) -> io::Result<bool> {
        let wait = if self.is_stuck { Duration::ZERO } else { PATIENCE };
        let wait = Timespec { tv_sec: 0, tv_nsec: wait.subsec_nanos().into() };
        Ok(poll(&mut [PollFd::new(&self.inner, PollFlags::OUT)], Some(&wait))? > 0)
    }
}

impl<W: Write + AsFd> Write for Outlet<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.is_stuck = !self.has_room()?;
        if self.is_stuck { Err(io::ErrorKind::WouldBlock.into()) } else { self.inner.write(bytes) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, pipe};

    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_takes_what_it_has_room_for_and_then_fails_until_it_is_read() {
        let (mut reader, writer) = pipe().unwrap();
        let mut outlet = Outlet::new(writer);
        let mut written = 0;
        while outlet.write_all(&[b'x'; 1000]).is_ok() {
            written += 1000;
        }
        assert!(outlet.is_stuck && written > 4096, "{written}");
        assert_eq!(outlet.write_all(b"lost").map_err(|error| error.kind()), Err(io::ErrorKind::WouldBlock));
        reader.read_exact(&mut vec![0; written]).unwrap();
        outlet.write_all(b"seen").unwrap();
        let mut seen = [0; 4];
        reader.read_exact(&mut seen).unwrap();
        assert_eq!((&seen, outlet.is_stuck), (b"seen", false));
    }

    #[test]
    fn a_reader_that_is_gone_is_told_of_at_once() {
        let (reader, writer) = pipe().unwrap();
        drop(reader);
        let failed = Outlet::new(writer).write_all(b"line").map_err(|error| error.kind());
        assert_eq!(failed, Err(io::ErrorKind::BrokenPipe));
    }
}
