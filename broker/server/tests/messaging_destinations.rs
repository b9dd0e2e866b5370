//! Queues, topics, subscriptions and temporary nodes, as a client of our own engine sees them.

mod messaging_support;

use daymark_amqp::message::{MessageBuilder, MessageView};
use daymark_amqp::{
    AmqpError, AttachOptions, DistributionMode, Durability, Event, ExpiryPolicy, Filter, LinkId, Outcome,
    Source, Symbol, Target, TargetNode, Value, ValueRef, condition,
};
use daymark_broker_server::messaging::{
    DRILL_ADDRESS, DestinationConfig, DestinationKind, Full, ManageError, MessagingConfig,
};
use messaging_support::{Broker, Client, durable, fleeting, one_queue, served, served_with, text};
use tempfile::tempdir;

/// Queue `q`, which keeps dead letters, topics `news` and `news.eu`.
fn queue_and_topics() -> MessagingConfig {
    MessagingConfig {
        queues: vec![DestinationConfig {
            max_delivery_attempts: 2,
            ..DestinationConfig::new("q")
        }],
        topics: vec![DestinationConfig::new("news"), DestinationConfig::new("news.eu")],
        ..MessagingConfig::default()
    }
}

fn symbols(names: &[&'static str]) -> Vec<Symbol> {
    names.iter().map(|name| Symbol::from_static(name)).collect()
}

fn selecting(address: &str, key: &'static str, filter: Value) -> Source {
    let mut source = Source::address(address);
    source.filter.insert(Symbol::from_static(key), filter);
    source
}

fn from(name: &str, source: Source) -> AttachOptions {
    AttachOptions {
        source: Some(source),
        ..AttachOptions::from(name, "")
    }
}

fn topic(address: &str) -> Source {
    Source {
        capabilities: symbols(&["topic"]),
        ..Source::address(address)
    }
}

fn lasting(address: &str) -> Source {
    Source {
        durable: Durability::UnsettledState,
        expiry_policy: ExpiryPolicy::Never,
        distribution_mode: Some(DistributionMode::Copy),
        ..topic(address)
    }
}

fn to_topic(client: &mut Client, address: &str) -> LinkId {
    let target = TargetNode {
        capabilities: symbols(&["topic"]),
        address: Some(address.into()),
        ..TargetNode::default()
    };
    let attach = AttachOptions {
        target: Some(Target::Node(target)),
        ..AttachOptions::to(format!("to {address}"), "")
    };
    client.attach_sender(attach).unwrap()
}

fn coloured(color: &str) -> MessageBuilder {
    MessageBuilder::new().application_property("color", color.to_owned())
}

#[test]
fn a_consumer_with_a_selector_gets_what_matches_and_leaves_the_rest() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    for color in ["red", "blue", "red"] {
        client.put(sender, coloured(color).text(color));
    }
    let by_name = Value::Described(
        Box::new(Value::Symbol(Symbol::from_static(
            "apache.org:selector-filter:string",
        ))),
        Box::new(Value::from("color = 'red'")),
    );
    let by_code = Filter::selector_value("color = 'blue'");
    let red = client
        .attach_receiver(from("red", selecting("q", "jms-selector", by_name)))
        .unwrap();
    assert_eq!(client.drain(red), ["red", "red"]);
    let blue = client
        .attach_receiver(from("blue", selecting("q", "anything", by_code)))
        .unwrap();
    assert_eq!(client.drain(blue), ["blue"]);
    let wrong = selecting("q", "jms-selector", Filter::selector_value("color ="));
    let error = client.attach_receiver(from("wrong", wrong)).unwrap_err();
    assert_eq!(error.condition, condition::INVALID_FIELD);
    broker.stop();
}

#[test]
fn a_browser_sees_everything_and_takes_nothing() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    for name in ["a", "b", "c"] {
        client.put(sender, durable(name));
    }
    for round in ["first", "second"] {
        let source = Source {
            distribution_mode: Some(DistributionMode::Copy),
            ..Source::address("q")
        };
        let browser = client.attach_receiver(from(round, source)).unwrap();
        assert_eq!(client.drain(browser), ["a", "b", "c"], "{round}");
    }
    assert_eq!(broker.stats().queues[0].messages, 3);
    let receiver = client.receiver("q", 0);
    assert_eq!(client.drain(receiver), ["a", "b", "c"]);
    broker.stop();
}

/// A node made for a sender; its address.
fn made(client: &mut Client, name: &str, kind: &'static str) -> Result<(LinkId, String), AmqpError> {
    let target = TargetNode {
        dynamic: true,
        capabilities: symbols(&[kind]),
        ..TargetNode::default()
    };
    let attach = AttachOptions {
        target: Some(Target::Node(target)),
        ..AttachOptions::to(name, "")
    };
    let (link, answer) = client.attach_sender_for_answer(attach)?;
    let Some(Target::Node(node)) = answer.target else {
        panic!("{answer:?}");
    };
    Ok((link, node.address.expect("the address of the node")))
}

#[test]
fn a_temporary_queue_lives_as_long_as_its_link_and_carries_replies() {
    let (_dir, broker, mut client) = served();
    let (link, address) = made(&mut client, "mine", "temporary-queue").unwrap();
    let replies = client.receiver(&address, 10);
    let mut other = Client::connect(broker.addr);
    let sender = other.sender(&address);
    other.put(sender, fleeting("reply"));
    let reply = client.receive();
    assert_eq!((reply.link, text(&reply)), (replies, "reply".into()));
    client.amqp.detach(link, true, None).unwrap();
    client.detached(link);
    let error = client.detached(replies).expect("the detach says why");
    assert_eq!(error.condition, condition::RESOURCE_DELETED);
    let error = other
        .attach_sender(AttachOptions::to("late", &*address))
        .unwrap_err();
    assert_eq!(error.condition, condition::NOT_FOUND);
    broker.stop();
}

#[test]
fn temporary_nodes_go_with_their_connection_and_are_bounded() {
    let dir = tempdir().unwrap();
    let config = MessagingConfig {
        max_temporary_per_connection: 2,
        auto_create: true,
        ..one_queue()
    };
    let broker = Broker::start_with(dir.path(), config);
    let mut client = Client::connect(broker.addr);
    let (_, first) = made(&mut client, "one", "temporary-queue").unwrap();
    let (link, second) = made(&mut client, "two", "temporary-topic").unwrap();
    assert_ne!(first, second);
    let error = made(&mut client, "three", "temporary-queue").unwrap_err();
    assert_eq!(error.condition, condition::RESOURCE_LIMIT_EXCEEDED);
    let subscriber = client.attach_receiver(from("s", topic(&second))).unwrap();
    client.put(link, fleeting("to all"));
    assert_eq!(client.drain(subscriber), ["to all"]);
    client.vanish();
    broker.until("the end of the connection", |stats| stats.connections == 0);
    let mut other = Client::connect(broker.addr);
    let error = other
        .attach_receiver(AttachOptions::from("r", &*first))
        .unwrap_err();
    assert_eq!(
        error.condition,
        condition::NOT_FOUND,
        "not even where clients may create queues"
    );
    assert_eq!(broker.stats().queues.len(), 1);
    broker.stop();
}

#[test]
fn every_subscriber_of_a_topic_gets_its_copy() {
    let dir = tempdir().unwrap();
    let broker = Broker::start_with(dir.path(), queue_and_topics());
    let mut client = Client::alone(broker.addr, "publisher");
    client.begin();
    let mut other = Client::alone(broker.addr, "reader");
    other.begin();
    let news = to_topic(&mut client, "news");
    let europe = to_topic(&mut client, "news.eu");
    client.put(news, fleeting("nobody hears this"));
    let one = client.attach_receiver(from("one", topic("news"))).unwrap();
    let all = other.attach_receiver(from("all", topic("news.#"))).unwrap();
    let mut others = topic("news");
    others
        .filter
        .insert(Symbol::from_static("no-local"), Filter::no_local_value());
    let others = client.attach_receiver(from("others", others)).unwrap();
    client.put(news, fleeting("a"));
    client.put(europe, fleeting("b"));
    let relay = other
        .attach_sender(AttachOptions {
            target: Some(Target::Node(TargetNode::default())),
            ..AttachOptions::to("relay", "")
        })
        .unwrap();
    let to_news = MessageBuilder::new()
        .to("news")
        .annotation(Symbol::from_static("x-opt-jms-dest"), Value::Byte(1));
    other.put(relay, to_news.text("c"));
    assert_eq!(client.drain(one), ["a", "c"]);
    assert_eq!(other.drain(all), ["a", "b", "c"]);
    assert_eq!(
        client.drain(others),
        ["c"],
        "no-local hides what its own connection sent"
    );
    broker.stop();
}

#[test]
fn a_durable_subscription_outlives_its_link_and_the_broker_until_it_is_ended() {
    let dir = tempdir().unwrap();
    let broker = Broker::start_with(dir.path(), queue_and_topics());
    let mut client = Client::alone(broker.addr, "reader");
    client.begin();
    let mut source = lasting("news");
    let selector = Filter::selector_value("color = 'red'");
    source
        .filter
        .insert(Symbol::from_static("jms-selector"), selector);
    let link = client.attach_receiver(from("mine", source)).unwrap();
    client.amqp.detach(link, false, None).unwrap();
    client.detached(link);
    let news = to_topic(&mut client, "news");
    client.put(news, coloured("red").durable(true).text("red"));
    client.put(news, coloured("blue").durable(true).text("blue"));
    broker.crash();

    let broker = Broker::start_with(dir.path(), queue_and_topics());
    assert_eq!(broker.recovered.messages, 1);
    let listed = broker.messaging.subscriptions();
    assert_eq!((listed.len(), listed[0].client.as_deref()), (1, Some("reader")));
    let mut client = Client::alone(broker.addr, "reader");
    client.begin();
    let resume = || AttachOptions {
        source: None,
        ..AttachOptions::from("mine", "")
    };
    let (link, answer) = client.attach_receiver_for_answer(resume()).unwrap();
    let source = answer.source.expect("the real source");
    assert_eq!(source.address.as_deref(), Some("news"));
    assert!(
        matches!(&source.filters()[..], [Filter::Selector { expression, .. }] if expression == "color = 'red'")
    );
    assert_eq!(client.drain(link), ["red"]);
    client.amqp.detach(link, true, None).unwrap();
    client.detached(link);
    let error = client.attach_receiver(resume()).unwrap_err();
    assert_eq!(error.condition, condition::NOT_FOUND);
    assert!(broker.messaging.subscriptions().is_empty());
    broker.stop();
}

#[test]
fn a_durable_subscription_has_one_consumer_unless_it_is_shared() {
    let dir = tempdir().unwrap();
    let broker = Broker::start_with(dir.path(), queue_and_topics());
    let mut one = Client::connect(broker.addr);
    let mut two = Client::connect(broker.addr);
    one.attach_receiver(from("mine", lasting("news"))).unwrap();
    let error = two.attach_receiver(from("mine", lasting("news"))).unwrap_err();
    assert_eq!(error.condition, condition::RESOURCE_LOCKED);

    let shared = || Source {
        capabilities: symbols(&["topic", "shared", "global"]),
        ..lasting("news")
    };
    let first = one.attach_receiver(from("ours|global", shared())).unwrap();
    let second = two.attach_receiver(from("ours|global2", shared())).unwrap();
    one.amqp.grant_credit(first, 1, false).unwrap();
    one.step();
    two.amqp.grant_credit(second, 1, false).unwrap();
    two.step();
    let mut publisher = Client::connect(broker.addr);
    let news = to_topic(&mut publisher, "news");
    publisher.put(news, fleeting("a"));
    publisher.put(news, fleeting("b"));
    let mut got = [text(&one.receive()), text(&two.receive())];
    got.sort();
    assert_eq!(got, ["a", "b"]);
    broker.stop();
}

#[test]
fn a_message_that_is_rejected_or_fails_too_often_becomes_a_dead_letter_that_says_why() {
    let (_dir, broker, mut client) = served_with(queue_and_topics());
    let sender = client.sender("q");
    client.put(sender, durable("rejected"));
    client.put(sender, durable("failing"));
    client.receiver("q", 10);
    let rejected = client.receive();
    client.settle(&rejected, Outcome::Rejected(None));
    for _ in 0..2 {
        let failing = client.receive();
        assert_eq!(text(&failing), "failing");
        client.settle(
            &failing,
            Outcome::Modified {
                delivery_failed: true,
                undeliverable_here: false,
                annotations: None,
            },
        );
    }
    broker.until("both dead letters", |stats| {
        stats
            .queues
            .iter()
            .any(|queue| queue.name == "DLQ" && queue.messages == 2)
    });
    client.receiver("DLQ", 10);
    for (name, reason) in [("rejected", "rejected"), ("failing", "attempts")] {
        let letter = client.receive();
        let view = MessageView::parse(&letter.payload).unwrap();
        assert_eq!(text(&letter), name);
        assert_eq!(
            view.message_annotation("x-opt-daymark-dead-letter-reason"),
            Some(ValueRef::String(reason))
        );
        assert_eq!(
            view.message_annotation("x-opt-daymark-dead-letter-from"),
            Some(ValueRef::String("q"))
        );
    }
    broker.stop();
}

#[test]
fn a_modified_message_comes_back_with_the_annotations_it_was_given() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    client.put(sender, durable("a"));
    client.receiver("q", 2);
    let first = client.receive();
    let note = Symbol::from_static("x-opt-note");
    let annotations = daymark_amqp::Fields::new().with(note, "seen");
    client.settle(
        &first,
        Outcome::Modified {
            delivery_failed: true,
            undeliverable_here: false,
            annotations: Some(annotations.into()),
        },
    );
    let again = client.receive();
    let view = MessageView::parse(&again.payload).unwrap();
    assert_eq!(
        view.message_annotation("x-opt-note"),
        Some(ValueRef::String("seen"))
    );
    assert_eq!((text(&again), view.header().delivery_count), ("a".into(), 1));
    broker.stop();
}

#[test]
fn a_message_expires_or_waits_for_its_time() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    client.put(sender, MessageBuilder::new().ttl(1).text("gone"));
    broker.until("the expiry", |stats| {
        stats.queues[0].expired == 1 && stats.messages == 0
    });
    let delay = Symbol::from_static("x-opt-delivery-delay");
    client.put(
        sender,
        MessageBuilder::new()
            .annotation(delay.clone(), 3_600_000u64)
            .text("late"),
    );
    client.put(
        sender,
        MessageBuilder::new().annotation(delay, 50u64).text("soon"),
    );
    client.put(sender, fleeting("now"));
    client.receiver("q", 10);
    assert_eq!(text(&client.receive()), "now");
    assert_eq!(text(&client.receive()), "soon");
    assert_eq!(broker.stats().queues[0].delayed, 1);
    broker.stop();
}

#[test]
fn a_full_queue_rejects_or_makes_room_where_it_was_told_to() {
    let dir = tempdir().unwrap();
    let full = |name: &str, when_full| DestinationConfig {
        max_messages: Some(1),
        when_full,
        ..DestinationConfig::new(name)
    };
    let config = MessagingConfig {
        queues: vec![full("strict", Full::Reject), full("ring", Full::DropOldest)],
        ..MessagingConfig::default()
    };
    let broker = Broker::start_with(dir.path(), config);
    let mut client = Client::connect(broker.addr);
    let strict = client.sender("strict");
    client.put(strict, durable("a"));
    let refused = client.send(strict, durable("b"));
    let Outcome::Rejected(Some(error)) = client.outcome(strict, refused) else {
        panic!("a message too many was taken");
    };
    assert_eq!(error.condition, condition::RESOURCE_LIMIT_EXCEEDED);
    let ring = client.sender("ring");
    client.put(ring, durable("a"));
    client.put(ring, durable("b"));
    let receiver = client.receiver("ring", 0);
    assert_eq!(client.drain(receiver), ["b"]);
    broker.stop();
}

#[test]
fn addresses_may_carry_the_prefixes_that_clients_are_told() {
    let dir = tempdir().unwrap();
    let config = MessagingConfig {
        queue_prefix: Some("queue://".into()),
        topic_prefix: Some("topic://".into()),
        auto_create: true,
        ..queue_and_topics()
    };
    let broker = Broker::start_with(dir.path(), config);
    let mut client = Client::connect(broker.addr);
    let sender = client.sender("queue://q");
    client.put(sender, fleeting("a"));
    let receiver = client.receiver("q", 0);
    assert_eq!(client.drain(receiver), ["a"]);
    let subscriber = client
        .attach_receiver(AttachOptions::from("s", "topic://fresh"))
        .unwrap();
    let publisher = client.sender("topic://fresh");
    client.put(publisher, fleeting("b"));
    assert_eq!(client.drain(subscriber), ["b"]);
    assert!(
        broker
            .messaging
            .topics()
            .iter()
            .any(|topic| topic.name == "fresh")
    );
    broker.stop();
}

#[test]
fn an_administrator_makes_purges_and_deletes_queues() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let made = DestinationConfig::new("made");
    broker
        .wait(broker.messaging.declare(DestinationKind::Queue, &made))
        .unwrap();
    let mut client = Client::connect(broker.addr);
    let sender = client.sender("made");
    for name in ["a", "b"] {
        client.put(sender, durable(name));
    }
    client.put(sender, coloured("red").priority(9).text("first"));
    let red = broker
        .messaging
        .browse("made", Some("color = 'red'"), 10)
        .unwrap();
    assert_eq!((red.len(), red[0].text.as_deref()), (1, Some("first")));
    let all = broker.messaging.browse("made", None, 2).unwrap();
    let texts: Vec<_> = all
        .iter()
        .map(|message| message.text.as_deref().unwrap())
        .collect();
    assert_eq!(
        texts,
        ["first", "a"],
        "in the order of delivery, and no more than asked for"
    );
    let listed = broker.messaging.queue("made").unwrap().counts;
    assert_eq!((listed.messages, listed.producers), (3, 1));
    assert_eq!(broker.wait(broker.messaging.purge("made")), Ok(3));
    client.put(sender, durable("c"));
    let unused = broker.wait(broker.messaging.delete(DestinationKind::Queue, "made", true));
    assert!(matches!(unused, Err(ManageError::InUse(_))), "{unused:?}");
    assert_eq!(
        broker.wait(broker.messaging.delete(DestinationKind::Queue, "made", false)),
        Ok(1)
    );
    let error = client.detached(sender).expect("the detach says why");
    assert_eq!(error.condition, condition::RESOURCE_DELETED);
    let again = broker.wait(broker.messaging.purge("made"));
    assert!(matches!(again, Err(ManageError::NotFound { .. })), "{again:?}");
    let configured = broker.wait(broker.messaging.delete(DestinationKind::Queue, "q", false));
    assert!(
        matches!(configured, Err(ManageError::Configured { .. })),
        "{configured:?}"
    );
    broker.crash();

    let broker = Broker::start(dir.path());
    assert_eq!((broker.recovered.queues, broker.recovered.messages), (1, 0));
    broker.stop();
}

#[test]
fn a_deleted_queue_takes_no_more_messages() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    broker
        .wait(
            broker
                .messaging
                .declare(DestinationKind::Queue, &DestinationConfig::new("made")),
        )
        .unwrap();
    let mut client = Client::connect(broker.addr);
    let receiver = client.receiver("made", 5);
    broker
        .wait(broker.messaging.delete(DestinationKind::Queue, "made", false))
        .unwrap();
    assert!(client.detached(receiver).is_some());
    let error = client.attach_sender(AttachOptions::to("s", "made")).unwrap_err();
    assert_eq!(error.condition, condition::NOT_FOUND);
    assert!(!client.sees(|event| matches!(event, Event::Message(_)).then_some(())));
    broker.stop();
}

#[test]
fn the_queue_of_drills_is_there_whatever_clients_may_create_and_is_no_topic() {
    let (_dir, broker, mut client) = served_with(one_queue());
    let sender = client.sender(DRILL_ADDRESS);
    client.put(sender, durable("a"));
    let receiver = client.receiver(DRILL_ADDRESS, 0);
    assert_eq!(client.drain(receiver), ["a"]);
    let error = client
        .attach_receiver(from("s", topic(DRILL_ADDRESS)))
        .unwrap_err();
    assert_eq!(error.condition, condition::NOT_FOUND);
    broker.stop();
}

#[test]
fn what_an_administrator_set_holds_after_a_restart() {
    let (dir, broker, _) = served();
    for kind in [DestinationKind::Queue, DestinationKind::Topic] {
        let bounded = DestinationConfig {
            max_messages: Some(1),
            when_full: Full::Reject,
            ..DestinationConfig::new("bounded")
        };
        broker.wait(broker.messaging.declare(kind, &bounded)).unwrap();
    }
    broker.crash();
    let broker = Broker::start(dir.path());
    let mut client = Client::connect(broker.addr);
    client.attach_receiver(from("s", lasting("bounded"))).unwrap();
    let to_queue = client.sender("bounded");
    let to_topic = to_topic(&mut client, "bounded");
    for sender in [to_queue, to_topic] {
        client.put(sender, durable("a"));
        let second = client.send(sender, durable("b"));
        let outcome = client.outcome(sender, second);
        let Outcome::Rejected(Some(error)) = outcome else {
            panic!("{outcome:?}")
        };
        assert_eq!(error.condition, condition::RESOURCE_LIMIT_EXCEEDED);
    }
    broker.stop();
}

#[test]
fn nobody_but_its_connection_receives_from_a_temporary_node_and_everybody_may_send_to_it() {
    let (_dir, broker, mut client) = served();
    let mut other = Client::connect(broker.addr);
    for kind in ["temporary-queue", "temporary-topic"] {
        let (_, address) = made(&mut client, kind, kind).unwrap();
        let source = Source {
            capabilities: symbols(&[kind]),
            ..Source::address(address.clone())
        };
        let error = other.attach_receiver(from("thief", source.clone())).unwrap_err();
        assert_eq!(error.condition, condition::RESOURCE_LOCKED);
        let own = format!("own-{kind}");
        let receiver = client.attach_receiver(from(&own, source)).unwrap();
        client.amqp.grant_credit(receiver, 5, false).unwrap();
        let sender = other.sender(&address);
        other.put(sender, durable("reply"));
        let reply = client.receive();
        assert_eq!(text(&reply), "reply");
        client.settle(&reply, Outcome::Accepted);
    }
    broker.stop();
}
