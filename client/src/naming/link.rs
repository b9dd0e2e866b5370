//! One connection to one naming server: requests go out in a pipeline, replies are matched in order, pushes
//! are routed by watch id.
//!
//! It decides when a connection is dead: after silence while something waits for an answer. It never repeats
//! a request and never chooses a server. Invariant: one entry waits for each command written.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use daymark_naming_proto::resp::{Frame, Limits, parse_frame, write_command};
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::error::Failure;

/// The most commands that wait for room in the pipeline.
const QUEUE_MAX: usize = 1024;
/// The most commands on their way. Above it no more are taken until replies come.
const WAITING_MAX: usize = 4096;
/// Bytes not yet written above which no more commands are taken.
const OUTPUT_HIGH: usize = 256 * 1024;
/// Bytes read in one turn before anything else is looked at.
const READ_TURN: usize = 256 * 1024;
/// What a server may send at most: a listing can be long.
pub(super) const LIMITS: Limits = Limits {
    bulk_bytes_max: 64 << 20,
    items_max: 1 << 16,
    line_bytes_max: 1 << 16,
};

/// A handle to a running connection. When the last one is dropped the connection ends.
#[derive(Clone, Debug)]
pub(super) struct Link {
    commands: mpsc::Sender<Command>,
    /// Which server of the provider list it leads to.
    pub(super) server: usize,
}

#[derive(Debug)]
enum Command {
    Ask {
        bytes: Vec<u8>,
        reply: oneshot::Sender<Frame>,
    },
    Watch {
        bytes: Vec<u8>,
        events: mpsc::Sender<Bytes>,
        reply: oneshot::Sender<Result<i64, Frame>>,
    },
    Unwatch(i64),
    Retire,
}

/// A request whose answer did not come. It may have reached the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unanswered {
    /// The connection ended first.
    Lost,
    /// The time was over.
    Late,
}

impl Link {
    pub(super) fn is_alive(&self) -> bool {
        !self.commands.is_closed()
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        self.commands.same_channel(&other.commands)
    }

    /// Sends one command and waits for its reply.
    pub(super) async fn ask(&self, bytes: Vec<u8>, patience: Duration) -> Result<Frame, Unanswered> {
        let (reply, answer) = oneshot::channel();
        self.exchange(Command::Ask { bytes, reply }, answer, patience)
            .await
    }

    /// Starts a watch. What it brings goes to `events`, which ends with the watch.
    pub(super) async fn watch(
        &self,
        bytes: Vec<u8>,
        events: mpsc::Sender<Bytes>,
        patience: Duration,
    ) -> Result<Result<i64, Frame>, Unanswered> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Watch { bytes, events, reply };
        self.exchange(command, answer, patience).await
    }

    async fn exchange<T>(
        &self,
        command: Command,
        answer: oneshot::Receiver<T>,
        patience: Duration,
    ) -> Result<T, Unanswered> {
        let exchange = async {
            self.commands.send(command).await.map_err(|_| Unanswered::Lost)?;
            answer.await.map_err(|_| Unanswered::Lost)
        };
        tokio::time::timeout(patience, exchange)
            .await
            .unwrap_or(Err(Unanswered::Late))
    }

    /// Ends a watch that nobody reads any more. Where the pipeline is full, the next push ends it.
    pub(super) fn unwatch(&self, id: i64) {
        let _ = self.commands.try_send(Command::Unwatch(id));
    }

    /// Ends every watch, lets the requests on their way finish, and takes no more.
    pub(super) async fn retire(&self) {
        let _ = self.commands.send(Command::Retire).await;
    }
}

/// Runs a connection that has been greeted. `input` is what the server sent after its greeting; `ended` is
/// told why the connection ended, unless it was retired or nobody holds its handle any more.
pub(super) fn start(
    stream: TcpStream,
    input: BytesMut,
    server: usize,
    patience: Duration,
    ended: impl FnOnce(Failure) + Send + 'static,
) -> Link {
    let (commands, received) = mpsc::channel(QUEUE_MAX);
    let driver = Driver {
        stream,
        commands: received,
        input,
        output: BytesMut::new(),
        waiting: VecDeque::new(),
        routes: BTreeMap::new(),
        heard: Instant::now(),
        retired: false,
        patience,
    };
    tokio::spawn(async move {
        if let Err(failure) = driver.run().await {
            ended(failure);
        }
    });
    Link { commands, server }
}

/// Who waits for a reply.
enum Waiting {
    Ask(oneshot::Sender<Frame>),
    Watch {
        events: mpsc::Sender<Bytes>,
        reply: oneshot::Sender<Result<i64, Frame>>,
    },
    Nobody,
}

impl Waiting {
    fn is_wanted(&self) -> bool {
        match self {
            Self::Ask(reply) => !reply.is_closed(),
            Self::Watch { reply, .. } => !reply.is_closed(),
            Self::Nobody => false,
        }
    }
}

struct Driver {
    stream: TcpStream,
    commands: mpsc::Receiver<Command>,
    input: BytesMut,
    output: BytesMut,
    waiting: VecDeque<(Instant, Waiting)>,
    routes: BTreeMap<i64, mpsc::Sender<Bytes>>,
    heard: Instant,
    retired: bool,
    patience: Duration,
}

impl Driver {
    async fn run(mut self) -> Result<(), Failure> {
        // Pushes may have come with the greeting.
        self.digest()?;
        loop {
            if self.retired && !self.waiting.iter().any(|(_, waiting)| waiting.is_wanted()) {
                return Ok(());
            }
            let takes = self.takes_commands();
            let deadline = self.deadline();
            let interest = if self.output.is_empty() {
                Interest::READABLE
            } else {
                Interest::READABLE | Interest::WRITABLE
            };
            tokio::select! {
                biased;
                ready = self.stream.ready(interest) => self.transfer(ready.map_err(|e| lost(&e))?)?,
                command = self.commands.recv(), if takes => self.take_all(command),
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    self.silence()?;
                }
            }
        }
    }

    fn takes_commands(&self) -> bool {
        !self.retired && self.output.len() < OUTPUT_HIGH && self.waiting.len() < WAITING_MAX
    }

    /// Takes every command that is there, so that one write carries them all.
    fn take_all(&mut self, first: Option<Command>) {
        let Some(first) = first else {
            self.retired = true;
            self.routes.clear();
            return;
        };
        self.take(first);
        while self.takes_commands() {
            let Ok(next) = self.commands.try_recv() else {
                break;
            };
            self.take(next);
        }
        // Most often the socket takes it at once; what is left waits for readiness.
        if let Ok(written) = self.stream.try_write(&self.output) {
            self.output.advance(written);
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Ask { bytes, reply } => self.put(&bytes, Waiting::Ask(reply)),
            Command::Watch { bytes, events, reply } => self.put(&bytes, Waiting::Watch { events, reply }),
            Command::Unwatch(id) => self.unwatch(id),
            Command::Retire => {
                self.retired = true;
                // Watchers see the end and go on elsewhere; commands still queued are repeated elsewhere.
                self.routes.clear();
                self.commands.close();
                while self.commands.try_recv().is_ok() {}
            }
        }
    }

    fn put(&mut self, bytes: &[u8], waiting: Waiting) {
        self.output.extend_from_slice(bytes);
        self.waiting.push_back((Instant::now(), waiting));
    }

    fn put_words(&mut self, words: &[&str]) {
        let mut bytes = Vec::new();
        write_command(words, &mut bytes);
        self.put(&bytes, Waiting::Nobody);
    }

    fn unwatch(&mut self, id: i64) {
        self.routes.remove(&id);
        self.put_words(&["UNWATCH", &id.to_string()]);
    }

    fn transfer(&mut self, ready: tokio::io::Ready) -> Result<(), Failure> {
        if ready.is_writable() && !self.output.is_empty() {
            match self.stream.try_write(&self.output) {
                Ok(written) => self.output.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(lost(&error)),
            }
        }
        if ready.is_readable() || ready.is_read_closed() || ready.is_error() {
            self.read()?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), Failure> {
        let mut total = 0;
        while total < READ_TURN {
            self.input.reserve(16 * 1024);
            match self.stream.try_read_buf(&mut self.input) {
                Ok(0) => {
                    let reason = "the server closed it".into();
                    return Err(Failure::Lost { reason });
                }
                Ok(read) => total += read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(lost(&error)),
            }
            self.heard = Instant::now();
            self.digest()?;
        }
        Ok(())
    }

    fn digest(&mut self) -> Result<(), Failure> {
        while let Some((frame, used)) = parse_frame(&self.input, &LIMITS).map_err(|e| malformed(&e))? {
            self.input.advance(used);
            match frame {
                Frame::Push(items) => self.push(items)?,
                reply @ (Frame::Simple(_)
                | Frame::Error(_)
                | Frame::Integer(_)
                | Frame::Bulk(_)
                | Frame::Null
                | Frame::Boolean(_)
                | Frame::Double(_)
                | Frame::Array(_)
                | Frame::Map(_)) => self.reply(reply)?,
            }
        }
        Ok(())
    }

    fn reply(&mut self, frame: Frame) -> Result<(), Failure> {
        match self.waiting.pop_front() {
            Some((_, Waiting::Ask(reply))) => {
                let _ = reply.send(frame);
            }
            Some((_, Waiting::Watch { events, reply })) => self.watching(frame, events, reply),
            Some((_, Waiting::Nobody)) => {}
            None => return Err(malformed(&"a reply to nothing that was asked")),
        }
        Ok(())
    }

    fn watching(
        &mut self,
        frame: Frame,
        events: mpsc::Sender<Bytes>,
        reply: oneshot::Sender<Result<i64, Frame>>,
    ) {
        let Frame::Integer(id) = frame else {
            let _ = reply.send(Err(frame));
            return;
        };
        if self.retired || reply.send(Ok(id)).is_err() {
            self.unwatch(id);
        } else {
            self.routes.insert(id, events);
        }
    }

    /// Hands a push to its watcher. A watcher that is gone, or so slow that its buffer is full, loses its
    /// watch; the slow one sees the end after what is buffered and resumes.
    fn push(&mut self, items: Vec<Frame>) -> Result<(), Failure> {
        let mut items = items.into_iter();
        let (kind, id, event) = (items.next(), items.next(), items.next());
        if kind.as_ref().and_then(text) != Some("watch") {
            return Ok(());
        }
        let (Some(Frame::Integer(id)), Some(Frame::Bulk(event))) = (id, event) else {
            return Err(malformed(&"a watch push without an id and a document"));
        };
        if let Some(route) = self.routes.get(&id)
            && route.try_send(event).is_err()
        {
            self.unwatch(id);
        }
        Ok(())
    }

    /// When silence has to be looked at: while a reply is due, or while a watch relies on pushes.
    fn deadline(&self) -> Option<Instant> {
        match self.waiting.front() {
            Some((since, _)) => Some(self.heard.max(*since) + self.patience),
            None if self.routes.is_empty() => None,
            None => Some(self.heard + self.patience),
        }
    }

    fn silence(&mut self) -> Result<(), Failure> {
        if self.waiting.is_empty() {
            self.put_words(&["PING"]);
            return Ok(());
        }
        let waited_ms = u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX);
        Err(Failure::NoAnswer { waited_ms })
    }
}

/// The text of a simple or bulk string.
pub(super) fn text(frame: &Frame) -> Option<&str> {
    match frame {
        Frame::Simple(text) => Some(text),
        Frame::Bulk(bytes) => std::str::from_utf8(bytes).ok(),
        Frame::Error(_)
        | Frame::Integer(_)
        | Frame::Null
        | Frame::Boolean(_)
        | Frame::Double(_)
        | Frame::Array(_)
        | Frame::Map(_)
        | Frame::Push(_) => None,
    }
}

pub(super) fn lost(error: &io::Error) -> Failure {
    Failure::Lost {
        reason: error.to_string(),
    }
}

pub(super) fn malformed(reason: &impl ToString) -> Failure {
    Failure::Malformed {
        reason: reason.to_string(),
    }
}
