//! Temporary destinations, and the end of durable subscriptions: links that carry no message.
//!
//! It decides when a temporary destination is made anew: on every new connection, before whatever uses it is
//! attached there. Its address may then be another; its handle stays.

use std::sync::Arc;

use daymark_amqp::{
    AttachOptions, ExpiryPolicy, Fields, LifetimePolicy, LinkId, RemoteAttach, Source, Target, TargetNode,
    condition,
};

use super::{Driver, OpenReply, Owner, keys};
use crate::messaging::destination::{Destination, Kind, Made, outcomes};
use crate::messaging::error::{Disconnected, OpenError, Refusal};
use crate::messaging::subscription::durable_link_name;

/// A temporary destination that a program wants.
pub(in crate::messaging) struct OpenTemporary {
    pub(in crate::messaging) key: u64,
    pub(in crate::messaging) session: u64,
    pub(in crate::messaging) kind: Kind,
    pub(in crate::messaging) made: Arc<Made>,
    pub(in crate::messaging) reply: OpenReply,
}

/// A temporary destination that lives as long as its link.
pub(super) struct Temporary {
    session: u64,
    kind: Kind,
    made: Arc<Made>,
    link: Option<LinkId>,
    opening: Option<OpenReply>,
}

impl Temporary {
    /// The connection is over.
    pub(super) fn end(self, why: &Disconnected) {
        self.made.lose();
        if let Some(opening) = self.opening {
            let _ = opening.send(Err(why.clone().into()));
        }
    }
}

/// A durable subscription that is to end.
pub(super) struct Unsubscribing {
    session: u64,
    name: String,
    /// How often a broker was asked: one that is lost may have done it.
    asked: u32,
    reply: OpenReply,
}

impl Unsubscribing {
    /// The connection is over.
    pub(super) fn end(self, why: &Disconnected) {
        let _ = self.reply.send(Err(why.clone().into()));
    }
}

impl Driver {
    pub(super) fn on_open_temporary(&mut self, open: OpenTemporary) {
        if !self.takes_links(open.session) {
            let _ = open.reply.send(Err(OpenError::SessionClosed));
            return;
        }
        let temporary = Temporary {
            session: open.session,
            kind: open.kind,
            made: open.made,
            link: None,
            opening: Some(open.reply),
        };
        self.temporaries.insert(open.key, temporary);
        self.attach_temporary(open.key);
    }

    pub(super) fn attach_temporary(&mut self, key: u64) {
        let name = self.link_name(key);
        let (Some(wire), Some(temporary)) = (self.wire.as_mut(), self.temporaries.get_mut(&key)) else {
            return;
        };
        let Some(session) = self.sessions.get(&temporary.session).and_then(|state| state.id) else {
            return;
        };
        match wire.engine.attach_sender(session, dynamic(name, temporary.kind)) {
            Ok(link) => {
                temporary.link = Some(link);
                self.links.insert(link, Owner::Temporary(key));
            }
            Err(error) => self.end_temporary(key, &super::commands::refused(&error)),
        }
    }

    /// The broker has made it: whatever uses it can be attached.
    pub(super) fn on_temporary_attached(&mut self, key: u64, attach: &RemoteAttach) {
        let address = match &attach.target {
            Some(Target::Node(node)) => node.address.as_deref(),
            Some(Target::Coordinator { .. }) | None => None,
        };
        let Some(temporary) = self.temporaries.get_mut(&key) else {
            return;
        };
        let Some(address) = address else {
            let link = temporary.link;
            self.detach(link, true);
            let refusal = Refusal::because("the broker gave a temporary destination no address");
            return self.end_temporary(key, &refusal);
        };
        temporary.made.stands_at(address);
        if let Some(reply) = temporary.opening.take() {
            let _ = reply.send(Ok(()));
        }
        let made = Destination::made(temporary.kind, Arc::clone(&temporary.made));
        let sends = |p: &super::Outbound| p.link.is_none() && p.destination.as_ref() == Some(&made);
        for producer in keys(&self.producers, sends) {
            self.attach_producer(producer);
        }
        for consumer in keys(&self.consumers, |c| c.link.is_none() && c.destination == made) {
            self.attach_consumer(consumer);
        }
    }

    /// The program has no use for it any more: the broker deletes it with its link.
    pub(super) fn on_close_temporary(&mut self, key: u64) {
        let link = self.temporaries.get(&key).and_then(|temporary| temporary.link);
        self.detach(link, true);
        self.end_temporary(key, &Refusal::because("the temporary destination is closed"));
    }

    /// It is gone, and what waits for it is told so.
    pub(super) fn end_temporary(&mut self, key: u64, refusal: &Refusal) {
        let Some(temporary) = self.temporaries.remove(&key) else {
            return;
        };
        temporary.made.lose();
        if let Some(reply) = temporary.opening {
            let _ = reply.send(Err(OpenError::Refused(refusal.clone())));
        }
        let made = Destination::made(temporary.kind, temporary.made);
        let sends = |p: &super::Outbound| p.link.is_none() && p.destination.as_ref() == Some(&made);
        for producer in keys(&self.producers, sends) {
            self.end_producer(producer, refusal);
        }
        for consumer in keys(&self.consumers, |c| c.link.is_none() && c.destination == made) {
            self.end_consumer(consumer, refusal);
        }
    }

    pub(super) fn end_temporaries_of(&mut self, session: u64, refusal: &Refusal) {
        for key in keys(&self.temporaries, |temporary| temporary.session == session) {
            self.end_temporary(key, refusal);
        }
        for key in keys(&self.unsubscribing, |wish| wish.session == session) {
            self.on_not_unsubscribed(key, refusal.clone());
        }
    }

    /// The broker that had made them is lost.
    pub(super) fn lose_temporaries(&mut self) {
        for temporary in self.temporaries.values_mut() {
            temporary.link = None;
            temporary.made.lose();
        }
    }

    pub(super) fn on_unsubscribe(&mut self, session: u64, key: u64, name: String, reply: OpenReply) {
        if !self.takes_links(session) {
            let _ = reply.send(Err(OpenError::SessionClosed));
            return;
        }
        let wish = Unsubscribing {
            session,
            name,
            asked: 0,
            reply,
        };
        self.unsubscribing.insert(key, wish);
        self.attach_to_unsubscribe(key);
    }

    /// Asks for the subscription without saying what it is: a broker that has it answers with what it is.
    pub(super) fn attach_to_unsubscribe(&mut self, key: u64) {
        let (Some(wire), Some(wish)) = (self.wire.as_mut(), self.unsubscribing.get_mut(&key)) else {
            return;
        };
        let Some(session) = self.sessions.get(&wish.session).and_then(|state| state.id) else {
            return;
        };
        let attach = AttachOptions {
            name: durable_link_name(&wish.name, self.identity.is_named),
            source: None,
            target: Some(Target::Node(TargetNode::default())),
            ..AttachOptions::default()
        };
        match wire.engine.attach_receiver(session, attach) {
            Ok(link) => {
                wish.asked += 1;
                self.links.insert(link, Owner::Unsubscribing(key));
            }
            Err(error) => self.on_not_unsubscribed(key, super::commands::refused(&error)),
        }
    }

    /// The broker has the subscription: it ends with the link that is closed, not detached. The broker's answer
    /// confirms it: a link that ended without an error.
    pub(super) fn on_subscription_found(&mut self, link: LinkId) {
        if let Some(wire) = self.wire.as_mut() {
            let _ = wire.engine.detach(link, true, None);
        }
    }

    /// The link is gone: with an error the broker has no such subscription, or does not end it.
    pub(super) fn on_not_unsubscribed(&mut self, key: u64, refusal: Refusal) {
        let Some(wish) = self.unsubscribing.remove(&key) else {
            return;
        };
        let gone = wish.asked > 1 && refusal.condition == condition::NOT_FOUND.as_str();
        let _ = wish.reply.send(if gone || refusal == Refusal::new(None) {
            Ok(())
        } else {
            Err(OpenError::Refused(refusal))
        });
    }
}

/// A link to a node that is made for it and deleted with it.
fn dynamic(name: String, kind: Kind) -> AttachOptions {
    let node = TargetNode {
        dynamic: true,
        expiry_policy: ExpiryPolicy::LinkDetach,
        dynamic_node_properties: Fields::new()
            .with(LifetimePolicy::KEY, LifetimePolicy::DeleteOnClose.value()),
        capabilities: vec![kind.capability_of_new()],
        ..TargetNode::default()
    };
    AttachOptions {
        name,
        source: Some(Source {
            outcomes: outcomes(),
            ..Source::default()
        }),
        target: Some(Target::Node(node)),
        ..AttachOptions::default()
    }
}
