//! What the queues promise where room runs out: producers are stopped by credit and by nothing else, what was
//! accepted stays, and they go on when there is room again. For queues and for topics.

mod queues_support;

use daymark_broker_core::queues::{
    Action, Arrival, ConsumerOptions, DuplicateId, Limits, MESSAGE_OVERHEAD, OwnerId, ProducerId, QueueId,
    QueueLimits, QueueSettings, Settlement, Subscription, SubscriptionKey, WhenFull,
};
use queues_support::{World, durable};

/// A producer that sends whatever it has credit for.
struct Sender {
    owner: OwnerId,
    producer: ProducerId,
    size: usize,
    credit: u32,
    accepted: u64,
    sent: u64,
}

impl Sender {
    fn new(world: &mut World, to: QueueId, size: usize) -> Self {
        let owner = world.queues.add_owner();
        let producer = world.queues.attach_producer(owner, 0, Some(to)).unwrap();
        Self {
            owner,
            producer,
            size,
            credit: 0,
            accepted: 0,
            sent: 0,
        }
    }

    fn hear(&mut self, world: &mut World) {
        let mut actions = Vec::new();
        world.queues.take_outbox(self.owner, &mut actions);
        for action in actions {
            match action {
                Action::Credit { credit, .. } => self.credit = credit,
                Action::Accepted { .. } => self.accepted += 1,
                Action::Deliver(_)
                | Action::Confirmed { .. }
                | Action::Drained { .. }
                | Action::Committed { .. }
                | Action::RolledBack { .. }
                | Action::Safe { .. }
                | Action::Ended { .. } => panic!("{action:?} is not for a producer"),
            }
        }
    }

    /// Sends what it may. Whether that was anything.
    fn send(&mut self, world: &mut World) -> bool {
        self.hear(world);
        let may = std::mem::take(&mut self.credit);
        for _ in 0..may {
            let arrival = durable(&"x".repeat(self.size));
            self.sent += 1;
            let sent = world
                .queues
                .publish(self.producer, None, arrival, Some(self.sent));
            assert_eq!(sent, Ok(()), "a producer is stopped by credit, not by an error");
        }
        may > 0
    }
}

/// All send until none may.
fn send_until_stopped(world: &mut World, senders: &mut [Sender]) {
    world.store();
    let most = 10_000;
    for _ in 0..most {
        let mut any = false;
        for sender in &mut *senders {
            any |= sender.send(world);
        }
        world.store();
        if !any {
            return;
        }
    }
    panic!("nothing stops the producers");
}

/// Takes and accepts what there is, `most` messages at most.
fn consume(world: &mut World, queue: QueueId, most: u32) -> usize {
    let consumer = world.consumer(9, queue, ConsumerOptions::default(), most);
    let mut count = 0;
    loop {
        let found = world.deliveries();
        if found.is_empty() {
            break;
        }
        count += found.len();
        for delivery in &found {
            world.settle(consumer, delivery, Settlement::Accepted);
        }
    }
    world.queues.detach_consumer(consumer);
    world.store();
    count
}

fn subscription(name: &str) -> Subscription {
    Subscription {
        key: Some(SubscriptionKey {
            client: None,
            name: name.to_owned(),
        }),
        topic: "t".to_owned(),
        selector: None,
        no_local: false,
        durable: true,
        shared: true,
    }
}

/// Where producers send, and what has to be consumed then: a queue, or a topic with two subscriptions.
fn destinations(world: &mut World, topic: bool, settings: &QueueSettings) -> (QueueId, Vec<QueueId>) {
    if !topic {
        let queue = world.queues.declare("q", settings.clone()).unwrap();
        return (queue, vec![queue]);
    }
    let to = world.queues.declare_topic("t", settings.clone()).unwrap();
    let subscribe = |name| world.queues.subscribe(world.owner, subscription(name)).unwrap().0;
    let subscriptions = ["one", "two"].map(subscribe).to_vec();
    (to, subscriptions)
}

/// They are stopped, nothing accepted is lost, and they go on when there is room.
fn stopped_and_going_on(
    limits: Limits,
    topic: bool,
    settings: &QueueSettings,
    producers: usize,
    size: usize,
) {
    let mut world = World::with(limits);
    let (to, from) = destinations(&mut world, topic, settings);
    let mut senders: Vec<_> = (0..producers)
        .map(|_| Sender::new(&mut world, to, size))
        .collect();
    let mut received = vec![0; from.len()];
    for _ in 0..3 {
        let before: u64 = senders.iter().map(|sender| sender.sent).sum();
        send_until_stopped(&mut world, &mut senders);
        let sent: u64 = senders.iter().map(|sender| sender.sent).sum();
        assert!(sent > before, "room was made and nobody goes on");
        let accepted: u64 = senders.iter().map(|sender| sender.accepted).sum();
        assert_eq!(accepted, sent, "everything sent is answered in the end");
        for (queue, count) in from.iter().zip(&mut received) {
            *count += consume(&mut world, *queue, 1_000_000);
            assert_eq!(*count as u64, sent, "what was accepted is there");
        }
    }
    assert_eq!((world.queues.message_count(), world.queues.byte_count()), (0, 0));
    assert_eq!(world.queues.stored_bytes(), 0);
}

fn small_memory() -> Limits {
    Limits {
        max_bytes: 1 << 20,
        ..Limits::default()
    }
}

#[test]
fn full_memory_stops_producers_by_credit_and_they_go_on_when_there_is_room() {
    for topic in [false, true] {
        for (producers, size) in [(1, 100), (40, 100), (1, 50_000), (10, 50_000), (200, 3_000)] {
            stopped_and_going_on(small_memory(), topic, &QueueSettings::default(), producers, size);
        }
    }
}

#[test]
fn a_full_store_stops_producers_by_credit_and_they_go_on_when_there_is_room() {
    let limits = Limits {
        max_stored_bytes: 1 << 20,
        ..Limits::default()
    };
    for topic in [false, true] {
        for (producers, size) in [(1, 100), (10, 20_000)] {
            stopped_and_going_on(limits.clone(), topic, &QueueSettings::default(), producers, size);
        }
    }
}

#[test]
fn a_full_queue_that_blocks_stops_producers_by_credit_and_they_go_on_when_there_is_room() {
    let settings = QueueSettings {
        limits: QueueLimits {
            max_messages: 50,
            ..QueueLimits::default()
        },
        when_full: WhenFull::Block,
        ..QueueSettings::default()
    };
    for topic in [false, true] {
        for producers in [1, 20] {
            stopped_and_going_on(Limits::default(), topic, &settings, producers, 100);
        }
    }
}

#[test]
fn credit_is_taken_back_from_a_producer_whose_messages_are_far_larger_than_was_thought() {
    let mut world = World::with(Limits::default());
    let queue = world.queues.declare("q", QueueSettings::default()).unwrap();
    let mut sender = Sender::new(&mut world, queue, 1 << 20);
    world.store();
    sender.hear(&mut world);
    assert_eq!(sender.credit, 32, "nobody knows yet how large they are");
    let mut publish = |world: &mut World, number| {
        let arrival = durable(&"x".repeat(sender.size));
        let sent = world.queues.publish(sender.producer, None, arrival, Some(number));
        assert_eq!(sent, Ok(()));
        sender.hear(world);
        sender.credit
    };
    assert_eq!(publish(&mut world, 1), 4, "what four mebibytes hold");
    // What was on its way is taken, and brings no credit that would not suit.
    for number in 2..10 {
        assert!(publish(&mut world, number) <= 4);
        world.store();
    }
}

#[test]
fn a_limit_that_was_only_passed_by_is_no_limit() {
    // Three quarters of the memory are in use, and the store was slow once: that is over.
    let limits = Limits {
        max_bytes: 100_000,
        max_pending_bytes: 1_000,
        producer_credit: 5,
        ..Limits::default()
    };
    let mut world = World::with(limits);
    let queue = world.queue("q");
    let mut sender = Sender::new(&mut world, queue, 400);
    world.store();
    while world.queues.byte_count() < 70_000 {
        assert!(sender.send(&mut world), "there is room");
        world.store();
    }
    let memory = world.queues.message_count() * MESSAGE_OVERHEAD + world.queues.byte_count();
    assert!((75_000..100_000).contains(&memory), "{memory}");
    let producer = world.producer(queue);
    let large = durable(&"x".repeat(1_500));
    world.queues.publish(producer, None, large, None).unwrap();
    let last = world.close().unwrap();
    // This one asks while the store is behind.
    let mut waiting = Sender::new(&mut world, queue, 400);
    world.queues.flush();
    waiting.hear(&mut world);
    assert_eq!(waiting.credit, 0);
    world.queues.durable(last);
    world.queues.flush();
    waiting.hear(&mut world);
    assert!(waiting.credit > 0);
}

#[test]
fn a_queue_that_is_given_more_room_lets_producers_go_on() {
    let settings = |most, when_full| QueueSettings {
        limits: QueueLimits {
            max_messages: most,
            ..QueueLimits::default()
        },
        when_full,
        ..QueueSettings::default()
    };
    for topic in [false, true] {
        for changed in [settings(100, WhenFull::Block), settings(5, WhenFull::DropOldest)] {
            let mut world = World::new();
            let (to, _) = destinations(&mut world, topic, &settings(5, WhenFull::Block));
            let mut senders = [Sender::new(&mut world, to, 10)];
            send_until_stopped(&mut world, &mut senders);
            if topic {
                world.queues.declare_topic("t", changed).unwrap();
            } else {
                world.queues.declare("q", changed).unwrap();
            }
            world.queues.flush();
            assert!(senders[0].send(&mut world));
        }
    }
}

#[test]
fn a_consumer_without_credit_or_that_settles_nothing_costs_no_memory_of_its_own() {
    for topic in [false, true] {
        let limits = Limits {
            outbox_messages: 10,
            ..small_memory()
        };
        let mut world = World::with(limits);
        let (to, from) = destinations(&mut world, topic, &QueueSettings::default());
        let mut waiting = Vec::new();
        for queue in &from {
            // One never gives credit, one gives plenty and neither reads nor settles.
            let idle = world.queues.add_owner();
            let never = world
                .queues
                .attach_consumer(idle, 1, *queue, ConsumerOptions::default())
                .unwrap();
            let stuck = world.queues.add_owner();
            let plenty = world
                .queues
                .attach_consumer(stuck, 2, *queue, ConsumerOptions::default())
                .unwrap();
            world.queues.set_credit(plenty, 1_000_000, false);
            waiting.push((idle, never, stuck));
        }
        let mut senders = [Sender::new(&mut world, to, 100)];
        send_until_stopped(&mut world, &mut senders);
        let memory = world.queues.byte_count() + world.queues.message_count() * MESSAGE_OVERHEAD;
        assert!(
            memory <= 3 << 19,
            "{memory} bytes of a mebibyte and half of it again"
        );
        for (queue, (idle, _, stuck)) in from.iter().zip(waiting) {
            let mut actions = Vec::new();
            world.queues.take_outbox(idle, &mut actions);
            assert_eq!(actions, []);
            let counts = world.queues.counts_of(*queue).unwrap();
            assert_eq!(counts.unsettled, 10, "what its outbox takes");
            world.queues.remove_owner(idle);
            world.queues.remove_owner(stuck);
        }
        for queue in from {
            assert_eq!(consume(&mut world, queue, 1_000_000) as u64, senders[0].sent);
        }
    }
}

fn named(id: &str) -> Arrival {
    Arrival {
        duplicate_id: DuplicateId::new(id.as_bytes()).ok(),
        ..durable("x")
    }
}

#[test]
fn duplicate_ids_count_as_memory_and_never_take_more_than_a_quarter_of_it() {
    let limits = Limits {
        max_bytes: 100_000,
        ..Limits::default()
    };
    let mut world = World::with(limits);
    let (small, large) = (world.queue("small"), world.queue("large"));
    (0..20).for_each(|n| world.send(small, named(&format!("id-{n}"))));
    let few = world.queues.duplicate_bytes();
    assert!(few > 20 * 100, "{few}");
    for n in 0..2_000 {
        world.send(large, named(&format!("id-{n}")));
        consume(&mut world, large, 10);
        assert!(world.queues.duplicate_bytes() <= 25_000);
    }
    assert!(world.queues.duplicate_bytes() > 10_000, "what there is is used");
    let known = |world: &mut World, queue: QueueId, n: u32| {
        let before = world.queues.counts_of(queue).unwrap().duplicates;
        world.send(queue, named(&format!("id-{n}")));
        world.queues.counts_of(queue).unwrap().duplicates > before
    };
    assert!(known(&mut world, small, 0), "few ids of one queue stay");
    assert!(known(&mut world, large, 1_999) && known(&mut world, large, 1_950));
    assert!(!known(&mut world, large, 0), "the oldest of the longest goes");
    world.queues.delete(large, false).unwrap();
    assert_eq!(world.queues.duplicate_bytes(), few);
    for round in 0..2 {
        let beside_messages = world.queues.needed_bytes() - world.queues.stored_bytes();
        assert!(beside_messages > 20 * 6, "the store needs the ids as well");
        assert_eq!(world.queues.duplicate_bytes(), few, "after {round} restarts");
        world.compact();
        world.restart();
    }
}
