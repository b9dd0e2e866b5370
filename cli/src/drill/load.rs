//! The load of a drill: numbered messages at a steady pace, received and accepted at the same time, and the
//! longest time without an acknowledgement.
//!
//! Every message names the drill it belongs to, and every drill receives its own alone. What an interrupted one
//! leaves behind expires.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use daymark_broker_server::messaging::DRILL_ADDRESS;
use daymark_client::proto::Epoch;
use daymark_client::{
    Connection, ConnectionFactory, Consumer, ConsumerOptions, Destination, DuplicateId, Message, Producer,
    ProducerOptions, Receipt, Session, SettleError, Settlement,
};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

use crate::failure::Failure;
use crate::ledger::{Counts, Ledger};

/// Between two messages.
const PACE: Duration = Duration::from_millis(2);
/// The most messages of a drill: half an hour of them. Then it only waits.
const MESSAGES_MAX: u64 = 1_000_000;
/// How many messages may be on their way at once.
const WINDOW: usize = 256;
/// The body of the last message.
const END_MARK: &str = "end";
/// The property that names the drill.
const RUN: &str = "drill";
/// How long messages are kept beyond the drill's deadline.
const KEPT: Duration = Duration::from_secs(600);
/// How long one `receive` waits.
const RECEIVE: Duration = Duration::from_secs(1);

/// The messages on their way, and what is known of them.
#[derive(Debug)]
pub(super) struct Load {
    run: String,
    time_to_live: Duration,
    board: Mutex<Board>,
    seen: watch::Sender<Seen>,
    ended: watch::Sender<bool>,
}

#[derive(Debug)]
struct Board {
    ledger: Ledger,
    last: Option<Moment>,
    watched: Option<Gap>,
    closed: Option<Gap>,
}

#[derive(Clone, Copy, Debug)]
struct Moment {
    at: Instant,
    unix_us: u64,
}

/// A time without an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    /// When the last one before it came: microseconds since 1970 UTC.
    pub(super) from_unix_us: u64,
    /// How long it lasted, on a monotonic clock.
    pub(super) took: Duration,
    /// The epoch of the broker that ended it.
    pub(super) epoch: Epoch,
}

impl Gap {
    /// Its length in milliseconds.
    pub(super) const fn ms(&self) -> f64 {
        self.took.as_secs_f64() * 1000.0
    }
}

/// How far the load is.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    acknowledged: u64,
    epoch: Epoch,
    finished: bool,
}

impl Load {
    /// Nothing sent yet. Its messages outlive the deadline of the drill, and not by long.
    pub(super) fn new(deadline: Duration) -> Self {
        let board = Board {
            ledger: Ledger::new(usize::try_from(MESSAGES_MAX).unwrap_or(usize::MAX)),
            last: None,
            watched: None,
            closed: None,
        };
        Self {
            run: DuplicateId::random().to_string(),
            time_to_live: deadline + KEPT,
            board: Mutex::new(board),
            seen: watch::Sender::new(Seen::default()),
            ended: watch::Sender::new(false),
        }
    }

    /// Resolves when so many messages are acknowledged.
    pub(super) async fn acknowledged(&self, count: u64) {
        self.wait_for(|seen| seen.acknowledged >= count).await;
    }

    /// How many messages are acknowledged.
    pub(super) fn count_acknowledged(&self) -> u64 {
        self.seen.borrow().acknowledged
    }

    /// From now on the longest gap counts.
    pub(super) fn watch_gap(&self) {
        let mut board = self.board();
        board.watched = Some(Gap {
            from_unix_us: 0,
            took: Duration::ZERO,
            epoch: Epoch(0),
        });
    }

    /// The longest gap since it counts, up to the first acknowledgement in an epoch after this one.
    pub(super) async fn gap_until_after(&self, epoch: Epoch) -> Gap {
        self.wait_for(|seen| seen.epoch > epoch).await;
        let board = self.board();
        board.closed.or(board.watched).unwrap_or(Gap {
            from_unix_us: 0,
            took: Duration::ZERO,
            epoch,
        })
    }

    /// No more messages: the end mark follows.
    pub(super) fn end(&self) {
        self.ended.send_replace(true);
    }

    /// The sums.
    pub(super) fn counts(&self) -> Counts {
        self.board().ledger.counts()
    }

    /// Sends until the end, then the end mark, and waits for every acknowledgement.
    ///
    /// # Errors
    /// What the client library says.
    pub(super) async fn produce(&self, factory: &ConnectionFactory) -> Result<(), Failure> {
        let (connection, session) = connect(factory).await?;
        let options = ProducerOptions { window: WINDOW };
        let producer = session
            .producer_with(&Destination::queue(DRILL_ADDRESS), options)
            .await;
        let producer = producer.map_err(|error| failed("opening a producer", &error))?;
        let (sent, receipts) = mpsc::channel(WINDOW);
        tokio::try_join!(self.send_all(&producer, sent), self.count_receipts(receipts))?;
        connection.close().await;
        Ok(())
    }

    async fn send_all(
        &self,
        producer: &Producer,
        sent: mpsc::Sender<(Option<u64>, Receipt)>,
    ) -> Result<(), Failure> {
        let mut ended = self.ended.subscribe();
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for number in 0.. {
            tokio::select! {
                _ = ended.wait_for(|ended| *ended) => break,
                _ = pace.tick(), if number < MESSAGES_MAX => {}
            }
            self.board().ledger.sent();
            if !self.send(producer, Some(number), &sent).await? {
                return Ok(());
            }
        }
        self.send(producer, None, &sent).await?;
        Ok(())
    }

    /// Returns whether somebody still counts the receipts: where nobody does, that failed first, and is told.
    async fn send(
        &self,
        producer: &Producer,
        number: Option<u64>,
        sent: &mpsc::Sender<(Option<u64>, Receipt)>,
    ) -> Result<bool, Failure> {
        let body = number.map_or_else(|| END_MARK.to_owned(), |number| number.to_string());
        let message = Message::text(body)
            .with_property(RUN, self.run.as_str())
            .with_ttl(self.time_to_live);
        let receipt = producer.send_async(message).await;
        let receipt = receipt.map_err(|error| failed("sending", &error))?;
        Ok(sent.send((number, receipt)).await.is_ok())
    }

    async fn count_receipts(
        &self,
        mut receipts: mpsc::Receiver<(Option<u64>, Receipt)>,
    ) -> Result<(), Failure> {
        while let Some((number, receipt)) = receipts.recv().await {
            let sent = receipt.await.map_err(|error| failed("sending", &error))?;
            if let Some(number) = number {
                self.count_acknowledgement(number, sent.epoch);
            }
        }
        Ok(())
    }

    fn count_acknowledgement(&self, number: u64, epoch: Epoch) {
        let now = Moment::now();
        let mut board = self.board();
        let acknowledged = board.ledger.acknowledged(number).ok();
        board.close_gap(now, epoch, self.seen.borrow().epoch);
        drop(board);
        self.seen.send_modify(|seen| {
            seen.acknowledged = acknowledged.unwrap_or(seen.acknowledged);
            seen.epoch = seen.epoch.max(epoch);
        });
    }

    /// Receives and accepts until the end mark has come, and then whatever is still there.
    ///
    /// # Errors
    /// What the client library says, or that a message came that was never sent.
    pub(super) async fn consume(&self, factory: &ConnectionFactory) -> Result<(), Failure> {
        let (connection, session) = connect(factory).await?;
        let consumer = self.consumer(&session).await?;
        let (accepted, settlements) = mpsc::channel(WINDOW);
        tokio::try_join!(
            self.receive_all(&consumer, accepted),
            self.count_settlements(settlements)
        )?;
        self.seen.send_modify(|seen| seen.finished = true);
        connection.close().await;
        Ok(())
    }

    async fn consumer(&self, session: &Session) -> Result<Consumer, Failure> {
        let options = ConsumerOptions {
            selector: Some(format!("{RUN} = '{}'", self.run)),
            ..ConsumerOptions::default()
        };
        let consumer = session
            .consumer_with(&Destination::queue(DRILL_ADDRESS), options)
            .await;
        consumer.map_err(|error| failed("opening a consumer", &error))
    }

    async fn receive_all(
        &self,
        consumer: &Consumer,
        accepted: mpsc::Sender<(u64, Settlement)>,
    ) -> Result<(), Failure> {
        let mut marked = false;
        loop {
            let delivery = if marked {
                consumer.receive_now().await
            } else {
                consumer.receive(RECEIVE).await
            };
            let Some(delivery) = delivery.map_err(|error| failed("receiving", &error))? else {
                if marked {
                    return Ok(());
                }
                continue; // The deadline of the drill ends the wait.
            };
            let body = delivery.message().as_text().unwrap_or_default().to_owned();
            let settlement = delivery.accept_async().await;
            let settlement = settlement.map_err(|error| failed("accepting", &error))?;
            if body == END_MARK {
                marked = true;
                continue;
            }
            let number = self.count_delivery(&body)?;
            if accepted.send((number, settlement)).await.is_err() {
                return Ok(()); // Nobody counts the settlements any more: that failed first, and is told.
            }
        }
    }

    fn count_delivery(&self, body: &str) -> Result<u64, Failure> {
        let number = body.parse().ok();
        let counted = number.filter(|number| self.board().ledger.delivered(*number).is_ok());
        counted.ok_or_else(|| {
            Failure::new(
                "DrillFailed",
                format!("a message with the body {body:?} was never sent"),
            )
        })
    }

    async fn count_settlements(
        &self,
        mut settlements: mpsc::Receiver<(u64, Settlement)>,
    ) -> Result<(), Failure> {
        while let Some((number, settlement)) = settlements.recv().await {
            match settlement.await {
                Err(SettleError::Redelivered) => {
                    // It was delivered once, so it has a line.
                    let _ = self.board().ledger.given_back(number);
                }
                // Settled, or it comes again and is then counted as a double.
                Ok(()) | Err(SettleError::NotRedelivered | SettleError::OutcomeUnknown) => {}
                Err(
                    error @ (SettleError::RollbackOnly(_)
                    | SettleError::Refused(_)
                    | SettleError::AlreadySettled
                    | SettleError::LinkClosed
                    | SettleError::Disconnected(_)),
                ) => return Err(failed("accepting", &error)),
            }
        }
        Ok(())
    }

    /// Takes away what a drill that was broken off left behind.
    ///
    /// # Errors
    /// What the client library says.
    pub(super) async fn empty(&self, factory: &ConnectionFactory) -> Result<(), Failure> {
        let (connection, session) = connect(factory).await?;
        let consumer = self.consumer(&session).await?;
        // The connections that were dropped may still hold messages, or have sent some that are not read yet.
        while let Ok(Some(delivery)) = consumer.receive(RECEIVE).await {
            delivery
                .accept()
                .await
                .map_err(|error| failed("accepting", &error))?;
        }
        connection.close().await;
        Ok(())
    }

    async fn wait_for(&self, is_so: impl FnMut(&Seen) -> bool) {
        // The sender is part of this load, so the wait ends only when it is so.
        let _ = self.seen.subscribe().wait_for(is_so).await;
    }

    /// A thread that panicked while it counted leaves counts that are still counts.
    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Board {
    /// Counts the time since the last acknowledgement. The first one of a new epoch ends the watch.
    fn close_gap(&mut self, now: Moment, epoch: Epoch, highest: Epoch) {
        let last = self.last.replace(now);
        let (Some(last), Some(watched)) = (last, &mut self.watched) else {
            return;
        };
        let took = now.at.saturating_duration_since(last.at);
        if took > watched.took {
            (watched.from_unix_us, watched.took) = (last.unix_us, took);
        }
        watched.epoch = epoch;
        if epoch > highest {
            self.closed = self.watched.take();
        }
    }
}

impl Moment {
    fn now() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            at: Instant::now(),
            unix_us: u64::try_from(unix.as_micros()).unwrap_or(u64::MAX),
        }
    }
}

async fn connect(factory: &ConnectionFactory) -> Result<(Connection, Session), Failure> {
    let connection = factory.connect().await;
    let connection = connection.map_err(|error| failed("connecting", &error))?;
    let session = connection.session().await;
    let session = session.map_err(|error| failed("opening a session", &error))?;
    Ok((connection, session))
}

fn failed(doing: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new("DrillFailed", format!("{doing}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(start: Instant, ms: u64) -> Moment {
        Moment {
            at: start + Duration::from_millis(ms),
            unix_us: ms * 1000,
        }
    }

    #[test]
    fn the_longest_gap_counts_from_the_cause_to_the_first_acknowledgement_of_the_next_epoch() {
        let load = Load::new(Duration::from_secs(1));
        let start = Instant::now();
        let mut board = load.board();
        let one = Epoch(1);
        for ms in [0, 500, 502] {
            board.close_gap(moment(start, ms), one, one);
        }
        board.watched = Some(Gap {
            from_unix_us: 0,
            took: Duration::ZERO,
            epoch: Epoch(0),
        });
        for ms in [504, 506] {
            board.close_gap(moment(start, ms), one, one);
        }
        board.close_gap(moment(start, 546), Epoch(2), one);
        board.close_gap(moment(start, 900), Epoch(2), Epoch(2));
        let gap = Gap {
            from_unix_us: 506_000,
            took: Duration::from_millis(40),
            epoch: Epoch(2),
        };
        assert_eq!(board.closed, Some(gap));
        assert!(board.watched.is_none());
    }
}
