//! Where messages go and come from.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use daymark_amqp::{ExpiryPolicy, Source, Symbol, Target, TargetNode};
use daymark_naming_proto::{Binding, Object};

use crate::naming::LookupError;

/// A queue or a topic at a broker. It stays valid over failovers.
#[derive(Clone, Debug)]
pub struct Destination {
    kind: Kind,
    address: Address,
}

/// What a destination is, with the number that JMS clients write for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Queue = 0,
    Topic = 1,
    TemporaryQueue = 2,
    TemporaryTopic = 3,
}

#[derive(Clone, Debug)]
enum Address {
    Fixed(Arc<str>),
    /// One that this connection made: a new broker gives it a new address.
    Made(Arc<Made>),
}

/// A node that a broker made for this connection.
#[derive(Debug, Default)]
pub(super) struct Made {
    place: Mutex<Place>,
}

#[derive(Debug, Default)]
struct Place {
    /// The last one known.
    address: String,
    /// Whether the present broker has given it.
    stands: bool,
}

impl Made {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker has made it under this address.
    pub(super) fn stands_at(&self, address: &str) {
        let mut place = self.place();
        address.clone_into(&mut place.address);
        place.stands = true;
    }

    /// The broker that had made it is lost.
    pub(super) fn lose(&self) {
        self.place().stands = false;
    }
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        let same = match (&self.address, &other.address) {
            (Address::Fixed(one), Address::Fixed(other)) => one == other,
            (Address::Made(one), Address::Made(other)) => Arc::ptr_eq(one, other),
            (Address::Fixed(_), Address::Made(_)) | (Address::Made(_), Address::Fixed(_)) => false,
        };
        same && self.kind == other.kind
    }
}

impl Eq for Destination {}

impl Hash for Destination {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.kind.hash(state);
        match &self.address {
            Address::Fixed(address) => address.hash(state),
            Address::Made(made) => Arc::as_ptr(made).hash(state),
        }
    }
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.address())
    }
}

impl Destination {
    /// The queue of this address.
    #[must_use]
    pub fn queue(address: impl Into<Arc<str>>) -> Self {
        Self::of(Kind::Queue, address)
    }

    /// The topic of this address.
    #[must_use]
    pub fn topic(address: impl Into<Arc<str>>) -> Self {
        Self::of(Kind::Topic, address)
    }

    pub(super) fn of(kind: Kind, address: impl Into<Arc<str>>) -> Self {
        let address = Address::Fixed(address.into());
        Self { kind, address }
    }

    pub(super) const fn made(kind: Kind, made: Arc<Made>) -> Self {
        let address = Address::Made(made);
        Self { kind, address }
    }

    /// What a name is bound to, where that is a queue or a topic.
    pub(crate) fn from_binding(binding: &Binding) -> Result<Self, LookupError> {
        match &binding.object {
            Object::Queue { address } => Ok(Self::queue(&**address)),
            Object::Topic { address } => Ok(Self::topic(&**address)),
            other @ (Object::Context
            | Object::Link { .. }
            | Object::ConnectionFactory(_)
            | Object::Reference(_)
            | Object::Value { .. }) => Err(LookupError::WrongKind {
                name: binding.name.clone(),
                expected: "queue or topic",
                found: other.kind(),
            }),
        }
    }

    /// The address at the broker. That of a temporary destination changes with a failover.
    #[must_use]
    pub fn address(&self) -> String {
        match &self.address {
            Address::Fixed(address) => String::from(&**address),
            Address::Made(made) => made.place().address.clone(),
        }
    }

    /// Whether it is a topic, perhaps a temporary one.
    #[must_use]
    pub fn is_topic(&self) -> bool {
        matches!(self.kind, Kind::Topic | Kind::TemporaryTopic)
    }

    /// Whether it ends with the connection that made it.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self.kind, Kind::TemporaryQueue | Kind::TemporaryTopic)
    }

    /// Whether its address is known now: that of a temporary destination is not while it is being made anew.
    pub(super) fn stands(&self) -> bool {
        match &self.address {
            Address::Fixed(_) => true,
            Address::Made(made) => made.place().stands,
        }
    }

    /// Whether its address may become another one.
    pub(super) const fn moves(&self) -> bool {
        matches!(self.address, Address::Made(_))
    }

    pub(super) const fn kind(&self) -> Kind {
        self.kind
    }

    fn capability(&self) -> Symbol {
        Symbol::from_static(match self.kind {
            Kind::Queue => "queue",
            Kind::Topic => "topic",
            Kind::TemporaryQueue => "temporary-queue",
            Kind::TemporaryTopic => "temporary-topic",
        })
    }

    pub(super) fn target(&self) -> Target {
        Target::Node(TargetNode {
            address: Some(self.address()),
            capabilities: vec![self.capability()],
            ..TargetNode::default()
        })
    }

    /// A source without anything that outlives the link.
    pub(super) fn source(&self) -> Source {
        Source {
            outcomes: outcomes(),
            expiry_policy: ExpiryPolicy::LinkDetach,
            capabilities: vec![self.capability()],
            ..Source::address(self.address())
        }
    }
}

impl Kind {
    /// The kind of this number.
    pub(super) const fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            0 => Self::Queue,
            1 => Self::Topic,
            2 => Self::TemporaryQueue,
            3 => Self::TemporaryTopic,
            _ => return None,
        })
    }

    /// The capability that asks for a node of this kind.
    pub(super) const fn capability_of_new(self) -> Symbol {
        Symbol::from_static(match self {
            Self::Queue | Self::TemporaryQueue => "temporary-queue",
            Self::Topic | Self::TemporaryTopic => "temporary-topic",
        })
    }
}

/// Every outcome there is.
pub(super) fn outcomes() -> Vec<Symbol> {
    let outcomes = [
        "amqp:accepted:list",
        "amqp:rejected:list",
        "amqp:released:list",
        "amqp:modified:list",
    ];
    outcomes.map(Symbol::from_static).to_vec()
}
