//! Queues come and go: declared, used, deleted.
//!
//! Invariant: the number of a deleted queue is used again only with a new generation, and whatever was stored
//! in it was recorded as settled before its deletion.

use std::sync::Arc;

use super::Queues;
use super::queue::{Place, Queue};
use super::record::Record;
use super::topics::Kind;
use super::types::{
    Action, ConsumerId, Lifetime, OwnerId, ProducerId, QueueId, QueueSettings, Refused, WhenFull,
};

impl<L: Copy, D: Copy> Queues<L, D> {
    pub(super) fn living(&self, queue: QueueId) -> Option<&Queue> {
        let found = self.queues.get(queue.0 as usize)?;
        (found.generation == queue.1 && !matches!(found.kind, Kind::Free)).then_some(found)
    }

    pub(super) fn living_mut(&mut self, queue: QueueId) -> Option<&mut Queue> {
        let found = self.queues.get_mut(queue.0 as usize)?;
        (found.generation == queue.1 && !matches!(found.kind, Kind::Free)).then_some(found)
    }

    pub(super) fn id_of(&self, number: u32) -> QueueId {
        QueueId(number, self.queues[number as usize].generation)
    }

    /// The queue of this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<QueueId> {
        self.names.get(name).map(|&number| self.id_of(number))
    }

    /// What a queue, topic or subscription is set to.
    #[must_use]
    pub fn settings_of(&self, queue: QueueId) -> Option<&QueueSettings> {
        self.living(queue).map(|found| &found.settings)
    }

    /// The settings of every queue, by name.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &QueueSettings)> {
        let by_name = self.names.iter();
        by_name.map(|(name, id)| (&**name, &self.queues[*id as usize].settings))
    }

    /// The settings of every topic, by name.
    pub fn topic_settings(&self) -> impl Iterator<Item = (&str, &QueueSettings)> {
        let by_name = self.topics.iter();
        by_name.map(|(name, id)| (&**name, &self.queues[*id as usize].settings))
    }

    /// The queue of this name, made if there is none; `settings` replace those it had, and are stored. A
    /// queue that goes with its owner stays so, and no other becomes one.
    ///
    /// # Errors
    /// [`Refused::TooManyQueues`]; [`Refused::Nameless`] if the name is empty; [`Refused::Gone`] if it should
    /// live as long as an owner that is gone.
    pub fn declare(&mut self, name: &str, settings: QueueSettings) -> Result<QueueId, Refused> {
        if let Some(id) = self.find(name) {
            self.change(id.0, settings);
            return Ok(id);
        }
        if name.is_empty() {
            return Err(Refused::Nameless);
        }
        self.check_count()?;
        self.check_owner(settings.lifetime)?;
        Ok(self.make_queue(name, settings))
    }

    /// Whether this owner may take messages from a queue or topic.
    pub(super) fn check_taker(&self, number: u32, owner: OwnerId) -> Result<(), Refused> {
        match self.queues[number as usize].settings.lifetime {
            Lifetime::Owner(of) if of != owner => Err(Refused::Foreign),
            Lifetime::Owner(_) | Lifetime::Permanent | Lifetime::Unused => Ok(()),
        }
    }

    /// Whether the owner that something is to go with is there.
    pub(super) fn check_owner(&self, lifetime: Lifetime) -> Result<(), Refused> {
        let Lifetime::Owner(owner) = lifetime else {
            return Ok(());
        };
        let found = self.owners.fetch(owner.0);
        found.map(|_| ()).ok_or(Refused::Gone("the connection"))
    }

    /// Whatever lives as long as its owner is on that owner's list.
    pub(super) fn tie_to_owner(&mut self, number: u32) {
        let id = self.id_of(number);
        if let Lifetime::Owner(owner) = self.queues[number as usize].settings.lifetime
            && let Some(owner) = self.owners.fetch_mut(owner.0)
        {
            owner.queues.push(id);
        }
    }

    pub(super) fn change(&mut self, number: u32, settings: QueueSettings) {
        let found = &mut self.queues[number as usize].settings;
        let bound = |lifetime| matches!(lifetime, Lifetime::Owner(_));
        let lifetime = if bound(found.lifetime) || bound(settings.lifetime) {
            found.lifetime
        } else {
            settings.lifetime
        };
        let settings = QueueSettings { lifetime, ..settings };
        if *found == settings {
            return;
        }
        *found = settings;
        self.record_name(number);
        self.record_settings(number);
        self.settings_changed(number);
    }

    /// Producers that wait for room go on if the new settings give it.
    fn settings_changed(&mut self, number: u32) {
        let queue = &mut self.queues[number as usize];
        if queue.counts.held && (queue.settings.when_full != WhenFull::Block || queue.has_room()) {
            queue.counts.held = false;
            self.asking.append(&mut queue.waiting);
        }
    }

    pub(super) fn check_count(&self) -> Result<(), Refused> {
        let limit = self.limits.max_queues;
        if self.queues.len() - self.free.len() >= limit {
            return Err(Refused::TooManyQueues { limit });
        }
        Ok(())
    }

    /// A new queue, however many there are.
    pub(super) fn make_queue(&mut self, name: &str, settings: QueueSettings) -> QueueId {
        let number = self.add(Queue::new(name, settings, Kind::Queue));
        let name = Arc::clone(&self.queues[number as usize].name);
        self.names.insert(name, number);
        self.tie_to_owner(number);
        self.record_queue(number);
        self.id_of(number)
    }

    /// Gives a queue a number.
    pub(super) fn add(&mut self, mut queue: Queue) -> u32 {
        queue.duplicates.set_key(self.key.unwrap_or_default());
        if let Some(number) = self.free.pop() {
            let place = &mut self.queues[number as usize];
            queue.generation = place.generation;
            *place = queue;
            return number;
        }
        // `max_queues` keeps this far below 2^32.
        let number = u32::try_from(self.queues.len()).unwrap_or(u32::MAX);
        self.queues.push(queue);
        number
    }

    /// Records that the queue exists and what it is set to, if that is to survive.
    pub(super) fn record_queue(&mut self, number: u32) {
        self.record_name(number);
        let settings = &self.queues[number as usize].settings;
        let usual = QueueSettings {
            lifetime: settings.lifetime,
            ..QueueSettings::default()
        };
        if *settings != usual {
            self.record_settings(number);
        }
    }

    fn record_name(&mut self, number: u32) {
        let queue = &self.queues[number as usize];
        if !queue.is_stored() {
            return;
        }
        let name = queue.name.to_string();
        let bytes = name.len() as u64;
        let record = match &queue.kind {
            Kind::Queue => Record::Queue {
                queue: number,
                name,
                lifetime: queue.settings.lifetime,
            },
            Kind::Topic(_) => Record::Topic { queue: number, name },
            Kind::Subscription(subscription) => Record::Subscription {
                queue: number,
                subscription: Box::new(subscription.stored()),
            },
            Kind::Free => return,
        };
        self.batches.push(record, bytes);
    }

    fn record_settings(&mut self, number: u32) {
        let queue = &self.queues[number as usize];
        if queue.is_stored() {
            let settings = Box::new(queue.settings.clone());
            let record = Record::Settings {
                queue: number,
                settings,
            };
            self.batches.push(record, 0);
        }
    }

    /// Deletes a queue or topic with everything in it, and returns how many messages that were. Its links
    /// end. With `only_if_unused` nothing happens while there are consumers or messages. Subscriptions of a
    /// topic stay.
    ///
    /// # Errors
    /// [`Refused::Gone`] without such a queue, [`Refused::InUse`] if it is used and must not be.
    pub fn delete(&mut self, queue: QueueId, only_if_unused: bool) -> Result<u64, Refused> {
        let found = self.living(queue).ok_or(Refused::Gone("the queue"))?;
        if only_if_unused && (found.counts.consumers > 0 || found.counts.messages > 0) {
            return Err(Refused::InUse("the queue"));
        }
        self.end_links(queue);
        // Ending its last link may have ended the queue.
        if self.living(queue).is_none() {
            return Ok(0);
        }
        let removed = self.remove_all(queue.0, true);
        self.forget_queue(queue.0);
        Ok(removed)
    }

    /// Removes all messages of a queue that are not out for delivery, and returns how many those were.
    ///
    /// # Errors
    /// [`Refused::Gone`] without such a queue.
    pub fn purge(&mut self, queue: QueueId) -> Result<u64, Refused> {
        self.living(queue).ok_or(Refused::Gone("the queue"))?;
        Ok(self.remove_all(queue.0, false))
    }

    fn end_links(&mut self, queue: QueueId) {
        for index in 0..self.consumers.capacity() {
            let Some(found) = self.consumers.at(index).filter(|found| found.queue == queue.0) else {
                continue;
            };
            let (owner, link) = (found.owner, found.link);
            self.detach_consumer(ConsumerId(self.consumers.key(index)));
            self.post(owner, Action::Ended { link });
        }
        for index in 0..self.producers.capacity() {
            let bound = |found: &&super::links::Producer<L>| !found.anonymous && found.queue == Some(queue);
            let Some(found) = self.producers.at(index).filter(bound) else {
                continue;
            };
            let (owner, link) = (found.owner, found.link);
            self.detach_producer(ProducerId(self.producers.key(index)));
            self.post(owner, Action::Ended { link });
        }
    }

    /// With `held` also what transactions hold.
    fn remove_all(&mut self, number: u32, held: bool) -> u64 {
        let before = self.queues[number as usize].counts.messages;
        while let Some(index) = self.queues[number as usize].least(&self.messages) {
            self.leave_queue(index);
            self.remove_message(index);
        }
        let counts = &self.queues[number as usize].counts;
        if counts.delayed > 0 || held && counts.messages > 0 {
            self.remove_hidden(number, held);
        }
        before - self.queues[number as usize].counts.messages
    }

    /// Removes what stands in no line.
    fn remove_hidden(&mut self, number: u32, held: bool) {
        for index in 0..self.messages.capacity() {
            let Some(message) = self.messages.at(index).filter(|message| message.queue == number) else {
                continue;
            };
            if message.place == Place::Delayed {
                self.leave_queue(index);
            } else if held {
                self.queues[number as usize].counts.unsettled -= 1;
            } else {
                continue;
            }
            self.remove_message(index);
        }
    }

    /// The queue is empty and has no links: its number is free.
    fn forget_queue(&mut self, number: u32) {
        let stored = self.queues[number as usize].is_stored();
        self.free_number(number);
        self.free.push(number);
        if stored {
            self.batches.push(Record::Deleted { queue: number }, 0);
        }
    }

    /// Makes a number stand for nothing.
    pub(super) fn free_number(&mut self, number: u32) {
        let queue = &mut self.queues[number as usize];
        let generation = queue.generation.wrapping_add(1);
        let freed = Queue {
            generation,
            ..Queue::new("", QueueSettings::default(), Kind::Free)
        };
        let gone = std::mem::replace(queue, freed);
        self.windows -= gone.duplicates.sizes();
        self.asking.extend(gone.waiting);
        match gone.kind {
            Kind::Queue => {
                self.names.remove(&gone.name);
            }
            Kind::Topic(_) => {
                self.topics.remove(&gone.name);
            }
            Kind::Subscription(subscription) => {
                self.router.remove(&subscription.topic, number);
                if let Some(key) = subscription.key {
                    self.subscriptions.remove(&(key, subscription.durable));
                }
            }
            Kind::Free => {}
        }
        if let Lifetime::Owner(owner) = gone.settings.lifetime
            && let Some(owner) = self.owners.fetch_mut(owner.0)
        {
            owner.queues.retain(|other| other.0 != number);
        }
    }

    /// Deletes the queue if its lifetime is over.
    pub(super) fn end_if_unused(&mut self, number: u32) {
        let queue = &self.queues[number as usize];
        let counts = &queue.counts;
        let over = match &queue.kind {
            Kind::Queue => {
                queue.settings.lifetime == Lifetime::Unused
                    && counts.consumers == 0
                    && counts.producers == 0
                    && counts.messages == 0
                    && queue.awaited == 0
            }
            Kind::Subscription(subscription) => !subscription.durable && counts.consumers == 0,
            Kind::Topic(_) | Kind::Free => false,
        };
        if over {
            self.remove_all(number, true);
            self.forget_queue(number);
        }
    }
}
