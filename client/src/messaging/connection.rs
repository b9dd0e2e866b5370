//! Connections and sessions as programs hold them.
//!
//! It decides how long a call waits: `call_timeout` on a working connection, `call_failover_timeout` while it is
//! being made anew. It holds no protocol state: that is the driver's.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use daymark_naming_proto::{Endpoint, Epoch, FactorySettings};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::Instant;

use super::browser::Browser;
use super::consumer::{Consumer, ConsumerOptions};
use super::destination::{Destination, Kind};
use super::driver::Command;
use super::error::{Disconnected, OpenError};
use super::producer::{Producer, ProducerOptions};
use super::subscription::check_name;
use super::temporary::Temporary;
use super::transaction::{Doom, TransactedSession};

/// What listeners of a connection are told.
#[derive(Clone, Debug)]
pub enum ConnectionEvent {
    /// The connection stands. The first event of every listener, unless it is being made anew or over.
    Connected {
        /// The broker's epoch; 0 where it has none.
        epoch: Epoch,
        /// The broker's address.
        address: Endpoint,
    },
    /// The connection was lost. It is being made anew.
    Interrupted {
        /// How it was lost.
        why: String,
    },
    /// The connection stands again. A higher epoch than before means another active broker.
    FailedOver {
        /// The broker's epoch; 0 where it has none.
        epoch: Epoch,
        /// The broker's address.
        address: Endpoint,
    },
    /// The connection is over. Nothing follows.
    Disconnected {
        /// Why.
        why: Disconnected,
    },
}

impl ConnectionEvent {
    /// A stable code: `connected`, `interrupted`, `failed-over` or `disconnected`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Interrupted { .. } => "interrupted",
            Self::FailedOver { .. } => "failed-over",
            Self::Disconnected { .. } => "disconnected",
        }
    }
}

/// How a connection stands.
#[derive(Clone, Debug)]
pub(super) enum Status {
    Up { epoch: Epoch, address: Endpoint },
    Down,
    Over(Disconnected),
}

/// What the driver and all handles of one connection share.
pub(super) struct Shared {
    pub(super) status: watch::Sender<Status>,
    pub(super) events: broadcast::Sender<ConnectionEvent>,
    pub(super) settings: FactorySettings,
    /// Whether the program chose the container id.
    pub(super) is_named: bool,
    next_key: AtomicU64,
}

/// Events that a slow listener may be behind; older ones are dropped.
const EVENTS_MAX: usize = 256;

impl Shared {
    pub(super) fn new(status: Status, settings: FactorySettings, is_named: bool) -> Self {
        Self {
            status: watch::Sender::new(status),
            events: broadcast::channel(EVENTS_MAX).0,
            settings,
            is_named,
            next_key: AtomicU64::new(1),
        }
    }

    /// Why the connection is over, where it is.
    fn over(&self) -> Option<Disconnected> {
        if let Status::Over(why) = &*self.status.borrow() {
            Some(why.clone())
        } else {
            None
        }
    }

    /// Ends when a call has waited long enough. Time on a working connection and time in failover are counted
    /// apart. Returns the milliseconds waited.
    async fn patience(&self) -> u64 {
        let started = Instant::now();
        let mut status = self.status.subscribe();
        let mut left_up = Duration::from_millis(self.settings.call_timeout_ms);
        let mut left_down = Duration::from_millis(self.settings.call_failover_timeout_ms);
        loop {
            let since = Instant::now();
            let left = match &*status.borrow_and_update() {
                Status::Up { .. } => &mut left_up,
                Status::Down => &mut left_down,
                // Whoever waits is answered by the driver's end.
                Status::Over(_) => &mut left_up,
            };
            if !matches!(tokio::time::timeout(*left, status.changed()).await, Ok(Ok(()))) {
                return u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            }
            *left = left.saturating_sub(since.elapsed());
        }
    }
}

/// The way to the driver.
#[derive(Clone)]
pub(super) struct Line {
    pub(super) commands: mpsc::Sender<Command>,
    /// What dropped handles leave to be done. Nobody can wait when a handle is dropped, so there is no limit but
    /// that of what there was to drop.
    dropped: mpsc::UnboundedSender<Command>,
    pub(super) shared: Arc<Shared>,
}

/// Why a call has no answer.
pub(super) enum NoAnswer {
    TimedOut { waited_ms: u64 },
    Over(Disconnected),
}

impl From<NoAnswer> for OpenError {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::TimedOut { waited_ms } => Self::TimedOut { waited_ms },
            NoAnswer::Over(why) => Self::Disconnected(why),
        }
    }
}

impl Line {
    pub(super) const fn new(
        commands: mpsc::Sender<Command>,
        dropped: mpsc::UnboundedSender<Command>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            commands,
            dropped,
            shared,
        }
    }

    /// Leaves a command to the driver on behalf of a handle that is dropped. It is done after everything that
    /// was told before.
    pub(super) fn leave(&self, command: Command) {
        // Where the connection is over, everything was given up with it.
        let _ = self.dropped.send(command);
    }

    pub(super) fn next_key(&self) -> u64 {
        self.shared.next_key.fetch_add(1, Ordering::Relaxed)
    }

    /// What ends a wait when nothing else does.
    fn over(&self) -> NoAnswer {
        NoAnswer::Over(self.shared.over().unwrap_or(Disconnected::Closed))
    }

    /// Waits for `work` as long as calls may wait.
    pub(super) async fn patiently<T>(&self, work: impl Future<Output = T>) -> Result<T, u64> {
        tokio::select! {
            biased;
            done = work => Ok(done),
            waited_ms = self.shared.patience() => Err(waited_ms),
        }
    }

    /// Hands a command to the driver.
    pub(super) async fn tell(&self, command: Command) -> Result<(), NoAnswer> {
        match self.patiently(self.commands.send(command)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.over()),
            Err(waited_ms) => Err(NoAnswer::TimedOut { waited_ms }),
        }
    }

    /// Waits for the driver's answer.
    pub(super) async fn hear<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, NoAnswer> {
        match self.patiently(answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(self.over()),
            Err(waited_ms) => Err(NoAnswer::TimedOut { waited_ms }),
        }
    }

    pub(super) async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, NoAnswer> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await?;
        self.hear(answer).await
    }
}

/// A connection to whichever broker of the factory is active. It is made anew by itself.
///
/// Clones are the same connection. It ends with the last clone, session, producer, consumer and delivery of it,
/// or with `close`.
#[derive(Clone)]
pub struct Connection {
    line: Line,
}

impl Connection {
    pub(super) const fn new(line: Line) -> Self {
        Self { line }
    }

    /// Opens a session. After a failover it is there again, with all its producers and consumers.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn session(&self) -> Result<Session, OpenError> {
        self.open(None).await
    }

    /// Opens a session whose work takes effect with its commits only.
    ///
    /// # Errors
    /// `OpenError`; `Refused` where the broker keeps no transactions.
    pub async fn transacted_session(&self) -> Result<TransactedSession, OpenError> {
        let session = self.open(Some(Arc::default())).await?;
        Ok(TransactedSession::new(session))
    }

    async fn open(&self, doom: Option<Arc<Doom>>) -> Result<Session, OpenError> {
        let (line, key) = (self.line.clone(), self.line.next_key());
        let transacted = doom.clone();
        let held = Arc::new(SessionHandle { line, key, doom });
        self.line
            .ask(|reply| Command::OpenSession {
                key,
                transacted,
                reply,
            })
            .await??;
        Ok(Session { held })
    }

    /// What happens to the connection, from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        // Listening begins before the status is read, so that nothing is missed in between.
        let received = self.line.shared.events.subscribe();
        let first = match self.line.shared.status.borrow().clone() {
            Status::Up { epoch, address } => Some(ConnectionEvent::Connected { epoch, address }),
            Status::Over(why) => Some(ConnectionEvent::Disconnected { why }),
            Status::Down => None,
        };
        Events {
            first,
            received,
            over: false,
        }
    }

    /// The epoch of the broker connected to; `None` during a failover and after the end.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        if let Status::Up { epoch, .. } = &*self.line.shared.status.borrow() {
            Some(*epoch)
        } else {
            None
        }
    }

    /// The address of the broker connected to; `None` during a failover and after the end.
    #[must_use]
    pub fn address(&self) -> Option<Endpoint> {
        if let Status::Up { address, .. } = &*self.line.shared.status.borrow() {
            Some(address.clone())
        } else {
            None
        }
    }

    /// Closes the connection with everything in it. Sends that are not acknowledged end with an unknown outcome.
    pub async fn close(&self) {
        // An answer that does not come means that it is over already.
        let _ = self.line.ask(|reply| Command::Close { reply }).await;
    }
}

/// What happens to a connection.
pub struct Events {
    first: Option<ConnectionEvent>,
    received: broadcast::Receiver<ConnectionEvent>,
    /// The end was told.
    over: bool,
}

impl Events {
    /// The next event; `None` after `Disconnected`. A listener that is far behind misses the oldest.
    pub async fn next(&mut self) -> Option<ConnectionEvent> {
        if self.over {
            return None;
        }
        let event = match self.first.take() {
            Some(first) => Some(first),
            None => self.receive().await,
        };
        self.over = matches!(event, None | Some(ConnectionEvent::Disconnected { .. }));
        event
    }

    async fn receive(&mut self) -> Option<ConnectionEvent> {
        loop {
            match self.received.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

/// An ordered conversation with the broker: producers and consumers belong to one.
#[derive(Clone)]
pub struct Session {
    held: Arc<SessionHandle>,
}

/// Ends the session when the last of its handles goes.
pub(super) struct SessionHandle {
    pub(super) line: Line,
    pub(super) key: u64,
    /// Where it is transacted: whether its transaction is lost.
    pub(super) doom: Option<Arc<Doom>>,
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        self.line.leave(Command::CloseSession {
            key: self.key,
            reply: None,
        });
    }
}

impl Session {
    pub(super) fn handle(&self) -> &SessionHandle {
        &self.held
    }

    /// Opens a producer for a destination.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn producer(&self, destination: &Destination) -> Result<Producer, OpenError> {
        self.producer_with(destination, ProducerOptions::default()).await
    }

    /// Opens a producer for a destination, with options.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn producer_with(
        &self,
        destination: &Destination,
        options: ProducerOptions,
    ) -> Result<Producer, OpenError> {
        Producer::open(Arc::clone(&self.held), Some(destination.clone()), &options).await
    }

    /// Opens a producer without a destination of its own: every message says where it goes, by `send_to`.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn anonymous_producer(&self) -> Result<Producer, OpenError> {
        Producer::open(Arc::clone(&self.held), None, &ProducerOptions::default()).await
    }

    /// Opens a consumer for a destination.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn consumer(&self, destination: &Destination) -> Result<Consumer, OpenError> {
        self.consumer_with(destination, ConsumerOptions::default()).await
    }

    /// Opens a consumer for a destination, with options.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn consumer_with(
        &self,
        destination: &Destination,
        options: ConsumerOptions,
    ) -> Result<Consumer, OpenError> {
        Consumer::open(Arc::clone(&self.held), destination.clone(), options, false).await
    }

    /// Looks at the messages of a queue without taking them, from its front to its end.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn browser(&self, queue: &Destination) -> Result<Browser, OpenError> {
        self.browser_with(queue, ConsumerOptions::default()).await
    }

    /// The same, with options: for example only those messages that a selector chooses.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn browser_with(
        &self,
        queue: &Destination,
        options: ConsumerOptions,
    ) -> Result<Browser, OpenError> {
        let consumer = Consumer::open(Arc::clone(&self.held), queue.clone(), options, true).await?;
        Ok(Browser::new(consumer))
    }

    /// Ends a durable subscription, shared or not, with the messages it has collected. It must have no consumer.
    ///
    /// # Errors
    /// `Refused` where there is no such subscription, or it has a consumer. `OpenError` otherwise.
    pub async fn unsubscribe(&self, name: &str) -> Result<(), OpenError> {
        check_name(name)?;
        let (line, session) = (&self.held.line, self.held.key);
        let (key, name) = (line.next_key(), name.to_owned());
        let unsubscribe = |reply| Command::Unsubscribe {
            session,
            key,
            name,
            reply,
        };
        line.ask(unsubscribe).await?
    }

    /// Makes a queue that only consumers of this connection receive from, and anybody sends to.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn temporary_queue(&self) -> Result<Temporary, OpenError> {
        Temporary::open(Arc::clone(&self.held), Kind::TemporaryQueue).await
    }

    /// Makes a topic that only consumers of this connection receive from, and anybody sends to.
    ///
    /// # Errors
    /// `OpenError`.
    pub async fn temporary_topic(&self) -> Result<Temporary, OpenError> {
        Temporary::open(Arc::clone(&self.held), Kind::TemporaryTopic).await
    }

    /// Closes the session with its producers and consumers.
    pub async fn close(&self) {
        let key = self.held.key;
        // An answer that does not come means that it is over already.
        let _ = self
            .held
            .line
            .ask(|reply| Command::CloseSession {
                key,
                reply: Some(reply),
            })
            .await;
    }
}
