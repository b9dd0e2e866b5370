//! Reading the store back into queues.
//!
//! Records are read on one thread and taken in on another, since either takes about half of the time. It decides how
//! far the one may be ahead of the other, and never skips a record.

use std::sync::mpsc::{Receiver, SendError, SyncSender, sync_channel};
use std::thread::{Builder, scope};

use daymark_amqp::{DeliveryId, LinkId};
use daymark_broker_core::queues::{self, Decoder, Recovery};

use super::shared::{AmqpQueues, Secrets, limits};
use super::{MessagingConfig, Recovered, StoreError, properties};
use crate::store::{Batch, BoxError, Fenced, Log, OpenError, Record};

/// Records handed over together, unless they are large.
const PORTION_RECORDS: usize = 2048;
/// Bytes after which fewer are.
const PORTION_BYTES: usize = 1 << 20;
/// Portions that may wait.
const PORTIONS: usize = 2;

/// The queues that are made of the records.
type AmqpRecovery = Recovery<LinkId, DeliveryId>;
/// Records and their positions.
type Portion = Vec<(u64, queues::Record)>;

/// Reads the store back, declares the configured queues, and makes that durable.
pub(super) fn recover(
    fenced: Box<dyn Fenced>,
    config: &MessagingConfig,
) -> Result<(Log, AmqpQueues, Recovered), StoreError> {
    let recovery = Recovery::new(limits(config))
        .reading(properties::read)
        .keyed(Secrets::default().next());
    let (journal, recovery) = read_back(fenced, recovery)?;
    let mut queues: AmqpQueues = recovery.finish(journal.next_seq())?;
    declare(&mut queues, config)?;
    store(&journal, &mut queues)?;
    let recovered = Recovered {
        messages: queues.message_count(),
        bytes: queues.byte_count(),
        queues: queues.queue_count(),
    };
    Ok((journal, queues, recovered))
}

/// Shows every record to `recovery`.
fn read_back(fenced: Box<dyn Fenced>, recovery: AmqpRecovery) -> Result<(Log, AmqpRecovery), StoreError> {
    let (to, portions) = sync_channel(PORTIONS);
    let mut reading = Reading {
        decoder: Decoder::default(),
        portion: Portion::new(),
        bytes: 0,
        to,
    };
    scope(|scope| {
        let taking_in = Builder::new()
            .name("queues-recover".to_owned())
            .spawn_scoped(scope, || take_in(recovery, portions))
            .map_err(OpenError::Thread)?;
        let mut visit = |record: Record<'_>| reading.read(record);
        let read = fenced.recover(&mut visit);
        // What has gone away says below why.
        let _ = reading.hand_over();
        drop(reading);
        match taking_in.join() {
            Ok(taken_in) => {
                // A record that could not be taken in comes before the one that could not be read.
                let recovery = taken_in?;
                Ok((read?, recovery))
            }
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn take_in(mut recovery: AmqpRecovery, portions: Receiver<Portion>) -> Result<AmqpRecovery, OpenError> {
    for (seq, record) in portions.into_iter().flatten() {
        recovery.apply(seq, record).map_err(|source| OpenError::Visitor {
            seq,
            source: source.into(),
        })?;
    }
    Ok(recovery)
}

/// The thread that reads.
struct Reading {
    decoder: Decoder,
    portion: Portion,
    /// Of the records in it.
    bytes: usize,
    to: SyncSender<Portion>,
}

impl Reading {
    fn read(&mut self, record: Record<'_>) -> Result<(), BoxError> {
        let read = self.decoder.decode(record.kind, record.body)?;
        self.portion.push((record.seq, read));
        self.bytes += record.body.len();
        if self.portion.len() == PORTION_RECORDS || self.bytes >= PORTION_BYTES {
            self.hand_over()?;
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), SendError<Portion>> {
        self.bytes = 0;
        let next = Portion::with_capacity(PORTION_RECORDS);
        self.to.send(std::mem::replace(&mut self.portion, next))
    }
}

fn declare(queues: &mut AmqpQueues, config: &MessagingConfig) -> Result<(), StoreError> {
    for queue in &config.queues {
        queues.declare(&queue.name, queue.stored_settings())?;
    }
    for topic in &config.topics {
        queues.declare_topic(&topic.name, topic.stored_settings())?;
    }
    Ok(())
}

/// Makes durable what was decided so far.
fn store(journal: &Log, queues: &mut AmqpQueues) -> Result<(), StoreError> {
    let mut batch = Batch::new();
    let mut head = Vec::new();
    let positions = queues.close_batch(|record| {
        let (kind, payload) = record.encode(&mut head);
        batch.push(kind, &[&head, payload]);
    });
    if let Some(positions) = positions {
        let seqs = journal.append_and_wait(batch)?;
        assert_eq!(seqs.first, positions.first, "the journal counts differently");
        queues.durable(positions.last);
    }
    Ok(())
}
