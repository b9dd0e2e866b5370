//! Links that begin and end: what a peer wished becomes a producer or a consumer of the queues.
//!
//! Invariant: a link that was refused leaves nothing behind, and a node that was made for a link goes with it.

use daymark_amqp::{AcceptOptions, AmqpError, LinkId, RemoteAttach, condition};
use daymark_broker_core::queues::{
    ConsumerOptions, Lifetime, QueueId, QueueSettings, Refused, Subscription, SubscriptionKey,
};

use super::super::attach::{self, Place, Reception, Wish};
use super::super::config::{DRILL_ADDRESS, check_address, created_queue, drill_queue};
use super::super::shared::{LinkInfo, State};
use super::super::types::{DestinationKind, LinkKind};
use super::{Link, Peer, settlement_of_default};

/// Credit of a transaction coordinator: what a peer may ask for ahead.
pub(super) const COORDINATOR_CREDIT: u32 = 100;

/// What the addresses of temporary queues or topics begin with.
const fn prefix_of(kind: DestinationKind) -> &'static str {
    match kind {
        DestinationKind::Queue => "temporary-queue-",
        DestinationKind::Topic => "temporary-topic-",
    }
}

/// A link that was taken.
struct Taken {
    link: Link,
    info: LinkInfo,
    accept: AcceptOptions,
}

impl Peer {
    /// Takes the link, or says why not.
    pub(super) fn attach(
        &mut self,
        state: &mut State,
        link: LinkId,
        attach: &RemoteAttach,
    ) -> Result<AcceptOptions, AmqpError> {
        let limit = self.shared.config.max_links_per_connection;
        if self.links.len() >= limit {
            let text = format!("a connection may have {limit} links");
            return Err(AmqpError::new(condition::RESOURCE_LIMIT_EXCEEDED, text));
        }
        let mut taken = match attach::wish(attach)? {
            Wish::SendTo(place) => self.send_to(state, link, attach, &place)?,
            Wish::SendAnywhere => self.produce(state, link, attach, None)?,
            Wish::SendToNew(kind) => self.send_to_new(state, link, attach, kind)?,
            Wish::Coordinate => self.coordinate(link, attach),
            Wish::ReceiveFrom(place, reception) => {
                self.receive_from(state, link, attach, &place, *reception)?
            }
            Wish::ReceiveFromNew(kind, reception) => {
                self.receive_from_new(state, link, attach, kind, *reception)?
            }
            Wish::Resume { settled } => self.resume(state, link, attach, settled)?,
        };
        let number = state.add_link(taken.info);
        taken.link.set_number(number);
        self.links.insert(link, taken.link);
        Ok(taken.accept)
    }

    fn info(&self, link: LinkId, attach: &RemoteAttach, kind: LinkKind) -> LinkInfo {
        LinkInfo {
            connection: self.entry.id,
            link,
            name: attach.name.clone(),
            kind,
            address: None,
            selector: None,
            subscription: None,
        }
    }

    fn send_to(
        &self,
        state: &mut State,
        link: LinkId,
        attach: &RemoteAttach,
        place: &Place,
    ) -> Result<Taken, AmqpError> {
        let (queue, _) = self.find(state, place)?;
        let mut taken = self.produce(state, link, attach, Some(queue))?;
        taken.info.address = Some(place.address.clone());
        Ok(taken)
    }

    fn produce(
        &self,
        state: &mut State,
        link: LinkId,
        attach: &RemoteAttach,
        queue: Option<QueueId>,
    ) -> Result<Taken, AmqpError> {
        let id = state
            .queues
            .attach_producer(self.owner, link, queue)
            .map_err(refused)?;
        Ok(Taken {
            link: Link::Producer {
                id,
                number: 0,
                anonymous: queue.is_none(),
                made: None,
            },
            info: self.info(link, attach, LinkKind::Producer),
            accept: attach::acceptance(attach, &self.shared.config),
        })
    }

    fn send_to_new(
        &mut self,
        state: &mut State,
        link: LinkId,
        attach: &RemoteAttach,
        kind: DestinationKind,
    ) -> Result<Taken, AmqpError> {
        let (queue, address) = self.make_node(state, kind)?;
        let mut taken = self.produce(state, link, attach, Some(queue))?;
        if let Link::Producer { made, .. } = &mut taken.link {
            *made = Some(queue);
        }
        attach::name_node(&mut taken.accept, &address);
        taken.info.address = Some(address);
        Ok(taken)
    }

    fn coordinate(&self, link: LinkId, attach: &RemoteAttach) -> Taken {
        Taken {
            link: Link::Coordinator { number: 0 },
            info: self.info(link, attach, LinkKind::Coordinator),
            accept: attach::acceptance(attach, &self.shared.config),
        }
    }

    fn receive_from(
        &self,
        state: &mut State,
        link: LinkId,
        attach: &RemoteAttach,
        place: &Place,
        reception: Reception,
    ) -> Result<Taken, AmqpError> {
        let config = &self.shared.config;
        let (address, kind) = attach::unprefixed(config, &place.address, place.kind);
        let is_pattern = kind == Some(DestinationKind::Topic) && address.contains(['*', '#']);
        let mut taken = if is_pattern {
            self.subscribe(state, link, attach, address, reception)?
        } else {
            match self.find(state, place)? {
                (queue, DestinationKind::Queue) => self.consume(state, link, attach, queue, reception)?,
                (_, DestinationKind::Topic) => self.subscribe(state, link, attach, address, reception)?,
            }
        };
        taken.info.address = Some(place.address.clone());
        Ok(taken)
    }

    /// From a queue. No-local means nothing there, so the answer does not promise it.
    fn consume(
        &self,
        state: &mut State,
        link: LinkId,
        attach: &RemoteAttach,
        queue: QueueId,
        reception: Reception,
    ) -> Result<Taken, AmqpError> {
        let selector = reception
            .selector
            .as_ref()
            .map(|selector| selector.as_str().to_owned());
        let options = ConsumerOptions {
            settled: reception.settled,
            browse: reception.browse,
            selector: reception.selector,
        };
        let kind = if reception.browse {
            LinkKind::Browser
        } else {
            LinkKind::Consumer
        };
        let mut taken = self.take_from(state, link, attach, queue, options, None)?;
        taken.info.kind = kind;
        taken.info.selector = selector;
        attach::without_no_local(&mut taken.accept);
        Ok(taken)
    }

    fn subscribe(
        &self,
        state: &mut State,
        link: LinkId,
        attach: &RemoteAttach,
        topic: &str,
        reception: Reception,
    ) -> Result<Taken, AmqpError> {
        let client = self.entry.container();
        let named = reception.durable || reception.shared;
        let key = named.then(|| attach::subscription_key(&attach.name, client, reception.global));
        let subscription = Subscription {
            key,
            topic: topic.to_owned(),
            selector: reception.selector,
            no_local: reception.no_local,
            durable: reception.durable,
            shared: reception.shared,
        };
        self.take_subscription(state, link, attach, subscription, reception.settled)
    }

    fn take_subscription(
        &self,
        state: &mut State,
        link: LinkId,
        attach: &RemoteAttach,
        subscription: Subscription,
        settled: bool,
    ) -> Result<Taken, AmqpError> {
        let selector = subscription
            .selector
            .as_ref()
            .map(|selector| selector.as_str().to_owned());
        let key = subscription.key.clone();
        let durable = key.clone().filter(|_| subscription.durable);
        let topic = subscription.topic.clone();
        let (queue, _) = state
            .queues
            .subscribe(self.owner, subscription)
            .map_err(refused)?;
        let options = ConsumerOptions {
            settled,
            ..ConsumerOptions::default()
        };
        let mut taken = self.take_from(state, link, attach, queue, options, durable)?;
        taken.info.address = Some(topic);
        taken.info.selector = selector;
        taken.info.subscription = key.map(|key| key.name);
        Ok(taken)
    }

    fn take_from(
        &self,
        state: &mut State,
        link: LinkId,
        attach: &RemoteAttach,
        queue: QueueId,
        options: ConsumerOptions,
        subscription: Option<SubscriptionKey>,
    ) -> Result<Taken, AmqpError> {
        let id = state
            .queues
            .attach_consumer(self.owner, link, queue, options)
            .map_err(refused)?;
        Ok(Taken {
            link: Link::Consumer {
                id,
                number: 0,
                default_outcome: settlement_of_default(attach),
                starved: false,
                subscription: subscription.map(Box::new),
                made: None,
            },
            info: self.info(link, attach, LinkKind::Consumer),
            accept: attach::acceptance(attach, &self.shared.config),
        })
    }

    fn receive_from_new(
        &mut self,
        state: &mut State,
        link: LinkId,
        attach: &RemoteAttach,
        kind: DestinationKind,
        reception: Reception,
    ) -> Result<Taken, AmqpError> {
        let (queue, address) = self.make_node(state, kind)?;
        let taken = match kind {
            DestinationKind::Queue => self.consume(state, link, attach, queue, reception),
            DestinationKind::Topic => self.subscribe(state, link, attach, &address, reception),
        };
        let mut taken = taken.inspect_err(|_| {
            self.made -= 1;
            let _ = state.queues.delete(queue, false);
        })?;
        if let Link::Consumer { made, .. } = &mut taken.link {
            *made = Some(queue);
        }
        attach::name_node(&mut taken.accept, &address);
        taken.info.address = Some(address);
        Ok(taken)
    }

    /// The peer knows the name of a durable subscription and nothing more: it goes on with it, or wants to
    /// end it and does so by closing the link.
    fn resume(
        &self,
        state: &mut State,
        link: LinkId,
        attach: &RemoteAttach,
        settled: bool,
    ) -> Result<Taken, AmqpError> {
        let global = attach::is_global_name(&attach.name);
        let key = attach::subscription_key(&attach.name, self.entry.container(), global);
        let Some(subscription) = state.queues.find_subscription(&key, true) else {
            let text = format!("there is no subscription {:?}", key.name);
            return Err(AmqpError::new(condition::NOT_FOUND, text));
        };
        let source = attach::source_of(&subscription);
        let mut taken = self.take_subscription(state, link, attach, subscription, settled)?;
        taken.accept.source = Some(source);
        Ok(taken)
    }

    /// The node of an address, made if the configuration lets clients do so.
    pub(super) fn find(
        &self,
        state: &mut State,
        place: &Place,
    ) -> Result<(QueueId, DestinationKind), AmqpError> {
        let config = &self.shared.config;
        let (address, kind) = attach::unprefixed(config, &place.address, place.kind);
        if address == DRILL_ADDRESS && kind != Some(DestinationKind::Topic) {
            // Any client may make it, and nobody may give it other settings.
            let made = state.queues.declare(address, drill_queue());
            return made.map(|id| (id, DestinationKind::Queue)).map_err(refused);
        }
        let queue = || state.queues.find(address).map(|id| (id, DestinationKind::Queue));
        let topic = || {
            state
                .queues
                .find_topic(address)
                .map(|id| (id, DestinationKind::Topic))
        };
        let found = match kind {
            Some(DestinationKind::Queue) => queue(),
            Some(DestinationKind::Topic) => topic(),
            None => queue().or_else(topic),
        };
        if let Some(found) = found {
            return Ok(found);
        }
        let kind = kind.unwrap_or(DestinationKind::Queue);
        // A temporary node that is gone does not come back by being named.
        let temporary = place.temporary || address.starts_with(prefix_of(kind));
        if !config.auto_create || temporary {
            let text = format!("there is no {kind} {address:?}");
            return Err(AmqpError::new(condition::NOT_FOUND, text));
        }
        check_address(address)
            .map_err(|why| attach::invalid("address", &format!("{address:?} cannot name a queue: {why}")))?;
        let made = state.declare(kind, address, created_queue());
        made.map(|id| (id, kind)).map_err(refused)
    }

    /// A node of this connection alone, under an address nobody can guess.
    fn make_node(
        &mut self,
        state: &mut State,
        kind: DestinationKind,
    ) -> Result<(QueueId, String), AmqpError> {
        let limit = self.shared.config.max_temporary_per_connection;
        if self.made >= limit {
            let text = format!("a connection may have {limit} temporary queues and topics");
            return Err(AmqpError::new(condition::RESOURCE_LIMIT_EXCEEDED, text));
        }
        let secret = self.shared.secrets.next();
        let settings = QueueSettings {
            lifetime: Lifetime::Owner(self.owner),
            dead_letter: None,
            ..created_queue()
        };
        let address = format!("{}{secret:032x}", prefix_of(kind));
        let made = state.declare(kind, &address, settings);
        let queue = made.map_err(refused)?;
        self.made += 1;
        Ok((queue, address))
    }

    /// A link is gone because its queue is.
    pub(super) fn forget(&mut self, state: &mut State, held: &Link) {
        state.links.remove(&held.number());
        if held.made().is_some() {
            self.made -= 1;
        }
    }

    /// A link is gone. `ended`: the peer closed it for good, which ends a durable subscription.
    pub(super) fn detach(&mut self, state: &mut State, link: LinkId, held: Link, ended: bool) {
        state.links.remove(&held.number());
        let made = match held {
            Link::Producer { id, made, .. } => {
                state.queues.detach_producer(id);
                made
            }
            Link::Consumer {
                id,
                made,
                subscription,
                ..
            } => {
                if self.lost {
                    state.queues.lose_consumer(id);
                } else {
                    state.queues.detach_consumer(id);
                }
                if let Some(key) = subscription.filter(|_| ended) {
                    // Another consumer of a shared subscription keeps it.
                    let _ = state.queues.unsubscribe(&key);
                    state.queues.tell_when_safe(self.owner, link);
                }
                made
            }
            Link::Coordinator { number } => {
                self.roll_back(state, number);
                None
            }
        };
        if let Some(node) = made {
            self.made -= 1;
            // It is gone already if an administrator deleted it.
            let _ = state.queues.delete(node, false);
        }
    }
}

fn refused(refused: Refused) -> AmqpError {
    attach::refusal(&refused)
}
