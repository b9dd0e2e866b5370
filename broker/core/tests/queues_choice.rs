//! Who gets which message: selectors, browsing, refusals, time, dead letters, full queues.

mod queues_support;

use bytes::Bytes;
use daymark_broker_core::queues::{
    Action, Arrival, ConsumerOptions, Lifetime, Limits, QueueLimits, QueueSettings, Reason, Refused,
    Settlement, WhenFull,
};
use queues_support::{World, durable, selecting, text};

const BROWSE: ConsumerOptions = ConsumerOptions {
    settled: false,
    browse: true,
    selector: None,
};

#[test]
fn consumers_with_selectors_get_what_matches_and_others_the_rest() {
    let mut world = World::new();
    let queue = world.queue("q");
    world.send_all(queue, &["n=1", "n=2", "n=3", "n=4", "n=5"]);
    world.consumer(1, queue, selecting("n = 3 OR n = 5"), 10);
    assert_eq!(world.seen(), [(1, "n=3".into()), (1, "n=5".into())]);
    world.consumer(2, queue, ConsumerOptions::default(), 10);
    let rest: Vec<_> = ["n=1", "n=2", "n=4"].map(|text| (2, text.to_owned())).into();
    assert_eq!(world.seen(), rest);
}

#[test]
fn a_selecting_consumer_hears_of_what_comes_later_and_of_what_comes_back() {
    let mut world = World::new();
    let queue = world.queue("q");
    world.send_all(queue, &["n=1", "n=2"]);
    let first = world.consumer(1, queue, selecting("n >= 2"), 1);
    let out = world.deliveries();
    world.send_all(queue, &["n=0", "n=3"]);
    world.consumer(2, queue, selecting("n >= 2"), 10);
    assert_eq!(world.seen(), [(2, "n=3".into())]);
    world.settle(first, &out[0], Settlement::Released);
    assert_eq!(world.seen(), [(2, "n=2".into())]);
}

#[test]
fn a_selector_sees_how_often_a_delivery_failed() {
    let mut world = World::new();
    let queue = world.queue("q");
    world.send_all(queue, &["n=1"]);
    let again = world.consumer(1, queue, selecting("JMSXDeliveryCount > 1"), 1);
    assert_eq!(world.seen(), []);
    let consumer = world.consumer(2, queue, ConsumerOptions::default(), 1);
    let out = world.deliveries();
    world.settle(consumer, &out[0], Settlement::Failed);
    assert_eq!(world.seen(), [(1, "n=1".into())]);
    world.queues.detach_consumer(again);
}

#[test]
fn a_long_search_goes_on_in_steps_and_a_drain_waits_for_its_end() {
    let mut world = World::with(Limits {
        producer_credit: 10_000,
        ..Limits::default()
    });
    let queue = world.queue("q");
    let texts: Vec<String> = (0..3_000).map(|n| format!("n={n}")).collect();
    world.send_all(queue, &texts.iter().map(String::as_str).collect::<Vec<_>>());
    let consumer = world.consumer(1, queue, selecting("n = 2999"), 1);
    world.queues.set_credit(consumer, 2, true);
    let mut steps = 0;
    let mut actions = world.actions();
    while world.queues.deadline().is_some() {
        assert!(
            !actions
                .iter()
                .any(|action| matches!(action, Action::Drained { .. }))
        );
        world.queues.tick(1);
        actions.extend(world.actions());
        steps += 1;
        assert!(steps < 10);
    }
    let found = actions
        .iter()
        .filter(|action| matches!(action, Action::Deliver(_)));
    assert_eq!(found.count(), 1);
    assert!(
        matches!(actions.last(), Some(Action::Drained { link: 1, .. })),
        "{actions:?}"
    );
    assert!(
        steps >= 2,
        "three thousand messages were looked at in {steps} steps"
    );
}

#[test]
fn a_browser_sees_every_message_once_and_takes_none() {
    let mut world = World::new();
    let queue = world.queue("q");
    for (text, priority) in [("low", 1), ("high", 9), ("also low", 1)] {
        let arrival = Arrival {
            priority,
            ..durable(text)
        };
        world.send(queue, arrival);
    }
    world.store();
    let browser = world.consumer(1, queue, BROWSE, 2);
    let seen = world.deliveries();
    assert_eq!(
        seen.iter().map(|d| text(&d.payload)).collect::<Vec<_>>(),
        ["high", "low"]
    );
    world.settle(browser, &seen[0], Settlement::Accepted);
    let consumer = world.consumer(2, queue, ConsumerOptions::default(), 1);
    let out = world.deliveries();
    assert_eq!(text(&out[0].payload), "high");
    world.settle(consumer, &out[0], Settlement::Released);
    world.queues.set_credit(browser, 10, false);
    assert_eq!(world.seen(), [(1, "also low".into())]);
    assert_eq!(world.queues.message_count(), 3);
}

#[test]
fn a_browser_with_a_selector_sees_what_matches() {
    let mut world = World::new();
    let queue = world.queue("q");
    world.send_all(queue, &["n=1", "n=2", "n=3"]);
    let options = ConsumerOptions {
        browse: true,
        ..selecting("n <> 2")
    };
    world.consumer(1, queue, options, 10);
    assert_eq!(world.seen(), [(1, "n=1".into()), (1, "n=3".into())]);
}

#[test]
fn what_is_undeliverable_at_one_consumer_goes_to_another() {
    let mut world = World::new();
    let queue = world.queue("q");
    world.send_all(queue, &["n=1", "n=2"]);
    let picky = world.consumer(1, queue, ConsumerOptions::default(), 1);
    let out = world.deliveries();
    world.settle(picky, &out[0], Settlement::Undeliverable { failed: true });
    world.queues.set_credit(picky, 5, false);
    assert_eq!(world.seen(), [(1, "n=2".into())]);
    world.consumer(2, queue, ConsumerOptions::default(), 5);
    let other = world.deliveries();
    assert_eq!((other[0].link, other[0].delivery_count), (2, 1));
}

fn settings(limits: QueueLimits, when_full: WhenFull) -> QueueSettings {
    QueueSettings {
        limits,
        when_full,
        ..QueueSettings::default()
    }
}

const TWO: QueueLimits = QueueLimits {
    max_messages: 2,
    max_bytes: u64::MAX,
};

#[test]
fn a_full_queue_refuses_or_drops_the_oldest_as_it_is_told() {
    let mut world = World::new();
    let strict = world
        .queues
        .declare("strict", settings(TWO, WhenFull::Reject))
        .unwrap();
    let rolling = world
        .queues
        .declare("rolling", settings(TWO, WhenFull::DropOldest))
        .unwrap();
    world.send_all(strict, &["a", "b"]);
    let producer = world.producer(strict);
    let refused = world.queues.publish(producer, None, durable("c"), Some(1));
    assert_eq!(
        refused,
        Err(Refused::QueueFull {
            queue: "strict".into()
        })
    );
    world.send_all(rolling, &["a", "b", "c", "d"]);
    assert_eq!(world.look(rolling), ["c", "d"]);
    world.restart();
    let rolling = world.queues.find("rolling").unwrap();
    assert_eq!(world.look(rolling), ["c", "d"]);
}

#[test]
fn a_rejected_message_goes_to_the_dead_letters_with_its_reason_and_survives_there() {
    let mut world = World::new();
    let queue = world.queue("q");
    world.queues.tick(5_000);
    world.send_all(queue, &["bad", "good"]);
    let consumer = world.consumer(1, queue, ConsumerOptions::default(), 1);
    let out = world.deliveries();
    world.settle(consumer, &out[0], Settlement::Rejected);
    world.store();
    for compact in [false, true] {
        if compact {
            world.compact();
        }
        world.restart();
        let (queue, dead) = (world.queues.find("q").unwrap(), world.queues.find("DLQ").unwrap());
        assert_eq!(world.look(queue), ["good"]);
        let consumer = world.consumer(1, dead, ConsumerOptions::default(), 1);
        let found = world.deliveries();
        let why = found[0].dead_letter.clone().unwrap();
        assert_eq!((why.reason, &*why.from, why.at), (Reason::Rejected, "q", 5_000));
        assert_eq!(text(&found[0].payload), "bad");
        world.queues.detach_consumer(consumer);
    }
    // What even the dead letter queue rejects is dropped.
    let dead = world.queues.find("DLQ").unwrap();
    let consumer = world.consumer(1, dead, ConsumerOptions::default(), 1);
    let found = world.deliveries();
    world.settle(consumer, &found[0], Settlement::Rejected);
    world.store();
    world.restart();
    assert_eq!(world.queues.message_count(), 1);
}

#[test]
fn a_message_that_failed_too_often_goes_to_the_dead_letters() {
    let mut world = World::new();
    let three = QueueSettings {
        max_delivery_attempts: 3,
        dead_letter: Some("failed".into()),
        ..QueueSettings::default()
    };
    let queue = world.queues.declare("q", three).unwrap();
    world.send_all(queue, &["poison"]);
    let consumer = world.consumer(1, queue, ConsumerOptions::default(), 10);
    for attempt in 0..3 {
        let out = world.deliveries();
        assert_eq!(out[0].delivery_count, attempt);
        world.settle(consumer, &out[0], Settlement::Failed);
    }
    assert_eq!(world.seen(), []);
    let dead = world.queues.find("failed").unwrap();
    assert_eq!(world.look(dead), ["poison"]);
}

#[test]
fn closing_a_link_is_no_failure_and_losing_the_connection_is_one() {
    let mut world = World::new();
    let queue = world.queue("q");
    world.send_all(queue, &["a"]);
    for _ in 0..20 {
        let consumer = world.consumer(1, queue, ConsumerOptions::default(), 1);
        assert_eq!(world.deliveries()[0].delivery_count, 0);
        world.queues.detach_consumer(consumer);
    }
    world.consumer(1, queue, ConsumerOptions::default(), 1);
    world.deliveries();
    world.queues.remove_owner(world.owner);
    world.owner = world.queues.add_owner();
    world.consumer(1, queue, ConsumerOptions::default(), 1);
    assert_eq!(world.deliveries()[0].delivery_count, 1);
}

#[test]
fn what_expires_is_dropped_or_moved_and_never_shown_where_it_was() {
    let mut world = World::new();
    let keeping = QueueSettings {
        expiry: Some("expired".into()),
        ..QueueSettings::default()
    };
    let (plain, kept) = (
        world.queue("plain"),
        world.queues.declare("keeping", keeping.clone()).unwrap(),
    );
    let brief = Arrival {
        expires_at: Some(100),
        ..durable("brief")
    };
    world.queues.tick(1);
    for queue in [plain, kept] {
        world.send(queue, brief.clone());
        world.send(queue, durable("lasting"));
    }
    world.store();
    assert_eq!(world.queues.deadline(), Some(100));
    world.restart();
    // Settings are the operator's, and not stored.
    world.queues.declare("keeping", keeping).unwrap();
    assert_eq!(world.queues.deadline(), Some(100));
    world.queues.tick(100);
    for name in ["plain", "keeping"] {
        let queue = world.queues.find(name).unwrap();
        assert_eq!(world.look(queue), ["lasting"]);
        assert_eq!(world.queues.counts_of(queue).unwrap().expired, 1);
    }
    let expired = world.queues.find("expired").unwrap();
    assert_eq!(world.look(expired), ["brief"]);
    assert_eq!(world.queues.deadline(), None);
}

#[test]
fn one_that_is_out_when_it_expires_may_be_accepted_but_does_not_come_back() {
    let mut world = World::new();
    let queue = world.queue("q");
    for text in ["a", "b"] {
        world.send(
            queue,
            Arrival {
                expires_at: Some(100),
                ..durable(text)
            },
        );
    }
    let consumer = world.consumer(1, queue, ConsumerOptions::default(), 10);
    let out = world.deliveries();
    world.queues.tick(200);
    world.settle(consumer, &out[0], Settlement::Accepted);
    world.settle(consumer, &out[1], Settlement::Released);
    assert_eq!(world.seen(), []);
    assert_eq!(world.queues.message_count(), 0);
}

#[test]
fn a_delayed_message_is_shown_to_nobody_before_its_time_also_after_a_restart() {
    let mut world = World::new();
    let queue = world.queue("q");
    world.send(
        queue,
        Arrival {
            deliver_at: Some(500),
            ..durable("later")
        },
    );
    world.send_all(queue, &["now"]);
    assert_eq!(world.look(queue), ["now"]);
    world.compact();
    world.restart();
    world.queues.tick(499);
    let queue = world.queues.find("q").unwrap();
    assert_eq!(world.look(queue), ["now"]);
    assert_eq!(world.queues.deadline(), Some(500));
    world.queues.tick(500);
    world.consumer(1, queue, ConsumerOptions::default(), 10);
    assert_eq!(world.seen(), [(1, "later".into()), (1, "now".into())]);
}

#[test]
fn an_amended_message_reads_the_new_way_from_then_on() {
    let mut world = World::new();
    let queue = world.queue("q");
    world.send_all(queue, &["old"]);
    let consumer = world.consumer(1, queue, ConsumerOptions::default(), 1);
    let out = world.deliveries();
    let new = Bytes::from_static(b"new and longer");
    world
        .queues
        .settle_amended(consumer, out[0].message, Settlement::Released, new, None)
        .unwrap();
    assert_eq!(world.look(queue), ["new and longer"]);
    assert_eq!(world.queues.byte_count(), 14);
    world.store();
    world.restart();
    let queue = world.queues.find("q").unwrap();
    world.consumer(1, queue, ConsumerOptions::default(), 1);
    assert_eq!(world.seen(), [(1, "new and longer".into())]);
}

#[test]
fn a_temporary_queue_goes_with_its_owner_and_an_unused_one_with_its_last_use() {
    let mut world = World::new();
    let temporary = QueueSettings {
        lifetime: Lifetime::Owner(world.owner),
        ..QueueSettings::default()
    };
    let reply = world.queues.declare("reply", temporary).unwrap();
    world.store();
    let before = world.records.len();
    world.send_all(reply, &["answer"]);
    assert_eq!(
        world.records.len(),
        before,
        "nothing of a temporary queue is stored"
    );
    let unused = QueueSettings {
        lifetime: Lifetime::Unused,
        ..QueueSettings::default()
    };
    let passing = world.queues.declare("passing", unused).unwrap();
    let consumer = world.consumer(1, passing, ConsumerOptions::default(), 1);
    world.send_all(passing, &["a"]);
    let out = world.deliveries();
    world.queues.detach_consumer(consumer);
    assert!(world.queues.find("passing").is_some(), "it is not empty");
    let consumer = world.consumer(1, passing, ConsumerOptions::default(), 1);
    drop(out);
    let out = world.deliveries();
    world.settle(consumer, &out[0], Settlement::Accepted);
    world.queues.detach_consumer(consumer);
    assert_eq!(world.queues.find("passing"), None);
    world.queues.remove_owner(world.owner);
    assert_eq!(world.queues.find("reply"), None);
    world.store();
    world.restart();
    assert_eq!((world.queues.queue_count(), world.queues.message_count()), (0, 0));
}

#[test]
fn deleting_a_queue_ends_its_links_and_its_number_means_another_later() {
    let mut world = World::new();
    let queue = world.queue("q");
    world.send_all(queue, &["a", "b", "c"]);
    world.consumer(1, queue, ConsumerOptions::default(), 1);
    world.deliveries();
    assert_eq!(world.queues.delete(queue, true), Err(Refused::InUse("the queue")));
    assert_eq!(world.queues.delete(queue, false), Ok(3));
    assert!(world.actions().contains(&Action::Ended { link: 1 }));
    let other = world.queue("other");
    world.send_all(other, &["x"]);
    let options = ConsumerOptions::default();
    let stale = world.queues.attach_consumer(world.owner, 1, queue, options);
    assert_eq!(stale, Err(Refused::Gone("the queue")));
    world.restart();
    assert_eq!(world.queues.find("q"), None);
    let other = world.queues.find("other").unwrap();
    assert_eq!(world.look(other), ["x"]);
    assert_eq!(world.queues.purge(other), Ok(1));
    assert_eq!((world.queues.message_count(), world.queues.byte_count()), (0, 0));
}
