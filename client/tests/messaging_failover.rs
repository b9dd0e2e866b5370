//! What a client sees of a failover, row by row: a proxy loses the connection at exactly the moment of each row.

mod support;

use std::time::{Duration, Instant};

use daymark_client::proto::{Epoch, FactorySettings};
use daymark_client::{
    Advice, ConnectError, ConnectionEvent, ConnectionFactory, ConsumerOptions, Destination, Disconnected,
    DuplicateId, InvalidFactory, Message, SendError,
};
use daymark_test_support::proxy::{Act, Moment, Piece, Proxy, Way};
use support::broker::{Broker, Settings, store};
use support::client::*;
use support::dead_address;

/// Settings with which blocked sends are returned at once.
fn unblocking() -> FactorySettings {
    FactorySettings {
        request_blocking_time_ms: 0,
        ..FactorySettings::default()
    }
}

#[tokio::test]
async fn an_idle_connection_is_made_anew_with_everything_in_it() {
    let pair = Pair::start().await;
    let connection = pair.connect().await;
    let mut events = connection.events();
    let session = connection.session().await.expect("a session");
    let (producer, consumer) = both(&session).await;
    let topic = session
        .consumer(&Destination::topic("t"))
        .await
        .expect("a subscriber");
    let answers = session.temporary_queue().await.expect("a temporary queue");
    let answered = session
        .consumer(answers.destination())
        .await
        .expect("its consumer");
    let before = answers.destination().address();
    pair.proxy.die();
    assert_eq!(codes(&mut events, 2).await, ["connected", "interrupted"]);
    let Some(ConnectionEvent::FailedOver { epoch, address }) = events.next().await else {
        panic!("no failover");
    };
    assert_eq!((epoch, address.port), (Epoch(2), pair.second.address.port()));
    // The session, both ends of the queue, the subscriber, the temporary queue and its consumer.
    until("all links on the new active", || {
        pair.second.attaches().len() == 5
    })
    .await;
    send(&producer, &["a"]).await;
    next(&consumer).await.accept().await.expect("accepted");
    let after = answers.destination().address();
    assert_ne!(
        before, after,
        "this broker gives every temporary queue a name of its own"
    );
    let reply = session.producer(answers.destination()).await.expect("a producer");
    send(&reply, &["answer"]).await;
    assert_eq!(text(&next(&answered).await), "answer");
    assert!(topic.receive(NOTHING).await.expect("it lives").is_none());
    connection.close().await;
    let Some(event @ ConnectionEvent::Disconnected { .. }) = events.next().await else {
        panic!("no end");
    };
    assert_eq!(event.code(), "disconnected");
    let ConnectionEvent::Disconnected { why } = event else {
        unreachable!("it was matched above")
    };
    assert_eq!(why.code(), "closed");
}

#[tokio::test]
async fn a_connection_that_is_given_up_tells_its_listener_why() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let proxy = Proxy::start(broker.address);
    let factory = ConnectionFactory::builder()
        .add_broker("127.0.0.1", proxy.address.port())
        .reconnect_attempts(2)
        .build()
        .expect("a factory");
    let connection = factory.connect().await.expect("connected");
    let mut events = connection.events();
    proxy.die();
    assert_eq!(codes(&mut events, 2).await, ["connected", "interrupted"]);
    let Some(ConnectionEvent::Disconnected { why }) = events.next().await else {
        panic!("no end");
    };
    assert_eq!(why.code(), "gave-up");
    let Disconnected::GaveUp(why) = why else {
        panic!("{why}");
    };
    assert!(
        matches!(*why, ConnectError::Unreachable { attempts_each: 2, .. }),
        "{why}"
    );
}

#[tokio::test]
async fn the_first_connection_goes_on_to_the_next_address_when_it_is_lost_within_the_greeting() {
    for (way, piece) in [
        (Way::ToClient, Piece::Header),
        (Way::ToClient, Piece::Sasl),
        (Way::ToBroker, Piece::Open),
        (Way::ToClient, Piece::Open),
    ] {
        let pair = Pair::start().await;
        let order = pair.proxy.at(way, Moment::Piece(piece, 1), Act::DieBefore);
        let connection = pair.connect().await;
        assert!(order.is_done(), "{way:?} {piece:?}");
        assert_eq!(connection.epoch(), Some(Epoch(2)), "{way:?} {piece:?}");
    }
}

#[tokio::test]
async fn a_broker_that_freezes_within_the_greeting_does_not_keep_the_client() {
    let pair = Pair::start().await;
    let moment = Moment::Piece(Piece::Open, 1);
    let order = pair.proxy.at(Way::ToClient, moment, Act::FreezeBefore);
    let connection = pair.connect().await;
    assert!(order.is_done());
    assert_eq!(connection.epoch(), Some(Epoch(2)));
}

#[tokio::test]
async fn the_first_connection_is_lost_and_tried_again_at_the_only_address_there_is() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let proxy = Proxy::start(broker.address);
    proxy.at(Way::ToClient, Moment::Piece(Piece::Open, 1), Act::CutBefore);
    proxy.at(Way::ToBroker, Moment::Piece(Piece::Open, 2), Act::CutAfter);
    let factory = ConnectionFactory::builder()
        .add_broker("127.0.0.1", proxy.address.port())
        .initial_connect_attempts(3)
        .build()
        .expect("a factory");
    factory.connect().await.expect("the third attempt");
    assert_eq!(proxy.connections(), 3);
}

#[tokio::test]
async fn a_blocked_send_is_sent_again_by_itself_and_stored_once() {
    for (way, piece, act) in [
        (Way::ToBroker, Piece::Transfer, Act::DieBefore),
        (Way::ToBroker, Piece::Transfer, Act::DieAfter),
        (Way::ToClient, Piece::Disposition, Act::DieBefore),
    ] {
        let pair = Pair::start().await;
        let connection = pair.connect().await;
        let session = connection.session().await.expect("a session");
        let (producer, _) = both(&session).await;
        let order = pair.proxy.at(way, Moment::Piece(piece, 2), act);
        send(&producer, &["a"]).await;
        let sent = producer.send(Message::text("b")).await.expect("stored");
        assert!(order.is_done(), "{way:?} {piece:?} {act:?}");
        assert_eq!(sent.epoch, Epoch(2), "the new active has acknowledged it");
        assert_eq!(pair.texts(), ["a", "b"], "{way:?} {piece:?} {act:?}");
    }
}

#[tokio::test]
async fn a_blocked_send_is_unblocked_for_programs_that_want_so_and_its_resend_is_stored_once() {
    for (way, piece, act) in [
        (Way::ToBroker, Piece::Transfer, Act::DieBefore),
        (Way::ToClient, Piece::Disposition, Act::DieBefore),
    ] {
        let pair = Pair::start().await;
        let connection = pair.factory(unblocking()).connect().await.expect("connected");
        let session = connection.session().await.expect("a session");
        let (producer, _) = both(&session).await;
        let order = pair.proxy.at(way, Moment::Piece(piece, 1), act);
        let message = Message::text("a");
        let error = producer.send(message.clone()).await.expect_err("unblocked");
        assert!(order.is_done(), "{way:?} {piece:?}");
        assert_eq!(error.advice(), Advice::ResendSameId);
        let SendError::Unblocked { duplicate_id } = error else {
            panic!("{error}");
        };
        let again = message.with_duplicate_id(duplicate_id);
        let sent = producer.send(again).await.expect("stored");
        assert_eq!((sent.duplicate_id, sent.epoch), (duplicate_id, Epoch(2)));
        assert_eq!(pair.texts(), ["a"], "{way:?} {piece:?}");
    }
}

#[tokio::test]
async fn an_unblocked_message_is_forgotten_and_so_are_those_behind_it() {
    let pair = Pair::start().await;
    let connection = pair.factory(unblocking()).connect().await.expect("connected");
    let session = connection.session().await.expect("a session");
    let (producer, _) = both(&session).await;
    // The first is on its way when everything stops; the others were taken before the loss too.
    let order = pair.proxy.at(
        Way::ToBroker,
        Moment::Piece(Piece::Transfer, 1),
        Act::FreezeBefore,
    );
    let mut receipts = Vec::new();
    for number in 0..10_u128 {
        let message = Message::text(number.to_string()).with_duplicate_id(DuplicateId(number));
        receipts.push(producer.send_async(message).await.expect("taken"));
    }
    until("the freeze", || order.is_done()).await;
    pair.proxy.die();
    for receipt in receipts {
        let error = receipt.await.expect_err("unblocked");
        assert!(
            matches!(error, SendError::Unblocked { .. } | SendError::NotSent { .. }),
            "{error}"
        );
    }
    send(&producer, &["new"]).await;
    assert_eq!(
        pair.texts(),
        ["new"],
        "nothing was sent behind the program's back"
    );
}

#[tokio::test]
async fn a_send_made_during_the_failover_is_no_blocked_one() {
    let store = store();
    let first = Broker::start(&store, Settings::of(1)).await;
    let proxy = Proxy::start(first.address);
    let place = dead_address().await;
    let factory = ConnectionFactory::builder()
        .add_broker_address("127.0.0.1", proxy.address.port(), "127.0.0.1", place.port())
        .request_blocking_time(Duration::ZERO)
        .build()
        .expect("a factory");
    let connection = factory.connect().await.expect("connected");
    let session = connection.session().await.expect("a session");
    let (producer, _) = both(&session).await;
    proxy.die();
    until("the loss", || connection.epoch().is_none()).await;
    let receipt = producer.send_async(Message::text("a")).await.expect("taken");
    let _second = Broker::start_at(place, &store, Settings::of(2)).await;
    receipt.await.expect("stored by the next active");
    assert_eq!(store.lock().expect("the store").texts(), ["a"]);
}

#[tokio::test]
async fn a_blocked_send_goes_on_waiting_for_the_blocking_time_only() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let proxy = Proxy::start(broker.address);
    let factory = ConnectionFactory::builder()
        .add_broker("127.0.0.1", proxy.address.port())
        .request_blocking_time(Duration::from_millis(300))
        .build()
        .expect("a factory");
    let connection = factory.connect().await.expect("connected");
    let session = connection.session().await.expect("a session");
    let (producer, _) = both(&session).await;
    proxy.at(Way::ToBroker, Moment::Piece(Piece::Transfer, 1), Act::DieBefore);
    let started = Instant::now();
    let error = producer.send(Message::text("a")).await.expect_err("unblocked");
    assert!(matches!(error, SendError::Unblocked { .. }), "{error}");
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "long before the reconnection gives up"
    );
}

#[tokio::test]
async fn what_was_consumed_and_not_acknowledged_comes_again_with_its_count_raised() {
    let pair = Pair::start().await;
    let connection = pair.connect().await;
    let session = connection.session().await.expect("a session");
    let (producer, consumer) = both(&session).await;
    // The consumer is handed the first message and loses the connection with the second.
    let moment = Moment::Piece(Piece::Transfer, 2);
    pair.proxy.at(Way::ToClient, moment, Act::DieBefore);
    send(&producer, &["a", "b"]).await;
    until("the failover", || connection.epoch() == Some(Epoch(2))).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let delivery = next(&consumer).await;
        if delivery.accept().await.is_ok() {
            seen.push((text(&delivery), delivery.delivery_count()));
        }
    }
    seen.sort();
    assert_eq!(seen, [("a".into(), 1), ("b".into(), 1)]);
}

#[tokio::test]
async fn a_receive_keeps_waiting_over_the_failover() {
    let pair = Pair::start().await;
    let connection = pair.connect().await;
    let session = connection.session().await.expect("a session");
    let (producer, consumer) = both(&session).await;
    let waiting = tokio::spawn(async move { consumer.receive(WAIT).await.map(|got| got.map(|d| text(&d))) });
    pair.proxy.die();
    until("the failover", || connection.epoch() == Some(Epoch(2))).await;
    send(&producer, &["a"]).await;
    let received = waiting.await.expect("no panic").expect("the consumer lives");
    assert_eq!(received.as_deref(), Some("a"));
}

#[tokio::test]
async fn a_receive_ends_at_its_own_timeout_also_in_the_middle_of_a_failover() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let proxy = Proxy::start(broker.address);
    let factory = ConnectionFactory::builder().add_broker("127.0.0.1", proxy.address.port());
    let connection = factory
        .build()
        .expect("a factory")
        .connect()
        .await
        .expect("connected");
    let session = connection.session().await.expect("a session");
    let (_, consumer) = both(&session).await;
    proxy.die();
    let started = Instant::now();
    let nothing = consumer
        .receive(Duration::from_millis(300))
        .await
        .expect("it lives");
    assert!(nothing.is_none());
    assert!(started.elapsed() >= Duration::from_millis(300));
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[tokio::test]
async fn silence_is_noticed_after_the_failure_check_period_and_a_closed_socket_at_once() {
    let pair = Pair::start().await;
    let period = Duration::from_millis(500);
    let settings = FactorySettings {
        client_failure_check_period_ms: 500,
        ..FactorySettings::default()
    };
    let connection = pair.factory(settings).connect().await.expect("connected");
    let session = connection.session().await.expect("a session");
    let (producer, _) = both(&session).await;
    send(&producer, &["a"]).await;
    pair.proxy.freeze();
    let started = Instant::now();
    send(&producer, &["b"]).await;
    assert!(started.elapsed() >= period / 2, "after {:?}", started.elapsed());
    assert_eq!(connection.epoch(), Some(Epoch(2)));
    assert_eq!(pair.texts(), ["a", "b"]);

    let pair = Pair::start().await;
    let settings = FactorySettings {
        client_failure_check_period_ms: 600_000,
        connection_ttl_ms: 600_000,
        ..FactorySettings::default()
    };
    let connection = pair.factory(settings).connect().await.expect("connected");
    pair.proxy.die();
    until("the failover", || connection.epoch() == Some(Epoch(2))).await;
}

#[tokio::test]
async fn a_connection_lost_after_any_byte_of_a_message_sends_it_again_whole() {
    for bytes in [1, 7, 8, 9, 40, 70_000, 199_999] {
        let pair = Pair::start().await;
        let connection = pair.connect().await;
        let session = connection.session().await.expect("a session");
        let (producer, consumer) = both(&session).await;
        let order = pair.proxy.at(Way::ToBroker, Moment::Bytes(bytes), Act::DieBefore);
        let body: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        producer.send(Message::bytes(body.clone())).await.expect("stored");
        assert!(order.is_done());
        let delivery = next(&consumer).await;
        assert_eq!(
            delivery.message().as_bytes().map(|b| &b[..]),
            Some(&body[..]),
            "{bytes}"
        );
    }
}

#[tokio::test]
async fn a_broker_that_teaches_a_new_member_is_followed_to_it() {
    let store = store();
    let third = Broker::start(&store, Settings::of(3)).await;
    let second = Broker::start(
        &store,
        Settings {
            servers: vec![third.address],
            ..Settings::of(2)
        },
    )
    .await;
    let first = Broker::start(
        &store,
        Settings {
            servers: vec![second.address],
            ..Settings::of(1)
        },
    )
    .await;
    // Only one address is given; each active teaches the next.
    let factory = ConnectionFactory::builder().add_broker("127.0.0.1", first.address.port());
    let connection = factory
        .build()
        .expect("a factory")
        .connect()
        .await
        .expect("connected");
    first.kill().await;
    until("the second", || connection.epoch() == Some(Epoch(2))).await;
    second.kill().await;
    until("the third", || connection.epoch() == Some(Epoch(3))).await;
}

#[tokio::test]
async fn settings_that_cannot_be_used_are_refused_wherever_they_come_from() {
    let refused = ConnectionFactory::builder()
        .add_broker("127.0.0.1", 1)
        .reconnect_interval_multiplier(f64::INFINITY)
        .build()
        .err();
    let Some(InvalidFactory::Setting(why)) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!(why.setting, "reconnect_interval_multiplier");
    let settings = FactorySettings {
        client_failure_check_period_ms: 1,
        ..FactorySettings::default()
    };
    let error = ConnectionFactory::explicit([("127.0.0.1", 1)], settings)
        .connect()
        .await
        .err();
    let Some(ConnectError::InvalidSettings(why)) = error else {
        panic!("{error:?}");
    };
    assert_eq!(why.setting, "client_failure_check_period_ms");
}

#[tokio::test]
async fn a_consumer_that_asks_whether_there_is_more_asks_the_next_broker_where_it_must() {
    let pair = Pair::start().await;
    let connection = pair.connect().await;
    let session = connection.session().await.expect("a session");
    let q = Destination::queue("q");
    let options = ConsumerOptions {
        prefetch: 1,
        ..ConsumerOptions::default()
    };
    let consumer = session.consumer_with(&q, options).await.expect("a consumer");
    assert!(consumer.receive_now().await.expect("an answer").is_none());
    // The question is the moment; it is lost with the first broker.
    let order = pair
        .proxy
        .at(Way::ToBroker, Moment::Piece(Piece::Flow, 1), Act::DieBefore);
    assert!(consumer.receive_now().await.expect("an answer").is_none());
    until("the moment", || order.is_done()).await;
    until("the failover", || connection.epoch() == Some(Epoch(2))).await;
    let producer = session.producer(&q).await.expect("a producer");
    send(&producer, &["a"]).await;
    let delivery = consumer
        .receive_now()
        .await
        .expect("an answer")
        .expect("a message");
    assert_eq!(text(&delivery), "a");
}
