//! The queues against what is promised of them, under random events, slow stores and crashes:
//! nothing lost, nothing doubled, order kept, credit never exceeded, transactions whole or not at all.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use daymark_broker_core::queues::{
    Action, Arrival, ConsumerId, ConsumerOptions, Delivery, DuplicateId, Limits, MessageRef, OwnerId,
    Positions, ProducerId, QueueLimits, QueueSettings, Queues, Recovery, Settlement, TransactionId, WhenFull,
};
use proptest::prelude::*;

const QUEUES: [&str; 2] = ["left", "right"];
const CONNECTIONS: usize = 3;

/// Links of a connection: two producers, one for each queue, and two consumers likewise.
type Link = usize;
type Machine = Queues<Link, u64>;

#[derive(Clone, Debug)]
enum Step {
    Publish {
        connection: usize,
        queue: usize,
        durable: bool,
        priority: u8,
        resend: bool,
    },
    Credit {
        connection: usize,
        queue: usize,
        credit: u32,
        drain: bool,
    },
    Settle {
        connection: usize,
        queue: usize,
        nth: usize,
        how: Settlement,
    },
    PublishInTransaction {
        connection: usize,
        queue: usize,
        durable: bool,
        priority: u8,
    },
    AcceptInTransaction {
        connection: usize,
        queue: usize,
        nth: usize,
    },
    Discharge {
        connection: usize,
        commit: bool,
    },
    Take {
        connection: usize,
    },
    Writable {
        connection: usize,
        writable: bool,
    },
    Reconnect {
        connection: usize,
    },
    StoreFinishes {
        batches: usize,
    },
    Compact,
    Crash {
        survivors: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let connection = 0..CONNECTIONS;
    let queue = 0..QUEUES.len();
    let how = prop_oneof![
        4 => Just(Settlement::Accepted),
        1 => Just(Settlement::Rejected),
        2 => Just(Settlement::Released),
        2 => Just(Settlement::Failed),
    ];
    prop_oneof![
        40 => (connection.clone(), queue.clone(), any::<bool>(), 3..6u8, prop::bool::weighted(0.1)).prop_map(
            |(connection, queue, durable, priority, resend)| Step::Publish { connection, queue, durable, priority, resend }
        ),
        15 => (connection.clone(), queue.clone(), 0..6u32, prop::bool::weighted(0.2))
            .prop_map(|(connection, queue, credit, drain)| Step::Credit { connection, queue, credit, drain }),
        8 => (connection.clone(), queue.clone(), any::<bool>(), 3..6u8).prop_map(
            |(connection, queue, durable, priority)| Step::PublishInTransaction { connection, queue, durable, priority }
        ),
        6 => (connection.clone(), queue.clone(), 0..4usize)
            .prop_map(|(connection, queue, nth)| Step::AcceptInTransaction { connection, queue, nth }),
        5 => (connection.clone(), prop::bool::weighted(0.7))
            .prop_map(|(connection, commit)| Step::Discharge { connection, commit }),
        30 => (connection.clone(), queue, 0..4usize, how)
            .prop_map(|(connection, queue, nth, how)| Step::Settle { connection, queue, nth, how }),
        25 => connection.clone().prop_map(|connection| Step::Take { connection }),
        4 => (connection.clone(), any::<bool>())
            .prop_map(|(connection, writable)| Step::Writable { connection, writable }),
        2 => connection.prop_map(|connection| Step::Reconnect { connection }),
        20 => (1..4usize).prop_map(|batches| Step::StoreFinishes { batches }),
        2 => Just(Step::Compact),
        2 => (0..4usize).prop_map(|survivors| Step::Crash { survivors }),
    ]
}

/// Position, kind and body of a record.
type Stored = (u64, u8, Vec<u8>);

/// The store: records with positions, in batches of which a prefix is durable.
#[derive(Default)]
struct Store {
    durable: Vec<Stored>,
    waiting: VecDeque<(Positions, Vec<Stored>)>,
    /// Once the position is durable, nothing before the other one is needed.
    release: Option<(u64, u64)>,
}

struct Sent {
    number: u64,
    durable: bool,
    confirmed: bool,
}

/// What the test knows of one message, by the number in its payload.
#[derive(Default)]
struct Fate {
    durable: bool,
    acknowledged: bool,
    /// A consumer settled it for good in this life of the broker.
    settled: bool,
    /// That was confirmed: it must never be seen again.
    gone: bool,
    /// Out to a consumer now.
    out: bool,
    /// It was in memory only when the broker crashed, or was never acknowledged: it may be missing.
    may_be_lost: bool,
    /// It came with a transaction.
    transacted: bool,
    /// A consumer settled it before a crash, without hearing that this would last.
    may_be_done: bool,
}

struct ConsumerSide {
    id: ConsumerId,
    credit: i64,
    held: Vec<(MessageRef, u64)>,
    last_first_delivery: BTreeMap<u8, usize>,
}

/// What one transaction did, by the numbers of the messages.
#[derive(Clone, Default)]
struct Work {
    published: Vec<u64>,
    accepted: Vec<u64>,
}

struct Connection {
    transaction: Option<(TransactionId, Work)>,
    owner: OwnerId,
    producers: Vec<(ProducerId, u32)>,
    consumers: Vec<ConsumerSide>,
}

struct World {
    machine: Machine,
    store: Store,
    connections: Vec<Connection>,
    fates: BTreeMap<u64, Fate>,
    priorities: BTreeMap<u64, u8>,
    sent: BTreeMap<u64, Sent>,
    settlements: BTreeMap<u64, (u64, u64)>,
    /// Commits nobody heard of yet.
    commits: BTreeMap<u64, Work>,
    /// The order in which messages became part of their queues.
    arrived: BTreeMap<u64, usize>,
    arrivals: usize,
    next_number: u64,
    next_delivery: u64,
    handed_over: u64,
    /// Messages that may come out of order because they were out once and came back.
    returned: BTreeSet<u64>,
}

fn limits() -> Limits {
    Limits {
        duplicate_window: 8,
        producer_credit: 10,
        outbox_messages: 3,
        ..Limits::default()
    }
}

fn settings() -> QueueSettings {
    let limits = QueueLimits {
        max_messages: 12,
        ..QueueLimits::default()
    };
    QueueSettings {
        limits,
        when_full: WhenFull::Block,
        max_delivery_attempts: 0,
        dead_letter: None,
        ..QueueSettings::default()
    }
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            machine: Recovery::new(limits()).finish(1).unwrap(),
            store: Store::default(),
            connections: Vec::new(),
            fates: BTreeMap::new(),
            priorities: BTreeMap::new(),
            sent: BTreeMap::new(),
            settlements: BTreeMap::new(),
            commits: BTreeMap::new(),
            arrived: BTreeMap::new(),
            arrivals: 0,
            next_number: 1,
            next_delivery: 1,
            handed_over: 0,
            returned: BTreeSet::new(),
        };
        world.connect_all();
        world
    }

    fn connect_all(&mut self) {
        for name in QUEUES {
            self.machine.declare(name, settings()).unwrap();
        }
        self.connections = (0..CONNECTIONS).map(|_| connect(&mut self.machine)).collect();
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Publish {
                connection,
                queue,
                durable,
                priority,
                resend,
            } => {
                self.publish(connection, queue, durable, priority, resend);
            }
            Step::Credit {
                connection,
                queue,
                credit,
                drain,
            } => {
                // An owner that is told of less credit sends or gives back what it has first.
                if i64::from(credit) < self.connections[connection].consumers[queue].credit {
                    while self.take(connection) > 0 {}
                }
                let consumer = &mut self.connections[connection].consumers[queue];
                consumer.credit = i64::from(credit);
                self.machine.set_credit(consumer.id, credit, drain);
            }
            Step::Settle {
                connection,
                queue,
                nth,
                how,
            } => self.settle(connection, queue, nth, how),
            Step::PublishInTransaction {
                connection,
                queue,
                durable,
                priority,
            } => self.publish_in(connection, queue, durable, priority),
            Step::AcceptInTransaction {
                connection,
                queue,
                nth,
            } => self.accept_in(connection, queue, nth),
            Step::Discharge { connection, commit } => self.discharge(connection, commit),
            Step::Take { connection } => {
                self.take(connection);
            }
            Step::Writable { connection, writable } => {
                self.machine
                    .set_writable(self.connections[connection].owner, writable);
            }
            Step::Reconnect { connection } => self.reconnect(connection),
            Step::StoreFinishes { batches } => self.finish(batches),
            Step::Compact => {
                self.machine.start_compaction(self.handed_over + 1);
            }
            Step::Crash { survivors } => self.crash(survivors),
        }
        self.turn();
    }

    /// What the driver does at the end of each turn.
    fn turn(&mut self) {
        self.machine.flush();
        let released = self.machine.compact(64);
        let mut records = Vec::new();
        let mut head = Vec::new();
        let positions = self.machine.close_batch(|record| {
            let (kind, payload) = record.encode(&mut head);
            records.push((kind, [&head[..], payload].concat()));
        });
        if let Some(positions) = positions {
            assert_eq!(
                positions.first,
                self.handed_over + 1,
                "positions follow each other"
            );
            let numbered: Vec<_> = (positions.first..)
                .zip(records)
                .map(|(position, (kind, body))| (position, kind, body))
                .collect();
            assert_eq!(numbered.last().map(|record| record.0), Some(positions.last));
            self.handed_over = positions.last;
            self.store.waiting.push_back((positions, numbered));
        }
        if let Some(before) = released {
            self.store.release = Some((self.handed_over, before));
        }
        self.machine.take_wakes(|_| {});
    }

    fn publish(&mut self, connection: usize, queue: usize, durable: bool, priority: u8, resend: bool) {
        let (producer, credit) = &mut self.connections[connection].producers[queue];
        if *credit == 0 {
            return; // A sender that keeps to the rules.
        }
        *credit -= 1;
        let number = match (resend, self.next_number) {
            (true, next) if next > 1 => next - 1,
            (true | false, next) => {
                self.next_number += 1;
                next
            }
        };
        // The last message sent again goes where it went before, as its own duplicate.
        let again = self.fates.contains_key(&number);
        if again && self.fates[&number].transacted {
            return;
        }
        if again && self.priorities[&number] % 2 != u8::try_from(queue).unwrap() {
            return;
        }
        let (durable, priority) = match self.fates.get(&number) {
            Some(fate) => (fate.durable, self.priorities[&number] / 2),
            None => (durable, priority),
        };
        let delivery = self.next_delivery;
        self.next_delivery += 1;
        let arrival = Arrival {
            payload: payload(number),
            durable,
            priority,
            duplicate_id: DuplicateId::new(format!("m{number}").as_bytes()).ok(),
            ..Arrival::new(Bytes::new())
        };
        self.machine
            .publish(*producer, None, arrival, Some(delivery))
            .unwrap();
        self.sent.insert(
            delivery,
            Sent {
                number,
                durable,
                confirmed: false,
            },
        );
        let arrived = self.next_arrival();
        let fate = self.fates.entry(number).or_default();
        if !again {
            self.arrived.insert(number, arrived);
            fate.durable = durable;
            fate.may_be_lost = true;
            // Priority and queue in one number, for the checks.
            self.priorities
                .insert(number, priority * 2 + u8::try_from(queue).unwrap());
        }
    }

    fn transaction(&mut self, connection: usize) -> (TransactionId, &mut Work) {
        let connection = &mut self.connections[connection];
        let (machine, owner) = (&mut self.machine, connection.owner);
        let begin = || (machine.begin(owner).unwrap(), Work::default());
        let (id, work) = connection.transaction.get_or_insert_with(begin);
        (*id, work)
    }

    fn next_arrival(&mut self) -> usize {
        self.arrivals += 1;
        self.arrivals
    }

    fn publish_in(&mut self, connection: usize, queue: usize, durable: bool, priority: u8) {
        let (producer, credit) = &mut self.connections[connection].producers[queue];
        if *credit == 0 {
            return;
        }
        *credit -= 1;
        let (producer, number) = (*producer, self.next_number);
        self.next_number += 1;
        let (transaction, work) = self.transaction(connection);
        work.published.push(number);
        let arrival = Arrival {
            durable,
            priority,
            duplicate_id: DuplicateId::new(format!("m{number}").as_bytes()).ok(),
            ..Arrival::new(payload(number))
        };
        self.machine
            .publish_in(transaction, producer, None, arrival)
            .unwrap();
        let fate = self.fates.entry(number).or_default();
        fate.durable = durable;
        fate.transacted = true;
        fate.may_be_lost = true;
        // Nobody may see it before it is committed.
        fate.out = true;
        self.priorities
            .insert(number, priority * 2 + u8::try_from(queue).unwrap());
    }

    fn accept_in(&mut self, connection: usize, queue: usize, nth: usize) {
        let consumer = &mut self.connections[connection].consumers[queue];
        if consumer.held.is_empty() {
            return;
        }
        let id = consumer.id;
        let (message, number) = consumer.held.remove(nth % consumer.held.len());
        let (transaction, work) = self.transaction(connection);
        work.accepted.push(number);
        self.machine
            .settle_in(transaction, id, message, Settlement::Accepted, true)
            .unwrap();
    }

    fn discharge(&mut self, connection: usize, commit: bool) {
        let Some((transaction, work)) = self.connections[connection].transaction.take() else {
            return;
        };
        let owner = self.connections[connection].owner;
        if !commit {
            self.machine.rollback(owner, transaction).unwrap();
            return self.rolled_back(&work);
        }
        let delivery = self.next_delivery;
        self.next_delivery += 1;
        self.machine
            .commit(owner, transaction, 0, Some(delivery))
            .unwrap();
        for number in &work.published {
            let arrived = self.next_arrival();
            self.arrived.insert(*number, arrived);
            self.fates.get_mut(number).unwrap().out = false;
        }
        for number in &work.accepted {
            let fate = self.fates.get_mut(number).unwrap();
            fate.out = false;
            fate.settled = true;
        }
        self.commits.insert(delivery, work);
    }

    fn rolled_back(&mut self, work: &Work) {
        for number in &work.published {
            // Seen again it would be unknown.
            self.fates.remove(number);
        }
        for number in &work.accepted {
            self.fates.get_mut(number).unwrap().out = false;
            self.returned.insert(*number);
        }
    }

    /// The whole transaction is durable.
    fn committed(&mut self, delivery: u64) {
        let Some(work) = self.commits.remove(&delivery) else {
            return;
        };
        for number in work.published {
            let fate = self.fates.get_mut(&number).unwrap();
            fate.acknowledged = true;
            fate.may_be_lost = !fate.durable;
        }
        for number in work.accepted {
            self.fates.get_mut(&number).unwrap().gone = true;
        }
    }

    /// After a crash a commit nobody heard of is whole or void, as its messages in the store tell.
    fn check_commits(&mut self) {
        for (_, work) in std::mem::take(&mut self.commits) {
            let durable = work.published.iter().filter(|number| self.fates[number].durable);
            let stored: Vec<bool> = durable.map(|&number| self.is_stored(number)).collect();
            assert!(
                stored.windows(2).all(|pair| pair[0] == pair[1]),
                "half a transaction was stored: {stored:?} of {:?}",
                work.published
            );
            let Some(&whole) = stored.first() else {
                continue; // Nothing tells: its settlements may have lasted or not.
            };
            for number in &work.accepted {
                let fate = self.fates.get_mut(number).unwrap();
                fate.gone |= whole && fate.durable;
                fate.settled = fate.gone;
            }
        }
    }

    fn settle(&mut self, connection: usize, queue: usize, nth: usize, how: Settlement) {
        let consumer = &mut self.connections[connection].consumers[queue];
        if consumer.held.is_empty() {
            return;
        }
        let (message, number) = consumer.held.remove(nth % consumer.held.len());
        let delivery = self.next_delivery;
        self.next_delivery += 1;
        let fate = self.fates.get_mut(&number).unwrap();
        fate.out = false;
        match how {
            Settlement::Accepted | Settlement::Rejected => {
                fate.settled = true;
                self.settlements.insert(delivery, (number, self.handed_over));
            }
            Settlement::Released | Settlement::Failed | Settlement::Undeliverable { .. } => {
                self.returned.insert(number);
            }
        }
        let consumer = &self.connections[connection].consumers[queue];
        self.machine
            .settle(consumer.id, message, how, Some(delivery))
            .unwrap();
    }

    fn take(&mut self, connection: usize) -> usize {
        let mut actions = Vec::new();
        self.machine
            .take_outbox(self.connections[connection].owner, &mut actions);
        let count = actions.len();
        for action in actions {
            match action {
                Action::Deliver(delivery) => self.delivered(connection, delivery),
                Action::Accepted { delivery, .. } => self.acknowledged(delivery),
                Action::Confirmed {
                    delivery, settlement, ..
                } => self.confirmed(delivery, settlement),
                Action::Credit { link, credit } => {
                    self.connections[connection].producers[link].1 = credit;
                }
                Action::Drained { link, .. } => self.connections[connection].consumers[link - 2].credit = 0,
                Action::Committed { delivery, .. } => self.committed(delivery),
                Action::RolledBack { .. } | Action::Safe { .. } | Action::Ended { .. } => {
                    panic!("{action:?} was not asked for")
                }
            }
        }
        count
    }

    fn delivered(&mut self, connection: usize, delivery: Delivery<Link>) {
        let number = number_of(&delivery.payload);
        let fate = self.fates.get_mut(&number).unwrap();
        assert!(
            !fate.gone,
            "message {number} was confirmed as settled and is delivered again"
        );
        assert!(
            !fate.settled,
            "message {number} was settled and is delivered again without a crash"
        );
        assert!(!fate.out, "message {number} is out to two consumers");
        assert!(
            !fate.durable || self.is_stored(number),
            "message {number} is shown before it is durable"
        );
        let consumer = &mut self.connections[connection].consumers[delivery.link - 2];
        consumer.credit -= 1;
        assert!(consumer.credit >= 0, "message {number} was sent without credit");
        self.fates.get_mut(&number).unwrap().out = true;
        if self.fates[&number].durable {
            // What is shown is durable, and all that was committed with it.
            let with = self
                .commits
                .iter()
                .find(|(_, work)| work.published.contains(&number));
            if let Some(delivery) = with.map(|(delivery, _)| *delivery) {
                self.committed(delivery);
            }
        }
        let arrived = self.arrived[&number];
        let consumer = &mut self.connections[connection].consumers[delivery.link - 2];
        consumer.held.push((delivery.message, number));
        let priority = self.priorities[&number];
        assert_eq!(
            usize::from(priority % 2),
            delivery.link - 2,
            "message {number} changed its queue"
        );
        // One that came back takes its old place, but others may have left meanwhile.
        if !self.returned.contains(&number)
            && let Some(last) = consumer.last_first_delivery.insert(priority, arrived)
        {
            assert!(
                last < arrived,
                "message {number} came after one that arrived later"
            );
        }
    }

    fn acknowledged(&mut self, delivery: u64) {
        let sent = self.sent.get_mut(&delivery).unwrap();
        assert!(!sent.confirmed, "acknowledged twice");
        sent.confirmed = true;
        let (number, durable) = (sent.number, sent.durable);
        let stored = self.is_stored(number) || self.fates[&number].settled;
        let fate = self.fates.get_mut(&number).unwrap();
        assert!(
            !(durable && fate.durable) || stored,
            "message {number} was acknowledged before it was durable"
        );
        fate.acknowledged = true;
        fate.may_be_lost = !fate.durable;
    }

    fn confirmed(&mut self, delivery: u64, settlement: Settlement) {
        let (Settlement::Accepted | Settlement::Rejected) = settlement else {
            return;
        };
        let (number, handed_over) = self.settlements[&delivery];
        let fate = self.fates.get_mut(&number).unwrap();
        let durable_upto = self
            .store
            .waiting
            .front()
            .map_or(u64::MAX, |(positions, _)| positions.first - 1);
        assert!(
            !fate.durable || durable_upto > handed_over,
            "message {number} confirmed before it was durable"
        );
        fate.gone = true;
    }

    fn is_stored(&self, number: u64) -> bool {
        let payload = payload(number);
        self.store
            .durable
            .iter()
            .any(|(_, _, body)| body.ends_with(&payload))
    }

    fn reconnect(&mut self, connection: usize) {
        self.machine.remove_owner(self.connections[connection].owner);
        let gone = std::mem::replace(&mut self.connections[connection], connect(&mut self.machine));
        if let Some((_, work)) = gone.transaction {
            self.rolled_back(&work);
        }
        for consumer in gone.consumers {
            for (_, number) in consumer.held {
                self.fates.get_mut(&number).unwrap().out = false;
            }
        }
        // What lay in its outbox came back too, and the test cannot know which those were.
        self.returned.extend(self.fates.keys());
    }

    fn finish(&mut self, batches: usize) {
        for _ in 0..batches {
            let Some((positions, records)) = self.store.waiting.pop_front() else {
                return;
            };
            self.store.durable.extend(records);
            self.machine.durable(positions.last);
            if let Some((needed, before)) = self.store.release
                && positions.last >= needed
            {
                self.store.durable.retain(|record| record.0 >= before);
                self.store.release = None;
            }
        }
    }

    /// Some batches the store never answered may have become durable all the same.
    fn crash(&mut self, survivors: usize) {
        for (_, records) in self.store.waiting.drain(..).take(survivors) {
            self.store.durable.extend(records);
        }
        self.store.release = None;
        let next = self.store.durable.last().map_or(1, |record| record.0 + 1);
        let mut recovery = Recovery::new(limits());
        for (position, kind, body) in &self.store.durable {
            recovery.record(*position, *kind, body).unwrap();
        }
        self.machine = recovery.finish(next).unwrap();
        self.handed_over = next - 1;
        self.check_commits();
        for connection in std::mem::take(&mut self.connections) {
            if let Some((_, work)) = connection.transaction {
                self.rolled_back(&work);
            }
        }
        // What was in memory only is gone, and so is the memory of its duplicate id.
        self.fates.retain(|_, fate| fate.durable);
        for fate in self.fates.values_mut() {
            fate.out = false;
            fate.may_be_lost |= !fate.acknowledged;
            fate.may_be_done |= fate.settled;
            // A settlement that was not confirmed may be forgotten; one that was may not.
            fate.settled = fate.gone;
        }
        self.sent.clear();
        self.settlements.clear();
        self.returned.clear();
        self.connect_all();
        self.turn();
    }

    /// After all consumers have gone, a single one finds everything in the order it came, by priority: what
    /// came back stands where it was.
    fn check_order(&mut self) {
        self.finish(usize::MAX);
        (0..CONNECTIONS).for_each(|connection| self.reconnect(connection));
        self.turn();
        for queue in 0..QUEUES.len() {
            self.apply(Step::Credit {
                connection: 0,
                queue,
                credit: 10_000,
                drain: false,
            });
        }
        while self.take(0) > 0 {}
        for consumer in &self.connections[0].consumers {
            let found: Vec<_> = consumer
                .held
                .iter()
                .map(|(_, number)| (Reverse(self.priorities[number] / 2), self.arrived[number]))
                .collect();
            assert!(found.is_sorted(), "out of order: {found:?}");
        }
    }

    /// Everything still in the queues is read and accepted; then each message must have been seen to.
    fn drain_and_check(mut self) {
        self.check_order();
        for _ in 0..10_000 {
            self.finish(usize::MAX);
            for connection in 0..CONNECTIONS {
                self.machine
                    .set_writable(self.connections[connection].owner, true);
                for queue in 0..QUEUES.len() {
                    while !self.connections[connection].consumers[queue].held.is_empty() {
                        self.settle(connection, queue, 0, Settlement::Accepted);
                    }
                    self.apply(Step::Credit {
                        connection,
                        queue,
                        credit: 100,
                        drain: false,
                    });
                }
                self.take(connection);
                self.turn();
            }
            if self.machine.message_count() == 0 && self.store.waiting.is_empty() {
                break;
            }
        }
        assert_eq!(self.machine.message_count(), 0, "messages nobody can get");
        assert_eq!((self.machine.byte_count(), self.machine.stored_bytes()), (0, 0));
        let lost: BTreeSet<u64> = self
            .fates
            .iter()
            .filter(|(_, fate)| !fate.settled && !fate.gone && !fate.may_be_lost && !fate.may_be_done)
            .map(|(number, _)| *number)
            .collect();
        assert!(lost.is_empty(), "lost: {lost:?}");
        assert!(
            self.machine
                .counts()
                .all(|(_, counts)| counts.messages == 0 && counts.unsettled == 0)
        );
    }
}

fn connect(machine: &mut Machine) -> Connection {
    let owner = machine.add_owner();
    let queues = QUEUES.map(|name| machine.find(name).unwrap());
    let producers = (0..)
        .zip(queues)
        .map(|(link, queue)| (machine.attach_producer(owner, link, Some(queue)).unwrap(), 0));
    let producers = producers.collect();
    let consumers = (2..).zip(queues).map(|(link, queue)| ConsumerSide {
        id: machine
            .attach_consumer(owner, link, queue, ConsumerOptions::default())
            .unwrap(),
        credit: 0,
        held: Vec::new(),
        last_first_delivery: BTreeMap::new(),
    });
    let consumers = consumers.collect();
    Connection {
        transaction: None,
        owner,
        producers,
        consumers,
    }
}

fn payload(number: u64) -> Bytes {
    Bytes::from(format!("message {number:08}"))
}

fn number_of(payload: &[u8]) -> u64 {
    std::str::from_utf8(&payload[8..]).unwrap().parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_lost_doubled_or_out_of_order(steps in prop::collection::vec(step(), 1..400)) {
        let mut world = World::new();
        for step in steps {
            world.apply(step);
        }
        world.drain_and_check();
    }
}
