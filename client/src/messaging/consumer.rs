//! Consumers and deliveries as programs hold them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use daymark_amqp::message::MessageView;
use daymark_amqp::{AmqpError, Outcome, condition};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::connection::{Line, NoAnswer, SessionHandle};
use super::destination::Destination;
use super::driver::Command;
use super::error::{OpenError, ReceiveError, SettleError};
use super::inbound::{Incoming, Receiving, SettleReply, Shelf, Token};
use super::message::Message;
use super::subscription::Subscription;
use crate::naming::after;

/// How a consumer receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerOptions {
    /// How many messages the broker may send ahead. Default 256; at least 1.
    pub prefetch: u32,
    /// A JMS message selector: only messages that match are received. Default all.
    pub selector: Option<String>,
    /// The named subscription that it consumes, of a topic. Default one of its own that ends with it.
    pub subscription: Option<Subscription>,
    /// Whether what this connection sends to a topic is left out. Default false.
    pub no_local: bool,
}

impl Default for ConsumerOptions {
    fn default() -> Self {
        Self {
            prefetch: 256,
            selector: None,
            subscription: None,
            no_local: false,
        }
    }
}

/// Receives messages from one destination, over failovers too.
///
/// Clones are the same consumer and share its messages. It closes with the last clone and the last delivery.
#[derive(Clone)]
pub struct Consumer {
    held: Arc<Handle>,
}

struct Handle {
    session: Arc<SessionHandle>,
    key: u64,
    prefetch: usize,
    shelf: Arc<Shelf>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.session.line.leave(Command::CloseConsumer {
            key: self.key,
            reply: None,
        });
    }
}

impl Consumer {
    pub(super) async fn open(
        session: Arc<SessionHandle>,
        destination: Destination,
        options: ConsumerOptions,
        browse: bool,
    ) -> Result<Self, OpenError> {
        let line = session.line.clone();
        if let Some(subscription) = &options.subscription {
            subscription.check(&destination, line.shared.is_named)?;
        }
        let key = line.next_key();
        let shelf = Arc::new(Shelf::default());
        let held = Arc::new(Handle {
            key,
            prefetch: options.prefetch.max(1) as usize,
            shelf: Arc::clone(&shelf),
            session,
        });
        let session = held.session.key;
        let how = Receiving {
            options,
            browse,
            global: !line.shared.is_named,
        };
        line.ask(|reply| Command::OpenConsumer {
            key,
            session,
            destination,
            how,
            shelf,
            reply,
        })
        .await??;
        Ok(Self { held })
    }

    /// The next message; `None` when none came within `timeout`. During a failover it keeps waiting. May be
    /// dropped while it waits without losing a message. `Duration::MAX` waits for ever.
    ///
    /// # Errors
    /// `ReceiveError` when no message will ever come; `RollbackOnly` where the transaction of the session is lost: the
    /// message waits for the next one.
    pub async fn receive(&self, timeout: Duration) -> Result<Option<Delivery>, ReceiveError> {
        let deadline = after(Instant::now(), timeout);
        loop {
            self.check_transaction()?;
            let news = self.held.shelf.news.notified();
            if let Some(delivery) = self.take_delivery()? {
                return Ok(Some(delivery));
            }
            if timeout_at(deadline, news).await.is_err() {
                return Ok(None);
            }
        }
    }

    /// The next message if the broker has one now. Asks the broker, unless one is here already.
    ///
    /// # Errors
    /// As `receive`; `TimedOut` where the broker did not answer in the time for calls.
    pub async fn receive_now(&self) -> Result<Option<Delivery>, ReceiveError> {
        self.check_transaction()?;
        if let Some(delivery) = self.take_delivery()? {
            return Ok(Some(delivery));
        }
        let key = self.held.key;
        let asked = self.held.session.line.ask(|reply| Command::Ask { key, reply });
        match asked.await {
            // Where the connection is over, the shelf says why.
            Ok(()) | Err(NoAnswer::Over(_)) => self.take_delivery(),
            Err(NoAnswer::TimedOut { waited_ms }) => Err(ReceiveError::TimedOut { waited_ms }),
        }
    }

    fn check_transaction(&self) -> Result<(), ReceiveError> {
        let doom = self.held.session.doom.as_ref();
        doom.and_then(|doom| doom.why())
            .map_or(Ok(()), |why| Err(ReceiveError::RollbackOnly(why)))
    }

    fn take_delivery(&self) -> Result<Option<Delivery>, ReceiveError> {
        while let Some(incoming) = self.take()? {
            if let Some(delivery) = self.delivery(incoming) {
                return Ok(Some(delivery));
            }
        }
        Ok(None)
    }

    /// The next message of a browser; `None` when it has seen them all.
    pub(super) async fn look(&self, timeout: Duration) -> Result<Option<Message>, ReceiveError> {
        let started = Instant::now();
        let deadline = after(started, timeout);
        loop {
            let news = self.held.shelf.news.notified();
            if let Some(delivery) = self.take_delivery()? {
                return Ok(Some(delivery.message().clone()));
            }
            if self.held.shelf.lock().seen_all {
                return Ok(None);
            }
            if timeout_at(deadline, news).await.is_err() {
                let waited_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                return Err(ReceiveError::TimedOut { waited_ms });
            }
        }
    }

    fn take(&self) -> Result<Option<Incoming>, ReceiveError> {
        let mut shelved = self.held.shelf.lock();
        let Some(incoming) = shelved.deliveries.pop_front() else {
            let Some(why) = shelved.closed.clone() else {
                return Ok(None);
            };
            // Everybody who waits is to hear it.
            self.held.shelf.news.notify_one();
            return Err(why);
        };
        shelved.taken += 1;
        let empty = shelved.deliveries.is_empty();
        if empty || shelved.taken >= (self.held.prefetch / 4).max(1) {
            let key = self.held.key;
            // Where the driver has no room for this, the next message tells it.
            if self
                .held
                .session
                .line
                .commands
                .try_send(Command::Taken { key })
                .is_ok()
            {
                shelved.taken = 0;
            }
        }
        drop(shelved);
        if !empty {
            self.held.shelf.news.notify_one();
        }
        Ok(Some(incoming))
    }

    /// The delivery, where its message can be read. The others are rejected: the broker sets them aside.
    fn delivery(&self, incoming: Incoming) -> Option<Delivery> {
        let read = Message::decode(&incoming.payload);
        let delivery_count = MessageView::parse(&incoming.payload)
            .map(|view| view.header().delivery_count)
            .unwrap_or(0);
        let mut delivery = Delivery {
            consumer: Arc::clone(&self.held),
            message: Message::default(),
            delivery_count,
            token: incoming.token,
            duplicate_id: incoming.duplicate_id,
            presettled: incoming.settled,
            settled: AtomicBool::new(false),
        };
        match read {
            Ok(message) => {
                delivery.message = message;
                Some(delivery)
            }
            Err(error) => {
                tracing::warn!(%error, "a message that cannot be read is rejected");
                let reason = AmqpError::new(condition::DECODE_ERROR, error.to_string());
                delivery.decide(Outcome::rejected(reason));
                None
            }
        }
    }

    /// Closes the consumer. Messages that are not settled go back to the broker. A durable subscription stays, until
    /// `Session::unsubscribe`.
    pub async fn close(&self) {
        let key = self.held.key;
        // An answer that does not come means that it is over already.
        let _ = self
            .held
            .session
            .line
            .ask(|reply| Command::CloseConsumer {
                key,
                reply: Some(reply),
            })
            .await;
    }
}

/// A message that was received and waits for a decision. Dropped without one, it is released.
pub struct Delivery {
    consumer: Arc<Handle>,
    message: Message,
    delivery_count: u32,
    token: Token,
    duplicate_id: Option<Box<str>>,
    /// The broker expects no answer.
    presettled: bool,
    settled: AtomicBool,
}

impl std::fmt::Debug for Delivery {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Delivery")
            .field("message", &self.message)
            .field("delivery_count", &self.delivery_count)
            .finish_non_exhaustive()
    }
}

impl Delivery {
    /// The message.
    #[must_use]
    pub const fn message(&self) -> &Message {
        &self.message
    }

    /// How many deliveries of it failed before this one.
    #[must_use]
    pub const fn delivery_count(&self) -> u32 {
        self.delivery_count
    }

    /// Whether it was delivered before.
    #[must_use]
    pub const fn redelivered(&self) -> bool {
        self.delivery_count > 0
    }

    /// Accepts the message, and returns when the broker has stored that durably; at once where the broker is not
    /// a Daymark one, which nobody asks to confirm. After a failover it is accepted
    /// again by itself. In a transacted session it is accepted with the commit, and this returns at once.
    ///
    /// # Errors
    /// `SettleError`.
    pub async fn accept(&self) -> Result<(), SettleError> {
        self.accept_async().await?.wait().await
    }

    /// Accepts the message, and returns at once with what brings the confirmation.
    ///
    /// # Errors
    /// `SettleError`.
    pub async fn accept_async(&self) -> Result<Settlement, SettleError> {
        self.settle(Outcome::Accepted).await
    }

    /// Rejects the message as one that cannot be processed: the broker sets it aside.
    ///
    /// # Errors
    /// `SettleError`.
    pub async fn reject(&self, reason: &str) -> Result<(), SettleError> {
        let reason = AmqpError::new(condition::PRECONDITION_FAILED, reason);
        self.settle(Outcome::rejected(reason)).await?.wait().await
    }

    /// Gives the message back as if it had not been delivered.
    ///
    /// # Errors
    /// `SettleError`.
    pub async fn release(&self) -> Result<(), SettleError> {
        self.settle(Outcome::Released).await?.wait().await
    }

    /// Gives the message back changed: as one whose delivery failed, which raises its delivery count, and perhaps as
    /// one that is not to be delivered to this consumer again.
    ///
    /// # Errors
    /// `SettleError`.
    pub async fn modify(&self, delivery_failed: bool, undeliverable_here: bool) -> Result<(), SettleError> {
        let outcome = Outcome::Modified {
            delivery_failed,
            undeliverable_here,
            annotations: None,
        };
        self.settle(outcome).await?.wait().await
    }

    async fn settle(&self, outcome: Outcome) -> Result<Settlement, SettleError> {
        let line = &self.consumer.session.line;
        // Room for the command comes first: a call that is dropped here has decided nothing.
        let Ok(Ok(room)) = line.patiently(line.commands.reserve()).await else {
            return Err(SettleError::OutcomeUnknown);
        };
        if self.settled.swap(true, Ordering::AcqRel) {
            return Err(SettleError::AlreadySettled);
        }
        let (reply, answer) = oneshot::channel();
        if self.presettled {
            let _ = reply.send(Ok(()));
        } else {
            room.send(self.command(outcome, reply));
        }
        Ok(Settlement {
            line: line.clone(),
            answer,
        })
    }

    fn command(&self, outcome: Outcome, reply: SettleReply) -> Command {
        Command::Settle {
            key: self.consumer.key,
            token: self.token,
            duplicate_id: self.duplicate_id.clone(),
            outcome,
            reply,
        }
    }

    /// Decides without waiting, unless it is decided.
    fn decide(&self, outcome: Outcome) {
        if !self.settled.swap(true, Ordering::AcqRel) && !self.presettled {
            let (reply, _) = oneshot::channel();
            self.consumer.session.line.leave(self.command(outcome, reply));
        }
    }
}

impl Drop for Delivery {
    fn drop(&mut self) {
        self.decide(Outcome::Released);
    }
}

/// Brings the confirmation of one settlement.
#[must_use = "without it nobody knows whether the settlement was stored"]
pub struct Settlement {
    line: Line,
    answer: oneshot::Receiver<Result<(), SettleError>>,
}

impl Settlement {
    /// Waits until the broker has stored the settlement.
    ///
    /// # Errors
    /// `SettleError`; `OutcomeUnknown` when the time for calls is over.
    pub async fn wait(self) -> Result<(), SettleError> {
        match self.line.hear(self.answer).await {
            Ok(answer) => answer,
            Err(NoAnswer::TimedOut { .. } | NoAnswer::Over(_)) => Err(SettleError::OutcomeUnknown),
        }
    }
}

impl IntoFuture for Settlement {
    type Output = Result<(), SettleError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}
