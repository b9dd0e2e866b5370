//! What all connections share: the queues under one lock, the journal, and who has to be woken.
//!
//! It decides nothing about messages. A connection takes the lock once for each batch of input. Records go to
//! the journal while the lock is held, so that their order is the order of what happened.
//! Invariant: once the store failed no event reaches the queues any more, so nothing is acknowledged.

use std::collections::hash_map::RandomState;
use std::collections::{BTreeMap, VecDeque};
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use daymark_amqp::{AmqpError, DeliveryId, LinkId, condition};
use daymark_broker_core::queues::{Limits, OwnerId, Positions, QueueId, QueueSettings, Queues, Refused};
use tokio::sync::{Notify, watch};

use super::registry::Registry;
use super::types::{DestinationKind, LinkKind};
use super::{Greeting, MessagingConfig, StoreFailure};
use crate::store::{AppendError, Batch, Log};

/// Bytes handed to the journal and not yet durable. Batches beyond that wait here, so that the journal, which
/// has to be opened with at least twice that in `max_pending_bytes`, never turns one down.
const JOURNAL_BYTES: u64 = 96 << 20;

/// Deliveries of one link, in each direction, that may be unsettled. Producers get no credit for more, and
/// consumers that settle nothing no messages.
pub(super) const MAX_UNSETTLED: u32 = 10_000;

/// The queues of this broker: links and deliveries are those of the AMQP engine.
pub(super) type AmqpQueues = Queues<LinkId, DeliveryId>;

/// Whether connections serve, and what to tell their peers when they no longer do.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Phase {
    /// As usual.
    Serving,
    /// Close with this error, then let the peer read it.
    Closing(AmqpError),
    /// Drop everything.
    Cut,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) config: MessagingConfig,
    pub(super) journal: Log,
    state: Mutex<State>,
    pub(super) status: Arc<Status>,
    pub(super) connections: AtomicUsize,
    pub(super) registry: Registry,
    /// What connections that open are told.
    greeting: RwLock<Option<Arc<Greeting>>>,
    /// Numbers for the addresses of temporary nodes.
    pub(super) secrets: Secrets,
    /// Something falls due earlier than the timer knows.
    pub(super) sooner: Notify,
}

/// Numbers that nobody outside can guess.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// Its keys are random.
    keys: RandomState,
    used: AtomicU64,
}

impl Secrets {
    /// Never the same twice.
    pub(super) fn next(&self) -> u128 {
        let number = self.used.fetch_add(1, Ordering::Relaxed);
        let half = |which: u8| u128::from(self.keys.hash_one((number, which)));
        half(0) << 64 | half(1)
    }
}

/// What the journal's thread may touch. It never holds the journal itself, so that the journal is closed by
/// whoever drops [`Shared`] and not by its own thread.
#[derive(Debug)]
pub(super) struct Status {
    /// The store failed or is being closed.
    shut: AtomicBool,
    /// The highest durable position the journal told of, and a call to whoever applies it.
    durable: AtomicU64,
    pub(super) completed: Notify,
    /// Bytes handed to the journal and not yet durable.
    in_journal: AtomicU64,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) failure: watch::Sender<Option<StoreFailure>>,
}

/// What the lock protects.
#[derive(Debug)]
pub(super) struct State {
    pub(super) queues: AmqpQueues,
    wakers: Vec<Option<Arc<Notify>>>,
    /// Batches the journal is not to have yet.
    held_back: VecDeque<(Batch, Positions)>,
    /// Connections that stopped reading until the store has caught up.
    paused: Vec<OwnerId>,
    head: Vec<u8>,
    /// Every link that was taken, by a number of its own.
    pub(super) links: BTreeMap<u64, LinkInfo>,
    next_link: u64,
    /// When the timer will tell the queues the time; none if they did not want to hear it.
    pub(super) armed: Option<u64>,
}

/// What others may know of a link.
#[derive(Clone, Debug)]
pub(super) struct LinkInfo {
    /// The connection's number in the registry.
    pub(super) connection: u64,
    pub(super) link: LinkId,
    pub(super) name: String,
    pub(super) kind: LinkKind,
    /// Where it leads; none for the anonymous relay and for a coordinator.
    pub(super) address: Option<String>,
    pub(super) selector: Option<String>,
    pub(super) subscription: Option<String>,
}

/// The limits the queues get from the configuration.
pub(super) fn limits(config: &MessagingConfig) -> Limits {
    Limits {
        max_queues: config.max_queues,
        duplicate_window: config.duplicate_window,
        max_bytes: config.max_bytes,
        max_stored_bytes: config.max_stored_bytes.unwrap_or(u64::MAX),
        max_transactions: config.max_transactions_per_connection,
        transaction_bytes: config.max_transaction_bytes,
        transaction_ms: config.transaction_timeout_ms,
        max_pending_bytes: config.max_pending_bytes,
        producer_credit: config.producer_credit,
        producer_credit_bytes: config.producer_credit_bytes,
        producer_unsettled: MAX_UNSETTLED,
        ..Limits::default()
    }
}

/// Silence after which a connection is given up; none if never.
pub(super) fn idle_timeout(config: &MessagingConfig) -> Option<Duration> {
    (config.idle_timeout_ms > 0).then(|| Duration::from_millis(config.idle_timeout_ms))
}

impl Shared {
    pub(super) fn new(config: MessagingConfig, journal: Log, queues: AmqpQueues) -> Arc<Self> {
        let state = State {
            queues,
            wakers: Vec::new(),
            held_back: VecDeque::new(),
            paused: Vec::new(),
            head: Vec::new(),
            links: BTreeMap::new(),
            next_link: 1,
            armed: None,
        };
        let status = Status {
            shut: AtomicBool::new(false),
            durable: AtomicU64::new(0),
            completed: Notify::new(),
            in_journal: AtomicU64::new(0),
            phase: watch::Sender::new(Phase::Serving),
            failure: watch::Sender::new(None),
        };
        let registry = Registry::new(idle_timeout(&config));
        Arc::new(Self {
            config,
            journal,
            state: Mutex::new(state),
            status: Arc::new(status),
            connections: AtomicUsize::new(0),
            registry,
            greeting: RwLock::new(None),
            secrets: Secrets::default(),
            sooner: Notify::new(),
        })
    }

    /// What a connection that opens now is told; none before the port was opened.
    pub(super) fn greeting(&self) -> Option<Arc<Greeting>> {
        self.greeting
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Changes what connections are told from now on.
    pub(super) fn greet(&self, change: impl FnOnce(Option<&Greeting>) -> Option<Greeting>) {
        let mut greeting = self.greeting.write().unwrap_or_else(PoisonError::into_inner);
        *greeting = change(greeting.as_deref()).map(Arc::new);
    }

    /// The queues, unless the store failed or was closed: then nothing may happen to them any more.
    pub(super) fn lock(&self) -> Option<MutexGuard<'_, State>> {
        let state = self.look();
        (!self.status.is_shut()).then_some(state)
    }

    /// The queues, to read counts or to let go of a connection.
    pub(super) fn look(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not keep the others from closing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a batch of events: messages and credit are handed out, records go to the journal.
    pub(super) fn finish(self: &Arc<Self>, state: &mut State) {
        state.queues.flush();
        self.record(state);
        if let Some(due) = state.queues.deadline()
            && state.armed.is_none_or(|armed| due < armed)
        {
            state.armed = Some(due);
            self.sooner.notify_one();
        }
    }

    /// Hands the open batch to the journal, if there is anything in it.
    pub(super) fn record(self: &Arc<Self>, state: &mut State) -> Option<Positions> {
        let State { queues, head, .. } = state;
        let mut batch = Batch::new();
        let positions = queues.close_batch(|record| {
            let (kind, payload) = record.encode(head);
            batch.push(kind, &[head, payload]);
        })?;
        state.held_back.push_back((batch, positions));
        self.submit(state);
        Some(positions)
    }

    fn submit(self: &Arc<Self>, state: &mut State) {
        while let Some((batch, positions)) = state.held_back.pop_front() {
            let bytes = batch.bytes();
            let waiting = self.status.in_journal.load(Ordering::Acquire);
            if waiting > 0 && waiting + bytes > JOURNAL_BYTES {
                state.held_back.push_front((batch, positions));
                return;
            }
            self.status.in_journal.fetch_add(bytes, Ordering::AcqRel);
            let status = Arc::clone(&self.status);
            let sent = self.journal.submit(batch, move |result| match result {
                Ok(appended) => status.appended(appended.seqs.last, bytes),
                Err(error) => status.fail(error),
            });
            match sent {
                Ok(seqs) => {
                    let promised = (positions.first, positions.last);
                    assert_eq!(
                        (seqs.first, seqs.last),
                        promised,
                        "the journal counts differently"
                    );
                }
                Err(error) => return self.status.fail(error),
            }
        }
    }

    /// Tells the queues what became durable, and hands the journal what was held back for it.
    pub(super) fn apply_completions(self: &Arc<Self>) {
        let upto = self.status.durable();
        let Some(mut state) = self.lock() else {
            return;
        };
        state.queues.durable(upto);
        self.submit(&mut state);
        self.finish(&mut state);
        state.resume_readers();
        state.wake_all();
    }
}

impl Status {
    pub(super) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Acquire)
    }

    /// The journal made a batch durable. Runs on its thread, so it only takes note.
    fn appended(&self, last: u64, bytes: u64) {
        self.in_journal.fetch_sub(bytes, Ordering::AcqRel);
        self.durable.fetch_max(last, Ordering::AcqRel);
        self.completed.notify_one();
    }

    /// Whether the journal has something that it did not make durable yet.
    pub(super) fn is_waiting(&self) -> bool {
        self.in_journal.load(Ordering::Acquire) > 0
    }

    /// The highest durable position known so far.
    pub(super) fn durable(&self) -> u64 {
        self.durable.load(Ordering::Acquire)
    }

    /// The store can acknowledge nothing any more: neither can we.
    pub(super) fn fail(&self, cause: AppendError) {
        if self.shut() {
            return;
        }
        let text = format!("the store failed: {cause}");
        self.failure.send_replace(Some(StoreFailure { cause }));
        self.close_connections(AmqpError::new(condition::INTERNAL_ERROR, text));
    }

    /// Lets nothing reach the queues any more. Returns whether that was so already.
    pub(super) fn shut(&self) -> bool {
        self.shut.swap(true, Ordering::AcqRel)
    }

    /// Makes every connection close with this error, unless it is closing already.
    pub(super) fn close_connections(&self, error: AmqpError) {
        self.phase.send_if_modified(|phase| {
            let serving = *phase == Phase::Serving;
            if serving {
                *phase = Phase::Closing(error);
            }
            serving
        });
    }
}

impl State {
    /// The queue or topic of this name, made if there is none, with these settings.
    pub(super) fn declare(
        &mut self,
        kind: DestinationKind,
        name: &str,
        settings: QueueSettings,
    ) -> Result<QueueId, Refused> {
        match kind {
            DestinationKind::Queue => self.queues.declare(name, settings),
            DestinationKind::Topic => self.queues.declare_topic(name, settings),
        }
    }

    pub(super) fn find(&self, kind: DestinationKind, name: &str) -> Option<QueueId> {
        match kind {
            DestinationKind::Queue => self.queues.find(name),
            DestinationKind::Topic => self.queues.find_topic(name),
        }
    }

    /// A connection, to be woken by `waker`.
    pub(super) fn add_owner(&mut self, waker: Arc<Notify>) -> OwnerId {
        let owner = self.queues.add_owner();
        if self.wakers.len() <= owner.index() {
            self.wakers.resize(owner.index() + 1, None);
        }
        self.wakers[owner.index()] = Some(waker);
        owner
    }

    pub(super) fn remove_owner(&mut self, owner: OwnerId) {
        self.queues.remove_owner(owner);
        self.paused.retain(|&other| other != owner);
        if let Some(waker) = self.wakers.get_mut(owner.index()) {
            *waker = None;
        }
    }

    /// Lists a link and returns its number.
    pub(super) fn add_link(&mut self, info: LinkInfo) -> u64 {
        let number = self.next_link;
        self.next_link += 1;
        self.links.insert(number, info);
        number
    }

    /// Wakes whoever has something to do.
    pub(super) fn wake_all(&mut self) {
        let wakers = &self.wakers;
        self.queues.take_wakes(|owner| wake(wakers, owner));
    }

    /// Whether the connection must not read for now; it is woken when it may again.
    pub(super) fn must_pause(&mut self, owner: OwnerId) -> bool {
        let pause = self.queues.is_store_overloaded();
        if pause && !self.paused.contains(&owner) {
            self.paused.push(owner);
        }
        pause
    }

    fn resume_readers(&mut self) {
        if !self.paused.is_empty() && !self.queues.is_store_overloaded() {
            for owner in std::mem::take(&mut self.paused) {
                wake(&self.wakers, owner);
            }
        }
    }
}

fn wake(wakers: &[Option<Arc<Notify>>], owner: OwnerId) {
    if let Some(Some(waker)) = wakers.get(owner.index()) {
        waker.notify_one();
    }
}
