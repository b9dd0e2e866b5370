//! Where messages go and come from.

use daymark_amqp::{Source, Symbol, Target, TargetNode};
use daymark_naming_proto::{Binding, Object};

use crate::naming::LookupError;

/// A queue or a topic at a broker. It stays valid over failovers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Destination {
    kind: Kind,
    address: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Queue,
    Topic,
}

impl Destination {
    /// The queue of this address.
    #[must_use]
    pub fn queue(address: impl Into<String>) -> Self {
        Self {
            kind: Kind::Queue,
            address: address.into(),
        }
    }

    /// The topic of this address.
    #[must_use]
    pub fn topic(address: impl Into<String>) -> Self {
        Self {
            kind: Kind::Topic,
            address: address.into(),
        }
    }

    /// What a name is bound to, where that is a queue or a topic.
    pub(crate) fn from_binding(binding: &Binding) -> Result<Self, LookupError> {
        match &binding.object {
            Object::Queue { address } => Ok(Self::queue(address)),
            Object::Topic { address } => Ok(Self::topic(address)),
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

    /// The address at the broker.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it is a topic.
    #[must_use]
    pub fn is_topic(&self) -> bool {
        self.kind == Kind::Topic
    }

    fn capability(&self) -> Symbol {
        match self.kind {
            Kind::Queue => Symbol::from_static("queue"),
            Kind::Topic => Symbol::from_static("topic"),
        }
    }

    pub(super) fn target(&self) -> Target {
        Target::Node(TargetNode {
            address: Some(self.address.clone()),
            capabilities: vec![self.capability()],
            ..TargetNode::default()
        })
    }

    pub(super) fn source(&self) -> Source {
        let outcomes = [
            "amqp:accepted:list",
            "amqp:rejected:list",
            "amqp:released:list",
            "amqp:modified:list",
        ];
        Source {
            outcomes: outcomes.map(Symbol::from_static).to_vec(),
            capabilities: vec![self.capability()],
            ..Source::address(&self.address)
        }
    }
}
