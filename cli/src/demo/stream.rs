//! The messages: numbered, sent through names with a bounded window, received and accepted at the same time.
//!
//! After the last number comes an end mark. A queue keeps the order of one producer, so that everything stored
//! before it, and everything stored twice, has been delivered when it comes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use daymark_client::proto::{Epoch, Name};
use daymark_client::{
    Connection, Consumer, Delivery, Message, Naming, Producer, Receipt, SettleError, Settlement,
};
use tokio::sync::{mpsc, watch};

use super::{DemoError, Plan, Progress};
use crate::ledger::{Counts, Ledger};

/// The factory and the queue a broker exports without any configuration.
const FACTORY: &str = "QueueConnectionFactory";
const QUEUE: &str = "ExamplesQueue";
/// The body of the last message.
const END_MARK: &str = "end";

/// The messages on their way, and what is known of them.
#[derive(Debug)]
pub(super) struct Stream {
    messages: u64,
    window: usize,
    board: Mutex<Board>,
    /// How many messages may be sent.
    gate: watch::Sender<u64>,
    seen: watch::Sender<Seen>,
}

#[derive(Debug)]
struct Board {
    ledger: Ledger,
    /// When the first message was acknowledged in each epoch.
    first_acknowledged: BTreeMap<Epoch, SystemTime>,
}

/// How far the stream is.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    acknowledged: u64,
    epoch: Epoch,
    finished: bool,
}

impl Stream {
    /// Nothing sent yet, and nothing may be.
    pub(super) fn new(plan: &Plan) -> Self {
        let board = Board {
            ledger: Ledger::new(usize::try_from(plan.messages).unwrap_or(usize::MAX)),
            first_acknowledged: BTreeMap::new(),
        };
        Self {
            messages: plan.messages,
            window: plan.window as usize,
            board: Mutex::new(board),
            gate: watch::Sender::new(0),
            seen: watch::Sender::new(Seen::default()),
        }
    }

    /// So many messages may be sent from now on.
    pub(super) fn may_send(&self, count: u64) {
        self.gate.send_replace(count);
    }

    /// Resolves when so many messages are acknowledged.
    pub(super) async fn acknowledged(&self, count: u64) {
        self.wait_for(|seen| seen.acknowledged >= count).await;
    }

    /// Resolves when a message was acknowledged in an epoch after this one, with the moment of the first.
    pub(super) async fn first_acknowledged_after(&self, epoch: Epoch) -> SystemTime {
        self.wait_for(|seen| seen.epoch > epoch).await;
        let board = self.board();
        let first = board.first_acknowledged.range(epoch.next()..).next();
        first.map_or(SystemTime::UNIX_EPOCH, |(_, at)| *at)
    }

    /// Resolves when the end mark was received and everything was accepted.
    pub(super) async fn finished(&self) {
        self.wait_for(|seen| seen.finished).await;
    }

    /// The sums so far.
    pub(super) fn counts(&self) -> Counts {
        self.board().ledger.counts()
    }

    /// Sends every message, then the end mark.
    pub(super) async fn produce(&self, naming: &Naming, progress: &Progress) -> Result<(), DemoError> {
        let connection = connect(naming).await?;
        let queue = naming.destination(&name(QUEUE)?).await;
        let queue = queue.map_err(|error| DemoError::client("looking up the queue", error))?;
        let session = connection.session().await;
        let session = session.map_err(|error| DemoError::client("opening a session", error))?;
        let producer = session.producer(&queue).await;
        let producer = producer.map_err(|error| DemoError::client("opening a producer", error))?;
        let (sent, receipts) = mpsc::channel(self.window);
        tokio::try_join!(
            self.send_all(&producer, sent),
            self.count_receipts(&connection, receipts, progress)
        )?;
        connection.close().await;
        Ok(())
    }

    async fn send_all(
        &self,
        producer: &Producer,
        sent: mpsc::Sender<(u64, Receipt)>,
    ) -> Result<(), DemoError> {
        let mut gate = self.gate.subscribe();
        for number in 0..=self.messages {
            // The gate is part of this stream, so it cannot close before it opens.
            let _ = gate.wait_for(|limit| number < *limit).await;
            let message = if number < self.messages {
                self.board().ledger.sent();
                Message::text(number.to_string())
            } else {
                Message::text(END_MARK)
            };
            let receipt = producer.send_async(message).await;
            let receipt = receipt.map_err(|error| DemoError::client("sending", error))?;
            if sent.send((number, receipt)).await.is_err() {
                break; // Nobody counts the receipts any more: that failed first, and is told.
            }
        }
        Ok(())
    }

    /// Waits for the acknowledgement of each message, in the order they were sent.
    async fn count_receipts(
        &self,
        connection: &Connection,
        mut receipts: mpsc::Receiver<(u64, Receipt)>,
        progress: &Progress,
    ) -> Result<(), DemoError> {
        while let Some((number, receipt)) = receipts.recv().await {
            receipt
                .await
                .map_err(|error| DemoError::client("sending", error))?;
            // There is no epoch in the moment after a connection broke: the acknowledgement came before.
            let (epoch, now) = (connection.epoch(), SystemTime::now());
            let acknowledged = self.count_acknowledgement(number, epoch, now);
            progress.acknowledged(acknowledged);
        }
        Ok(())
    }

    fn count_acknowledgement(&self, number: u64, epoch: Option<Epoch>, now: SystemTime) -> u64 {
        let mut board = self.board();
        if let Some(epoch) = epoch {
            board.first_acknowledged.entry(epoch).or_insert(now);
        }
        // The end mark is no numbered message.
        let acknowledged = board.ledger.acknowledged(number).ok();
        drop(board);
        let mut count = 0;
        self.seen.send_modify(|seen| {
            seen.epoch = seen.epoch.max(epoch.unwrap_or_default());
            seen.acknowledged = acknowledged.unwrap_or(seen.acknowledged);
            count = seen.acknowledged;
        });
        count
    }

    /// Receives and accepts until the end mark has come and everything is accepted.
    pub(super) async fn consume(&self, naming: &Naming) -> Result<(), DemoError> {
        let connection = connect(naming).await?;
        let queue = naming.destination(&name(QUEUE)?).await;
        let queue = queue.map_err(|error| DemoError::client("looking up the queue", error))?;
        let session = connection.session().await;
        let session = session.map_err(|error| DemoError::client("opening a session", error))?;
        let consumer = session.consumer(&queue).await;
        let consumer = consumer.map_err(|error| DemoError::client("opening a consumer", error))?;
        let (accepted, settlements) = mpsc::channel(self.window);
        tokio::try_join!(
            self.receive_all(&consumer, accepted),
            self.count_settlements(settlements)
        )?;
        self.seen.send_modify(|seen| seen.finished = true);
        connection.close().await;
        Ok(())
    }

    async fn receive_all(
        &self,
        consumer: &Consumer,
        accepted: mpsc::Sender<(Option<u64>, Settlement)>,
    ) -> Result<(), DemoError> {
        loop {
            let delivery = consumer.receive(RECEIVE_TIMEOUT).await;
            let Some(delivery) = delivery.map_err(|error| DemoError::client("receiving", error))? else {
                continue; // The deadline of the demo ends the wait.
            };
            let number = self.count_delivery(&delivery)?;
            let settlement = delivery.accept_async().await;
            let settlement = settlement.map_err(|error| DemoError::client("accepting", error))?;
            if accepted.send((number, settlement)).await.is_err() || number.is_none() {
                return Ok(());
            }
        }
    }

    /// Counts one delivery and returns its number; `None` for the end mark.
    fn count_delivery(&self, delivery: &Delivery) -> Result<Option<u64>, DemoError> {
        let body = delivery.message().as_text().unwrap_or_default();
        if body == END_MARK {
            return Ok(None);
        }
        let number = body.parse().ok();
        let counted = number.filter(|number| self.board().ledger.delivered(*number).is_ok());
        match counted {
            Some(number) => Ok(Some(number)),
            None => Err(DemoError::Foreign {
                body: body.to_owned(),
            }),
        }
    }

    /// Waits for the confirmation of each acceptance, in the order they were given.
    async fn count_settlements(
        &self,
        mut settlements: mpsc::Receiver<(Option<u64>, Settlement)>,
    ) -> Result<(), DemoError> {
        while let Some((number, settlement)) = settlements.recv().await {
            match (settlement.await, number) {
                (Err(SettleError::Redelivered), Some(number)) => {
                    // It was delivered once, so it has a line.
                    let _ = self.board().ledger.given_back(number);
                }
                // Settled, or it comes again and is then counted as a double.
                (Ok(()) | Err(SettleError::NotRedelivered | SettleError::OutcomeUnknown), _)
                | (Err(SettleError::Redelivered), None) => {}
                (
                    Err(
                        error @ (SettleError::RollbackOnly(_)
                        | SettleError::Refused(_)
                        | SettleError::AlreadySettled
                        | SettleError::LinkClosed
                        | SettleError::Disconnected(_)),
                    ),
                    _,
                ) => return Err(DemoError::client("accepting", error)),
            }
        }
        Ok(())
    }

    async fn wait_for(&self, is_so: impl FnMut(&Seen) -> bool) {
        // The sender is part of this stream, so the wait ends only when it is so.
        let _ = self.seen.subscribe().wait_for(is_so).await;
    }

    /// A thread that panicked while it counted leaves counts that are still counts.
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long one `receive` waits.
const RECEIVE_TIMEOUT: Duration = Duration::from_secs(1);

async fn connect(naming: &Naming) -> Result<Connection, DemoError> {
    let factory = naming.connection_factory(&name(FACTORY)?).await;
    let factory = factory.map_err(|error| DemoError::client("looking up the connection factory", error))?;
    let connection = factory.connect().await;
    connection.map_err(|error| DemoError::client("connecting", error))
}

fn name(text: &str) -> Result<Name, DemoError> {
    text.parse().map_err(|error| DemoError::client("naming", error))
}
