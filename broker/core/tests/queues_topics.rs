//! Topics and their subscriptions.

mod queues_support;

use daymark_broker_core::queues::{
    Action, Arrival, ConsumerOptions, DuplicateId, Lifetime, Limits, QueueId, QueueLimits, QueueSettings,
    Refused, Settlement, Subscribed, Subscription, SubscriptionKey, WhenFull,
};
use daymark_broker_core::selector::Selector;
use queues_support::{World, durable, text};

fn key(client: &str, name: &str) -> SubscriptionKey {
    SubscriptionKey {
        client: Some(client.to_owned()),
        name: name.to_owned(),
    }
}

/// A subscription of one consumer, gone with it.
fn passing(topic: &str) -> Subscription {
    Subscription {
        key: None,
        topic: topic.to_owned(),
        selector: None,
        no_local: false,
        durable: false,
        shared: false,
    }
}

fn lasting(name: &str, topic: &str) -> Subscription {
    Subscription {
        key: Some(key("client", name)),
        durable: true,
        ..passing(topic)
    }
}

impl World {
    fn topic(&mut self, name: &str) -> QueueId {
        self.queues.declare_topic(name, QueueSettings::default()).unwrap()
    }

    /// Subscribes, with a consumer on the link.
    fn listen(&mut self, link: u8, wish: Subscription) -> QueueId {
        let (queue, _) = self.queues.subscribe(self.owner, wish).unwrap();
        self.consumer(link, queue, ConsumerOptions::default(), 100);
        queue
    }
}

#[test]
fn a_message_goes_to_every_subscription_that_matches_and_its_body_is_kept_once() {
    let mut world = World::new();
    let (news, sport) = (world.topic("news.at"), world.topic("news.at.sport"));
    world.listen(1, passing("news.at"));
    world.listen(2, passing("news.*"));
    world.listen(3, passing("news.#"));
    world.listen(4, passing("sport"));
    world.send_all(news, &["a"]);
    let mut seen = world.seen();
    seen.sort();
    assert_eq!(seen, [(1, "a".into()), (2, "a".into()), (3, "a".into())]);
    world.send_all(sport, &["b"]);
    assert_eq!(world.seen(), [(3, "b".into())]);
    assert_eq!((world.queues.message_count(), world.queues.byte_count()), (4, 2));
}

#[test]
fn nobody_subscribed_means_accepted_and_gone() {
    let mut world = World::new();
    let topic = world.topic("t");
    let producer = world.producer(topic);
    world
        .queues
        .publish(producer, None, durable("a"), Some(1))
        .unwrap();
    assert!(
        world
            .actions()
            .contains(&Action::Accepted { link: 0, delivery: 1 })
    );
    assert_eq!(world.queues.message_count(), 0);
}

#[test]
fn selectors_and_no_local_choose_when_a_message_is_published() {
    let mut world = World::new();
    let topic = world.topic("t");
    world.queues.set_container(world.owner, "me");
    let selector = Selector::parse("n > 1").ok();
    world.listen(
        1,
        Subscription {
            selector,
            ..passing("t")
        },
    );
    world.listen(
        2,
        Subscription {
            no_local: true,
            ..passing("t")
        },
    );
    world.send_all(topic, &["n=1", "n=2"]);
    assert_eq!(world.seen(), [(1, "n=2".into())]);
    let other = world.queues.add_owner();
    world.queues.set_container(other, "you");
    let producer = world.queues.attach_producer(other, 0, Some(topic)).unwrap();
    world
        .queues
        .publish(producer, None, durable("n=0"), None)
        .unwrap();
    assert_eq!(world.seen(), [(2, "n=0".into())]);
}

#[test]
fn a_durable_subscription_collects_while_nobody_is_there_and_through_restarts() {
    let mut world = World::new();
    let topic = world.topic("t");
    let selector = Selector::parse("n <> 2").ok();
    let first = Subscription {
        selector,
        ..lasting("first", "t")
    };
    for wish in [first.clone(), lasting("second", "#"), lasting("third", "t")] {
        assert_eq!(
            world.queues.subscribe(world.owner, wish).unwrap().1,
            Subscribed::Created
        );
    }
    let before = world.records.len();
    world.send_all(topic, &["n=1"]);
    let published = world.records[before..]
        .iter()
        .filter(|record| text_in(&record.2, "n=1"));
    assert_eq!(
        published.count(),
        1,
        "one record holds the body for all subscriptions"
    );
    world.send_all(topic, &["n=2"]);
    for compact in [false, true] {
        if compact {
            world.compact();
        }
        world.restart();
        let found = world.queues.find_subscription(&key("client", "first"), true);
        assert_eq!(found, Some(first.clone()));
        for (name, topic, expected) in [("second", "#", vec!["n=1", "n=2"]), ("first", "t", vec!["n=1"])] {
            let wish = if name == "first" {
                first.clone()
            } else {
                lasting(name, topic)
            };
            let (queue, how) = world.queues.subscribe(world.owner, wish).unwrap();
            assert_eq!(
                (how, world.look(queue)),
                (
                    Subscribed::Resumed,
                    expected.into_iter().map(String::from).collect()
                )
            );
        }
    }
    // Two of three take the first message; what is copied forward is for the third alone.
    for (link, name) in [(1, "second"), (2, "third")] {
        let (queue, _) = world
            .queues
            .subscribe(world.owner, lasting(name, if link == 1 { "#" } else { "t" }))
            .unwrap();
        let consumer = world.consumer(link, queue, ConsumerOptions::default(), 10);
        for delivery in world.deliveries() {
            world.settle(consumer, &delivery, Settlement::Accepted);
        }
    }
    world.compact();
    world.restart();
    assert_eq!((world.queues.message_count(), world.queues.byte_count()), (1, 3));
    assert!(!world.records.iter().any(|record| text_in(&record.2, "n=2")));
}

fn text_in(body: &[u8], text: &str) -> bool {
    body.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_durable_subscription_that_asks_for_something_else_begins_anew() {
    let mut world = World::new();
    let topic = world.topic("t");
    world.queues.subscribe(world.owner, lasting("s", "t")).unwrap();
    world.send_all(topic, &["old"]);
    let selector = Selector::parse("n = 1").ok();
    let changed = Subscription {
        selector,
        ..lasting("s", "t")
    };
    let (queue, how) = world.queues.subscribe(world.owner, changed).unwrap();
    assert_eq!((how, world.look(queue)), (Subscribed::Replaced, vec![]));
    world.consumer(1, queue, ConsumerOptions::default(), 1);
    let refused = world.queues.subscribe(world.owner, lasting("s", "u"));
    assert_eq!(refused, Err(Refused::InUse("the subscription")));
    let second = world
        .queues
        .attach_consumer(world.owner, 2, queue, ConsumerOptions::default());
    assert_eq!(second, Err(Refused::InUse("the subscription")));
}

#[test]
fn unsubscribing_needs_a_subscription_that_nobody_uses() {
    let mut world = World::new();
    let topic = world.topic("t");
    let (queue, _) = world.queues.subscribe(world.owner, lasting("s", "t")).unwrap();
    let consumer = world.consumer(1, queue, ConsumerOptions::default(), 0);
    let name = key("client", "s");
    assert_eq!(
        world.queues.unsubscribe(&name),
        Err(Refused::InUse("the subscription"))
    );
    world.queues.detach_consumer(consumer);
    world.send_all(topic, &["a"]);
    world.store();
    assert_eq!(world.queues.unsubscribe(&name), Ok(()));
    assert_eq!(world.queues.unsubscribe(&name), Err(Refused::NotSubscribed));
    world.queues.tell_when_safe(world.owner, 9);
    let end = world.close();
    let mut told = Vec::new();
    world.queues.take_outbox(world.owner, &mut told);
    assert!(!told.contains(&Action::Safe { link: 9 }), "it can still be lost");
    world.queues.durable(end.expect("a record"));
    assert_eq!(world.actions(), [Action::Safe { link: 9 }]);
    world.queues.tell_when_safe(world.owner, 8);
    assert_eq!(world.actions(), [Action::Safe { link: 8 }]);
    world.restart();
    assert_eq!(world.queues.find_subscription(&name, true), None);
    assert_eq!(
        (world.queues.message_count(), world.queues.stored_bytes()),
        (0, 0)
    );
}

#[test]
fn consumers_of_a_shared_subscription_share_and_a_passing_one_ends_with_the_last() {
    let mut world = World::new();
    let topic = world.topic("t");
    let wish = Subscription {
        key: Some(key("client", "shared")),
        shared: true,
        ..passing("t")
    };
    let (queue, _) = world.queues.subscribe(world.owner, wish.clone()).unwrap();
    let one = world.consumer(1, queue, ConsumerOptions::default(), 10);
    assert_eq!(
        world.queues.subscribe(world.owner, wish.clone()),
        Ok((queue, Subscribed::Resumed))
    );
    let two = world.consumer(2, queue, ConsumerOptions::default(), 10);
    world.send_all(topic, &["a", "b"]);
    assert_eq!(world.seen(), [(1, "a".into()), (2, "b".into())]);
    world.queues.detach_consumer(one);
    assert_eq!(world.seen(), [(2, "a".into())]);
    world.queues.detach_consumer(two);
    assert_eq!(
        world.queues.find_subscription(&key("client", "shared"), false),
        None
    );
    assert_eq!((world.queues.message_count(), world.queues.byte_count()), (0, 0));
    let nameless = Subscription { key: None, ..wish };
    assert_eq!(
        world.queues.subscribe(world.owner, nameless),
        Err(Refused::Nameless)
    );
}

#[test]
fn a_message_sent_again_to_a_topic_is_published_once() {
    let mut world = World::new();
    let topic = world.topic("t");
    world.queues.subscribe(world.owner, lasting("s", "t")).unwrap();
    let arrival = Arrival {
        duplicate_id: DuplicateId::new(b"same").ok(),
        ..durable("a")
    };
    world.send(topic, arrival.clone());
    world.store();
    world.restart();
    let topic = world.queues.find_topic("t").unwrap();
    world.send(topic, arrival);
    assert_eq!(world.queues.message_count(), 1);
}

#[test]
fn a_full_subscription_holds_up_or_refuses_as_its_topic_says() {
    let mut world = World::new();
    let limits = QueueLimits {
        max_messages: 1,
        ..QueueLimits::default()
    };
    let with = |when_full| QueueSettings {
        limits,
        when_full,
        ..QueueSettings::default()
    };
    let strict = world
        .queues
        .declare_topic("strict", with(WhenFull::Reject))
        .unwrap();
    let patient = world
        .queues
        .declare_topic("patient", with(WhenFull::Block))
        .unwrap();
    for topic in ["strict", "patient"] {
        world
            .queues
            .subscribe(world.owner, lasting(topic, topic))
            .unwrap();
    }
    world.send_all(strict, &["a"]);
    let producer = world.producer(strict);
    let refused = world.queues.publish(producer, None, durable("b"), None);
    assert_eq!(
        refused,
        Err(Refused::QueueFull {
            queue: "strict".into()
        })
    );
    world.send_all(patient, &["a"]);
    world.actions();
    let waiting = world
        .queues
        .attach_producer(world.owner, 7, Some(patient))
        .unwrap();
    let credit = |action: &Action<u8, u64>| matches!(action, Action::Credit { link: 7, .. });
    assert!(!world.actions().iter().any(credit));
    let (queue, _) = world
        .queues
        .subscribe(world.owner, lasting("patient", "patient"))
        .unwrap();
    world.queues.purge(queue).unwrap();
    assert!(world.actions().iter().any(credit));
    world.queues.detach_producer(waiting);
}

#[test]
fn what_a_subscriber_rejects_is_a_dead_letter_and_the_others_keep_theirs() {
    let mut world = World::new();
    let topic = world.topic("t");
    let queue = world.queues.subscribe(world.owner, lasting("s", "t")).unwrap().0;
    world
        .queues
        .subscribe(world.owner, lasting("other", "t"))
        .unwrap();
    world.send_all(topic, &["bad"]);
    let consumer = world.consumer(1, queue, ConsumerOptions::default(), 1);
    let out = world.deliveries();
    world.settle(consumer, &out[0], Settlement::Rejected);
    world.store();
    for compact in [false, true] {
        if compact {
            world.compact();
        }
        world.restart();
        assert_eq!(world.queues.message_count(), 2);
        let dead = world.queues.find("DLQ").unwrap();
        world.consumer(1, dead, ConsumerOptions::default(), 1);
        let found = world.deliveries();
        assert_eq!(
            (
                text(&found[0].payload),
                &*found[0].dead_letter.as_ref().unwrap().from
            ),
            ("bad".into(), "t")
        );
    }
}

#[test]
fn topics_are_checked_and_are_no_queues() {
    let mut world = World::new();
    let topic = world.topic("t");
    let queue = world.queue("t");
    assert_ne!(topic, queue);
    assert!(matches!(
        world.queues.declare_topic("a.#", QueueSettings::default()),
        Err(Refused::InvalidTopic { .. })
    ));
    let consumer = world
        .queues
        .attach_consumer(world.owner, 1, topic, ConsumerOptions::default());
    assert_eq!(consumer, Err(Refused::Gone("the queue")));
    assert_eq!(Lifetime::default(), Lifetime::Permanent);
}

#[test]
fn a_temporary_topic_goes_with_its_owner_and_nothing_of_it_is_stored() {
    let mut world = World::new();
    let temporary = QueueSettings {
        lifetime: Lifetime::Owner(world.owner),
        ..QueueSettings::default()
    };
    // A durable subscription to it outlives it.
    world.queues.subscribe(world.owner, lasting("s", "mine")).unwrap();
    world.store();
    let before = world.records.len();
    let topic = world.queues.declare_topic("mine", temporary.clone()).unwrap();
    world.store();
    assert_eq!(world.records.len(), before);
    world
        .queues
        .declare_topic("mine", QueueSettings::default())
        .unwrap();
    let named = Arrival {
        duplicate_id: DuplicateId::new(b"id").ok(),
        ..durable("a")
    };
    world.send(topic, named.clone());
    world.send(topic, named);
    world.store();
    assert_eq!(world.queues.message_count(), 1, "a duplicate is known there too");
    let owner = world.queues.add_owner();
    world.queues.remove_owner(world.owner);
    world.owner = owner;
    assert_eq!(world.queues.find_topic("mine"), None);
    let gone = world.queues.declare_topic("mine", temporary);
    assert_eq!(gone, Err(Refused::Gone("the connection")));
    world.store();
    world.restart();
    assert_eq!(world.queues.find_topic("mine"), None);
    assert_eq!(world.queues.message_count(), 1);
    world.compact();
    world.restart();
    assert_eq!(world.queues.message_count(), 1);
}

#[test]
fn settings_made_while_serving_survive_restarts_and_compactions() {
    let mut world = World::new();
    let bounded = |max_messages, lifetime| QueueSettings {
        limits: QueueLimits {
            max_messages,
            max_bytes: 70,
        },
        when_full: WhenFull::DropOldest,
        max_delivery_attempts: 3,
        dead_letter: None,
        expiry: Some("late".into()),
        lifetime,
        export: Some("jms/'a/b'".parse().unwrap()),
    };
    let (set, passing) = (bounded(5, Lifetime::default()), bounded(5, Lifetime::Unused));
    world.queues.declare("q", QueueSettings::default()).unwrap();
    world.queues.declare("q", set.clone()).unwrap();
    world.queues.declare("passing", passing.clone()).unwrap();
    world.queues.declare("again", set.clone()).unwrap();
    world.topic("t");
    let subscription = lasting("s", "t");
    world.queues.subscribe(world.owner, subscription).unwrap();
    world.queues.declare_topic("t", set.clone()).unwrap();
    world.store();
    for round in 0..3 {
        if round == 1 {
            // Back to what is usual, which is stored as well.
            world.queues.declare("again", QueueSettings::default()).unwrap();
        }
        if round == 2 {
            world.compact();
        }
        world.store();
        world.restart();
        let settings = |id: Option<QueueId>| world.queues.settings_of(id.unwrap()).cloned().unwrap();
        assert_eq!(settings(world.queues.find("q")), set);
        assert_eq!(settings(world.queues.find("passing")), passing);
        assert_eq!(settings(world.queues.find_topic("t")), set);
        let (_, _, subscribed) = world.queues.subscriptions().next().unwrap();
        // A name in the directory is the topic's alone.
        let of_subscription = QueueSettings {
            export: None,
            ..set.clone()
        };
        assert_eq!(settings(Some(subscribed)), of_subscription);
        let again = settings(world.queues.find("again"));
        assert_eq!(again == QueueSettings::default(), round > 0);
    }
}

#[test]
fn a_queue_under_a_number_that_was_used_before_has_nothing_of_its_predecessor() {
    let mut world = World::new();
    let set = QueueSettings {
        max_delivery_attempts: 3,
        ..QueueSettings::default()
    };
    let first = world.queues.declare("first", set).unwrap();
    world.store();
    world.queues.delete(first, false).unwrap();
    world.queue("second");
    world.store();
    world.restart();
    let second = world.queues.find("second").unwrap();
    assert_eq!(world.queues.settings_of(second), Some(&QueueSettings::default()));
}

#[test]
fn only_its_owner_takes_from_a_temporary_queue_or_topic_and_everybody_may_send() {
    let mut world = World::new();
    let bound = QueueSettings {
        lifetime: Lifetime::Owner(world.owner),
        ..QueueSettings::default()
    };
    let queue = world.queues.declare("reply", bound.clone()).unwrap();
    let topic = world.queues.declare_topic("private", bound).unwrap();
    let stranger = world.queues.add_owner();
    let options = ConsumerOptions::default;
    let foreign = world.queues.attach_consumer(stranger, 1, queue, options());
    assert_eq!(foreign, Err(Refused::Foreign));
    let foreign = world.queues.subscribe(stranger, passing("private"));
    assert_eq!(foreign, Err(Refused::Foreign));
    world.listen(2, passing("private"));
    let (everything, _) = world.queues.subscribe(stranger, passing("#")).unwrap();
    let listens = world
        .queues
        .attach_consumer(stranger, 3, everything, options())
        .unwrap();
    world.queues.set_credit(listens, 10, false);
    world.consumer(4, queue, options(), 10);
    for to in [queue, topic] {
        let sends = world.queues.attach_producer(stranger, 5, Some(to)).unwrap();
        world.queues.publish(sends, None, durable("x"), None).unwrap();
    }
    let mut seen = world.seen();
    seen.sort();
    assert_eq!(seen, [(2, "x".into()), (4, "x".into())]);
    let mut overheard = Vec::new();
    world.queues.take_outbox(stranger, &mut overheard);
    overheard.retain(|action| matches!(action, Action::Deliver(_)));
    assert_eq!(overheard, []);
}

#[test]
fn queues_topics_and_subscriptions_together_are_no_more_than_there_may_be() {
    let mut world = World::with(Limits {
        max_queues: 3,
        ..Limits::default()
    });
    let queue = world.queue("q");
    world.queues.declare_topic("t", QueueSettings::default()).unwrap();
    let subscribe = |world: &mut World, name| {
        let subscribed = world.queues.subscribe(world.owner, lasting(name, "t"));
        subscribed.map(|(queue, _)| queue)
    };
    assert!(subscribe(&mut world, "one").is_ok());
    let refused = Err(Refused::TooManyQueues { limit: 3 });
    assert_eq!(world.queues.declare("another", QueueSettings::default()), refused);
    assert_eq!(
        world.queues.declare_topic("another", QueueSettings::default()),
        refused
    );
    assert_eq!(subscribe(&mut world, "two"), refused);
    world.queues.delete(queue, false).unwrap();
    assert!(subscribe(&mut world, "two").is_ok(), "room was made");
}
