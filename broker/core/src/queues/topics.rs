//! Topics and subscriptions: who gets what is published.
//!
//! A subscription is a queue of its own. Invariant: what a subscription asks for never changes; asked for
//! something else under the same name, it is replaced by a new one.

use std::sync::Arc;

use super::Queues;
use super::queue::Queue;
use super::record::StoredSubscription;
use super::router;
use super::types::{Arrival, Lifetime, OwnerId, QueueId, QueueSettings, Refused};
use crate::selector::Selector;

/// What a number stands for.
#[derive(Debug)]
pub(super) enum Kind {
    /// A queue with a name.
    Queue,
    /// A topic: it holds no messages.
    Topic(Routes),
    /// A subscription.
    Subscription(Box<Wanted>),
    /// Nothing.
    Free,
}

/// Where the messages of a topic went last, as long as no subscription came or went.
#[derive(Debug, Default)]
pub(super) struct Routes {
    version: u64,
    to: Arc<[u32]>,
}

/// A subscription that exists.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) key: Option<SubscriptionKey>,
    pub(super) topic: String,
    pub(super) selector: Option<Selector>,
    /// Messages of this container are not for it.
    pub(super) not_from: Option<Arc<str>>,
    pub(super) durable: bool,
    pub(super) shared: bool,
}

/// What a subscription is called.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubscriptionKey {
    /// The client it belongs to; `None`: shared by all clients.
    pub client: Option<String>,
    /// Its name.
    pub name: String,
}

/// What a subscriber asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Subscription {
    /// Its name; `None` for one that only one consumer will ever use.
    pub key: Option<SubscriptionKey>,
    /// Topics: words separated by `.`, `*` for one word, `#` for any number of words, none included.
    pub topic: String,
    /// What it wants of them.
    pub selector: Option<Selector>,
    /// It does not want what its own client publishes.
    pub no_local: bool,
    /// It goes on while nobody is there. One that is not ends with its last consumer.
    pub durable: bool,
    /// Several consumers may use it at a time.
    pub shared: bool,
}

/// What became of the wish to subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subscribed {
    /// There was none of this name.
    Created,
    /// It goes on with what came in meanwhile.
    Resumed,
    /// There was one that asked for something else: it and its messages are gone, and this one is new.
    Replaced,
}

impl Wanted {
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.topic == other.topic
            && self.selector == other.selector
            && self.not_from == other.not_from
            && self.shared == other.shared
    }

    pub(super) fn stored(&self) -> StoredSubscription {
        StoredSubscription {
            key: self.key.clone(),
            topic: self.topic.clone(),
            selector: self
                .selector
                .as_ref()
                .map(|selector| selector.as_str().to_owned()),
            not_from: self.not_from.as_deref().map(str::to_owned),
            shared: self.shared,
        }
    }
}

impl Queue {
    /// What a message that left it came from, for people.
    pub(super) fn origin(&self) -> &Arc<str> {
        &self.name
    }
}

impl<L: Copy, D: Copy> Queues<L, D> {
    /// The topic of this name.
    #[must_use]
    pub fn find_topic(&self, name: &str) -> Option<QueueId> {
        self.topics.get(name).map(|&number| self.id_of(number))
    }

    /// The topic of this name, made if there is none; `settings` are those of the subscriptions to it alone,
    /// also of those that exist. Subscriptions with wildcards have the default settings. A topic that goes with
    /// its owner stays so, and no other becomes one.
    ///
    /// # Errors
    /// [`Refused::InvalidTopic`], [`Refused::TooManyQueues`]; [`Refused::Gone`] if it should live as long as an
    /// owner that is gone.
    pub fn declare_topic(&mut self, name: &str, settings: QueueSettings) -> Result<QueueId, Refused> {
        check(name, false)?;
        for &number in self.router.find(name).iter() {
            if *self.queues[number as usize].name == *name {
                self.change(number, settings.clone().of_subscription());
            }
        }
        if let Some(id) = self.find_topic(name) {
            self.change(id.0, settings);
            return Ok(id);
        }
        self.check_count()?;
        self.check_owner(settings.lifetime)?;
        let number = self.add(Queue::new(name, settings, Kind::Topic(Routes::default())));
        let name = Arc::clone(&self.queues[number as usize].name);
        self.topics.insert(name, number);
        self.tie_to_owner(number);
        self.record_queue(number);
        Ok(self.id_of(number))
    }

    /// The subscription asked for, ready for a consumer.
    ///
    /// # Errors
    /// [`Refused::InvalidTopic`], [`Refused::TooManyQueues`]; [`Refused::Gone`] without such an owner;
    /// [`Refused::InUse`] if one of this name asks for something else and has a consumer; [`Refused::Nameless`]
    /// for one that is durable or shared and has no name; [`Refused::Foreign`] if the topic goes with another
    /// owner.
    pub fn subscribe(
        &mut self,
        owner: OwnerId,
        wish: Subscription,
    ) -> Result<(QueueId, Subscribed), Refused> {
        check(&wish.topic, true)?;
        if let Some(&topic) = self.topics.get(wish.topic.as_str()) {
            self.check_taker(topic, owner)?;
        }
        let found = self
            .owners
            .fetch(owner.0)
            .ok_or(Refused::Gone("the connection"))?;
        let wanted = Wanted {
            not_from: wish.no_local.then(|| found.container.clone()).flatten(),
            key: wish.key,
            topic: wish.topic,
            selector: wish.selector,
            durable: wish.durable,
            shared: wish.shared,
        };
        let Some(key) = &wanted.key else {
            if wanted.durable || wanted.shared {
                return Err(Refused::Nameless);
            }
            return Ok((self.make_subscription(wanted)?, Subscribed::Created));
        };
        let Some(&number) = self.subscriptions.get(&(key.clone(), wanted.durable)) else {
            return Ok((self.make_subscription(wanted)?, Subscribed::Created));
        };
        let existing = &self.queues[number as usize];
        let same = matches!(&existing.kind, Kind::Subscription(found) if found.is_same(&wanted));
        if same {
            return Ok((self.id_of(number), Subscribed::Resumed));
        }
        if existing.counts.consumers > 0 {
            return Err(Refused::InUse("the subscription"));
        }
        self.delete(self.id_of(number), false)?;
        Ok((self.make_subscription(wanted)?, Subscribed::Replaced))
    }

    fn make_subscription(&mut self, wanted: Wanted) -> Result<QueueId, Refused> {
        self.check_count()?;
        let topic = self.topics.get(wanted.topic.as_str());
        let settings = topic.map(|&topic| self.queues[topic as usize].settings.clone().of_subscription());
        let number = self.enter_subscription(wanted, settings.unwrap_or_default(), None);
        self.record_queue(number);
        Ok(self.id_of(number))
    }

    /// Makes a subscription, with the given number if that is known.
    pub(super) fn enter_subscription(
        &mut self,
        wanted: Wanted,
        settings: QueueSettings,
        number: Option<u32>,
    ) -> u32 {
        let topic = wanted.topic.clone();
        let key = wanted.key.clone().map(|key| (key, wanted.durable));
        let number = match number {
            Some(number) => {
                let found = &mut self.queues[number as usize];
                found.name = topic.as_str().into();
                found.settings = settings;
                found.kind = Kind::Subscription(Box::new(wanted));
                number
            }
            None => self.add(Queue::new(&topic, settings, Kind::Subscription(Box::new(wanted)))),
        };
        if let Some(key) = key {
            self.subscriptions.insert(key, number);
        }
        self.router.insert(&topic, number);
        number
    }

    /// The subscription of this name, as it was asked for.
    #[must_use]
    pub fn find_subscription(&self, key: &SubscriptionKey, durable: bool) -> Option<Subscription> {
        let number = *self.subscriptions.get(&(key.clone(), durable))?;
        let Kind::Subscription(found) = &self.queues[number as usize].kind else {
            return None;
        };
        Some(Subscription {
            key: found.key.clone(),
            topic: found.topic.clone(),
            selector: found.selector.clone(),
            no_local: found.not_from.is_some(),
            durable: found.durable,
            shared: found.shared,
        })
    }

    /// Every subscription with a name, and whether it is durable.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&SubscriptionKey, bool, QueueId)> {
        let all = self.subscriptions.iter();
        all.map(|((key, durable), &number)| (key, *durable, self.id_of(number)))
    }

    /// Ends a durable subscription, with the messages in it.
    ///
    /// # Errors
    /// [`Refused::NotSubscribed`] if there is none of this name, [`Refused::InUse`] if it has a consumer.
    pub fn unsubscribe(&mut self, key: &SubscriptionKey) -> Result<(), Refused> {
        let found = self.subscriptions.get(&(key.clone(), true));
        let &number = found.ok_or(Refused::NotSubscribed)?;
        if self.queues[number as usize].counts.consumers > 0 {
            return Err(Refused::InUse("the subscription"));
        }
        self.delete(self.id_of(number), false).map(|_| ())
    }

    fn routes(&mut self, topic: u32) -> Arc<[u32]> {
        let version = self.router.version();
        let queue = &self.queues[topic as usize];
        if let Kind::Topic(routes) = &queue.kind
            && routes.version == version
        {
            return Arc::clone(&routes.to);
        }
        let mut to = self.router.find(&queue.name);
        if let Lifetime::Owner(_) = queue.settings.lifetime {
            // Whoever does not know its name does not get what is published to it.
            to.retain(|&number| self.queues[number as usize].name == queue.name);
        }
        let to: Arc<[u32]> = to.into();
        if let Kind::Topic(routes) = &mut self.queues[topic as usize].kind {
            let to = Arc::clone(&to);
            *routes = Routes { version, to };
        }
        to
    }

    /// The subscriptions that want this message.
    pub(super) fn targets(&mut self, topic: u32, from: OwnerId, arrival: &Arrival) -> Vec<u32> {
        let routes = self.routes(topic);
        let container = self
            .owners
            .fetch(from.0)
            .and_then(|owner| owner.container.as_deref());
        let mut wanted = Vec::with_capacity(routes.len());
        let mut choosy = Vec::new();
        for &number in routes.iter() {
            let Kind::Subscription(subscription) = &self.queues[number as usize].kind else {
                continue;
            };
            let local = subscription.not_from.is_some() && subscription.not_from.as_deref() == container;
            match &subscription.selector {
                _ if local => {}
                Some(selector) => choosy.push((number, selector)),
                None => wanted.push(number),
            }
        }
        if !choosy.is_empty() {
            // The properties are read once for all.
            (self.read)(&arrival.payload, 0, &mut |properties| {
                let matching = choosy.iter().filter(|(_, selector)| selector.matches(properties));
                wanted.extend(matching.map(|(number, _)| *number));
            });
        }
        wanted
    }

    /// The first subscription of a topic that is full and holds producers up.
    pub(super) fn holding(&mut self, topic: u32) -> Option<u32> {
        let routes = self.routes(topic);
        routes.iter().copied().find(|&number| {
            let queue = &self.queues[number as usize];
            queue.settings.when_full == super::types::WhenFull::Block
                && (queue.counts.held || queue.is_full())
        })
    }
}

fn check(topic: &str, pattern: bool) -> Result<(), Refused> {
    router::check(topic, pattern).map_err(|why| Refused::InvalidTopic {
        topic: topic.to_owned(),
        why,
    })
}
