//! The RESP door: what a Redis client, `redis-cli` or our own client says.
//!
//! Commands of one connection are answered in order. Writes that follow each other without anything between
//! them are under way together, and more of them are read meanwhile; everything else waits for the writes before
//! it, so that a connection reads what it wrote. Answers of one batch of commands leave together.

mod info;
mod plain;
mod session;
mod words;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use daymark_naming_proto::NamingError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use self::session::Session;
use crate::dispatch::Dispatcher;
use crate::room::{FREE_BYTES, Share};

/// Room that a read wants at least.
const READ_BYTES: usize = 4 << 10;
/// Answers that leave before the batch is done.
pub(crate) const FLUSH_BYTES: usize = 64 << 10;
/// How much of a command that is longer is read at a time.
const PIECE_BYTES: usize = 64 << 10;

/// How much more, and for how long, a peer is heard that was refused.
const LINGER_BYTES: usize = 8 << 20;
const LINGER: Duration = Duration::from_secs(1);

/// The write half of a connection: every write ends in time or ends the connection.
pub(crate) struct Wire {
    stream: TcpStream,
    stall: Duration,
}

impl Wire {
    /// Sends what is in `out` and empties it.
    pub(crate) async fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if out.is_empty() {
            return Ok(());
        }
        let sent = match self.stream.try_write(out) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        if sent < out.len() {
            timeout(self.stall, self.stream.write_all(&out[sent..])).await??;
        }
        out.clear();
        if out.capacity() > FREE_BYTES {
            *out = Vec::new();
        }
        Ok(())
    }
}

/// Serves one connection of which `input` was already read.
pub(crate) async fn serve(stream: TcpStream, input: BytesMut, dispatcher: Arc<Dispatcher>) -> io::Result<()> {
    let wire = Wire {
        stream,
        stall: dispatcher.limits.stall_timeout,
    };
    let mut connection = Connection {
        session: Session::new(dispatcher.clone()),
        wire,
        input,
        begun: None,
        heard: Instant::now(),
        share: dispatcher.input.share(),
        dispatcher,
    };
    connection.run().await
}

struct Connection {
    session: Session,
    wire: Wire,
    input: BytesMut,
    /// When a command began that is not whole yet.
    begun: Option<Instant>,
    /// When something was last heard or told.
    heard: Instant,
    /// Its part of the room for requests that are not whole.
    share: Share,
    dispatcher: Arc<Dispatcher>,
}

impl Connection {
    async fn run(&mut self) -> io::Result<()> {
        let dispatcher = self.dispatcher.clone();
        let mut stops = pin!(dispatcher.stops());
        let mut alarm = pin!(tokio::time::sleep_until(self.deadline().0));
        loop {
            self.take_commands().await?;
            if self.session.is_over() {
                return self.end().await;
            }
            if dispatcher.is_stopping() {
                return self.part("this server stops").await;
            }
            if let Err(error) = self.make_room() {
                self.session.settle().await;
                self.session.refuse(&error);
                self.session.flush(&mut self.wire).await?;
                return self.end().await;
            }
            // An alarm that is early is set again when it rings; only one that is late is set at once.
            let (deadline, why) = self.deadline();
            if deadline < alarm.deadline() {
                alarm.as_mut().reset(deadline);
            }
            tokio::select! {
                biased;
                read = self.wire.stream.read_buf(&mut self.input) => {
                    if read? == 0 {
                        self.session.settle().await; // A peer that says no more may still listen.
                        return self.session.flush(&mut self.wire).await;
                    }
                    self.heard = Instant::now();
                }
                () = self.session.news(), if self.session.expects_news() => {
                    self.heard = Instant::now();
                }
                () = alarm.as_mut() => {
                    if Instant::now() >= deadline {
                        return self.part(why).await;
                    }
                    alarm.as_mut().reset(deadline);
                }
                () = stops.as_mut() => return self.part("this server stops").await,
            }
        }
    }

    /// Ends the connection so that the last words arrive: a peer that is still sending is heard for a while, because
    /// its system would drop them otherwise. Nothing of what it says is kept.
    async fn end(&mut self) -> io::Result<()> {
        self.wire.stream.shutdown().await?;
        let listening = async {
            let mut heard = 0;
            while heard < LINGER_BYTES {
                self.input.clear();
                self.input.reserve(READ_BYTES);
                match self.wire.stream.read_buf(&mut self.input).await {
                    Ok(0) | Err(_) => return,
                    Ok(read) => heard += read,
                }
            }
        };
        let _ = timeout(LINGER, listening).await; // Whoever sends on is cut off.
        Ok(())
    }

    async fn part(&mut self, why: &str) -> io::Result<()> {
        self.session.settle().await;
        self.session.say_goodbye(why);
        self.session.flush(&mut self.wire).await?;
        self.wire.stream.shutdown().await
    }

    /// Tells the events that have come and answers every whole command of the input.
    async fn take_commands(&mut self) -> io::Result<()> {
        if self.session.has_watches() {
            self.session.tell(&mut self.wire).await?;
        }
        if self.input.is_empty() {
            return self.session.flush(&mut self.wire).await;
        }
        let used = self.session.take(&self.input, &mut self.wire).await?;
        self.input.advance(used);
        self.begun = match self.input.is_empty() {
            true => None,
            false if used > 0 => Some(Instant::now()),
            false => self.begun.or_else(|| Some(Instant::now())),
        };
        self.session.flush(&mut self.wire).await
    }

    fn make_room(&mut self) -> Result<(), NamingError> {
        if self.input.is_empty() && self.input.capacity() > FREE_BYTES {
            self.input = BytesMut::new();
        }
        self.input
            .reserve(READ_BYTES.max(self.input.len().min(PIECE_BYTES)));
        self.share.hold(self.input.capacity())
    }

    /// Until when the peer may be silent, and what it hears then.
    fn deadline(&self) -> (Instant, &'static str) {
        let limits = &self.dispatcher.limits;
        match self.begun {
            Some(begun) => (
                begun + limits.header_timeout,
                "the command did not arrive in time",
            ),
            None if self.session.has_watches() => {
                (self.heard + limits.watch_idle_timeout, "silent for too long")
            }
            None => (self.heard + limits.idle_timeout, "idle for too long"),
        }
    }
}
