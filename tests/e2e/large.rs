//! Messages of many megabytes: they cross in many frames, are records longer than a segment of the journal, and come
//! whole or not at all.

use std::time::Duration;

use daymark_client::proto::FactorySettings;
use daymark_client::{
    Connection, ConnectionFactory, Consumer, ConsumerOptions, Delivery, Destination, Message, Producer,
    SendError, Session,
};

use daymark_test_support::http_get;

use crate::stage::{Pair, SOON, Stage, wait};

/// Longer than the journal's segments are: no record of such a message fits into one.
const LARGE: usize = 16 << 20;

/// A body that no other number has.
fn body(number: u8) -> Vec<u8> {
    let mut body = vec![number; LARGE];
    for (place, byte) in body.iter_mut().step_by(4_093).enumerate() {
        *byte = place.to_le_bytes()[0] ^ number;
    }
    body
}

fn message(number: u8) -> Message {
    Message::bytes(body(number)).with_subject(number.to_string())
}

async fn next(consumer: &Consumer) -> Delivery {
    let delivery = consumer.receive(SOON).await.expect("the consumer lives");
    delivery.expect("a message")
}

/// The number of a message, which is whole.
fn number(delivery: &Delivery) -> u8 {
    let message = delivery.message();
    let number = message
        .subject
        .as_deref()
        .expect("a subject")
        .parse()
        .expect("a number");
    assert!(
        message.as_bytes().is_some_and(|got| *got == body(number)),
        "message {number} is damaged"
    );
    number
}

async fn connect(ports: &[u16]) -> (Connection, Session) {
    let addresses = ports.iter().map(|port| ("127.0.0.1", *port));
    // A debug build takes its time for so many bytes.
    let settings = FactorySettings {
        client_failure_check_period_ms: 20_000,
        ..FactorySettings::default()
    };
    let connection = ConnectionFactory::explicit(addresses, settings).connect().await;
    let connection = connection.expect("connected");
    let session = connection.session().await.expect("a session");
    (connection, session)
}

/// A consumer that is sent so many ahead.
async fn consumer(session: &Session, queue: &Destination, prefetch: u32) -> Consumer {
    let options = ConsumerOptions {
        prefetch,
        ..ConsumerOptions::default()
    };
    session.consumer_with(queue, options).await.expect("a consumer")
}

#[test]
fn messages_longer_than_a_segment_survive_the_death_of_their_broker_whole() {
    let mut pair = Pair::new("");
    let ports = [pair.one.broker.port, pair.two.broker.port];
    wait(async {
        let (connection, session) = connect(&ports).await;
        let queue = Destination::queue("examples");
        let producer = session.producer(&queue).await.expect("a producer");
        producer.send(message(1)).await.expect("stored");
        let transacted = connection.transacted_session().await.expect("a session");
        let within = transacted.producer(&queue).await.expect("a producer");
        within.send(message(2)).await.expect("taken");
        transacted.commit().await.expect("committed");
        let passing = message(3).non_persistent();
        producer.send(passing).await.expect("taken");
        let consumer = consumer(&session, &queue, 1).await;
        let first = next(&consumer).await;
        assert_eq!((number(&first), first.delivery_count()), (1, 0));
        pair.one.process.kill_9();
        producer.send(message(4)).await.expect("stored by the other one");
        first.accept().await.expect("accepted by the other one");
        // What was not persistent died with the broker.
        for expected in [2, 4] {
            let delivery = next(&consumer).await;
            assert_eq!(number(&delivery), expected);
            delivery.accept().await.expect("accepted");
        }
        assert!(consumer.receive_now().await.expect("an answer").is_none());
        connection.close().await;
    });
}

#[test]
fn a_message_larger_than_the_broker_takes_is_refused_before_it_is_sent_and_the_producer_goes_on() {
    let pair = Pair::new("[messaging]\nmax_message_bytes = 1048576\n");
    wait(async {
        let (connection, session) = connect(&[pair.one.broker.port]).await;
        let queue = Destination::queue("examples");
        let producer = session.producer(&queue).await.expect("a producer");
        let why = producer.send(message(1)).await.expect_err("too large");
        assert!(matches!(why, SendError::TooLarge { limit: 1_048_576 }), "{why}");
        producer.send(Message::text("small")).await.expect("stored");
        connection.close().await;
    });
}

/// How much the process held at most, in bytes.
fn peak(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("a process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.expect("VmHWM").trim().parse::<u64>().expect("a number") << 10
}

/// How many messages are in the queue.
fn waiting(admin: &str) -> u64 {
    let answer = http_get(admin, "/v1/queues/examples").expect("an answer");
    answer.body["messages"].as_u64().expect("a number")
}

/// Each connection may have one message half sent, which is counted for it alone; everything else is one budget.
#[test]
fn many_large_messages_at_once_stay_within_the_memory_there_is_and_all_arrive() {
    const PRODUCERS: u8 = 4;
    const EACH: u8 = 8;
    const BUDGET: u64 = 64 << 20;
    let stage = Stage::new();
    let mut broker = stage.broker("kkam", "primary");
    let settings = format!("[messaging]\nmax_bytes = {BUDGET}\n");
    broker.config = Some(stage.program.file("large.toml", &settings));
    let (process, admin) = stage.program.broker(&broker);
    stage.group_served_by("kkam", 1);
    let before = peak(process.id());
    wait(async {
        let queue = Destination::queue("examples");
        let mut sending = Vec::new();
        for producer in 0..PRODUCERS {
            let (connection, session) = connect(&[broker.port]).await;
            let link = session.producer(&queue).await.expect("a producer");
            let numbers = producer * EACH..(producer + 1) * EACH;
            sending.push(tokio::spawn(send_all(connection, link, numbers)));
        }
        // Nobody takes anything until the memory is full.
        let full = async {
            while waiting(&admin) < BUDGET / LARGE as u64 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(SOON, full).await.expect("a full memory");
        let (_connection, session) = connect(&[broker.port]).await;
        let consumer = consumer(&session, &queue, 1).await;
        let mut numbers = Vec::new();
        for _ in 0..PRODUCERS * EACH {
            let delivery = next(&consumer).await;
            numbers.push(number(&delivery));
            delivery.accept().await.expect("accepted");
        }
        for producer in sending {
            producer.await.expect("all of them stored");
        }
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..PRODUCERS * EACH));
    });
    let took = peak(process.id()) - before;
    println!("{} MiB more at most", took >> 20);
    let half_sent = u64::from(PRODUCERS) * 2 * LARGE as u64;
    assert!(took <= BUDGET + half_sent + (64 << 20), "{took} bytes");
}

async fn send_all(_connection: Connection, producer: Producer, numbers: std::ops::Range<u8>) {
    for number in numbers {
        let message = message(number).non_persistent();
        producer.send(message).await.expect("stored");
    }
}
