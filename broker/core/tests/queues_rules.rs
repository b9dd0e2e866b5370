//! Rules of the queues, one by one.

use bytes::Bytes;
use daymark_broker_core::queues::{
    Action, Arrival, ConsumerOptions, Delivery, DuplicateId, Limits, MESSAGE_OVERHEAD, OwnerId, QueueId,
    QueueLimits, QueueSettings, Queues, Recovery, Refused, Settlement, WhenFull,
};

type Machine = Queues<u8, u64>;

fn machine(limits: Limits) -> (Machine, QueueId, OwnerId) {
    let mut queues: Machine = Recovery::new(limits).finish(1).unwrap();
    let queue = queues.declare("q", QueueSettings::default()).unwrap();
    store(&mut queues);
    let owner = queues.add_owner();
    (queues, queue, owner)
}

/// The store finishes everything at once.
fn store(queues: &mut Machine) {
    if let Some(positions) = queues.close_batch(|_| {}) {
        queues.durable(positions.last);
    }
    queues.flush();
}

fn arrival(text: &str, durable: bool) -> Arrival {
    Arrival {
        payload: Bytes::copy_from_slice(text.as_bytes()),
        durable,
        ..Arrival::new(Bytes::new())
    }
}

fn settled() -> ConsumerOptions {
    ConsumerOptions {
        settled: true,
        ..ConsumerOptions::default()
    }
}

fn outbox(queues: &mut Machine, owner: OwnerId) -> Vec<Action<u8, u64>> {
    let mut actions = Vec::new();
    queues.flush();
    queues.take_outbox(owner, &mut actions);
    actions
}

fn deliveries(queues: &mut Machine, owner: OwnerId) -> Vec<Delivery<u8>> {
    let delivery = |action| match action {
        Action::Deliver(delivery) => Some(delivery),
        Action::Accepted { .. }
        | Action::Confirmed { .. }
        | Action::Credit { .. }
        | Action::Drained { .. }
        | Action::Committed { .. }
        | Action::RolledBack { .. }
        | Action::Safe { .. }
        | Action::Ended { .. } => None,
    };
    outbox(queues, owner).into_iter().filter_map(delivery).collect()
}

#[test]
fn a_message_that_comes_back_stands_where_it_was() {
    let (mut queues, queue, owner) = machine(Limits::default());
    let producer = queues.attach_producer(owner, 0, Some(queue)).unwrap();
    for text in ["a", "b", "c"] {
        queues
            .publish(producer, None, arrival(text, false), None)
            .unwrap();
    }
    let consumer = queues
        .attach_consumer(owner, 1, queue, ConsumerOptions::default())
        .unwrap();
    queues.set_credit(consumer, 2, false);
    let out = deliveries(&mut queues, owner);
    queues
        .settle(consumer, out[1].message, Settlement::Released, None)
        .unwrap();
    queues
        .settle(consumer, out[0].message, Settlement::Failed, None)
        .unwrap();
    queues.set_credit(consumer, 3, false);
    let again = deliveries(&mut queues, owner);
    let seen: Vec<_> = again.iter().map(|d| (&d.payload[..], d.delivery_count)).collect();
    assert_eq!(seen, [(&b"a"[..], 1), (b"b", 0), (b"c", 0)]);
}

#[test]
fn consumers_take_turns() {
    let (mut queues, queue, owner) = machine(Limits::default());
    let producer = queues.attach_producer(owner, 0, Some(queue)).unwrap();
    for link in 1..=3 {
        let consumer = queues
            .attach_consumer(owner, link, queue, ConsumerOptions::default())
            .unwrap();
        queues.set_credit(consumer, 2, false);
    }
    for text in ["a", "b", "c", "d", "e", "f", "g"] {
        queues
            .publish(producer, None, arrival(text, false), None)
            .unwrap();
    }
    let links: Vec<_> = deliveries(&mut queues, owner).iter().map(|d| d.link).collect();
    assert_eq!(links, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn a_message_in_memory_waits_behind_one_that_is_not_yet_durable() {
    let (mut queues, queue, owner) = machine(Limits::default());
    let producer = queues.attach_producer(owner, 0, Some(queue)).unwrap();
    let consumer = queues
        .attach_consumer(owner, 1, queue, ConsumerOptions::default())
        .unwrap();
    queues.set_credit(consumer, 5, false);
    queues
        .publish(producer, None, arrival("first", true), Some(1))
        .unwrap();
    queues
        .publish(producer, None, arrival("second", false), Some(2))
        .unwrap();
    let early = outbox(&mut queues, owner);
    assert!(early.contains(&Action::Accepted { link: 0, delivery: 2 }));
    assert!(!early.contains(&Action::Accepted { link: 0, delivery: 1 }));
    assert!(!early.iter().any(|action| matches!(action, Action::Deliver(_))));
    store(&mut queues);
    let payloads: Vec<_> = deliveries(&mut queues, owner)
        .into_iter()
        .map(|d| d.payload)
        .collect();
    assert_eq!(payloads, [&b"first"[..], b"second"]);
}

#[test]
fn an_owner_that_cannot_send_is_passed_over_and_loses_no_turn_for_good() {
    let (mut queues, queue, slow) = machine(Limits::default());
    let fast = queues.add_owner();
    let producer = queues.attach_producer(fast, 0, Some(queue)).unwrap();
    for (owner, link) in [(slow, 1), (fast, 2)] {
        let consumer = queues
            .attach_consumer(owner, link, queue, ConsumerOptions::default())
            .unwrap();
        queues.set_credit(consumer, 10, false);
    }
    queues.set_writable(slow, false);
    for text in ["a", "b"] {
        queues
            .publish(producer, None, arrival(text, false), None)
            .unwrap();
    }
    assert_eq!(deliveries(&mut queues, fast).len(), 2);
    queues.set_writable(slow, true);
    for text in ["c", "d"] {
        queues
            .publish(producer, None, arrival(text, false), None)
            .unwrap();
    }
    assert_eq!(deliveries(&mut queues, slow).len(), 1);
}

#[test]
fn too_many_bytes_stop_credit_and_far_too_many_are_refused() {
    let limits = Limits {
        max_bytes: 100 + 2 * MESSAGE_OVERHEAD,
        producer_credit: 4,
        ..Limits::default()
    };
    let (mut queues, queue, owner) = machine(limits);
    let producer = queues.attach_producer(owner, 0, Some(queue)).unwrap();
    assert!(outbox(&mut queues, owner).contains(&Action::Credit { link: 0, credit: 1 }));
    let text = "x".repeat(60);
    for _ in 0..4 {
        queues
            .publish(producer, None, arrival(&text, false), None)
            .unwrap();
    }
    let credit = |action: &Action<u8, u64>| matches!(action, Action::Credit { .. });
    assert!(!outbox(&mut queues, owner).iter().any(credit));
    let refused = queues.publish(producer, None, arrival(&text, false), None);
    assert_eq!(
        refused,
        Err(Refused::OutOfMemory {
            bytes: 240 + 4 * MESSAGE_OVERHEAD,
            limit: 100 + 2 * MESSAGE_OVERHEAD
        })
    );
    let consumer = queues
        .attach_consumer(owner, 1, queue, ConsumerOptions::default())
        .unwrap();
    queues.set_credit(consumer, 4, false);
    for delivery in deliveries(&mut queues, owner) {
        queues
            .settle(consumer, delivery.message, Settlement::Accepted, None)
            .unwrap();
    }
    assert!(outbox(&mut queues, owner).iter().any(credit));
}

#[test]
fn a_stranger_cannot_settle_what_is_out_to_another() {
    let (mut queues, queue, owner) = machine(Limits::default());
    let producer = queues.attach_producer(owner, 0, Some(queue)).unwrap();
    queues.publish(producer, None, arrival("a", false), None).unwrap();
    let one = queues
        .attach_consumer(owner, 1, queue, ConsumerOptions::default())
        .unwrap();
    let two = queues
        .attach_consumer(owner, 2, queue, ConsumerOptions::default())
        .unwrap();
    queues.set_credit(one, 1, false);
    let out = deliveries(&mut queues, owner);
    let stolen = queues.settle(two, out[0].message, Settlement::Accepted, None);
    assert_eq!(stolen, Err(Refused::Gone("the message")));
    queues
        .settle(one, out[0].message, Settlement::Accepted, None)
        .unwrap();
    let again = queues.settle(one, out[0].message, Settlement::Accepted, None);
    assert_eq!(again, Err(Refused::Gone("the message")));
}

#[test]
fn a_duplicate_of_a_message_in_memory_is_answered_at_once() {
    let (mut queues, queue, owner) = machine(Limits::default());
    let producer = queues.attach_producer(owner, 0, Some(queue)).unwrap();
    for delivery in [1, 2] {
        let message = Arrival {
            duplicate_id: DuplicateId::new(b"same").ok(),
            ..arrival("a", false)
        };
        queues.publish(producer, None, message, Some(delivery)).unwrap();
    }
    let actions = outbox(&mut queues, owner);
    for delivery in [1, 2] {
        assert!(actions.contains(&Action::Accepted { link: 0, delivery }));
    }
    assert_eq!(queues.message_count(), 1);
}

/// The latest credit of link 0 in the outbox.
fn credit(queues: &mut Machine, owner: OwnerId) -> Option<u32> {
    let given = |action| match action {
        Action::Credit { link: 0, credit } => Some(credit),
        Action::Credit { .. }
        | Action::Deliver(_)
        | Action::Accepted { .. }
        | Action::Confirmed { .. }
        | Action::Drained { .. }
        | Action::Committed { .. }
        | Action::RolledBack { .. }
        | Action::Safe { .. }
        | Action::Ended { .. } => None,
    };
    outbox(queues, owner).into_iter().filter_map(given).next_back()
}

#[test]
fn credit_never_permits_more_unanswered_messages_than_a_producer_may_have() {
    let limits = Limits {
        producer_credit: 40,
        producer_unsettled: 100,
        ..Limits::default()
    };
    let (mut queues, queue, owner) = machine(limits);
    let producer = queues.attach_producer(owner, 0, Some(queue)).unwrap();
    let mut sent = 0;
    while let Some(credit) = credit(&mut queues, owner) {
        assert!(
            sent + u64::from(credit) <= 100,
            "{sent} are unanswered, {credit} may follow"
        );
        for _ in 0..credit {
            sent += 1;
            queues
                .publish(producer, None, arrival("x", true), Some(sent))
                .unwrap();
        }
    }
    assert!(sent > 50, "only {sent} were permitted");
    let positions = queues.close_batch(|_| {}).unwrap();
    queues.durable(positions.last);
    assert_eq!(credit(&mut queues, owner), Some(40));
}

#[test]
fn messages_that_are_turned_down_use_up_credit_and_bring_new() {
    let limits = Limits {
        max_bytes: 10,
        producer_credit: 4,
        ..Limits::default()
    };
    let (mut queues, queue, owner) = machine(limits);
    let producer = queues.attach_producer(owner, 0, Some(queue)).unwrap();
    assert_eq!(credit(&mut queues, owner), Some(1));
    queues.credit_left(producer, 0);
    assert_eq!(credit(&mut queues, owner), Some(1));
    queues
        .publish(producer, None, arrival(&"x".repeat(20), false), None)
        .unwrap();
    for _ in 0..3 {
        let refused = queues.publish(producer, None, arrival("x", false), None);
        assert!(matches!(refused, Err(Refused::OutOfMemory { .. })), "{refused:?}");
    }
    assert_eq!(credit(&mut queues, owner), None);
    let consumer = queues.attach_consumer(owner, 1, queue, settled()).unwrap();
    queues.set_credit(consumer, 1, false);
    let out = deliveries(&mut queues, owner);
    queues
        .settle(consumer, out[0].message, Settlement::Accepted, None)
        .unwrap();
    assert_eq!(credit(&mut queues, owner), Some(1));
}

#[test]
fn an_anonymous_producer_that_left_is_in_no_list_of_those_waiting_for_room() {
    let (mut queues, full, owner) = machine(Limits {
        producer_credit: 2,
        ..Limits::default()
    });
    let limits = QueueLimits {
        max_messages: 1,
        ..QueueLimits::default()
    };
    let one = QueueSettings {
        limits,
        when_full: WhenFull::Block,
        ..QueueSettings::default()
    };
    assert_eq!(queues.declare("q", one), Ok(full));
    let free = queues.declare("free", QueueSettings::default()).unwrap();
    let producer = queues.attach_producer(owner, 0, None).unwrap();
    assert_eq!(credit(&mut queues, owner), Some(2));
    for to in [full, free] {
        queues
            .publish(producer, Some(to), arrival("x", false), None)
            .unwrap();
        assert_eq!(credit(&mut queues, owner), None);
    }
    queues.detach_producer(producer);
    assert!(!format!("{queues:?}").contains(&format!("waiting: [{producer:?}")));
}
