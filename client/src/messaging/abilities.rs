//! What a broker is asked for beyond the protocol itself, and what it says that it does of that.
//!
//! It decides whether a consumer or a message gets what it needs from this broker. Invariant: what a broker does not
//! say it does, it is taken not to do: a filter that is ignored and a browser that takes messages away are worse than
//! a refusal.

use daymark_amqp::{DistributionMode, Filter, RemoteAttach, RemoteOpen, Symbol};

use super::destination::Destination;
use super::error::Refusal;
use super::inbound::Receiving;

const DELAYED_DELIVERY: &str = "DELAYED_DELIVERY";
const SHARED_SUBSCRIPTIONS: &str = "SHARED-SUBS";

/// What a connection asks a broker for when it opens.
pub(super) fn desired() -> Vec<Symbol> {
    ["ANONYMOUS-RELAY", DELAYED_DELIVERY, SHARED_SUBSCRIPTIONS]
        .map(Symbol::from_static)
        .to_vec()
}

/// Whether the broker delivers messages later where it is asked to.
pub(super) fn delays(open: Option<&RemoteOpen>) -> bool {
    open.is_some_and(|open| open.offers(DELAYED_DELIVERY))
}

/// What a consumer asked for and the broker did not grant when it attached the link.
pub(super) fn withheld(
    how: &Receiving,
    destination: &Destination,
    open: Option<&RemoteOpen>,
    attach: &RemoteAttach,
) -> Option<Refusal> {
    let source = attach.source.as_ref()?;
    let filters = source.filters();
    let options = &how.options;
    let selects = |filter: &Filter| matches!(filter, Filter::Selector { .. });
    if options.selector.is_some() && !filters.iter().any(selects) {
        return Some(Refusal::because("the broker does not apply the selector"));
    }
    let leaves_out = |filter: &Filter| matches!(filter, Filter::NoLocal { .. });
    if options.no_local && destination.is_topic() && !filters.iter().any(leaves_out) {
        return Some(Refusal::because(
            "the broker does not leave out what the connection sends",
        ));
    }
    if how.browse && source.distribution_mode != Some(DistributionMode::Copy) {
        return Some(Refusal::because("the broker does not let queues be browsed"));
    }
    let shared = options.subscription.as_ref().is_some_and(|s| s.is_shared());
    let shares = open.is_some_and(|open| open.offers(SHARED_SUBSCRIPTIONS))
        || (attach.offered_capabilities.iter()).any(|symbol| *symbol == *SHARED_SUBSCRIPTIONS)
        || source.capabilities.iter().any(|symbol| *symbol == *"shared");
    if shared && !shares {
        return Some(Refusal::because("the broker does not share subscriptions"));
    }
    None
}
