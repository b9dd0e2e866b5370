//! Producers as programs hold them.

use std::pin::Pin;
use std::sync::Arc;

use daymark_naming_proto::Epoch;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::connection::{Line, NoAnswer, SessionHandle};
use super::destination::Destination;
use super::driver::Command;
use super::error::{OpenError, Refusal, SendError};
use super::message::{DuplicateId, Message};
use super::outbound::{Payload, Pending};

/// How a producer sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProducerOptions {
    /// How many sends may wait for their acknowledgement at once. Default 1,024; at least 1, at most 8,192.
    pub window: usize,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self { window: 1024 }
    }
}

/// The most sends of one producer on their way: below what the protocol engine allows for one link.
const WINDOW_MAX: usize = 8_192;

/// Sends messages to one destination, in order, over failovers too.
///
/// Clones are the same producer. When the last goes, what was sent is still delivered, then the producer closes.
#[derive(Clone)]
pub struct Producer {
    held: Arc<Handle>,
}

struct Handle {
    session: Arc<SessionHandle>,
    key: u64,
    /// Whether it has a destination of its own.
    destined: bool,
    window: Arc<Semaphore>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.session.line.leave(Command::CloseProducer {
            key: self.key,
            reply: None,
        });
    }
}

/// A message that the broker has stored, or taken into its transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Its identity.
    pub duplicate_id: DuplicateId,
    /// The epoch of the broker that acknowledged it; 0 where it has none.
    pub epoch: Epoch,
}

impl Producer {
    pub(super) async fn open(
        session: Arc<SessionHandle>,
        destination: Option<Destination>,
        options: &ProducerOptions,
    ) -> Result<Self, OpenError> {
        let line = session.line.clone();
        let key = line.next_key();
        let held = Arc::new(Handle {
            key,
            destined: destination.is_some(),
            window: Arc::new(Semaphore::new(options.window.clamp(1, WINDOW_MAX))),
            session,
        });
        let session = held.session.key;
        line.ask(|reply| Command::OpenProducer {
            key,
            session,
            destination,
            reply,
        })
        .await??;
        Ok(Self { held })
    }

    /// Sends a message and returns when the broker has stored it durably; in a transacted session, when the broker
    /// has taken it into the transaction. Sent again by itself after a failover, under the same duplicate id, for
    /// `request_blocking_time`; a transaction is not: it is lost with its connection.
    ///
    /// # Errors
    /// `SendError`.
    pub async fn send(&self, message: Message) -> Result<Sent, SendError> {
        self.send_async(message).await?.wait().await
    }

    /// Sends a message and returns at once with what brings its acknowledgement. Waits only while the window is
    /// full. Messages keep the order of these calls.
    ///
    /// # Errors
    /// `NotSent` where the window stayed full, or the connection's end.
    pub async fn send_async(&self, message: Message) -> Result<Receipt, SendError> {
        self.hand_over(message, None).await
    }

    /// Sends a message to this destination, as `send`. For producers without a destination of their own.
    ///
    /// # Errors
    /// `SendError`; `NoDestination` for the others.
    pub async fn send_to(&self, destination: &Destination, message: Message) -> Result<Sent, SendError> {
        self.send_to_async(destination, message).await?.wait().await
    }

    /// Sends a message to this destination, as `send_async`. For producers without a destination of their own.
    ///
    /// # Errors
    /// As `send_async`, and `NoDestination` for the others.
    pub async fn send_to_async(
        &self,
        destination: &Destination,
        message: Message,
    ) -> Result<Receipt, SendError> {
        self.hand_over(message, Some(destination.clone())).await
    }

    async fn hand_over(&self, message: Message, to: Option<Destination>) -> Result<Receipt, SendError> {
        if self.held.destined == to.is_some() {
            return Err(SendError::NoDestination);
        }
        let line = &self.held.session.line;
        let permit = self.permit(line).await?;
        let duplicate_id = message.duplicate_id.unwrap_or_else(DuplicateId::random);
        let (reply, answer) = oneshot::channel();
        let pending = Pending {
            delayed: message.delivery_delay.is_some(),
            payload: Payload::new(message, duplicate_id, to),
            duplicate_id,
            reply,
            permit,
        };
        let key = self.held.key;
        match line.tell(Command::Send { key, pending }).await {
            Ok(()) => Ok(Receipt {
                line: line.clone(),
                duplicate_id,
                answer,
            }),
            Err(NoAnswer::TimedOut { waited_ms }) => Err(SendError::NotSent { waited_ms }),
            Err(NoAnswer::Over(why)) => Err(why.into()),
        }
    }

    async fn permit(&self, line: &Line) -> Result<OwnedSemaphorePermit, SendError> {
        let window = Arc::clone(&self.held.window);
        match line.patiently(window.acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(SendError::LinkClosed(Refusal::new(None))),
            Err(waited_ms) => Err(SendError::NotSent { waited_ms }),
        }
    }

    /// Waits until everything sent is answered, and closes the producer. Later sends are refused.
    pub async fn close(&self) {
        self.held.window.close();
        let key = self.held.key;
        // An answer that does not come means that it is over already.
        let _ = self
            .held
            .session
            .line
            .ask(|reply| Command::CloseProducer {
                key,
                reply: Some(reply),
            })
            .await;
    }
}

/// Brings the acknowledgement of one message. Dropping it does not take the message back.
#[must_use = "without it nobody knows whether the message was stored"]
pub struct Receipt {
    line: Line,
    duplicate_id: DuplicateId,
    answer: oneshot::Receiver<Result<Epoch, SendError>>,
}

impl Receipt {
    /// The message's identity.
    #[must_use]
    pub const fn duplicate_id(&self) -> DuplicateId {
        self.duplicate_id
    }

    /// Waits until the broker has stored the message.
    ///
    /// # Errors
    /// `SendError`; `OutcomeUnknown` when the time for calls is over.
    pub async fn wait(self) -> Result<Sent, SendError> {
        let duplicate_id = self.duplicate_id;
        match self.line.hear(self.answer).await {
            Ok(answer) => answer.map(|epoch| Sent { duplicate_id, epoch }),
            Err(NoAnswer::TimedOut { .. } | NoAnswer::Over(_)) => {
                Err(SendError::OutcomeUnknown { duplicate_id })
            }
        }
    }
}

impl IntoFuture for Receipt {
    type Output = Result<Sent, SendError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}
