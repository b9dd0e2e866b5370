//! What a link is to be, read from its attach, and with what words it is refused.
//!
//! It looks at what the peer said and at nothing else. A wish this broker cannot grant is refused by name,
//! never granted in part and in silence.

use daymark_amqp::{
    AcceptOptions, AmqpError, DistributionMode, Durability, ExpiryPolicy, Fields, Filter, RcvSettleMode,
    RemoteAttach, Role, SndSettleMode, Source, Symbol, Target, condition,
};
use daymark_broker_core::queues::{Refused, Subscription, SubscriptionKey};
use daymark_broker_core::selector::Selector;

use super::config::MessagingConfig;
use super::types::DestinationKind;

/// What a link is to be.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wish {
    /// The peer sends to this address.
    SendTo(Place),
    /// The peer sends messages that each name their address.
    SendAnywhere,
    /// The peer sends to a node that is made for it.
    SendToNew(DestinationKind),
    /// The peer begins and ends transactions.
    Coordinate,
    /// The peer receives from this address.
    ReceiveFrom(Place, Box<Reception>),
    /// The peer receives from a node that is made for it.
    ReceiveFromNew(DestinationKind, Box<Reception>),
    /// The peer goes on with the durable subscription that the link is named after.
    Resume { settled: bool },
}

/// An address and what the peer says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) address: String,
    pub(super) kind: Option<DestinationKind>,
    /// It was made for somebody before, and is not made by naming it.
    pub(super) temporary: bool,
}

/// How the peer wants to receive.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reception {
    /// At most once.
    pub(super) settled: bool,
    pub(super) browse: bool,
    pub(super) selector: Option<Selector>,
    pub(super) no_local: bool,
    pub(super) durable: bool,
    pub(super) shared: bool,
    /// Shared with other container ids.
    pub(super) global: bool,
}

/// What the peer wants of a link, or why it cannot have it.
pub(super) fn wish(attach: &RemoteAttach) -> Result<Wish, AmqpError> {
    match attach.role {
        Role::Receiver => wish_to_send(attach),
        Role::Sender => wish_to_receive(attach),
    }
}

fn wish_to_send(attach: &RemoteAttach) -> Result<Wish, AmqpError> {
    let node = match &attach.target {
        Some(Target::Node(node)) => node,
        Some(Target::Coordinator { capabilities }) => return coordinate(capabilities),
        None => return Err(invalid("target", "a link that sends needs a target")),
    };
    if node.dynamic {
        return Ok(Wish::SendToNew(
            kind(&node.capabilities).unwrap_or(DestinationKind::Queue),
        ));
    }
    Ok(match &node.address {
        Some(address) => Wish::SendTo(place(address, &node.capabilities)),
        None => Wish::SendAnywhere,
    })
}

/// Local transactions are what there is.
fn coordinate(capabilities: &[Symbol]) -> Result<Wish, AmqpError> {
    let other = |wanted: &&Symbol| {
        ["amqp:distributed-transactions", "amqp:promotable-transactions"].contains(&wanted.as_str())
    };
    match capabilities.iter().find(other) {
        Some(wanted) => Err(absent(wanted.as_str())),
        None => Ok(Wish::Coordinate),
    }
}

fn wish_to_receive(attach: &RemoteAttach) -> Result<Wish, AmqpError> {
    let settled = attach.snd_settle_mode == SndSettleMode::Settled;
    let Some(source) = &attach.source else {
        return Ok(Wish::Resume { settled });
    };
    let reception = Box::new(reception(source, settled)?);
    if source.dynamic {
        let kind = kind(&source.capabilities).unwrap_or(DestinationKind::Queue);
        return Ok(Wish::ReceiveFromNew(kind, reception));
    }
    match &source.address {
        Some(address) => Ok(Wish::ReceiveFrom(place(address, &source.capabilities), reception)),
        None => Err(invalid("source", "a link that receives needs a source address")),
    }
}

fn reception(source: &Source, settled: bool) -> Result<Reception, AmqpError> {
    let mut reception = Reception {
        settled,
        browse: source.distribution_mode == Some(DistributionMode::Copy),
        selector: None,
        no_local: false,
        durable: source.durable != Durability::None || source.expiry_policy == ExpiryPolicy::Never,
        shared: has(&source.capabilities, "shared"),
        global: has(&source.capabilities, "global"),
    };
    for filter in source.filters() {
        match filter {
            Filter::Selector { expression, .. } if expression.trim().is_empty() => {}
            Filter::Selector { expression, .. } => {
                let selector = Selector::parse(&expression)
                    .map_err(|error| invalid("filter", &format!("{expression:?}: {error}")))?;
                reception.selector = Some(selector);
            }
            Filter::NoLocal { .. } => reception.no_local = true,
            Filter::Other { key, .. } => return Err(absent(&format!("the filter {}", key.as_str()))),
        }
    }
    Ok(reception)
}

fn place(address: &str, capabilities: &[Symbol]) -> Place {
    Place {
        address: address.to_owned(),
        kind: kind(capabilities),
        temporary: has(capabilities, "temporary-queue") || has(capabilities, "temporary-topic"),
    }
}

fn kind(capabilities: &[Symbol]) -> Option<DestinationKind> {
    if has(capabilities, "topic") || has(capabilities, "temporary-topic") {
        Some(DestinationKind::Topic)
    } else if has(capabilities, "queue") || has(capabilities, "temporary-queue") {
        Some(DestinationKind::Queue)
    } else {
        None
    }
}

fn has(capabilities: &[Symbol], name: &str) -> bool {
    capabilities.iter().any(|capability| capability.as_str() == name)
}

/// The address without the prefix that clients are told to put before it, and what that prefix says it is.
pub(super) fn unprefixed<'a>(
    config: &MessagingConfig,
    address: &'a str,
    kind: Option<DestinationKind>,
) -> (&'a str, Option<DestinationKind>) {
    let prefixes = [
        (&config.queue_prefix, DestinationKind::Queue),
        (&config.topic_prefix, DestinationKind::Topic),
    ];
    for (prefix, meaning) in prefixes {
        if kind.is_none_or(|kind| kind == meaning)
            && let Some(rest) = prefix
                .as_ref()
                .and_then(|prefix| address.strip_prefix(prefix.as_str()))
        {
            return (rest, Some(meaning));
        }
    }
    (address, kind)
}

/// The subscription that a link of this name stands for. JMS clients number the links of a shared
/// subscription after a `|`, which no name may hold.
pub(super) fn subscription_key(link: &str, client: Option<&str>, global: bool) -> SubscriptionKey {
    let name = link.split_once('|').map_or(link, |(name, _)| name);
    SubscriptionKey {
        client: client.filter(|_| !global).map(str::to_owned),
        name: name.to_owned(),
    }
}

/// Whether the name of a link says that its subscription belongs to no client in particular.
pub(super) fn is_global_name(link: &str) -> bool {
    link.split_once('|')
        .is_some_and(|(_, suffix)| suffix.starts_with("global"))
}

/// The source of a durable subscription, for a peer that only knows its name.
pub(super) fn source_of(subscription: &Subscription) -> Source {
    let mut capabilities = vec![Symbol::from_static("topic")];
    if subscription.shared {
        capabilities.push(Symbol::from_static("shared"));
        if subscription.key.as_ref().is_some_and(|key| key.client.is_none()) {
            capabilities.push(Symbol::from_static("global"));
        }
    }
    let mut filter = Fields::new();
    if let Some(selector) = &subscription.selector {
        let value = Filter::selector_value(selector.as_str());
        filter.insert(Symbol::from_static("jms-selector"), value);
    }
    if subscription.no_local {
        filter.insert(Symbol::from_static("no-local"), Filter::no_local_value());
    }
    Source {
        durable: Durability::UnsettledState,
        expiry_policy: ExpiryPolicy::Never,
        distribution_mode: Some(DistributionMode::Copy),
        filter,
        capabilities,
        ..Source::address(subscription.topic.clone())
    }
}

/// Takes out of an accepted source what only means something for a topic.
pub(super) fn without_no_local(accept: &mut AcceptOptions) {
    let Some(source) = &mut accept.source else {
        return;
    };
    let is_no_local = |key: &Symbol| {
        let named = |filter: &Filter| matches!(filter, Filter::NoLocal { key: other } if other == key);
        source.filters().iter().any(named)
    };
    let kept = source.filter.iter().filter(|(key, _)| !is_no_local(key));
    let kept = kept.fold(Fields::new(), |fields, (key, value)| {
        fields.with(key.clone(), value.clone())
    });
    source.filter = kept;
}

/// Names the node that was made in an accepted link.
pub(super) fn name_node(accept: &mut AcceptOptions, address: &str) {
    if let Some(source) = accept.source.as_mut().filter(|source| source.dynamic) {
        source.address = Some(address.to_owned());
    }
    if let Some(Target::Node(node)) = &mut accept.target
        && node.dynamic
    {
        node.address = Some(address.to_owned());
    }
}

pub(super) fn absent(what: &str) -> AmqpError {
    let text = format!("{what}: this broker does not have that");
    AmqpError::new(condition::NOT_IMPLEMENTED, text)
}

pub(super) fn invalid(field: &'static str, text: &str) -> AmqpError {
    AmqpError::new(condition::INVALID_FIELD, format!("{field}: {text}"))
}

/// What a peer is told when the queues refuse something.
pub(super) fn refusal(refused: &Refused) -> AmqpError {
    let condition = match refused {
        Refused::TooManyQueues { .. }
        | Refused::TooManyFactories { .. }
        | Refused::TooManyTransactions { .. }
        | Refused::QueueFull { .. }
        | Refused::OutOfMemory { .. } => condition::RESOURCE_LIMIT_EXCEEDED,
        Refused::Gone(_) | Refused::NotSubscribed => condition::NOT_FOUND,
        Refused::Nameless | Refused::InvalidTopic { .. } => condition::INVALID_FIELD,
        Refused::InUse(_) | Refused::Foreign => condition::RESOURCE_LOCKED,
        Refused::TransactionTimedOut { .. } => condition::TRANSACTION_TIMEOUT,
        Refused::DuplicateInTransaction { .. }
        | Refused::RepeatedInTransaction { .. }
        | Refused::TransactionTooLarge { .. } => condition::TRANSACTION_ROLLBACK,
    };
    AmqpError::new(condition, refused.to_string())
}

/// The answer to a link that is taken. Whoever sends to us hears of its outcome once and for all, so the
/// receiver settles first there.
pub(super) fn acceptance(attach: &RemoteAttach, config: &MessagingConfig) -> AcceptOptions {
    let mut accept = AcceptOptions::echo(attach);
    match attach.role {
        Role::Receiver => {
            accept.rcv_settle_mode = Some(RcvSettleMode::First);
            accept.max_message_size = config.max_message_bytes;
        }
        Role::Sender => {
            let settled = attach.snd_settle_mode == SndSettleMode::Settled;
            let mode = if settled {
                SndSettleMode::Settled
            } else {
                SndSettleMode::Unsettled
            };
            accept.snd_settle_mode = Some(mode);
        }
    }
    accept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_of_a_shared_subscription_share_its_name() {
        let key = |link, client, global| {
            let key = subscription_key(link, client, global);
            (key.client, key.name)
        };
        let client = Some("c".to_owned());
        assert_eq!(key("news", Some("c"), false), (client.clone(), "news".into()));
        assert_eq!(key("news|2", Some("c"), false), (client, "news".into()));
        assert_eq!(key("news|global2", Some("c"), true), (None, "news".into()));
        assert!(is_global_name("news|global") && is_global_name("news|global-volatile3"));
        assert!(!is_global_name("news|2") && !is_global_name("global"));
    }

    #[test]
    fn a_prefix_says_what_an_address_names_unless_the_peer_says_otherwise() {
        let config = MessagingConfig {
            queue_prefix: Some("q://".into()),
            topic_prefix: Some("t://".into()),
            ..MessagingConfig::default()
        };
        let read = |address, kind| unprefixed(&config, address, kind);
        assert_eq!(read("q://a", None), ("a", Some(DestinationKind::Queue)));
        assert_eq!(read("t://a", None), ("a", Some(DestinationKind::Topic)));
        assert_eq!(
            read("t://a", Some(DestinationKind::Topic)),
            ("a", Some(DestinationKind::Topic))
        );
        assert_eq!(
            read("t://a", Some(DestinationKind::Queue)),
            ("t://a", Some(DestinationKind::Queue))
        );
        assert_eq!(read("a", None), ("a", None));
    }
}
