//! Connections: what the broker says when they open, whose names they have, how they are ended.

mod messaging_support;

use daymark_amqp::{
    AmqpError, AttachOptions, CloseReason, Fields, OpenOptions, Sasl, SndSettleMode, Source, Symbol, Value,
    condition,
};
use daymark_broker_server::messaging::{LinkKind, MessagingConfig};
use daymark_client::proto::BrokerAddress;
use messaging_support::{Broker, Client, delivery_count, durable, fleeting, one_queue, served, text};
use tempfile::tempdir;

#[test]
fn a_container_id_in_use_is_refused_to_who_wants_it_alone() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let first = Client::alone(broker.addr, "client-1");
    let mut second = Client::alone(broker.addr, "client-1");
    let establishment = second.amqp.remote_open().unwrap().properties.clone();
    assert_eq!(
        establishment.get("amqp:connection-establishment-failed"),
        Some(&Value::Bool(true))
    );
    let CloseReason::Remote(Some(error)) = second.closed() else {
        panic!("the second connection was let in");
    };
    assert_eq!(error.condition, condition::INVALID_FIELD);
    let field = error.info.get("invalid-field").and_then(Value::as_symbol);
    assert_eq!(field.map(Symbol::as_str), Some("container-id"));
    let mut careless = Client::dial(broker.addr, Sasl::Anonymous);
    careless.open(OpenOptions::new("client-1"));
    careless.vanish();
    first.vanish();
    broker.until("all to be gone", |stats| stats.connections == 0);
    let mut third = Client::alone(broker.addr, "client-1");
    third.begin();
    third.sender("q");
    broker.stop();
}

#[test]
fn a_client_that_comes_again_at_once_finds_its_name_free() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    for round in 0..20 {
        let mut client = Client::alone(broker.addr, "client-1");
        client.begin();
        client.sender("q");
        if round % 2 == 0 {
            client.amqp.close(None);
            client.closed();
        } else {
            client.vanish();
        }
    }
    broker.stop();
}

#[test]
fn a_connection_that_owes_a_sign_of_life_loses_its_name_to_its_successor() {
    let dir = tempdir().unwrap();
    let config = MessagingConfig {
        idle_timeout_ms: 3_000,
        ..one_queue()
    };
    let broker = Broker::start_with(dir.path(), config);
    // It says nothing any more, as if its host had died without a word.
    let mut silent = Client::alone(broker.addr, "client-1");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    let mut successor = loop {
        let mut client = Client::alone(broker.addr, "client-1");
        let open = client.amqp.remote_open().unwrap();
        if open
            .properties
            .get("amqp:connection-establishment-failed")
            .is_none()
        {
            break client;
        }
        client.closed();
        assert!(
            std::time::Instant::now() < deadline,
            "the name was never given up"
        );
    };
    successor.begin();
    successor.sender("q");
    let reason = silent.closed();
    assert!(matches!(reason, CloseReason::Remote(Some(_))), "{reason:?}");
    broker.stop();
}

#[test]
fn a_client_that_gave_up_a_silent_connection_finds_what_that_held_in_its_old_order() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let connect = || {
        let mut client = Client::dial(broker.addr, Sasl::Anonymous);
        client.open(OpenOptions {
            properties: Fields::new().with(Symbol::from_static("daymark:instance"), "one"),
            ..OpenOptions::new("client-1")
        });
        client.begin();
        client
    };
    let mut silent = connect();
    let sender = silent.sender("q");
    for name in ["a", "b", "c"] {
        silent.put(sender, durable(name));
    }
    silent.receiver("q", 2);
    let _ = (silent.receive(), silent.receive());
    let mut successor = connect();
    successor.receiver("q", 3);
    let found: Vec<_> = (0..3).map(|_| successor.receive()).collect();
    assert_eq!(found.iter().map(text).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(found.iter().map(delivery_count).collect::<Vec<_>>(), [1, 1, 0]);
    let reason = silent.closed();
    assert!(matches!(reason, CloseReason::Remote(Some(_))), "{reason:?}");
    broker.stop();
}

#[test]
fn a_client_that_closes_gives_back_what_it_held_unless_it_says_that_something_failed() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let mut sender = Client::connect(broker.addr);
    let link = sender.sender("q");
    sender.put(link, durable("a"));
    let silent = AmqpError::new(condition::RESOURCE_LIMIT_EXCEEDED, "nothing was heard");
    for (error, before) in [(None, 0), (Some(silent), 0), (None, 1)] {
        let mut client = Client::connect(broker.addr);
        client.receiver("q", 1);
        assert_eq!(delivery_count(&client.receive()), before);
        client.amqp.close(error);
        client.closed();
    }
    broker.stop();
}

#[test]
fn brokers_that_become_known_later_are_told_to_those_who_connect_then() {
    let dir = tempdir().unwrap();
    let config = MessagingConfig {
        queue_prefix: Some("queue://".into()),
        topic_prefix: Some("topic://".into()),
        ..one_queue()
    };
    let broker = Broker::start_with(dir.path(), config);
    let address = |host: &str, port| BrokerAddress {
        host: host.into(),
        port,
        member: None,
    };
    broker
        .messaging
        .know_brokers(vec![address("here", 1), address("there", 2), address("later", 3)]);
    let client = Client::connect(broker.addr);
    let properties = &client.amqp.remote_open().unwrap().properties;
    let Some(Value::List(brokers)) = properties.get("failover-server-list") else {
        panic!("{properties:?}");
    };
    let hosts: Vec<_> = brokers.iter().map(|broker| format!("{broker:?}")).collect();
    assert!(
        hosts.len() == 3 && hosts[0].contains("here") && hosts[2].contains("later"),
        "{hosts:?}"
    );
    let prefix = |key| properties.get(key).cloned();
    assert_eq!(prefix("queue-prefix"), Some(Value::String("queue://".into())));
    assert_eq!(prefix("topic-prefix"), Some(Value::String("topic://".into())));
    broker.stop();
}

#[test]
fn an_administrator_sees_and_closes_links_and_connections() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let mut client = Client::alone(broker.addr, "client-1");
    client.begin();
    let sender = client.sender("q");
    let receiver = client.receiver("q", 1);
    let connections = broker.messaging.connections();
    let [connection] = &connections[..] else {
        panic!("{connections:?}");
    };
    assert_eq!(connection.container.as_deref(), Some("client-1"));
    assert_eq!(connection.links, 2);
    let links = broker.messaging.links();
    let consumer = links.iter().find(|link| link.kind == LinkKind::Consumer).unwrap();
    assert_eq!(
        (consumer.connection, consumer.address.as_deref()),
        (connection.id, Some("q"))
    );
    assert!(broker.messaging.close_link(consumer.id));
    let error = client.detached(receiver).expect("the detach says why");
    assert_eq!(error.condition, condition::DETACH_FORCED);
    broker.until("the consumer to be gone", |stats| stats.queues[0].consumers == 0);
    assert!(!broker.messaging.close_link(consumer.id), "it is gone");
    client.put(sender, fleeting("the rest goes on"));
    assert!(broker.messaging.close_connection(connection.id));
    let CloseReason::Remote(Some(error)) = client.closed() else {
        panic!("closed without a word");
    };
    assert_eq!(error.condition, condition::CONNECTION_FORCED);
    broker.until("the end of the connection", |stats| stats.connections == 0);
    assert!(!broker.messaging.close_connection(connection.id), "it is gone");
    assert!(broker.messaging.links().is_empty());
    broker.stop();
}

#[test]
fn a_link_attached_again_in_another_session_takes_over_from_the_first() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    let first = client.attach_receiver(AttachOptions::from("mine", "q")).unwrap();
    client.amqp.grant_credit(first, 1, false).unwrap();
    client.put(sender, fleeting("a"));
    assert_eq!(client.receive().link, first);
    client.begin();
    let attach = AttachOptions {
        source: Some(Source::address("q")),
        snd_settle_mode: SndSettleMode::Settled,
        ..AttachOptions::from("mine", "q")
    };
    let second = client.attach_receiver(attach).unwrap();
    let error = client.detached(first).expect("the detach says why");
    assert_eq!(error.condition, condition::LINK_STOLEN);
    client.amqp.grant_credit(second, 1, false).unwrap();
    let again = client.receive();
    assert_eq!((again.link, text(&again)), (second, "a".into()));
    broker.stop();
}

#[test]
fn sessions_of_one_frame_at_a_time_lose_and_stall_nothing() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let mut client = Client::dial_with(broker.addr, |config| {
        config.incoming_window = 1;
        config.max_frame_size = 512;
    });
    client.open(OpenOptions::new("narrow"));
    client.begin();
    let sender = client.sender("q");
    let body = "x".repeat(3_000);
    for number in 0..20 {
        client.put(sender, fleeting(&format!("{number} {body}")));
    }
    client.begin();
    client.receiver("q", 20);
    for number in 0..20 {
        let message = client.receive();
        assert!(text(&message).starts_with(&format!("{number} ")));
        client.accept_surely(&message);
    }
    broker.stop();
}
