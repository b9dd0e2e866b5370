//! A socket with a protocol engine on it.
//!
//! It moves bytes and time, and nothing else.

use std::io::{self, IoSlice};
use std::time::Instant;

use daymark_amqp::{Connection, Event};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// The room made for one read.
const READ_SIZE: usize = 64 * 1024;
/// Reads in one turn before anything else is looked at.
const READS_MAX: u32 = 8;

pub(super) struct Wire {
    stream: TcpStream,
    pub(super) engine: Connection,
    /// How the bytes ended, once they have.
    ended: Option<String>,
}

impl Wire {
    pub(super) const fn new(stream: TcpStream, engine: Connection) -> Self {
        Self {
            stream,
            engine,
            ended: None,
        }
    }

    /// Waits until the socket can do something, or the engine's time has come, and does it.
    pub(super) async fn turn(&mut self) {
        let timeout = self.engine.poll_timeout().map(tokio::time::Instant::from_std);
        let timer = tokio::time::sleep_until(timeout.unwrap_or_else(tokio::time::Instant::now));
        let interest = self.interest();
        let ready = async {
            match interest {
                Some(interest) => self.stream.ready(interest).await,
                None => std::future::pending().await,
            }
        };
        let ready = tokio::select! {
            biased;
            ready = ready => ready,
            () = timer, if timeout.is_some() => {
                self.engine.handle_timeout(Instant::now());
                return;
            }
        };
        match ready {
            Ok(ready) => {
                if ready.is_readable() || ready.is_read_closed() || ready.is_error() {
                    self.read();
                }
                self.flush();
            }
            Err(error) => self.end(&error),
        }
    }

    fn interest(&self) -> Option<Interest> {
        let (reads, writes) = (self.engine.wants_input(), self.engine.has_output());
        match (reads, writes) {
            (true, true) => Some(Interest::READABLE | Interest::WRITABLE),
            (true, false) => Some(Interest::READABLE),
            (false, true) => Some(Interest::WRITABLE),
            (false, false) => None,
        }
    }

    fn read(&mut self) {
        for _ in 0..READS_MAX {
            if !self.engine.wants_input() {
                return;
            }
            match self.stream.try_read_buf(self.engine.read_buf(READ_SIZE)) {
                Ok(0) => {
                    self.ended
                        .get_or_insert_with(|| "the broker closed the socket".into());
                    return;
                }
                Ok(_) => self.engine.input_received(Instant::now()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.end(&error),
            }
        }
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self) {
        while self.engine.has_output() {
            let mut slices = [IoSlice::new(&[]); 64];
            let filled = self.engine.output_slices(&mut slices);
            if filled == 0 {
                return;
            }
            match self.stream.try_write_vectored(&slices[..filled]) {
                Ok(written) => self.engine.output_written(written, Instant::now()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => return self.end(&error),
            }
        }
    }

    fn end(&mut self, error: &io::Error) {
        self.ended.get_or_insert_with(|| error.to_string());
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.engine.poll_event()
    }

    /// How the bytes ended, once they have. What came before may still be polled.
    pub(super) fn ended(&self) -> Option<&str> {
        self.ended.as_deref()
    }
}
