//! Connection factories that administrators declared.

mod queues_support;

use daymark_broker_core::queues::{Factory, MAX_FACTORIES, Refused};
use daymark_naming_proto::FactorySettings;
use queues_support::World;

fn factory(export: &str) -> Factory {
    Factory {
        export: export.parse().unwrap(),
        settings: FactorySettings {
            initial_connect_attempts: 3,
            ..FactorySettings::default()
        },
    }
}

#[test]
fn connection_factories_survive_restarts_and_compactions_until_they_are_deleted() {
    let mut world = World::new();
    for name in ["kept", "changed", "deleted"] {
        world.queues.declare_factory(name, factory(name)).unwrap();
    }
    world.store();
    world.restart();
    world
        .queues
        .declare_factory("changed", factory("jms/'a/b'"))
        .unwrap();
    assert!(world.queues.delete_factory("deleted"));
    assert!(!world.queues.delete_factory("deleted"));
    world.store();
    for round in 0..3 {
        if round > 0 {
            world.compact();
        }
        world.restart();
        let found: Vec<_> = world.queues.factories().collect();
        let expected = [("changed", &factory("jms/'a/b'")), ("kept", &factory("kept"))];
        assert_eq!(found, expected);
    }
}

#[test]
fn one_connection_factory_too_many_is_refused_and_one_that_is_there_can_be_changed() {
    let mut world = World::new();
    for number in 0..MAX_FACTORIES {
        let name = number.to_string();
        world.queues.declare_factory(&name, factory(&name)).unwrap();
    }
    let limit = MAX_FACTORIES;
    let refused = world.queues.declare_factory("one more", factory("x"));
    assert_eq!(refused, Err(Refused::TooManyFactories { limit }));
    world.queues.declare_factory("7", factory("x")).unwrap();
    world.queues.delete_factory("8");
    world.queues.declare_factory("one more", factory("y")).unwrap();
    assert_eq!(world.queues.factories().count(), MAX_FACTORIES);
}
