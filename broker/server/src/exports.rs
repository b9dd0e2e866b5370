//! What a group offers under names: factories that tell where its brokers are, and its queues and topics.

use std::collections::BTreeMap;

use daymark_broker_core::failover::{AddedExport, Target};
use daymark_client::proto::{
    Attributes, BrokerAddress, ConnectionFactory, Endpoint, Epoch, Export, FactorySettings, GroupName,
    MemberName, Name, Object,
};

use crate::config::Config;
use crate::messaging::DestinationConfig;

/// Every broker of the group that is known, `active` first and the others by name.
pub(crate) fn broker_list(
    active: (&MemberName, &Endpoint),
    others: &BTreeMap<MemberName, Endpoint>,
) -> Vec<BrokerAddress> {
    let address = |(member, endpoint): (&MemberName, &Endpoint)| BrokerAddress {
        host: endpoint.host.clone(),
        port: endpoint.port,
        member: Some(member.clone()),
    };
    let others = others.iter().filter(|(member, _)| *member != active.0);
    std::iter::once(address(active))
        .chain(others.map(address))
        .collect()
}

/// The names that the configuration uses, each with what has it.
#[derive(Clone, Debug)]
pub(crate) struct Configured(BTreeMap<Name, String>);

impl Configured {
    pub(crate) fn of(config: &Config) -> Self {
        let factories = config.factories.iter();
        let factories = factories.map(|factory| (factory.export.clone(), "a factory".to_owned()));
        let named = |kind: &str, destinations: &[DestinationConfig]| {
            let named = destinations.iter().filter_map(|destination| {
                let holder = format!("the {kind} {:?}", destination.name);
                Some((destination.export.clone()?, holder))
            });
            named.collect::<Vec<_>>()
        };
        let queues = named("queue", &config.messaging.queues);
        let topics = named("topic", &config.messaging.topics);
        Self(factories.chain(queues).chain(topics).collect())
    }

    /// What has this name in the configuration.
    pub(crate) fn holder(&self, name: &Name) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// What is stored without what the configuration has come to use since.
    pub(crate) fn without(&self, mut stored: Vec<AddedExport>) -> Vec<AddedExport> {
        stored.retain(|export| {
            let holder = self.holder(&export.name);
            if let Some(holder) = holder {
                let name = &export.name;
                tracing::warn!(%name, holder, "an export is left out: the configuration uses its name");
            }
            holder.is_none()
        });
        stored
    }
}

/// The export set of the group: what is configured, then what administrators `added`, so that of two names of
/// which one is in the way of the other naming refuses the added one. Without an epoch it is what a standby,
/// which does not read the store, would offer.
pub(crate) fn export_set(
    config: &Config,
    group: &GroupName,
    epoch: Option<Epoch>,
    brokers: &[BrokerAddress],
    added: &[AddedExport],
) -> Vec<Export> {
    let leading_here = |settings: &FactorySettings| {
        Object::ConnectionFactory(Box::new(ConnectionFactory {
            brokers: brokers.to_vec(),
            group: Some(group.clone()),
            epoch,
            settings: settings.clone(),
        }))
    };
    let factories = config.factories.iter().map(|factory| Export {
        name: factory.export.clone(),
        object: leading_here(&factory.settings),
        attributes: Attributes::default(),
    });
    let queues = config.messaging.queues.iter().filter_map(|queue| {
        Some(Export {
            name: queue.export.clone()?,
            object: Object::Queue {
                address: queue.name.clone().into(),
            },
            attributes: Attributes::default(),
        })
    });
    let topics = config.messaging.topics.iter().filter_map(|topic| {
        Some(Export {
            name: topic.export.clone()?,
            object: Object::Topic {
                address: topic.name.as_str().into(),
            },
            attributes: Attributes::default(),
        })
    });
    let added = added.iter().map(|export| Export {
        name: export.name.clone(),
        object: match &export.to {
            Target::Queue(address) => Object::Queue {
                address: address.as_str().into(),
            },
            Target::Topic(address) => Object::Topic {
                address: address.as_str().into(),
            },
            Target::Factory { settings, .. } => leading_here(settings),
        },
        attributes: Attributes::default(),
    });
    factories.chain(queues).chain(topics).chain(added).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_active_broker_stands_first_and_once() {
        let endpoint = |text: &str| text.parse::<Endpoint>().expect("an endpoint");
        let label = |text: &str| text.parse::<MemberName>().expect("a label");
        let others = BTreeMap::from([
            (label("a"), endpoint("h:1")),
            (label("b"), endpoint("h:2")),
            (label("c"), endpoint("h:3")),
        ]);
        let list = broker_list((&label("b"), &endpoint("h:9")), &others);
        let ports: Vec<u16> = list.iter().map(|broker| broker.port).collect();
        assert_eq!(ports, [9, 1, 3]);
        let exports = export_set(
            &Config::default(),
            &"orders".parse().expect("a label"),
            Some(Epoch(4)),
            &list,
            &[added("jms/a"), added_factory("jms/f")],
        );
        let names: Vec<&str> = exports.iter().map(|export| export.name.as_str()).collect();
        assert_eq!(
            names,
            ["QueueConnectionFactory", "ExamplesQueue", "jms/a", "jms/f"]
        );
        assert_eq!(
            exports[2].object,
            Object::Topic {
                address: "jms/a".into()
            }
        );
        assert_eq!(exports[3].object, exports[0].object, "like a configured one");
    }

    fn added_factory(name: &str) -> AddedExport {
        AddedExport {
            name: name.parse().expect("a name"),
            to: Target::Factory {
                name: "f".to_owned(),
                settings: Box::default(),
            },
        }
    }

    fn added(name: &str) -> AddedExport {
        AddedExport {
            name: name.parse().expect("a name"),
            to: Target::Topic(name.to_owned()),
        }
    }

    #[test]
    fn what_is_configured_has_its_name_before_what_is_stored() {
        let configured = Configured::of(&Config::default());
        let stored = ["jms/a", "ExamplesQueue", "QueueConnectionFactory"];
        let left = configured.without(stored.map(added).into());
        assert_eq!(left, [added("jms/a")]);
        let holder = |name: &str| configured.holder(&name.parse().expect("a name"));
        assert_eq!(holder("ExamplesQueue"), Some("the queue \"examples\""));
        assert_eq!(holder("QueueConnectionFactory"), Some("a factory"));
        assert_eq!(holder("jms/a"), None);
    }
}
