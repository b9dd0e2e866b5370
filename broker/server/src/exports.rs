//! What a group offers under names: factories that tell where its brokers are, and its queues.

use std::collections::BTreeMap;

use daymark_client::proto::{
    Attributes, BrokerAddress, ConnectionFactory, Endpoint, Epoch, Export, GroupName, MemberName, Object,
};

use crate::config::Config;

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

/// The export set of the group. Without an epoch it is what a standby would offer.
pub(crate) fn export_set(
    config: &Config,
    group: &GroupName,
    epoch: Option<Epoch>,
    brokers: &[BrokerAddress],
) -> Vec<Export> {
    let factories = config.factories.iter().map(|factory| Export {
        name: factory.export.clone(),
        object: Object::ConnectionFactory(Box::new(ConnectionFactory {
            brokers: brokers.to_vec(),
            group: Some(group.clone()),
            epoch,
            settings: factory.settings.clone(),
        })),
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
    factories.chain(queues).chain(topics).collect()
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
        );
        let names: Vec<&str> = exports.iter().map(|export| export.name.as_str()).collect();
        assert_eq!(names, ["QueueConnectionFactory", "ExamplesQueue"]);
    }
}
