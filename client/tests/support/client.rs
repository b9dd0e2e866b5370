//! What the messaging tests share: connections, and what is done on them.

use std::time::{Duration, Instant};

use daymark_client::proto::FactorySettings;
use daymark_client::{
    Connection, ConnectionEvent, ConnectionFactory, Consumer, Delivery, Destination, Events, Message,
    Producer, Session, TransactedSession,
};
use daymark_test_support::proxy::Proxy;

use super::broker::{Broker, Settings, Store};

/// How long anything may take: the machine may be busy.
pub(crate) const WAIT: Duration = Duration::from_secs(30);
/// How long nothing is listened for where nothing is expected.
pub(crate) const NOTHING: Duration = Duration::from_millis(80);

pub(crate) fn factory(brokers: &[&Broker]) -> ConnectionFactory {
    factory_with(brokers, FactorySettings::default())
}

pub(crate) fn factory_with(brokers: &[&Broker], settings: FactorySettings) -> ConnectionFactory {
    let addresses = brokers
        .iter()
        .map(|broker| (broker.address.ip().to_string(), broker.address.port()));
    ConnectionFactory::explicit(addresses, settings)
}

pub(crate) async fn session(brokers: &[&Broker]) -> (Connection, Session) {
    let connection = factory(brokers).connect().await.expect("connected");
    let session = connection.session().await.expect("a session");
    (connection, session)
}

pub(crate) async fn both(session: &Session) -> (Producer, Consumer) {
    let q = Destination::queue("q");
    let producer = session.producer(&q).await.expect("a producer");
    let consumer = session.consumer(&q).await.expect("a consumer");
    (producer, consumer)
}

pub(crate) async fn send(producer: &Producer, texts: &[&str]) {
    for text in texts {
        producer.send(Message::text(*text)).await.expect("stored");
    }
}

pub(crate) async fn next(consumer: &Consumer) -> Delivery {
    consumer
        .receive(WAIT)
        .await
        .expect("the consumer lives")
        .expect("a message")
}

pub(crate) fn text(delivery: &Delivery) -> String {
    delivery.message().as_text().expect("text").to_owned()
}

/// Receives and accepts until nothing more comes.
pub(crate) async fn drain(consumer: &Consumer) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(delivery) = consumer.receive(NOTHING).await.expect("the consumer lives") {
        texts.push(text(&delivery));
        delivery.accept().await.expect("accepted");
    }
    texts
}

pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + WAIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// A connection whose session is transacted, with both ends of `q`.
pub(crate) async fn transacted(connection: &Connection) -> (TransactedSession, Producer, Consumer) {
    let session = connection.transacted_session().await.expect("a session");
    let (producer, consumer) = both(&session).await;
    (session, producer, consumer)
}

/// Two brokers with one store, the first behind a proxy.
pub(crate) struct Pair {
    pub(crate) store: std::sync::Arc<std::sync::Mutex<Store>>,
    pub(crate) proxy: Proxy,
    pub(crate) first: Broker,
    pub(crate) second: Broker,
}

impl Pair {
    pub(crate) async fn start() -> Self {
        let store = super::broker::store();
        let first = Broker::start(&store, Settings::of(1)).await;
        let second = Broker::start(&store, Settings::of(2)).await;
        Self {
            proxy: Proxy::start(first.address),
            store,
            first,
            second,
        }
    }

    pub(crate) fn factory(&self, settings: FactorySettings) -> ConnectionFactory {
        let addresses = [self.proxy.address, self.second.address];
        let addresses = addresses.map(|address| (address.ip().to_string(), address.port()));
        ConnectionFactory::explicit(addresses, settings)
    }

    /// A connection to the first broker.
    pub(crate) async fn connect(&self) -> Connection {
        let connection = self.factory(FactorySettings::default()).connect().await;
        connection.expect("connected")
    }

    pub(crate) fn texts(&self) -> Vec<String> {
        self.store.lock().expect("the store").texts()
    }
}

/// The codes of the next events.
pub(crate) async fn codes(events: &mut Events, count: usize) -> Vec<&'static str> {
    let mut codes = Vec::new();
    for _ in 0..count {
        let event = tokio::time::timeout(WAIT, events.next())
            .await
            .expect("an event in time");
        codes.push(event.as_ref().map_or("none", ConnectionEvent::code));
    }
    codes
}
