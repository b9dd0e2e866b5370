//! What JMS programs know: subscriptions, selectors, browsers, temporary destinations, anonymous producers; and
//! that all of it goes over the wire as JMS clients write it.

mod support;

use std::time::Duration;

use daymark_amqp::{DistributionMode, Durability, ExpiryPolicy, Filter, RemoteAttach, Role, Source, Target};
use daymark_client::proto::Epoch;
use daymark_client::{
    Browser, Connection, ConnectionOptions, ConsumerOptions, Destination, InvalidSubscription, Message,
    OpenError, ReceiveError, SendError, Session, Subscription,
};
use support::broker::{Broker, Settings, store};
use support::client::*;

/// The last link that a client asked to receive by, as this broker heard it.
fn last_source(broker: &Broker) -> (RemoteAttach, Source) {
    let attaches = broker.attaches();
    let attach = attaches.into_iter().rfind(|attach| attach.role == Role::Sender);
    let attach = attach.expect("a link");
    let source = attach.source.clone().expect("a source");
    (attach, source)
}

fn capabilities(source: &Source) -> Vec<&str> {
    source
        .capabilities
        .iter()
        .map(daymark_amqp::Symbol::as_str)
        .collect()
}

async fn named(broker: &Broker, name: &str) -> (Connection, Session) {
    let options = ConnectionOptions {
        container_id: Some(name.to_owned()),
        ..ConnectionOptions::default()
    };
    let connection = factory(&[broker]).connect_with(options).await.expect("connected");
    let session = connection.session().await.expect("a session");
    (connection, session)
}

fn subscribed(subscription: Subscription) -> ConsumerOptions {
    ConsumerOptions {
        subscription: Some(subscription),
        ..ConsumerOptions::default()
    }
}

async fn shown(browser: &Browser) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(message) = browser.next(WAIT).await.expect("it lives") {
        texts.push(message.as_text().expect("text").to_owned());
    }
    texts
}

#[tokio::test]
async fn a_durable_subscription_is_written_as_jms_clients_do_and_outlives_its_consumer() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, session) = named(&broker, "desk").await;
    let topic = Destination::topic("t");
    let options = subscribed(Subscription::durable("audit"));
    let consumer = session.consumer_with(&topic, options).await.expect("a consumer");
    let (attach, source) = last_source(&broker);
    assert_eq!(attach.name, "audit");
    assert_eq!(source.address.as_deref(), Some("t"));
    assert_eq!(source.durable, Durability::UnsettledState);
    assert_eq!(source.expiry_policy, ExpiryPolicy::Never);
    assert_eq!(source.distribution_mode, Some(DistributionMode::Copy));
    assert_eq!(capabilities(&source), ["topic"]);
    consumer.close().await;
    until("the end of the link", || !broker.detached().is_empty()).await;
    assert_eq!(
        broker.detached(),
        [("audit".to_owned(), false)],
        "detached, not closed"
    );
}

#[tokio::test]
async fn a_plain_subscriber_leaves_nothing_and_may_leave_its_own_messages_out() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, session) = session(&[&broker]).await;
    let options = ConsumerOptions {
        no_local: true,
        selector: Some("colour = 'red'".into()),
        ..ConsumerOptions::default()
    };
    let topic = Destination::topic("t");
    let _consumer = session.consumer_with(&topic, options).await.expect("a consumer");
    let (_, source) = last_source(&broker);
    assert_eq!(source.durable, Durability::None);
    assert_eq!(source.expiry_policy, ExpiryPolicy::LinkDetach);
    let filters = source.filters();
    let [
        Filter::Selector { key, expression },
        Filter::NoLocal { key: other },
    ] = &filters[..]
    else {
        panic!("{filters:?}");
    };
    assert_eq!((key.as_str(), other.as_str()), ("jms-selector", "no-local"));
    assert_eq!(expression, "colour = 'red'");
}

#[tokio::test]
async fn shared_subscriptions_are_known_by_the_names_that_jms_clients_use() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let topic = Destination::topic("t");
    let (_connection, mine) = named(&broker, "desk").await;
    let (_other, theirs) = session(&[&broker]).await;
    let mut consumers = Vec::new();
    for (session, subscription, name, capability) in [
        (
            &mine,
            Subscription::shared_durable("s"),
            "s",
            &["topic", "shared"][..],
        ),
        (
            &mine,
            Subscription::shared_durable("s"),
            "s|2",
            &["topic", "shared"],
        ),
        (
            &mine,
            Subscription::shared("s"),
            "s|volatile1",
            &["topic", "shared"],
        ),
        (
            &theirs,
            Subscription::shared_durable("s"),
            "s|global",
            &["topic", "shared", "global"],
        ),
        (
            &theirs,
            Subscription::shared("s"),
            "s|global-volatile1",
            &["topic", "shared", "global"],
        ),
    ] {
        let options = subscribed(subscription);
        consumers.push(session.consumer_with(&topic, options).await.expect("a consumer"));
        let (attach, source) = last_source(&broker);
        assert_eq!(attach.name, name);
        assert_eq!(capabilities(&source), capability);
    }
}

#[tokio::test]
async fn a_subscription_that_cannot_be_is_refused_before_the_broker_is_asked() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, session) = session(&[&broker]).await;
    let topic = Destination::topic("t");
    let durable = subscribed(Subscription::durable("audit"));
    let error = session.consumer_with(&topic, durable).await.err();
    assert!(
        matches!(
            error,
            Some(OpenError::Subscription(InvalidSubscription::NoContainerId { .. }))
        ),
        "{error:?}"
    );
    let error = session.unsubscribe("a|b").await.err();
    assert!(matches!(error, Some(OpenError::Subscription(_))), "{error:?}");
    assert!(broker.attaches().is_empty());
}

#[tokio::test]
async fn a_browser_shows_the_queue_from_front_to_end_and_takes_nothing() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, session) = session(&[&broker]).await;
    let q = Destination::queue("q");
    let producer = session.producer(&q).await.expect("a producer");
    let texts: Vec<String> = (0..700).map(|number| number.to_string()).collect();
    let mut receipts = Vec::new();
    for text in &texts {
        receipts.push(producer.send_async(Message::text(text)).await.expect("taken"));
    }
    for receipt in receipts {
        receipt.await.expect("stored");
    }
    // More than one turn of credit.
    let browser = session.browser(&q).await.expect("a browser");
    assert_eq!(shown(&browser).await, texts);
    assert!(browser.next(WAIT).await.expect("still the end").is_none());
    let (_, source) = last_source(&broker);
    assert_eq!(source.distribution_mode, Some(DistributionMode::Copy));
    assert_eq!(store.lock().expect("the store").texts().len(), 700);
    browser.close().await;
    assert_eq!(store.lock().expect("the store").held(), 0);
}

#[tokio::test]
async fn a_browser_of_an_empty_queue_ends_at_once_and_one_of_a_lost_broker_says_so() {
    let pair = Pair::start().await;
    let connection = pair.connect().await;
    let session = connection.session().await.expect("a session");
    let q = Destination::queue("q");
    let browser = session.browser(&q).await.expect("a browser");
    assert_eq!(shown(&browser).await, Vec::<String>::new());
    let producer = session.producer(&q).await.expect("a producer");
    send(&producer, &["a", "b"]).await;
    let browser = session.browser(&q).await.expect("a browser");
    assert!(browser.next(WAIT).await.expect("it lives").is_some());
    pair.proxy.die();
    until("the failover", || connection.epoch() == Some(Epoch(2))).await;
    let error = browser.next(WAIT).await.expect_err("the rest is unknown");
    assert!(matches!(error, ReceiveError::BrowseInterrupted), "{error}");
    let browser = session.browser(&q).await.expect("a browser");
    assert_eq!(shown(&browser).await, ["a", "b"]);
}

#[tokio::test]
async fn a_request_is_answered_over_a_temporary_queue_by_an_anonymous_producer() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, asking) = session(&[&broker]).await;
    let (_other, answering) = session(&[&broker]).await;
    let answers = asking.temporary_queue().await.expect("a temporary queue");
    let (questions, _) = (
        asking
            .producer(&Destination::queue("q"))
            .await
            .expect("a producer"),
        (),
    );
    let inbox = asking.consumer(answers.destination()).await.expect("a consumer");
    let request = Message {
        message_id: Some("7".into()),
        ..Message::text("what?")
    };
    let request = request.with_reply_to(answers.destination());
    questions.send(request).await.expect("stored");

    let service = answering
        .consumer(&Destination::queue("q"))
        .await
        .expect("a consumer");
    let replies = answering.anonymous_producer().await.expect("a producer");
    let delivery = next(&service).await;
    let there = delivery.message().reply_to.clone().expect("where answers go");
    assert!(there.is_temporary() && !there.is_topic());
    let answer = Message::text("that").answering(delivery.message());
    replies.send_to(&there, answer).await.expect("stored");
    delivery.accept().await.expect("accepted");
    let error = replies
        .send(Message::text("lost"))
        .await
        .expect_err("no destination");
    assert!(matches!(error, SendError::NoDestination), "{error}");

    let answer = next(&inbox).await;
    assert_eq!(answer.message().correlation_id.as_deref(), Some("7"));
    assert_eq!(text(&answer), "that");
    let dynamic = broker
        .attaches()
        .into_iter()
        .find_map(|attach| match attach.target {
            Some(Target::Node(node)) if node.dynamic => Some(node),
            _ => None,
        });
    let dynamic = dynamic.expect("a dynamic node");
    assert_eq!(dynamic.expiry_policy, ExpiryPolicy::LinkDetach);
    assert_eq!(dynamic.capabilities[0].as_str(), "temporary-queue");
    assert!(dynamic.dynamic_node_properties.get("lifetime-policy").is_some());
}

#[tokio::test]
async fn a_request_sent_again_after_a_failover_names_the_new_temporary_queue() {
    let pair = Pair::start().await;
    let connection = pair.connect().await;
    let session = connection.session().await.expect("a session");
    let answers = session.temporary_queue().await.expect("a temporary queue");
    let inbox = session.consumer(answers.destination()).await.expect("a consumer");
    let questions = session
        .producer(&Destination::queue("q"))
        .await
        .expect("a producer");
    use daymark_test_support::proxy::{Act, Moment, Piece, Way};
    let moment = Moment::Piece(Piece::Transfer, 1);
    let order = pair.proxy.at(Way::ToBroker, moment, Act::DieBefore);
    let request = Message::text("what?").with_reply_to(answers.destination());
    questions.send(request).await.expect("stored by the next active");
    assert!(order.is_done());
    let service = session
        .consumer(&Destination::queue("q"))
        .await
        .expect("a consumer");
    let delivery = next(&service).await;
    let there = delivery.message().reply_to.clone().expect("where answers go");
    assert_eq!(there.address(), answers.destination().address());
    let replies = session.anonymous_producer().await.expect("a producer");
    replies
        .send_to(&there, Message::text("that"))
        .await
        .expect("stored");
    assert_eq!(text(&next(&inbox).await), "that");
}

#[tokio::test]
async fn a_temporary_queue_ends_with_its_handle() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, session) = session(&[&broker]).await;
    let answers = session.temporary_queue().await.expect("a temporary queue");
    let topic = session.temporary_topic().await.expect("a temporary topic");
    assert!(topic.destination().is_topic());
    drop(answers);
    until("the end of its link", || broker.detached().len() == 1).await;
    assert!(broker.detached()[0].1, "closed, not detached");
}

#[tokio::test]
async fn a_message_is_given_back_as_failed_or_as_if_nothing_had_been() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, session) = session(&[&broker]).await;
    let (producer, consumer) = both(&session).await;
    send(&producer, &["a"]).await;
    next(&consumer)
        .await
        .modify(true, false)
        .await
        .expect("given back");
    let delivery = next(&consumer).await;
    delivery.accept().await.expect("accepted");
    assert!(
        consumer
            .receive(Duration::ZERO)
            .await
            .expect("it lives")
            .is_none()
    );
}
