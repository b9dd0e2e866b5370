//! A broker's queues with a store that is as fast as a test wants.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(unreachable_pub, reason = "shared by test files as a module")]

use bytes::Bytes;
use daymark_broker_core::queues::{
    Action, Arrival, ConsumerId, ConsumerOptions, Delivery, Limits, OwnerId, ProducerId, QueueId,
    QueueSettings, Queues, Recovery, Settlement,
};
use daymark_broker_core::selector::{Properties, Selector, Value};

pub type Machine = Queues<u8, u64>;

/// Position, kind and body of a record.
pub type Stored = (u64, u8, Vec<u8>);

/// Queues and everything they ever recorded.
pub struct World {
    pub queues: Machine,
    pub records: Vec<Stored>,
    pub owner: OwnerId,
}

/// Messages of a test are lines of `name=value` words; the values are properties.
struct Words<'a>(&'a str, u32);

impl Properties for Words<'_> {
    fn value(&self, name: &str) -> Value<'_> {
        if name == "JMSXDeliveryCount" {
            return Value::Int(i64::from(self.1) + 1);
        }
        let mut pairs = self.0.split(' ').filter_map(|word| word.split_once('='));
        let found = pairs.find(|(key, _)| *key == name).map(|(_, value)| value);
        match found {
            None => Value::Null,
            Some(text) => text.parse().map_or(Value::Text(text), Value::Int),
        }
    }
}

pub fn read(payload: &[u8], delivery_count: u32, with: &mut dyn FnMut(&dyn Properties)) {
    with(&Words(
        std::str::from_utf8(payload).unwrap_or_default(),
        delivery_count,
    ));
}

fn recovery(limits: Limits) -> Recovery<u8, u64> {
    Recovery::new(limits).reading(read).keyed(7)
}

impl World {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        let mut queues: Machine = recovery(limits).finish(1).unwrap();
        let owner = queues.add_owner();
        let mut world = Self {
            queues,
            records: Vec::new(),
            owner,
        };
        world.store();
        world
    }

    /// The store finishes everything.
    pub fn store(&mut self) {
        if let Some(positions) = self.close() {
            self.queues.durable(positions);
        }
        self.queues.flush();
    }

    /// The store has everything, and has not said so. The last position.
    pub fn close(&mut self) -> Option<u64> {
        self.queues.flush();
        let mut head = Vec::new();
        let mut batch = Vec::new();
        let positions = self.queues.close_batch(|record| {
            let (kind, payload) = record.encode(&mut head);
            batch.push((kind, [&head[..], payload].concat()));
        })?;
        let numbered = (positions.first..).zip(batch);
        self.records
            .extend(numbered.map(|(position, (kind, body))| (position, kind, body)));
        Some(positions.last)
    }

    /// The broker ends, and another one reads what was stored.
    pub fn restart(&mut self) {
        let mut recovery = recovery(Limits::default());
        for (position, kind, body) in &self.records {
            recovery.record(*position, *kind, body).unwrap();
        }
        let next = self.records.last().map_or(1, |record| record.0 + 1);
        self.queues = recovery.finish(next).unwrap();
        self.owner = self.queues.add_owner();
    }

    /// Everything needed is recorded again, and the rest forgotten.
    pub fn compact(&mut self) {
        self.store();
        let before = self.queues.last_position() + 1;
        self.queues.start_compaction(before);
        while self.queues.compact(1 << 20).is_none() {
            self.store();
        }
        self.store();
        self.records.retain(|record| record.0 >= before);
    }

    pub fn queue(&mut self, name: &str) -> QueueId {
        self.queues.declare(name, QueueSettings::default()).unwrap()
    }

    pub fn producer(&mut self, queue: QueueId) -> ProducerId {
        self.queues.attach_producer(self.owner, 0, Some(queue)).unwrap()
    }

    /// Publishes a message to a queue or topic, by a producer for this one message.
    pub fn send(&mut self, queue: QueueId, arrival: Arrival) {
        let producer = self.producer(queue);
        self.queues.publish(producer, None, arrival, None).unwrap();
        self.queues.detach_producer(producer);
    }

    pub fn send_all(&mut self, queue: QueueId, texts: &[&str]) {
        texts.iter().for_each(|text| self.send(queue, durable(text)));
        self.store();
    }

    pub fn consumer(
        &mut self,
        link: u8,
        queue: QueueId,
        options: ConsumerOptions,
        credit: u32,
    ) -> ConsumerId {
        let consumer = self
            .queues
            .attach_consumer(self.owner, link, queue, options)
            .unwrap();
        self.queues.set_credit(consumer, credit, false);
        consumer
    }

    pub fn actions(&mut self) -> Vec<Action<u8, u64>> {
        let mut actions = Vec::new();
        self.store();
        self.queues.take_outbox(self.owner, &mut actions);
        actions
    }

    pub fn deliveries(&mut self) -> Vec<Delivery<u8>> {
        let actions = self.actions().into_iter();
        let delivery = |action| match action {
            Action::Deliver(delivery) => Some(delivery),
            Action::Accepted { .. }
            | Action::Confirmed { .. }
            | Action::Credit { .. }
            | Action::Drained { .. }
            | Action::Committed { .. }
            | Action::RolledBack { .. }
            | Action::Safe { .. }
            | Action::Ended { .. } => None,
        };
        actions.filter_map(delivery).collect()
    }

    /// What is delivered, as links and texts.
    pub fn seen(&mut self) -> Vec<(u8, String)> {
        let deliveries = self.deliveries();
        deliveries.iter().map(|d| (d.link, text(&d.payload))).collect()
    }

    /// What waits in a queue, in order, by looking.
    pub fn look(&mut self, queue: QueueId) -> Vec<String> {
        let options = ConsumerOptions {
            browse: true,
            ..ConsumerOptions::default()
        };
        let consumer = self.consumer(200, queue, options, 1_000);
        let seen = self.seen().into_iter().filter(|(link, _)| *link == 200);
        let seen = seen.map(|(_, text)| text).collect();
        self.queues.detach_consumer(consumer);
        seen
    }

    pub fn settle(&mut self, consumer: ConsumerId, delivery: &Delivery<u8>, how: Settlement) {
        self.queues.settle(consumer, delivery.message, how, None).unwrap();
    }
}

pub fn durable(text: &str) -> Arrival {
    Arrival {
        durable: true,
        ..Arrival::new(Bytes::copy_from_slice(text.as_bytes()))
    }
}

pub fn selecting(selector: &str) -> ConsumerOptions {
    ConsumerOptions {
        selector: Some(Selector::parse(selector).unwrap()),
        ..ConsumerOptions::default()
    }
}

pub fn text(payload: &[u8]) -> String {
    String::from_utf8(payload.to_vec()).unwrap()
}
