//! Producers and consumers on the Rust library, with and without transactions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daymark_client::{
    CommitError, Connection, ConnectionFactory, Consumer, ConsumerOptions, Delivery, Destination,
    DuplicateId, Message, Producer, SendError, Session, SettleError, TransactedSession,
};
use tokio::sync::watch;

use super::checker::{Seen, Stream};

/// What a stream's two ends share.
pub(super) struct Ends {
    pub(super) name: String,
    pub(super) stream: Mutex<Stream>,
    /// Between two messages, or two transactions.
    pub(super) pace: Duration,
    /// True: send the end mark now.
    pub(super) over: watch::Receiver<bool>,
}

impl Ends {
    pub(super) fn stream(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self) -> Destination {
        Destination::queue(format!("soak.{}", self.name))
    }

    fn end_mark(&self) -> String {
        format!("{} end", self.name)
    }

    /// Waits for the next message's time; false when there is none any more.
    async fn goes_on(&self) -> bool {
        let mut over = self.over.clone();
        tokio::select! {
            _ = over.wait_for(|over| *over) => false,
            () = tokio::time::sleep(self.pace) => true,
        }
    }

    /// The next message, with a number and an id of its own.
    fn next(&self) -> (usize, Message) {
        let number = self.stream().send();
        (number, self.message(&format!("{} {number}", self.name)))
    }

    fn message(&self, text: &str) -> Message {
        Message::text(text).with_duplicate_id(DuplicateId::random())
    }
}

/// Messages of one transaction.
const TRANSACTION: usize = 5;
/// Sends on their way at once.
const WINDOW: usize = 8;
/// Before something that was refused for now is tried again.
const AGAIN: Duration = Duration::from_millis(20);
/// How long one `receive` waits.
const RECEIVE: Duration = Duration::from_millis(500);

/// A connection that is made at the first attempt that succeeds: the group may be failing over.
async fn connect(factory: &ConnectionFactory) -> Connection {
    loop {
        match factory.connect().await {
            Ok(connection) => return connection,
            Err(error) => eprintln!("connecting: {error}"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Opens something that a failover may interrupt.
macro_rules! opened {
    ($open:expr) => {
        loop {
            match $open.await {
                Ok(opened) => break opened,
                Err(error) => eprintln!("opening: {error}"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    };
}

/// Sends with several on their way at once; the library sends again what a failover leaves open.
pub(super) async fn produce(factory: ConnectionFactory, ends: Arc<Ends>) {
    let connection = connect(&factory).await;
    let session: Session = opened!(connection.session());
    let producer: Producer = opened!(session.producer(&ends.queue()));
    let mut waiting = std::collections::VecDeque::new();
    while ends.goes_on().await {
        let (number, message) = ends.next();
        match producer.send_async(message).await {
            Ok(receipt) => waiting.push_back((number, receipt)),
            Err(error) => refused(&ends, number, &error),
        }
        if waiting.len() >= WINDOW
            && let Some((number, receipt)) = waiting.pop_front()
        {
            note(&ends, number, receipt.await.map(|_| ()));
        }
    }
    for (number, receipt) in waiting {
        note(&ends, number, receipt.await.map(|_| ()));
    }
    send(&producer, &ends.message(&ends.end_mark()))
        .await
        .expect("the end mark is taken");
    connection.close().await;
}

fn note(ends: &Ends, number: usize, outcome: Result<(), SendError>) {
    match outcome {
        Ok(()) => ends.stream().acknowledged(number),
        Err(error) => refused(ends, number, &error),
    }
}

/// Rejected is rejected; everything else is unknown, which is what it was.
fn refused(ends: &Ends, number: usize, error: &SendError) {
    eprintln!("{} {number}: {error}", ends.name);
    if matches!(error, SendError::Rejected(_) | SendError::TooLarge { .. }) {
        ends.stream().rejected(number);
    }
}

/// Sends one after the other, and by itself again under the same id where a failover hands the send back.
pub(super) async fn produce_by_hand(factory: ConnectionFactory, ends: Arc<Ends>) {
    let connection = connect(&factory).await;
    let session: Session = opened!(connection.session());
    let producer: Producer = opened!(session.producer(&ends.queue()));
    while ends.goes_on().await {
        let (number, message) = ends.next();
        note(&ends, number, send(&producer, &message).await);
    }
    send(&producer, &ends.message(&ends.end_mark()))
        .await
        .expect("the end mark is taken");
    connection.close().await;
}

async fn send(producer: &Producer, message: &Message) -> Result<(), SendError> {
    loop {
        match producer.send(message.clone()).await {
            Ok(_) => return Ok(()),
            Err(
                SendError::Unblocked { .. }
                | SendError::OutcomeUnknown { .. }
                | SendError::NotSent { .. }
                | SendError::Released,
            ) => tokio::time::sleep(AGAIN).await,
            Err(error) => return Err(error),
        }
    }
}

/// Sends in transactions; one that was rolled back, or may have been, is done again under the same ids.
pub(super) async fn produce_in_transactions(factory: ConnectionFactory, ends: Arc<Ends>) {
    let connection = connect(&factory).await;
    let session: TransactedSession = opened!(connection.transacted_session());
    let producer: Producer = opened!(session.producer(&ends.queue()));
    while ends.goes_on().await {
        let messages: Vec<_> = (0..TRANSACTION).map(|_| ends.next()).collect();
        let (numbers, messages): (Vec<usize>, Vec<Message>) = messages.into_iter().unzip();
        match commit_all(&session, &producer, &messages).await {
            Ok(()) => numbers
                .iter()
                .for_each(|number| ends.stream().acknowledged(*number)),
            Err(error) => eprintln!("{} {numbers:?}: {error}", ends.name),
        }
    }
    let last = [ends.message(&ends.end_mark())];
    commit_all(&session, &producer, &last)
        .await
        .expect("the end mark is taken");
    connection.close().await;
}

async fn commit_all(
    session: &TransactedSession,
    producer: &Producer,
    messages: &[Message],
) -> Result<(), CommitError> {
    loop {
        if !send_all(producer, messages).await {
            let _ = session.rollback().await;
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        match session.commit().await {
            Ok(()) | Err(CommitError::Duplicate(_)) => return Ok(()),
            Err(CommitError::TransactionRolledBack(_) | CommitError::TransactionOutcomeUnknown { .. }) => {
                tokio::time::sleep(AGAIN).await
            }
            Err(error @ (CommitError::SessionClosed | CommitError::Disconnected(_))) => return Err(error),
        }
    }
}

/// Whether all are in the transaction, or it is lost and its commit says why: it was done before, for example.
async fn send_all(producer: &Producer, messages: &[Message]) -> bool {
    for message in messages {
        match producer.send(message.clone()).await {
            Ok(_) => {}
            Err(SendError::RollbackOnly(_)) => return true,
            Err(_) => return false,
        }
    }
    true
}

async fn consumer(session: &Session, ends: &Ends) -> Consumer {
    let options = || ConsumerOptions {
        prefetch: 32,
        ..ConsumerOptions::default()
    };
    opened!(session.consumer_with(&ends.queue(), options()))
}

/// The next message, or `None` where nothing more comes.
async fn next(consumer: &Consumer, marked: bool) -> Option<Delivery> {
    loop {
        match consumer.receive(RECEIVE).await {
            Ok(Some(delivery)) => return Some(delivery),
            Ok(None) if marked => return None,
            Ok(None) => {}
            Err(error) => {
                eprintln!("receiving: {error}");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }
}

/// Every settlement is confirmed or known not to be, whatever the connection: they need not be told apart.
fn seen<'a>(text: &'a str, delivery: &Delivery) -> Seen<'a> {
    Seen {
        text,
        again: delivery.redelivered(),
        term: 0,
    }
}

/// Receives and accepts until the end mark has come, and nothing behind it.
pub(super) async fn consume(factory: ConnectionFactory, ends: Arc<Ends>) {
    let connection = connect(&factory).await;
    let session: Session = opened!(connection.session());
    let consumer = consumer(&session, &ends).await;
    let mut marked = false;
    while let Some(delivery) = next(&consumer, marked).await {
        let text = delivery.message().as_text().unwrap_or_default().to_owned();
        if text == ends.end_mark() {
            marked = delivery.accept().await.is_ok() || marked;
            continue;
        }
        let number = ends.stream().delivered(seen(&text, &delivery));
        let settled = delivery.accept().await;
        let Some(number) = number else { continue };
        match settled {
            Ok(()) => ends.stream().consumed(number),
            Err(SettleError::Redelivered) => {} // It comes again.
            Err(error) => {
                eprintln!("{text}: {error}");
                ends.stream().perhaps_consumed(number);
            }
        }
    }
    connection.close().await;
}

/// The same in transactions.
pub(super) async fn consume_in_transactions(factory: ConnectionFactory, ends: Arc<Ends>) {
    let connection = connect(&factory).await;
    let session: TransactedSession = opened!(connection.transacted_session());
    let consumer = consumer(&session, &ends).await;
    let mut marked = false;
    loop {
        let Some(taken) = take(&consumer, &ends).await else {
            let _ = session.rollback().await; // It was lost with its connection, and all of it comes again.
            continue;
        };
        if taken.is_empty() && marked {
            break;
        }
        match session.commit().await {
            Ok(()) => taken
                .iter()
                .flatten()
                .for_each(|number| ends.stream().consumed(*number)),
            Err(CommitError::TransactionRolledBack(_)) => continue, // All of it comes again.
            Err(error) => {
                eprintln!("{} {taken:?}: {error}", ends.name);
                taken
                    .iter()
                    .flatten()
                    .for_each(|number| ends.stream().perhaps_consumed(*number));
            }
        }
        marked |= taken.contains(&None);
    }
    connection.close().await;
}

/// The numbers of the next transaction, `None` for the end mark; nothing where the transaction is lost.
async fn take(consumer: &Consumer, ends: &Ends) -> Option<Vec<Option<usize>>> {
    let mut taken = Vec::new();
    let mut patience = RECEIVE;
    while taken.len() < TRANSACTION {
        let Some(delivery) = consumer.receive(patience).await.ok()? else {
            break;
        };
        let text = delivery.message().as_text().unwrap_or_default().to_owned();
        let number = (text != ends.end_mark()).then(|| ends.stream().delivered(seen(&text, &delivery)));
        delivery.accept().await.ok()?;
        match number {
            None => taken.push(None),
            Some(Some(number)) => taken.push(Some(number)),
            Some(None) => {} // Told as foreign.
        }
        patience = Duration::from_millis(1);
    }
    Some(taken)
}
