//! Local transactions through the coordinator, as a client of our own engine sees them.

mod messaging_support;

use daymark_amqp::{DeliveryState, Outcome, TxnId, Value, condition};
use daymark_broker_server::messaging::{LinkKind, MessagingConfig};
use messaging_support::{Broker, Client, delivery_count, durable, numbered, one_queue, served, text};
use tempfile::tempdir;

fn rejection(outcome: &Outcome) -> daymark_amqp::AmqpError {
    let Outcome::Rejected(Some(error)) = outcome else {
        panic!("{outcome:?} is no rejection with a reason");
    };
    (**error).clone()
}

#[test]
fn what_is_sent_in_a_transaction_appears_with_its_commit() {
    let (_dir, broker, mut client) = served();
    let coordinator = client.coordinator();
    let sender = client.sender("q");
    let receiver = client.receiver("q", 0);
    let txn = client.declare(coordinator);
    assert_eq!(client.put_in(&txn, sender, durable("a")), Outcome::Accepted);
    assert_eq!(client.put_in(&txn, sender, durable("b")), Outcome::Accepted);
    client.put(sender, durable("outside"));
    assert_eq!(client.drain(receiver), ["outside"]);
    assert_eq!(client.discharge(coordinator, &txn, false), Outcome::Accepted);
    assert_eq!(client.drain(receiver), ["a", "b"]);
    let links = broker.messaging.links();
    assert!(links.iter().any(|link| link.kind == LinkKind::Coordinator));
    broker.stop();
}

#[test]
fn a_rollback_leaves_everything_as_it_was() {
    let (_dir, broker, mut client) = served();
    let coordinator = client.coordinator();
    let sender = client.sender("q");
    client.put(sender, durable("stays"));
    client.receiver("q", 2);
    let txn = client.declare(coordinator);
    client.put_in(&txn, sender, durable("never"));
    let stays = client.receive();
    client.accept_in(&txn, &stays);
    assert_eq!(client.discharge(coordinator, &txn, true), Outcome::Accepted);
    let again = client.receive();
    assert_eq!((text(&again), delivery_count(&again)), ("stays".into(), 1));
    assert_eq!(broker.stats().messages, 1);
    broker.stop();
}

#[test]
fn a_commit_survives_a_crash_whole_and_what_was_not_committed_does_not() {
    let (dir, broker, mut client) = served();
    let coordinator = client.coordinator();
    let sender = client.sender("q");
    for name in ["taken", "kept"] {
        client.put(sender, durable(name));
    }
    client.receiver("q", 2);
    let (taken, kept) = (client.receive(), client.receive());
    let done = client.declare(coordinator);
    let open = client.declare(coordinator);
    client.accept_in(&done, &taken);
    client.put_in(&done, sender, durable("answer 1"));
    client.put_in(&done, sender, durable("answer 2"));
    client.accept_in(&open, &kept);
    client.put_in(&open, sender, durable("never"));
    assert_eq!(client.discharge(coordinator, &done, false), Outcome::Accepted);
    broker.crash();

    let broker = Broker::start(dir.path());
    assert_eq!(broker.recovered.messages, 3);
    let mut client = Client::connect(broker.addr);
    let receiver = client.receiver("q", 0);
    assert_eq!(client.drain(receiver), ["kept", "answer 1", "answer 2"]);
    broker.stop();
}

#[test]
fn a_transaction_ends_with_its_coordinator_link_and_with_its_connection() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    client.put(sender, durable("a"));
    client.receiver("q", 5);
    let coordinator = client.coordinator();
    let txn = client.declare(coordinator);
    let message = client.receive();
    client.accept_in(&txn, &message);
    client.amqp.detach(coordinator, true, None).unwrap();
    client.detached(coordinator);
    let again = client.receive();
    assert_eq!(text(&again), "a");
    let coordinator = client.coordinator();
    let txn = client.declare(coordinator);
    client.accept_in(&txn, &again);
    // Answered behind the accept, so that the broker has heard of it.
    client.declare(coordinator);
    client.vanish();
    let mut other = Client::connect(broker.addr);
    other.receiver("q", 1);
    assert_eq!(text(&other.receive()), "a");
    broker.stop();
}

#[test]
fn a_transaction_nobody_declared_here_is_unknown() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let mut owner = Client::connect(broker.addr);
    let owners = owner.coordinator();
    let foreign = owner.declare(owners);
    let mut client = Client::connect(broker.addr);
    let coordinator = client.coordinator();
    let sender = client.sender("q");
    for txn in [TxnId::new(&b"made up"[..]), TxnId::new(&[9; 8][..]), foreign] {
        let refused = client.put_in(&txn, sender, durable("x"));
        assert_eq!(rejection(&refused).condition, condition::TRANSACTION_UNKNOWN_ID);
        let refused = client.discharge(coordinator, &txn, false);
        assert_eq!(rejection(&refused).condition, condition::TRANSACTION_UNKNOWN_ID);
    }
    client.put(sender, durable("stays"));
    let receiver = client.receiver("q", 1);
    let message = client.receive();
    let state = DeliveryState::Transactional {
        txn: TxnId::new(&b"t"[..]),
        outcome: Some(Outcome::Accepted),
    };
    client
        .amqp
        .settle(receiver, message.delivery, state, false)
        .unwrap();
    let error = client.detached(receiver).expect("the detach says why");
    assert_eq!(error.condition, condition::TRANSACTION_UNKNOWN_ID);
    client.receiver("q", 1);
    assert_eq!(text(&client.receive()), "stays");
    broker.stop();
}

#[test]
fn a_duplicate_id_voids_the_whole_transaction_and_the_commit_says_so() {
    const ID: &str = "00112233445566778899aabbccddeeff";
    let (_dir, broker, mut client) = served();
    let coordinator = client.coordinator();
    let sender = client.sender("q");
    client.put(sender, numbered("first", ID));
    let txn = client.declare(coordinator);
    client.put_in(&txn, sender, durable("with it"));
    client.put_in(&txn, sender, numbered("again", ID));
    let error = rejection(&client.discharge(coordinator, &txn, false));
    assert_eq!(error.condition, condition::TRANSACTION_ROLLBACK);
    let reason = error.info.get("daymark:reason").and_then(Value::as_symbol);
    assert_eq!(reason.map(daymark_amqp::Symbol::as_str), Some("duplicate"));
    assert_eq!(broker.stats().messages, 1);
    broker.stop();
}

#[test]
fn an_id_twice_in_one_transaction_is_rolled_back_and_not_called_committed_before() {
    const ID: &str = "00112233445566778899aabbccddeeff";
    let (_dir, broker, mut client) = served();
    let coordinator = client.coordinator();
    let sender = client.sender("q");
    let txn = client.declare(coordinator);
    client.put_in(&txn, sender, numbered("first", ID));
    client.put_in(&txn, sender, numbered("second", ID));
    let error = rejection(&client.discharge(coordinator, &txn, false));
    assert_eq!(error.condition, condition::TRANSACTION_ROLLBACK);
    assert!(error.info.get("daymark:reason").is_none());
    let said = error.description.unwrap_or_default();
    // Programs take these words for "it had been committed before".
    assert!(!said.contains("duplicate id"), "{said}");
    assert_eq!(broker.stats().messages, 0);
    broker.stop();
}

#[test]
fn a_transaction_that_takes_too_long_or_too_much_is_rolled_back() {
    let dir = tempdir().unwrap();
    let config = MessagingConfig {
        transaction_timeout_ms: 50,
        max_transactions_per_connection: 2,
        ..one_queue()
    };
    let broker = Broker::start_with(dir.path(), config);
    let mut client = Client::connect(broker.addr);
    let coordinator = client.coordinator();
    let sender = client.sender("q");
    client.put(sender, durable("a"));
    client.receiver("q", 5);
    let message = client.receive();
    let txn = client.declare(coordinator);
    client.accept_in(&txn, &message);
    assert_eq!(text(&client.receive()), "a", "the timeout gives it back");
    let error = rejection(&client.discharge(coordinator, &txn, false));
    assert_eq!(error.condition, condition::TRANSACTION_TIMEOUT);
    broker.stop();

    let config = MessagingConfig {
        max_transaction_bytes: 1_000,
        ..one_queue()
    };
    let broker = Broker::start_with(dir.path(), config);
    let mut client = Client::connect(broker.addr);
    let coordinator = client.coordinator();
    let sender = client.sender("q");
    let txn = client.declare(coordinator);
    let large = durable(&"x".repeat(2_000));
    assert!(matches!(
        client.put_in(&txn, sender, large),
        Outcome::Rejected(Some(_))
    ));
    // What is settled under a void transaction is not lost.
    client.receiver("q", 2);
    let message = client.receive();
    client.accept_in(&txn, &message);
    assert_eq!(text(&client.receive()), "a");
    let error = rejection(&client.discharge(coordinator, &txn, false));
    assert_eq!(error.condition, condition::TRANSACTION_ROLLBACK);
    broker.stop();
}

#[test]
fn more_transactions_than_a_coordinator_gives_credit_for_at_once_go_through() {
    let (_dir, broker, mut client) = served();
    let coordinator = client.coordinator();
    let sender = client.sender("q");
    for number in 0..150 {
        let txn = client.declare(coordinator);
        client.put_in(&txn, sender, durable(&number.to_string()));
        let roll_back = number % 3 == 0;
        assert_eq!(client.discharge(coordinator, &txn, roll_back), Outcome::Accepted);
    }
    assert_eq!(broker.stats().messages, 100);
    broker.stop();
}
