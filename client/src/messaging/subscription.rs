//! Named subscriptions of topics: durable ones, shared ones, and both.
//!
//! It decides under which link name a broker knows a subscription. The names are those that JMS clients use, so that
//! a subscription can be begun by one and continued by the other.

use std::collections::BTreeMap;

use super::destination::Destination;

/// Divides a subscription's name from what the link name adds to it.
const DELIMITER: char = '|';

/// A subscription of a topic that has a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subscription {
    name: String,
    durable: bool,
    shared: bool,
}

/// A subscription that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubscription {
    /// Only topics are subscribed.
    #[error("{address:?} is no topic: only topics have subscriptions")]
    NoTopic {
        /// The destination.
        address: String,
    },
    /// The name is empty, or contains `|`.
    #[error("{name:?} cannot name a subscription: a name is not empty and has no '|'")]
    Name {
        /// The name.
        name: String,
    },
    /// A durable subscription that is not shared belongs to a container id, and this connection has a random one.
    #[error("the durable subscription {name:?} needs a connection with a container id of its own")]
    NoContainerId {
        /// The name.
        name: String,
    },
    /// It is shared on this connection already, for another topic or with another selector.
    #[error(
        "the shared subscription {name:?} is of another topic or has another selector on this connection"
    )]
    Different {
        /// The name.
        name: String,
    },
}

impl Subscription {
    /// One that collects messages while nobody receives. It belongs to the connection's container id and has one
    /// consumer at a time.
    #[must_use]
    pub fn durable(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            durable: true,
            shared: false,
        }
    }

    /// One whose messages are divided among its consumers. It ends with the last of them.
    #[must_use]
    pub fn shared(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            durable: false,
            shared: true,
        }
    }

    /// One that collects messages while nobody receives, and divides them among its consumers.
    #[must_use]
    pub fn shared_durable(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            durable: true,
            shared: true,
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it collects messages while nobody receives.
    #[must_use]
    pub const fn is_durable(&self) -> bool {
        self.durable
    }

    /// Whether it may have several consumers.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        self.shared
    }

    /// Checks what can be known before a broker is asked.
    pub(super) fn check(&self, destination: &Destination, is_named: bool) -> Result<(), InvalidSubscription> {
        check_name(&self.name)?;
        if !destination.is_topic() {
            let address = destination.address();
            return Err(InvalidSubscription::NoTopic { address });
        }
        if self.durable && !self.shared && !is_named {
            let name = self.name.clone();
            return Err(InvalidSubscription::NoContainerId { name });
        }
        Ok(())
    }
}

pub(super) fn check_name(name: &str) -> Result<(), InvalidSubscription> {
    if name.is_empty() || name.contains(DELIMITER) {
        let name = name.to_owned();
        return Err(InvalidSubscription::Name { name });
    }
    Ok(())
}

/// The link name under which a durable subscription is known first, and unsubscribed.
pub(super) fn durable_link_name(name: &str, is_named: bool) -> String {
    if is_named {
        name.to_owned()
    } else {
        format!("{name}{DELIMITER}global")
    }
}

/// The shared subscriptions that have consumers on one connection.
#[derive(Default)]
pub(super) struct SharedNames {
    /// By name and durability.
    entries: BTreeMap<(String, bool), SharedName>,
}

struct SharedName {
    topic: Destination,
    selector: Option<String>,
    consumers: usize,
    /// How many consumers it has had; their links count them.
    total: usize,
}

impl SharedNames {
    /// The link name of one more consumer.
    pub(super) fn enter(
        &mut self,
        subscription: &Subscription,
        topic: &Destination,
        selector: Option<&str>,
        is_named: bool,
    ) -> Result<String, InvalidSubscription> {
        let (name, durable) = (&subscription.name, subscription.durable);
        if !subscription.shared {
            return Ok(name.clone());
        }
        let entry = self
            .entries
            .entry((name.clone(), durable))
            .or_insert_with(|| SharedName {
                topic: topic.clone(),
                selector: selector.map(str::to_owned),
                consumers: 0,
                total: 0,
            });
        if entry.topic != *topic || entry.selector.as_deref() != selector {
            let name = name.clone();
            return Err(InvalidSubscription::Different { name });
        }
        entry.consumers += 1;
        entry.total += 1;
        let number = entry.total;
        Ok(match (durable, is_named, number) {
            (true, _, 1) => durable_link_name(name, is_named),
            (true, true, _) => format!("{name}{DELIMITER}{number}"),
            (true, false, _) => format!("{name}{DELIMITER}global{number}"),
            (false, true, _) => format!("{name}{DELIMITER}volatile{number}"),
            (false, false, _) => format!("{name}{DELIMITER}global-volatile{number}"),
        })
    }

    /// A consumer has gone.
    pub(super) fn leave(&mut self, subscription: &Subscription) {
        let key = (subscription.name.clone(), subscription.durable);
        if let Some(entry) = self.entries.get_mut(&key).filter(|_| subscription.shared) {
            entry.consumers -= 1;
            if entry.consumers == 0 {
                self.entries.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_are_those_of_jms_clients() {
        let topic = Destination::topic("t");
        let name = |subscription: &Subscription, is_named: bool| {
            let mut names = SharedNames::default();
            let mut enter = || names.enter(subscription, &topic, None, is_named).expect("a name");
            [enter(), enter()]
        };
        assert_eq!(name(&Subscription::shared_durable("s"), true), ["s", "s|2"]);
        assert_eq!(
            name(&Subscription::shared_durable("s"), false),
            ["s|global", "s|global2"]
        );
        assert_eq!(
            name(&Subscription::shared("s"), true),
            ["s|volatile1", "s|volatile2"]
        );
        let volatile = ["s|global-volatile1", "s|global-volatile2"];
        assert_eq!(name(&Subscription::shared("s"), false), volatile);
        assert_eq!(name(&Subscription::durable("s"), true)[0], "s");
    }

    #[test]
    fn a_shared_subscription_is_of_one_topic_and_one_selector_while_it_has_consumers() {
        let mut names = SharedNames::default();
        let shared = Subscription::shared("s");
        let (t, u) = (Destination::topic("t"), Destination::topic("u"));
        names.enter(&shared, &t, None, true).expect("the first");
        assert!(names.enter(&shared, &u, None, true).is_err());
        assert!(names.enter(&shared, &t, Some("a = 1"), true).is_err());
        names.leave(&shared);
        assert_eq!(names.enter(&shared, &u, None, true), Ok("s|volatile1".into()));
    }

    #[test]
    fn what_cannot_be_a_subscription_is_refused_before_the_broker_is_asked() {
        let topic = Destination::topic("t");
        for name in ["", "a|b"] {
            let why = Subscription::shared(name)
                .check(&topic, true)
                .expect_err("refused");
            assert!(matches!(why, InvalidSubscription::Name { .. }), "{why}");
        }
        let durable = Subscription::durable("s");
        let why = durable
            .check(&Destination::queue("q"), true)
            .expect_err("refused");
        assert!(matches!(why, InvalidSubscription::NoTopic { .. }), "{why}");
        let why = durable.check(&topic, false).expect_err("refused");
        assert!(matches!(why, InvalidSubscription::NoContainerId { .. }), "{why}");
        assert_eq!(durable.check(&topic, true), Ok(()));
        assert_eq!(Subscription::shared_durable("s").check(&topic, false), Ok(()));
    }
}
