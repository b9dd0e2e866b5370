//! Which links are taken and which are refused, and with what words.
//!
//! A wish this broker cannot grant is refused by name, never granted in part and in silence.

use daymark_amqp::{
    AcceptOptions, AmqpError, DistributionMode, Filter, RcvSettleMode, RemoteAttach, Role, SndSettleMode,
    Source, Symbol, Target, condition,
};
use daymark_broker_core::queues::{QueueId, QueueSettings, Queues, Refused};

use super::config::{MessagingConfig, check_queue_name};

/// What a link is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// The peer sends to this address.
    SendTo(String),
    /// The peer sends messages that each name their address.
    SendAnywhere,
    /// The peer receives from this address; `settled`: at most once.
    ReceiveFrom { address: String, settled: bool },
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
        Some(Target::Coordinator { .. }) => return Err(absent("transactions (the coordinator)")),
        None => return Err(invalid("target", "a link that sends needs a target")),
    };
    if node.dynamic {
        return Err(absent("dynamic nodes (temporary queues and topics)"));
    }
    check_capabilities(&node.capabilities)?;
    Ok(match &node.address {
        Some(address) => Wish::SendTo(address.clone()),
        None => Wish::SendAnywhere,
    })
}

fn wish_to_receive(attach: &RemoteAttach) -> Result<Wish, AmqpError> {
    let Some(source) = &attach.source else {
        return Err(AmqpError::new(
            condition::NOT_FOUND,
            "there is no subscription of this name",
        ));
    };
    check_source(source)?;
    match &source.address {
        Some(address) => Ok(Wish::ReceiveFrom {
            address: address.clone(),
            settled: attach.snd_settle_mode == SndSettleMode::Settled,
        }),
        None => Err(invalid("source", "a link that receives needs a source address")),
    }
}

fn check_source(source: &Source) -> Result<(), AmqpError> {
    if source.dynamic {
        return Err(absent("dynamic nodes (temporary queues and topics)"));
    }
    match source.distribution_mode {
        Some(DistributionMode::Copy) => return Err(absent("browsing (distribution mode copy)")),
        Some(DistributionMode::Move) | None => {}
    }
    check_capabilities(&source.capabilities)?;
    match source.filters().first() {
        Some(Filter::Selector { .. }) => Err(absent("selectors")),
        Some(Filter::NoLocal { .. }) => Err(absent("no-local")),
        Some(Filter::Other { key, .. }) => Err(absent(&format!("the filter {}", key.as_str()))),
        None => Ok(()),
    }
}

fn check_capabilities(capabilities: &[Symbol]) -> Result<(), AmqpError> {
    let has = |name: &str| capabilities.iter().any(|capability| capability.as_str() == name);
    if has("topic") || has("temporary-topic") {
        return Err(absent("topics"));
    }
    if has("temporary-queue") {
        return Err(absent("temporary queues"));
    }
    if has("shared") || has("global") {
        return Err(absent("shared subscriptions"));
    }
    Ok(())
}

fn absent(what: &str) -> AmqpError {
    let text = format!("{what}: this broker does not have that yet");
    AmqpError::new(condition::NOT_IMPLEMENTED, text)
}

fn invalid(field: &'static str, text: &str) -> AmqpError {
    AmqpError::new(condition::INVALID_FIELD, format!("{field}: {text}"))
}

/// The queue of this address, made if the configuration lets clients do so.
pub(super) fn find_queue<L: Copy, D: Copy>(
    queues: &mut Queues<L, D>,
    config: &MessagingConfig,
    address: &str,
) -> Result<QueueId, AmqpError> {
    if let Some(queue) = queues.find(address) {
        return Ok(queue);
    }
    if !config.auto_create {
        let text = format!("there is no queue {address:?}");
        return Err(AmqpError::new(condition::NOT_FOUND, text));
    }
    check_queue_name(address)
        .map_err(|why| invalid("address", &format!("{address:?} cannot name a queue: {why}")))?;
    queues
        .declare(address, QueueSettings::default())
        .map_err(|refused| refusal(&refused))
}

/// What a peer is told when the queues refuse something.
pub(super) fn refusal(refused: &Refused) -> AmqpError {
    let condition = match refused {
        Refused::TooManyQueues { .. }
        | Refused::OutOfMemory { .. }
        | Refused::QueueFull { .. }
        | Refused::TransactionTooLarge { .. }
        | Refused::TooManyTransactions { .. } => condition::RESOURCE_LIMIT_EXCEEDED,
        Refused::Gone(_) | Refused::NotSubscribed => condition::NOT_FOUND,
        Refused::Nameless | Refused::InvalidTopic { .. } => condition::INVALID_FIELD,
        Refused::InUse(_) => condition::RESOURCE_LOCKED,
        Refused::DuplicateInTransaction { .. } => condition::TRANSACTION_ROLLBACK,
        Refused::TransactionTimedOut { .. } => condition::TRANSACTION_TIMEOUT,
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
