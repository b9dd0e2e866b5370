//! The queues, their store, connections and the model, kept in step.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use daymark_broker_core::queues::{
    Action, ConsumerId, Delivery, Limits, MessageRef, OwnerId, ProducerId, QueueId, Queues, Recovery,
    Settlement, SubscriptionKey, TransactionId,
};

use crate::Seeded;
use crate::model::{Choice, Copy, Letter, Model, Place, QUEUES, State, TOPICS, Wish, settings};
use crate::queues_support::{Stored, read};

pub(crate) const CONNECTIONS: usize = 3;
pub(crate) const TRANSACTION_MS: u64 = 500;
/// The kinds of two records, to leave them out on purpose.
const SETTLED: u8 = 3;
const MOVED: u8 = 10;

/// A rule that is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    Nothing,
    /// The store calls every third batch durable and loses it.
    LosesBatches,
    /// The store calls a batch durable before it is.
    CallsEarly,
    /// Nobody tells the queues the time.
    StopsTheClock,
    /// What was settled is not read back.
    ForgetsSettlements,
    /// What was moved is not read back.
    ForgetsMoves,
    IgnoresSelectors,
    GivesMoreCredit,
    ReleasesInsteadOfAccepting,
    CommitsRollbacks,
}

type Machine = Queues<u64, u64>;
pub(crate) type Checked<T = ()> = Result<T, String>;

pub(crate) fn ensure(holds: bool, what: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(what()) }
}

struct Batch {
    number: u64,
    last: u64,
    records: Vec<Stored>,
    /// What it makes of the store.
    after: Model,
}

pub(crate) struct Consumer {
    pub(crate) id: ConsumerId,
    pub(crate) connection: usize,
    pub(crate) place: Place,
    pub(crate) choice: Choice,
    pub(crate) browse: bool,
    pub(crate) credit: u32,
    /// Copies out to it, in the order in which they came, with what to settle them by.
    pub(crate) held: Vec<(u64, MessageRef)>,
    /// For a browser: the latest copy it saw of each priority.
    pub(crate) seen: BTreeMap<u8, u64>,
}

pub(crate) struct Transaction {
    pub(crate) id: TransactionId,
    pub(crate) connection: usize,
    pub(crate) ends_at: u64,
    pub(crate) letters: Vec<(Letter, QueueId)>,
    pub(crate) held: Vec<Held>,
    pub(crate) timed_out: bool,
}

pub(crate) struct Held {
    pub(crate) order: u64,
    pub(crate) message: MessageRef,
    pub(crate) consumer: u64,
    pub(crate) how: Settlement,
    pub(crate) settled: bool,
}

pub(crate) struct Connection {
    pub(crate) owner: OwnerId,
    pub(crate) producer: ProducerId,
}

/// What somebody waits to hear, and the batch that has to be durable before.
pub(crate) struct Awaited {
    pub(crate) connection: usize,
    pub(crate) batch: Option<u64>,
    pub(crate) committed: bool,
}

pub(crate) struct World {
    pub(crate) broken: Broken,
    pub(crate) machine: Machine,
    pub(crate) model: Model,
    pub(crate) places: BTreeMap<Place, QueueId>,
    pub(crate) connections: Vec<Connection>,
    pub(crate) consumers: BTreeMap<u64, Consumer>,
    pub(crate) transactions: BTreeMap<u64, Transaction>,
    pub(crate) awaited: BTreeMap<u64, Awaited>,
    durable_records: Vec<Stored>,
    waiting: VecDeque<Batch>,
    /// The number of the batch that is being filled, and of the last durable one.
    pub(crate) open: u64,
    durable: u64,
    /// What the store would give back.
    stored: Model,
    /// Once that batch is durable, nothing before the position is needed.
    release: Option<(u64, u64)>,
    numbers: u64,
    pub(crate) steps: u64,
    /// Letters with a duplicate id, to be sent again.
    pub(crate) sent: Vec<Letter>,
    /// When something is due.
    pub(crate) times: BTreeSet<u64>,
}

fn limits() -> Limits {
    Limits {
        transaction_ms: TRANSACTION_MS,
        ..Limits::default()
    }
}

fn client(connection: usize) -> String {
    format!("client-{connection}")
}

pub(crate) fn payload(message: u64) -> Bytes {
    Bytes::from(format!("n={message} k={}", message % 3))
}

fn number_of(payload: &[u8]) -> u64 {
    let text = std::str::from_utf8(payload).unwrap();
    let number = text.split(' ').find_map(|word| word.strip_prefix("n="));
    number.unwrap().parse().unwrap()
}

impl World {
    pub(crate) fn new(broken: Broken) -> Self {
        let mut world = Self {
            broken,
            machine: Recovery::new(limits()).reading(read).keyed(7).finish(1).unwrap(),
            model: Model::default(),
            places: BTreeMap::new(),
            connections: Vec::new(),
            consumers: BTreeMap::new(),
            transactions: BTreeMap::new(),
            awaited: BTreeMap::new(),
            durable_records: Vec::new(),
            waiting: VecDeque::new(),
            open: 1,
            durable: 0,
            stored: Model::default(),
            release: None,
            numbers: 0,
            sent: Vec::new(),
            times: BTreeSet::new(),
            steps: 0,
        };
        world.connect_all();
        QUEUES.iter().for_each(|name| world.declare(name));
        TOPICS.iter().for_each(|name| world.declare_topic(name));
        world
    }

    /// A number that was not used before, for messages, consumers, answers and times.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn connect_all(&mut self) {
        self.connections = (0..CONNECTIONS)
            .map(|connection| connect(&mut self.machine, connection))
            .collect();
    }

    pub(crate) fn declare(&mut self, name: &str) {
        let id = self.machine.declare(name, settings(name)).unwrap();
        self.places.insert(Place::Queue(name.to_owned()), id);
        self.model.declare(name);
    }

    pub(crate) fn declare_topic(&mut self, name: &'static str) {
        self.machine.declare_topic(name, settings(name)).unwrap();
        self.model.declare_topic(name);
    }

    pub(crate) fn step(&mut self, chance: &mut Seeded) -> Checked {
        self.steps += 1;
        self.pass(chance.next(8));
        self.event(chance)?;
        self.turn()
    }

    /// Time passes.
    pub(crate) fn pass(&mut self, ms: u64) {
        let now = self.model.now + ms;
        if self.broken != Broken::StopsTheClock {
            self.machine.tick(now);
        }
        self.model.tick(now);
        let overdue = self
            .transactions
            .values_mut()
            .filter(|found| found.ends_at <= now && !found.timed_out);
        let mut gone: Vec<_> = overdue
            .map(|found| {
                found.timed_out = true;
                found.letters.clear();
                (found.ends_at, std::mem::take(&mut found.held))
            })
            .collect();
        gone.sort_by_key(|(ends_at, _)| *ends_at);
        for (_, held) in gone {
            held.into_iter().for_each(|held| self.let_go(held));
        }
    }

    fn event(&mut self, chance: &mut Seeded) -> Checked {
        match chance.next(100) {
            0..=27 => self.send(chance),
            28..=35 => self.attach(chance),
            36..=40 => self.subscribe(chance),
            41..=54 => self.credit(chance),
            55..=70 => self.settle(chance),
            71..=74 => self.send_in_transaction(chance),
            75..=78 => self.settle_in_transaction(chance),
            79..=81 => self.discharge(chance),
            82..=84 => self.detach(chance),
            85 => self.unsubscribe(chance),
            86 => self.delete(chance),
            87 => self.purge(chance),
            88 | 89 => self.reconnect(chance.index(CONNECTIONS)),
            90 => {
                self.pass(chance.next(2 * TRANSACTION_MS));
                Ok(())
            }
            91 => {
                self.machine.start_compaction(self.machine.last_position() + 1);
                Ok(())
            }
            92 | 93 => self.crash(chance),
            _ => {
                self.finish_batches(1 + chance.index(3));
                Ok(())
            }
        }
    }

    /// What a driver does at the end of each turn, and then everything is compared.
    fn turn(&mut self) -> Checked {
        self.machine.flush();
        self.pass(0);
        self.machine.flush();
        self.hear()?;
        let released = self.machine.compact(64);
        self.close_batch();
        if let Some(before) = released {
            self.release = Some((self.open - 1, before));
        }
        self.machine.take_wakes(|_| {});
        self.compare()
    }

    fn close_batch(&mut self) {
        let (mut head, mut records) = (Vec::new(), Vec::new());
        let positions = self.machine.close_batch(|record| {
            let (kind, rest) = record.encode(&mut head);
            records.push((kind, [&head[..], rest].concat()));
        });
        let Some(positions) = positions else {
            return;
        };
        self.model.close_batch();
        let numbered = (positions.first..).zip(records);
        self.waiting.push_back(Batch {
            number: self.open,
            last: positions.last,
            records: numbered
                .map(|(position, (kind, body))| (position, kind, body))
                .collect(),
            after: self.model.clone(),
        });
        self.open += 1;
    }

    fn finish_batches(&mut self, count: usize) {
        let early = self.broken == Broken::CallsEarly;
        if early && let Some(last) = self.waiting.back() {
            self.machine.durable(last.last);
            return;
        }
        for _ in 0..count {
            let Some(batch) = self.waiting.pop_front() else {
                return;
            };
            self.machine.durable(batch.last);
            self.store(batch);
        }
    }

    fn store(&mut self, batch: Batch) {
        if self.broken != Broken::LosesBatches || !batch.number.is_multiple_of(3) {
            self.durable_records.extend(batch.records);
        }
        self.durable = batch.number;
        self.stored = batch.after;
        if let Some((needed, before)) = self.release
            && batch.number >= needed
        {
            self.durable_records.retain(|record| record.0 >= before);
            self.release = None;
        }
    }

    /// The broker ends. Of what the store was still writing, the first batches may be there.
    fn crash(&mut self, chance: &mut Seeded) -> Checked {
        let survive = chance.index(self.waiting.len() + 1);
        self.release = None;
        for _ in 0..survive {
            if let Some(batch) = self.waiting.pop_front() {
                self.store(batch);
            }
        }
        self.waiting.clear();
        let mut recovery = Recovery::new(limits()).reading(read).keyed(8);
        for (position, kind, body) in &self.durable_records {
            let forgotten = *kind == SETTLED && self.broken == Broken::ForgetsSettlements
                || *kind == MOVED && self.broken == Broken::ForgetsMoves;
            if !forgotten {
                let read = recovery.record(*position, *kind, body);
                read.map_err(|error| format!("record {position} cannot be read back: {error}"))?;
            }
        }
        let next = self.durable_records.last().map_or(1, |record| record.0 + 1);
        let recovered = recovery.finish(next);
        self.machine = recovered.map_err(|error| format!("the store cannot be read back: {error}"))?;
        self.open = self.durable + 1;
        let now = self.model.now;
        self.model = self.stored.after_crash();
        (self.consumers, self.transactions) = (BTreeMap::new(), BTreeMap::new());
        self.awaited.clear();
        self.connect_all();
        self.machine.tick(now);
        self.model.tick(now);
        self.find_places()?;
        self.learn_failures()
    }

    /// The numbers of what came back.
    fn find_places(&mut self) -> Checked {
        self.places.clear();
        for name in self.model.queues.keys() {
            let id = self
                .machine
                .find(name)
                .ok_or_else(|| format!("queue {name} was lost"))?;
            self.places.insert(Place::Queue(name.clone()), id);
        }
        for name in &self.model.topics {
            let found = self.machine.find_topic(name).is_some();
            ensure(found, || format!("topic {name} was lost"))?;
        }
        let found: BTreeMap<_, _> = self
            .machine
            .subscriptions()
            .map(|(key, durable, id)| ((key.clone(), durable), id))
            .collect();
        ensure(found.len() == self.model.subscribers.len(), || {
            format!(
                "subscriptions {found:?} came back instead of {:?}",
                self.model.subscribers
            )
        })?;
        for (number, subscriber) in &self.model.subscribers {
            let key = key_of(subscriber.wish, subscriber.client);
            let id = key.and_then(|key| found.get(&(key, true)).copied());
            let id = id.ok_or_else(|| format!("{subscriber:?} was lost"))?;
            self.places.insert(Place::Subscription(*number), id);
        }
        Ok(())
    }

    /// How often a delivery failed is known to lie between what happened and what was written down.
    fn learn_failures(&mut self) -> Checked {
        for (place, id) in &self.places {
            let shown = self.machine.peek(*id, None, 10_000);
            for (peeked, order) in shown.iter().zip(self.model.visible(place, u64::MAX)) {
                let Some(copy) = self.model.copies.get_mut(&order) else {
                    continue;
                };
                let may = copy.failures..=copy.failures_stored.max(copy.failures);
                ensure(may.contains(&peeked.delivery_count), || {
                    format!("{copy:?} came back with {} failures", peeked.delivery_count)
                })?;
                copy.failures = peeked.delivery_count;
            }
        }
        Ok(())
    }

    /// Every place holds what the model says, and whoever has credit for it gets it.
    fn compare(&mut self) -> Checked {
        self.know_places()?;
        for (place, id) in &self.places {
            let shown = self.machine.peek(*id, None, 10_000);
            let shown: Vec<_> = shown
                .iter()
                .map(|found| (number_of(&found.payload), found.delivery_count))
                .collect();
            let visible = self.model.visible(place, self.durable);
            let copies = visible.iter().map(|order| &self.model.copies[order]);
            let wanted: Vec<_> = copies.map(|copy| (copy.message, copy.failures)).collect();
            ensure(shown == wanted, || {
                format!("{place:?} holds {shown:?}, not {wanted:?}")
            })?;
            let counts = self
                .machine
                .counts_of(*id)
                .ok_or_else(|| format!("{place:?} is gone"))?;
            let of = |is: fn(&Copy) -> bool| {
                self.model
                    .copies
                    .values()
                    .filter(|copy| copy.place == *place && is(copy))
                    .count() as u64
            };
            let wanted = (
                of(|_| true),
                of(Copy::is_out),
                of(|copy| copy.state == State::Delayed),
            );
            let found = (counts.messages, counts.unsettled, counts.delayed);
            ensure(found == wanted, || {
                format!("{place:?} counts {found:?}, not {wanted:?}")
            })?;
        }
        if self.waiting.is_empty() {
            self.everyone_is_served()?;
        }
        Ok(())
    }

    /// Queues for dead letters come when they are needed.
    fn know_places(&mut self) -> Checked {
        for name in self.model.queues.keys() {
            let place = Place::Queue(name.clone());
            if let Entry::Vacant(entry) = self.places.entry(place) {
                let id = self.machine.find(name);
                entry.insert(id.ok_or_else(|| format!("queue {name} was not made"))?);
            }
        }
        let same = self.machine.queue_count() == self.model.queues.len();
        ensure(same, || {
            format!(
                "{} queues, not {:?}",
                self.machine.queue_count(),
                self.model.queues.keys()
            )
        })
    }

    /// Everything is durable: nobody with credit waits for something that waits.
    fn everyone_is_served(&self) -> Checked {
        for (number, consumer) in self.consumers.iter().filter(|(_, consumer)| consumer.credit > 0) {
            for order in self.model.visible(&consumer.place, u64::MAX) {
                let copy = &self.model.copies[&order];
                let unseen = consumer.seen.get(&copy.priority).is_none_or(|seen| *seen < order);
                let wanted = consumer.choice.wants(copy.message)
                    && !copy.refused_by.contains(number)
                    && (!consumer.browse || unseen);
                ensure(!wanted, || {
                    format!("consumer {number} waits and {copy:?} as well")
                })?;
            }
        }
        Ok(())
    }

    /// Everybody hears what the queues have for them.
    fn hear(&mut self) -> Checked {
        for connection in 0..CONNECTIONS {
            let mut actions = Vec::new();
            self.machine
                .take_outbox(self.connections[connection].owner, &mut actions);
            for action in actions {
                match action {
                    Action::Deliver(delivery) => self.delivered(&delivery)?,
                    Action::Accepted { delivery, .. } | Action::Confirmed { delivery, .. } => {
                        self.answered(delivery, true)?;
                    }
                    Action::Committed { delivery, .. } => self.answered(delivery, true)?,
                    Action::RolledBack { delivery, .. } => self.answered(delivery, false)?,
                    Action::Credit { .. } | Action::Safe { .. } | Action::Ended { .. } => {}
                    Action::Drained { link, .. } => {
                        if let Some(consumer) = self.consumers.get_mut(&link) {
                            consumer.credit = 0;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn answered(&mut self, delivery: u64, committed: bool) -> Checked {
        let awaited = self.awaited.remove(&delivery);
        let awaited = awaited.ok_or_else(|| format!("{delivery} is answered twice"))?;
        ensure(awaited.committed == committed, || {
            format!("{delivery} has the wrong answer")
        })?;
        let durable = awaited.batch.is_none_or(|batch| batch <= self.durable);
        ensure(durable, || format!("{delivery} is answered before it is durable"))
    }

    fn delivered(&mut self, delivery: &Delivery<u64>) -> Checked {
        let message = number_of(&delivery.payload);
        let Some(consumer) = self.consumers.get_mut(&delivery.link) else {
            return Err(format!("message {message} goes to a consumer that is gone"));
        };
        ensure(consumer.credit > 0, || {
            format!("message {message} comes without credit")
        })?;
        consumer.credit -= 1;
        ensure(consumer.choice.wants(message), || {
            format!("message {message} is not wanted")
        })?;
        let why = delivery.dead_letter.as_ref();
        let why = why.map(|why| (why.reason, why.from.to_string(), why.attempts));
        let step = self.steps;
        let found = self.model.copies.iter_mut().find(|(order, copy)| {
            // A browser sees each copy once.
            let seen = consumer
                .seen
                .get(&copy.priority)
                .is_some_and(|seen| seen >= *order);
            let here = copy.state == State::Waiting || consumer.browse && copy.state == State::Out(step);
            here && !seen
                && copy.message == message
                && copy.place == consumer.place
                && copy.why == why
                && copy.failures == delivery.delivery_count
        });
        let Some((&order, copy)) = found else {
            let copies: Vec<_> = self
                .model
                .copies
                .values()
                .filter(|copy| copy.message == message)
                .collect();
            return Err(format!(
                "step {step}: {delivery:?} comes from {:?} (browse: {}), but there is {copies:?}",
                consumer.place, consumer.browse
            ));
        };
        let fresh = copy.expires.is_none_or(|at| at > self.model.now);
        ensure(fresh, || format!("{copy:?} is delivered and has expired"))?;
        ensure(!copy.durable || copy.batch <= self.durable, || {
            format!("{copy:?} is shown before it is durable")
        })?;
        if consumer.browse {
            consumer.seen.insert(copy.priority, order);
            return Ok(());
        }
        let refused = copy.refused_by.contains(&delivery.link);
        ensure(!refused, || {
            format!("{copy:?} is delivered to a consumer that refused it")
        })?;
        copy.state = State::Out(step);
        // That it went out is written down with the next batch, wherever it is by then.
        copy.failures_stored = copy.failures_stored.max(copy.failures + 1);
        consumer.held.push((order, delivery.message));
        Ok(())
    }

    /// Checks that everything comes out, once, in the end.
    pub(crate) fn finish(&mut self) -> Checked {
        for connection in 0..CONNECTIONS {
            self.reconnect(connection)?;
            self.turn()?;
        }
        for _ in 0..1_000 {
            self.steps += 1;
            self.pass(100);
            self.finish_batches(usize::MAX);
            let idle: Vec<Place> = self.places.keys().cloned().collect();
            for place in idle {
                if !self.consumers.values().any(|consumer| consumer.place == place) {
                    self.attach_to(0, place, Choice::All, false)?;
                }
            }
            let all: Vec<u64> = self.consumers.keys().copied().collect();
            for consumer in all {
                self.set_credit(consumer, 100, false);
                while !self.consumers[&consumer].held.is_empty() {
                    self.settle_one(consumer, 0, Settlement::Accepted)?;
                }
            }
            self.turn()?;
            if self.model.copies.is_empty() && self.waiting.is_empty() {
                let left = (
                    self.machine.message_count(),
                    self.machine.byte_count(),
                    self.machine.stored_bytes(),
                );
                ensure(left == (0, 0, 0), || {
                    format!("{left:?} are left of messages and bytes")
                })?;
                return ensure(self.awaited.is_empty(), || {
                    "somebody was never answered".to_owned()
                });
            }
        }
        Err(format!("messages nobody can get: {:?}", self.model.copies))
    }
}

pub(crate) fn connect(machine: &mut Machine, connection: usize) -> Connection {
    let owner = machine.add_owner();
    machine.set_container(owner, &client(connection));
    let producer = machine.attach_producer(owner, 0, None).unwrap();
    Connection { owner, producer }
}

pub(crate) fn key_of(wish: Wish, connection: usize) -> Option<SubscriptionKey> {
    wish.name.map(|(name, own)| SubscriptionKey {
        client: own.then(|| client(connection)),
        name: name.to_owned(),
    })
}
