//! What survives a stop, a crash and a store that fails.

mod messaging_support;

use daymark_amqp::{CloseReason, Outcome, condition};
use daymark_journal::{Holder, Locked, Options};
use messaging_support::{Broker, Client, delivery_count, durable, fleeting, numbered, served, text};
use tempfile::tempdir;

const ID: &str = "00112233445566778899aabbccddeeff";

#[test]
fn after_a_restart_persistent_messages_are_there_in_order_and_accepted_ones_are_not() {
    let (dir, broker, mut client) = served();
    let sender = client.sender("q");
    for name in ["a", "b", "c", "d"] {
        client.put(sender, durable(name));
    }
    client.put(sender, fleeting("in memory"));
    client.receiver("q", 2);
    let a = client.receive();
    assert_eq!(text(&a), "a");
    client.accept_surely(&a);
    broker.stop();

    let broker = Broker::start(dir.path());
    assert_eq!(broker.recovered.messages, 3);
    let mut client = Client::connect(broker.addr);
    let epoch = client
        .amqp
        .remote_open()
        .unwrap()
        .properties
        .get("daymark:epoch")
        .cloned();
    assert_eq!(epoch, Some(daymark_amqp::Value::Ulong(2)));
    client.receiver("q", 10);
    let names: Vec<_> = (0..3).map(|_| text(&client.receive())).collect();
    assert_eq!(names, ["b", "c", "d"]);
    broker.stop();
}

#[test]
fn after_a_crash_what_was_acknowledged_is_there_and_what_was_confirmed_is_not() {
    let dir = tempdir().unwrap();
    for round in 0..5 {
        let broker = Broker::start(dir.path());
        assert_eq!(
            broker.recovered.messages, round,
            "one message is left by each round before"
        );
        let mut client = Client::connect(broker.addr);
        let sender = client.sender("q");
        for number in 0..=round {
            client.put(sender, durable(&format!("{round}.{number}")));
        }
        client.receiver("q", 100);
        let all: Vec<_> = (0..=2 * round).map(|_| client.receive()).collect();
        // All but one of this round's and all of the earlier rounds' but one each are accepted.
        for message in &all[..usize::try_from(round).unwrap()] {
            client.accept_surely(message);
        }
        broker.crash();
    }
}

#[test]
fn a_failed_delivery_still_counts_after_a_restart() {
    let (dir, broker, mut client) = served();
    let sender = client.sender("q");
    client.put(sender, durable("a"));
    client.receiver("q", 1);
    let message = client.receive();
    client.settle(
        &message,
        Outcome::Modified {
            delivery_failed: true,
            undeliverable_here: false,
            annotations: None,
        },
    );
    broker.until("the return", |stats| stats.queues[0].requeued == 1);
    broker.stop();

    let broker = Broker::start(dir.path());
    let mut client = Client::connect(broker.addr);
    client.receiver("q", 1);
    assert_eq!(delivery_count(&client.receive()), 1);
    broker.stop();
}

#[test]
fn a_message_that_was_out_at_a_crash_counts_as_delivered() {
    let (dir, broker, mut client) = served();
    let sender = client.sender("q");
    client.put(sender, durable("out"));
    client.receiver("q", 1);
    assert_eq!(delivery_count(&client.receive()), 0);
    client.put(sender, durable("waiting"));
    broker.crash();

    let broker = Broker::start(dir.path());
    let mut client = Client::connect(broker.addr);
    client.receiver("q", 2);
    let (out, waiting) = (client.receive(), client.receive());
    assert_eq!((text(&out), delivery_count(&out)), ("out".into(), 1));
    assert_eq!((text(&waiting), delivery_count(&waiting)), ("waiting".into(), 0));
    broker.stop();
}

#[test]
fn what_is_out_when_the_broker_stops_counts_as_delivered() {
    let (dir, broker, mut client) = served();
    let sender = client.sender("q");
    for name in ["out", "in a transaction", "waiting"] {
        client.put(sender, durable(name));
    }
    client.receiver("q", 2);
    let coordinator = client.coordinator();
    let txn = client.declare(coordinator);
    let (_, held) = (client.receive(), client.receive());
    client.accept_in(&txn, &held);
    let stopping = broker.stop_gracefully();
    client.closed();
    stopping.join().unwrap();

    let broker = Broker::start(dir.path());
    let mut client = Client::connect(broker.addr);
    client.receiver("q", 3);
    let found: Vec<_> = (0..3).map(|_| client.receive()).collect();
    let found: Vec<_> = found
        .iter()
        .map(|message| (text(message), delivery_count(message)))
        .collect();
    let expected = [("out", 1), ("in a transaction", 1), ("waiting", 0)];
    assert_eq!(found, expected.map(|(name, count)| (name.to_owned(), count)));
    broker.stop();
}

#[test]
fn a_message_resent_after_a_crash_is_stored_once_even_if_it_was_consumed() {
    let (dir, broker, mut client) = served();
    let sender = client.sender("q");
    client.put(sender, numbered("a", ID));
    client.receiver("q", 1);
    let message = client.receive();
    client.accept_surely(&message);
    broker.crash();

    let broker = Broker::start(dir.path());
    let mut client = Client::connect(broker.addr);
    let sender = client.sender("q");
    client.put(sender, numbered("a", ID));
    let stats = broker.stats();
    assert_eq!((stats.messages, stats.queues[0].duplicates), (0, 1));
    broker.stop();
}

#[test]
fn the_store_stays_small_while_messages_pass_and_keeps_what_stays() {
    let (dir, broker, mut client) = served();
    let sender = client.sender("q");
    client.put(sender, numbered("stays", ID));
    client.receiver("q", 1);
    assert_eq!(text(&client.receive()), "stays");
    // Another connection takes all that follow, so that the first message stays out.
    let mut taker = Client::connect(broker.addr);
    taker.receiver("q", 1_000_000);
    let body = "x".repeat(100_000);
    for _ in 0..1_500 {
        client.put(sender, durable(&body));
        let message = taker.receive();
        taker.settle(&message, Outcome::Accepted);
    }
    broker.until("the queue to empty", |stats| stats.messages == 1);
    let size = || -> u64 {
        let files = walk(dir.path());
        files
            .iter()
            .map(|file| file.metadata().map_or(0, |found| found.len()))
            .sum()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while size() > 100 << 20 {
        assert!(
            std::time::Instant::now() < deadline,
            "150 MB passed, {} bytes are left",
            size()
        );
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    broker.crash();

    let broker = Broker::start(dir.path());
    assert_eq!(broker.recovered.messages, 1);
    let mut client = Client::connect(broker.addr);
    let sender = client.sender("q");
    client.put(sender, numbered("stays", ID));
    assert_eq!(
        broker.stats().messages,
        1,
        "the duplicate window went with the old segments"
    );
    client.receiver("q", 1);
    assert_eq!(text(&client.receive()), "stays");
    broker.stop();
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let (dirs, mut files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    dirs.iter().for_each(|dir| files.extend(walk(dir)));
    files
}

#[test]
fn a_store_taken_over_by_another_acknowledges_nothing_more() {
    let (dir, broker, mut client) = served();
    let sender = client.sender("q");
    client.put(sender, durable("before"));

    let forced = Locked::acquire_forced(dir.path(), &Holder::here("kkm-PC"), Options::default()).unwrap();
    let _fenced = forced.begin(2).unwrap();
    client.send(sender, durable("after"));
    let reason = client.closed();
    let failure = broker.failure();
    assert!(
        failure.contains("superseded by epoch 2") || failure.contains("taken away"),
        "{failure}"
    );
    let CloseReason::Remote(Some(error)) = reason else {
        panic!("the connection ended without a reason: {reason:?}");
    };
    assert_eq!(error.condition, condition::INTERNAL_ERROR);
    assert!(
        !client.sees(|event| matches!(event, daymark_amqp::Event::Disposition { .. }).then_some(())),
        "something was acknowledged after the takeover"
    );
    broker.stop();
}
