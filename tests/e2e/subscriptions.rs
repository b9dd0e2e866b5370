//! Durable and shared subscriptions while their broker is killed.

use std::time::Duration;

use daymark_client::proto::FactorySettings;
use daymark_client::{
    Connection, ConnectionFactory, ConnectionOptions, Consumer, ConsumerOptions, Delivery, Destination,
    Message, OpenError, Session, Subscription,
};

use crate::stage::{Pair, SOON, wait};

const CONFIG: &str = "[failover]\nauto_switchover = false\n[[messaging.topics]]\nname = \"news\"\n";

/// How long nothing comes where nothing may come.
const NOTHING: Duration = Duration::from_millis(200);

#[test]
fn a_durable_subscription_keeps_what_was_not_acknowledged_when_its_broker_is_killed() {
    let mut pair = Pair::new(CONFIG);
    wait(async {
        let reader = connect(pair.one.broker.port, Some("reader")).await;
        let session = reader.session().await.expect("a session");
        let consumer = subscribe(&session, Subscription::durable("all")).await;
        publish(&reader, 0..8).await;
        for number in 0..3 {
            let delivery = next(&consumer).await;
            assert_eq!(text(&delivery), number.to_string());
            delivery.accept().await.expect("a confirmation");
        }
        let _held = [next(&consumer).await, next(&consumer).await];
        // The record that they are out is durable with what is stored next.
        publish(&reader, 8..9).await;
        pair.one.process.kill_9();
    });
    pair.stage.group_served_by("two", 2);
    wait(async {
        let writer = connect(pair.two.broker.port, None).await;
        publish(&writer, 9..12).await;
        let reader = connect(pair.two.broker.port, Some("reader")).await;
        let session = reader.session().await.expect("a session");
        let consumer = subscribe(&session, Subscription::durable("all")).await;
        for number in 3..12 {
            let delivery = next(&consumer).await;
            assert_eq!(text(&delivery), number.to_string());
            assert!(delivery.redelivered() || number >= 5, "{number} was out before");
            delivery.accept().await.expect("a confirmation");
        }
        assert_nothing(&consumer).await;
    });
}

#[test]
fn a_shared_durable_subscription_gives_each_message_to_one_consumer_over_the_death_of_its_broker() {
    let mut pair = Pair::new(CONFIG);
    wait(async {
        let connection = connect(pair.one.broker.port, None).await;
        let session = connection.session().await.expect("a session");
        let consumer = subscribe(&session, Subscription::shared_durable("work")).await;
        publish(&connection, 0..20).await;
        for number in 0..5 {
            let delivery = next(&consumer).await;
            assert_eq!(text(&delivery), number.to_string());
            delivery.accept().await.expect("a confirmation");
        }
        pair.one.process.kill_9();
    });
    pair.stage.group_served_by("two", 2);
    wait(async {
        let connections = [
            connect(pair.two.broker.port, None).await,
            connect(pair.two.broker.port, None).await,
        ];
        let mut found = Vec::new();
        let mut consumers = Vec::new();
        for connection in &connections {
            let session = connection.session().await.expect("a session");
            consumers.push(subscribe(&session, Subscription::shared_durable("work")).await);
        }
        publish(&connections[0], 20..40).await;
        for consumer in consumers.iter().cycle() {
            if found.len() == 35 {
                break;
            }
            if let Some(delivery) = consumer.receive(NOTHING).await.expect("a working consumer") {
                found.push(text(&delivery).parse::<u32>().expect("a number"));
                delivery.accept().await.expect("a confirmation");
            }
        }
        found.sort_unstable();
        assert_eq!(found, (5..40).collect::<Vec<u32>>());
        for consumer in &consumers {
            assert_nothing(consumer).await;
        }
    });
}

#[test]
fn a_subscription_that_was_ended_stays_ended_when_its_broker_is_killed() {
    let mut pair = Pair::new(CONFIG);
    let both = [Subscription::durable("all"), Subscription::shared_durable("work")];
    wait(async {
        let reader = connect(pair.one.broker.port, Some("reader")).await;
        let session = reader.session().await.expect("a session");
        for subscription in both.clone() {
            subscribe(&session, subscription).await.close().await;
        }
        publish(&reader, 0..3).await;
        for subscription in &both {
            let ended = session.unsubscribe(subscription.name()).await;
            ended.expect("an end");
        }
        pair.one.process.kill_9();
    });
    pair.stage.group_served_by("two", 2);
    wait(async {
        let reader = connect(pair.two.broker.port, Some("reader")).await;
        let session = reader.session().await.expect("a session");
        for subscription in &both {
            let refused = session.unsubscribe(subscription.name()).await;
            assert!(matches!(refused, Err(OpenError::Refused { .. })), "{refused:?}");
        }
        for subscription in both {
            assert_nothing(&subscribe(&session, subscription).await).await;
        }
    });
}

/// A connection to this broker and no other.
async fn connect(port: u16, container_id: Option<&str>) -> Connection {
    let factory = ConnectionFactory::explicit([("127.0.0.1", port)], FactorySettings::default());
    let options = ConnectionOptions {
        container_id: container_id.map(str::to_owned),
        ..ConnectionOptions::default()
    };
    factory.connect_with(options).await.expect("a connection")
}

async fn subscribe(session: &Session, subscription: Subscription) -> Consumer {
    let options = ConsumerOptions {
        subscription: Some(subscription),
        ..ConsumerOptions::default()
    };
    let consumer = session.consumer_with(&Destination::topic("news"), options).await;
    consumer.expect("a consumer")
}

/// Returns when every message is acknowledged.
async fn publish(connection: &Connection, numbers: std::ops::Range<u32>) {
    let session = connection.session().await.expect("a session");
    let producer = session.producer(&Destination::topic("news")).await;
    let producer = producer.expect("a producer");
    for number in numbers {
        let sent = producer.send(Message::text(number.to_string())).await;
        sent.expect("an acknowledgement");
    }
}

async fn next(consumer: &Consumer) -> Delivery {
    let received = consumer.receive(SOON).await.expect("a working consumer");
    received.expect("a message")
}

async fn assert_nothing(consumer: &Consumer) {
    let more = consumer.receive(NOTHING).await.expect("a working consumer");
    assert!(more.is_none(), "one more: {more:?}");
}

fn text(delivery: &Delivery) -> &str {
    delivery.message().as_text().unwrap_or_default()
}
