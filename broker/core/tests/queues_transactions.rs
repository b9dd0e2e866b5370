//! Local transactions: together or not at all.

mod queues_support;

use daymark_broker_core::queues::{
    Action, Arrival, ConsumerOptions, DuplicateId, Lifetime, Limits, MESSAGE_OVERHEAD, ProducerId, QueueId,
    QueueLimits, QueueSettings, Refused, Settlement, TransactionId, WhenFull,
};
use queues_support::{World, durable, text};

fn named(text: &str) -> Arrival {
    Arrival {
        duplicate_id: DuplicateId::new(text.as_bytes()).ok(),
        ..durable(text)
    }
}

/// Two queues; `in` holds "a" and "b", out to a consumer on link 1.
fn moving(limits: Limits) -> (World, TransactionId) {
    let mut world = World::with(limits);
    let (from, to) = (world.queue("in"), world.queue("out"));
    world.send_all(from, &["a", "b"]);
    let consumer = world.consumer(1, from, ConsumerOptions::default(), 10);
    let out = world.deliveries();
    let transaction = world.queues.begin(world.owner).unwrap();
    for delivery in &out {
        let accepted = world.queues.settle_in(
            transaction,
            consumer,
            delivery.message,
            Settlement::Accepted,
            true,
        );
        assert_eq!(accepted, Ok(()));
    }
    let producer = world.producer(to);
    for text in ["x", "y"] {
        assert_eq!(
            world.queues.publish_in(transaction, producer, None, named(text)),
            Ok(())
        );
    }
    (world, transaction)
}

#[test]
fn a_commit_is_told_when_it_is_durable_and_all_of_it_happened() {
    let (mut world, transaction) = moving(Limits::default());
    let out = world.queues.find("out").unwrap();
    assert_eq!(world.look(out), Vec::<String>::new());
    assert_eq!(world.queues.commit(world.owner, transaction, 9, Some(1)), Ok(()));
    let positions = world.close().unwrap();
    let mut actions = Vec::new();
    world.queues.take_outbox(world.owner, &mut actions);
    let told = Action::Committed { link: 9, delivery: 1 };
    assert!(!actions.contains(&told));
    world.queues.durable(positions);
    assert!(world.actions().contains(&told));
    assert_eq!(world.look(out), ["x", "y"]);
    world.restart();
    let (from, out) = (
        world.queues.find("in").unwrap(),
        world.queues.find("out").unwrap(),
    );
    assert_eq!((world.look(from).len(), world.look(out).len()), (0, 2));
}

#[test]
fn a_crash_before_the_commit_leaves_everything_as_it_was() {
    let (mut world, _) = moving(Limits::default());
    world.store();
    world.restart();
    let (from, out) = (
        world.queues.find("in").unwrap(),
        world.queues.find("out").unwrap(),
    );
    assert_eq!(
        (world.look(from), world.look(out).len()),
        (vec!["a".into(), "b".into()], 0)
    );
}

#[test]
fn a_rollback_queues_again_with_the_count_raised_what_the_peer_has_forgotten() {
    let (mut world, transaction) = moving(Limits::default());
    assert_eq!(world.queues.rollback(world.owner, transaction), Ok(()));
    let again: Vec<_> = world
        .deliveries()
        .iter()
        .map(|d| (text(&d.payload), d.delivery_count))
        .collect();
    assert_eq!(again, [("a".to_owned(), 1), ("b".to_owned(), 1)]);
    let out = world.queues.find("out").unwrap();
    assert_eq!(world.look(out), Vec::<String>::new());
    assert_eq!(world.queues.byte_count(), 2);
    let again = world.queues.rollback(world.owner, transaction);
    assert_eq!(again, Err(Refused::Gone("the transaction")));
}

#[test]
fn a_rollback_leaves_with_the_consumer_what_it_still_holds() {
    let mut world = World::new();
    let queue = world.queue("q");
    world.send_all(queue, &["a"]);
    let consumer = world.consumer(1, queue, ConsumerOptions::default(), 10);
    let out = world.deliveries();
    let transaction = world.queues.begin(world.owner).unwrap();
    world
        .queues
        .settle_in(transaction, consumer, out[0].message, Settlement::Accepted, false)
        .unwrap();
    let twice = world
        .queues
        .settle(consumer, out[0].message, Settlement::Accepted, None);
    assert_eq!(twice, Err(Refused::Gone("the message")));
    world.queues.rollback(world.owner, transaction).unwrap();
    assert_eq!(world.seen(), []);
    world.settle(consumer, &out[0], Settlement::Accepted);
    assert_eq!(world.queues.message_count(), 0);
}

#[test]
fn a_duplicate_voids_the_whole_transaction_and_says_so() {
    let (mut world, transaction) = moving(Limits::default());
    let out = world.queues.find("out").unwrap();
    world.send(out, named("y"));
    let refused = world.queues.commit(world.owner, transaction, 9, None);
    assert_eq!(
        refused,
        Err(Refused::DuplicateInTransaction { queue: "out".into() })
    );
    assert_eq!(world.look(out).len(), 1);
    assert_eq!(world.queues.message_count(), 3);
}

#[test]
fn a_transaction_that_repeats_an_id_of_its_own_is_not_told_that_it_was_stored_before() {
    for confirm in [None, Some(7)] {
        let (mut world, transaction) = moving(Limits::default());
        let out = world.queues.find("out").unwrap();
        let producer = world.producer(out);
        let queues = &mut world.queues;
        queues
            .publish_in(transaction, producer, None, named("x"))
            .unwrap();
        let refused = queues.commit(world.owner, transaction, 9, confirm);
        assert_eq!(
            refused,
            Err(Refused::RepeatedInTransaction { queue: "out".into() })
        );
        assert!(world.look(out).is_empty());
        assert_eq!(world.queues.message_count(), 2);
    }
}

#[test]
fn a_commit_sent_again_after_a_crash_is_a_duplicate() {
    let (mut world, transaction) = moving(Limits::default());
    world.queues.commit(world.owner, transaction, 9, None).unwrap();
    world.store();
    world.restart();
    let out = world.queues.find("out").unwrap();
    let producer = world.producer(out);
    let transaction = world.queues.begin(world.owner).unwrap();
    for text in ["x", "y"] {
        world
            .queues
            .publish_in(transaction, producer, None, named(text))
            .unwrap();
    }
    let refused = world.queues.commit(world.owner, transaction, 9, None);
    assert!(matches!(refused, Err(Refused::DuplicateInTransaction { .. })));
    assert_eq!(world.look(out), ["x", "y"]);
}

#[test]
fn what_takes_too_long_or_too_much_is_rolled_back() {
    let limits = Limits {
        transaction_ms: 1_000,
        ..Limits::default()
    };
    let (mut world, transaction) = moving(limits);
    assert_eq!(world.queues.deadline(), Some(1_000));
    world.queues.tick(1_000);
    assert_eq!(world.deliveries().len(), 2, "what it held is queued again");
    let refused = world.queues.commit(world.owner, transaction, 9, None);
    assert_eq!(refused, Err(Refused::TransactionTimedOut { limit_ms: 1_000 }));

    let limit = 4 * MESSAGE_OVERHEAD + 2;
    let limits = Limits {
        transaction_bytes: limit,
        ..Limits::default()
    };
    let (mut world, transaction) = moving(limits);
    let out = world.queues.find("out").unwrap();
    let producer = world.producer(out);
    let large = Err(Refused::TransactionTooLarge { limit });
    assert_eq!(
        world.queues.publish_in(transaction, producer, None, named("z")),
        large
    );
    assert_eq!(world.queues.commit(world.owner, transaction, 9, None), large);
    assert_eq!(world.deliveries().len(), 2);
}

#[test]
fn a_queue_with_too_little_room_refuses_the_whole_transaction() {
    let mut world = World::new();
    let one = QueueSettings {
        limits: QueueLimits {
            max_messages: 1,
            ..QueueLimits::default()
        },
        when_full: WhenFull::Reject,
        ..QueueSettings::default()
    };
    let queue = world.queues.declare("small", one).unwrap();
    let other = world.queue("large");
    let transaction = world.queues.begin(world.owner).unwrap();
    for to in [other, queue, queue] {
        let producer = world.producer(to);
        world
            .queues
            .publish_in(transaction, producer, None, durable("a"))
            .unwrap();
    }
    let refused = world.queues.commit(world.owner, transaction, 9, None);
    assert_eq!(
        refused,
        Err(Refused::QueueFull {
            queue: "small".into()
        })
    );
    assert_eq!(world.queues.message_count(), 0);
}

#[test]
fn a_transaction_belongs_to_its_owner_and_ends_with_it() {
    let (mut world, transaction) = moving(Limits::default());
    let stranger = world.queues.add_owner();
    let gone = Err(Refused::Gone("the transaction"));
    assert_eq!(world.queues.commit(stranger, transaction, 9, None), gone);
    assert_eq!(world.queues.rollback(stranger, transaction), gone);
    world.queues.remove_owner(world.owner);
    world.owner = stranger;
    let from = world.queues.find("in").unwrap();
    assert_eq!(world.look(from), ["a", "b"]);
    assert_eq!(world.queues.byte_count(), 2);
}

/// A queue that ends when nobody uses it.
fn passing(world: &mut World) -> QueueId {
    let passing = QueueSettings {
        lifetime: Lifetime::Unused,
        ..QueueSettings::default()
    };
    world.queues.declare("passing", passing).unwrap()
}

#[test]
fn a_queue_is_in_use_while_a_transaction_has_messages_for_it() {
    for commit in [true, false] {
        let mut world = World::new();
        let queue = passing(&mut world);
        let transaction = world.queues.begin(world.owner).unwrap();
        let producer = world.producer(queue);
        world
            .queues
            .publish_in(transaction, producer, None, named("x"))
            .unwrap();
        world.queues.detach_producer(producer);
        if commit {
            assert_eq!(world.queues.commit(world.owner, transaction, 9, None), Ok(()));
            assert_eq!(world.look(queue), ["x"]);
        } else {
            world.queues.rollback(world.owner, transaction).unwrap();
        }
        assert_eq!(world.queues.find("passing").is_some(), commit);
    }
}

#[test]
fn what_is_committed_together_may_empty_a_queue_and_fill_it_again() {
    let mut world = World::new();
    let queue = passing(&mut world);
    world.send_all(queue, &["old"]);
    let consumer = world.consumer(1, queue, ConsumerOptions::default(), 1);
    let out = world.deliveries();
    let transaction = world.queues.begin(world.owner).unwrap();
    world
        .queues
        .settle_in(transaction, consumer, out[0].message, Settlement::Accepted, true)
        .unwrap();
    let anywhere = world.queues.attach_producer(world.owner, 2, None).unwrap();
    world
        .queues
        .publish_in(transaction, anywhere, Some(queue), named("new"))
        .unwrap();
    world.queues.detach_consumer(consumer);
    world.queues.commit(world.owner, transaction, 9, None).unwrap();
    world.store();
    world.restart();
    let queue = world.queues.find("passing").expect("it holds a message");
    assert_eq!(world.look(queue), ["new"]);
}

#[test]
fn a_commit_is_told_to_be_a_repetition_only_after_what_it_repeats_is_durable() {
    let mut world = World::new();
    let queue = world.queue("q");
    let producer = world.producer(queue);
    commit_same(&mut world, producer, 1);
    commit_same(&mut world, producer, 2);
    let upto = world.close().unwrap();
    commit_same(&mut world, producer, 3);
    let told = |world: &mut World| {
        let mut actions = Vec::new();
        world.queues.take_outbox(world.owner, &mut actions);
        actions.retain(|action| !matches!(action, Action::Credit { .. }));
        actions
    };
    assert_eq!(told(&mut world), [], "nothing is durable");
    world.queues.durable(upto);
    let again = |delivery| Action::RolledBack {
        link: 9,
        delivery,
        why: Refused::DuplicateInTransaction { queue: "q".into() },
    };
    let committed = Action::Committed { link: 9, delivery: 1 };
    assert_eq!(told(&mut world), [committed, again(2), again(3)]);
    commit_same(&mut world, producer, 4);
    assert_eq!(told(&mut world), [again(4)]);
    assert_eq!(world.queues.message_count(), 1);
}

/// Commits a message that has always the same id.
fn commit_same(world: &mut World, producer: ProducerId, delivery: u64) {
    let transaction = world.queues.begin(world.owner).unwrap();
    let (queues, owner) = (&mut world.queues, world.owner);
    queues
        .publish_in(transaction, producer, None, named("x"))
        .unwrap();
    queues.commit(owner, transaction, 9, Some(delivery)).unwrap();
}

#[test]
fn a_connection_has_no_more_transactions_open_than_it_may_and_begins_one_when_another_ends() {
    let mut world = World::with(Limits {
        max_transactions: 2,
        ..Limits::default()
    });
    let first = world.queues.begin(world.owner).unwrap();
    world.queues.begin(world.owner).unwrap();
    let refused = world.queues.begin(world.owner);
    assert_eq!(refused, Err(Refused::TooManyTransactions { limit: 2 }));
    let other = world.queues.add_owner();
    assert!(world.queues.begin(other).is_ok(), "each connection has its own");
    assert_eq!(world.queues.rollback(world.owner, first), Ok(()));
    assert!(world.queues.begin(world.owner).is_ok());
}
