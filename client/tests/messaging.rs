//! The messaging client against brokers that lose their connections at chosen moments.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daymark_client::proto::resp::Frame;
use daymark_client::proto::{
    Binding, BrokerAddress, Change, ChangeKind, Epoch, FactorySettings, Object, Revision, WatchMessage,
};
use daymark_client::{
    Advice, BrokerFailure, ConnectError, ConnectionEvent, ConnectionFactory, ConnectionOptions,
    ConsumerOptions, Credentials, Destination, Disconnected, LookupError, Message, OpenError,
    ProducerOptions, ReceiveError, SendError, SettleError,
};
use support::broker::{Act, Broker, Moment, Settings, store};
use support::client::*;
use support::{Reply, Server, changed, dead_address, document, name, naming, queue, watch_push};

#[tokio::test]
async fn a_message_arrives_as_it_was_sent_and_is_gone_when_accepted() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (connection, session) = session(&[&broker]).await;
    let (producer, consumer) = both(&session).await;
    let message = Message::text("hello")
        .with_subject("greeting")
        .with_property("n", 7_i64)
        .with_priority(5);
    let sent = producer.send(message.clone()).await.expect("stored");
    let delivery = next(&consumer).await;
    let expected = message.with_duplicate_id(sent.duplicate_id);
    assert_eq!(delivery.message(), &expected);
    assert!(!delivery.redelivered());
    delivery.accept().await.expect("accepted");
    assert!(matches!(
        delivery.accept().await,
        Err(SettleError::AlreadySettled)
    ));
    assert!(store.lock().expect("the store").texts().is_empty());
    connection.close().await;
    assert_eq!(broker.closed(), 1);
    let error = producer.send(Message::text("late")).await.expect_err("closed");
    assert_eq!(error.advice(), Advice::Reconnect, "{error}");
    assert!(matches!(
        consumer.receive(WAIT).await,
        Err(ReceiveError::Disconnected(Disconnected::Closed))
    ));
}

#[tokio::test]
async fn a_message_lost_before_it_was_stored_is_sent_again() {
    let store = store();
    let plan = Settings::of(1).at(Moment::Transfer(2), Act::CutBefore);
    let broker = Broker::start(&store, plan).await;
    let (_connection, session) = session(&[&broker]).await;
    let (producer, _) = both(&session).await;
    send(&producer, &["a", "b", "c"]).await;
    assert_eq!(store.lock().expect("the store").texts(), ["a", "b", "c"]);
    assert_eq!(broker.connections(), 2);
    let containers = broker.containers();
    assert_eq!(containers[0], containers[1], "its name is kept");
}

#[tokio::test]
async fn a_message_stored_without_an_answer_is_sent_again_under_the_same_id() {
    let store = store();
    let plan = Settings::of(1).at(Moment::Transfer(2), Act::CutAfter);
    let broker = Broker::start(&store, plan).await;
    let (_connection, session) = session(&[&broker]).await;
    let (producer, _) = both(&session).await;
    send(&producer, &["a", "b", "c"]).await;
    let store = store.lock().expect("the store");
    assert_eq!(store.texts(), ["a", "b", "c"]);
    assert_eq!(store.arrived.len(), 4);
    assert_eq!(store.arrived[1], store.arrived[2]);
}

#[tokio::test]
async fn a_connection_lost_within_a_message_sends_it_again_whole() {
    let store = store();
    let plan = Settings::of(1).at(Moment::Bytes(300_000), Act::CutBefore);
    let broker = Broker::start(&store, plan).await;
    let (_connection, session) = session(&[&broker]).await;
    let (producer, consumer) = both(&session).await;
    let body = vec![7_u8; 1_000_000];
    producer.send(Message::bytes(body.clone())).await.expect("stored");
    assert_eq!(broker.connections(), 2);
    let delivery = next(&consumer).await;
    assert_eq!(delivery.message().as_bytes().map(|b| &b[..]), Some(&body[..]));
}

#[tokio::test]
async fn order_is_kept_over_a_failover_in_the_middle_of_a_window() {
    let store = store();
    let plan = Settings::of(1).at(Moment::Transfer(57), Act::CutAfter);
    let first = Broker::start(&store, plan).await;
    let second = Broker::start(&store, Settings::of(2)).await;
    let (connection, session) = session(&[&first, &second]).await;
    let mut first = Some(first);
    let (producer, _) = both(&session).await;
    let mut receipts = Vec::new();
    for number in 0..300 {
        let message = Message::text(number.to_string());
        receipts.push(producer.send_async(message).await.expect("taken"));
        if number == 150 {
            first.take().expect("alive until now").kill().await;
        }
    }
    for receipt in receipts {
        receipt.await.expect("stored");
    }
    assert_eq!(connection.epoch(), Some(Epoch(2)));
    let expected: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    assert_eq!(store.lock().expect("the store").texts(), expected);
}

#[tokio::test]
async fn the_active_dies_and_the_next_one_goes_on() {
    let store = store();
    let first = Broker::start(&store, Settings::of(1)).await;
    let second = Broker::start(&store, Settings::of(2)).await;
    let (connection, session) = session(&[&first, &second]).await;
    let mut events = connection.events();
    let (producer, consumer) = both(&session).await;
    send(&producer, &["a", "b"]).await;
    assert_eq!(text(&next(&consumer).await), "a");
    let second_address = second.address;
    first.kill().await;
    send(&producer, &["c"]).await;
    let mut received = drain(&consumer).await;
    received.sort();
    assert_eq!(received, ["a", "b", "c"], "what was not accepted came again");
    assert_eq!(connection.epoch(), Some(Epoch(2)));
    assert!(matches!(
        events.next().await,
        Some(ConnectionEvent::Connected { epoch: Epoch(1), .. })
    ));
    assert!(matches!(
        events.next().await,
        Some(ConnectionEvent::Interrupted { .. })
    ));
    let Some(ConnectionEvent::FailedOver { epoch, address }) = events.next().await else {
        panic!("no failover");
    };
    assert_eq!((epoch, address.port), (Epoch(2), second_address.port()));
    connection.close().await;
    assert!(matches!(
        events.next().await,
        Some(ConnectionEvent::Disconnected {
            why: Disconnected::Closed
        })
    ));
}

#[tokio::test]
async fn an_accept_that_was_lost_is_given_again_and_the_program_sees_nothing_of_it() {
    let store = store();
    let plan = Settings::of(1).at(Moment::Disposition(2), Act::CutBefore);
    let broker = Broker::start(&store, plan).await;
    let (_connection, session) = session(&[&broker]).await;
    let (producer, consumer) = both(&session).await;
    send(&producer, &["a", "b", "c", "d"]).await;
    for expected in ["a", "b", "c", "d"] {
        let delivery = next(&consumer).await;
        assert_eq!(text(&delivery), expected);
        delivery.accept().await.expect("accepted");
    }
    assert_eq!(drain(&consumer).await, Vec::<String>::new());
    let store = store.lock().expect("the store");
    assert!(store.texts().is_empty());
    assert_eq!(store.settled.len(), 4);
}

#[tokio::test]
async fn an_accept_that_was_stored_and_not_confirmed_says_so_at_once() {
    let store = store();
    let plan = Settings::of(1).at(Moment::Disposition(1), Act::CutAfter);
    let broker = Broker::start(&store, plan).await;
    let (_connection, session) = session(&[&broker]).await;
    let (producer, consumer) = both(&session).await;
    send(&producer, &["a", "b", "c"]).await;
    let delivery = next(&consumer).await;
    let started = Instant::now();
    let error = delivery.accept().await.expect_err("nobody confirmed");
    assert!(matches!(error, SettleError::NotRedelivered), "{error}");
    assert_eq!(error.advice(), Advice::GoOn);
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(drain(&consumer).await, ["b", "c"]);
}

#[tokio::test]
async fn many_open_accepts_are_all_answered_after_a_failover() {
    let store = store();
    let plan = Settings::of(1).plan(|moment| match moment {
        Moment::Disposition(40) => Act::CutBefore,
        Moment::Disposition(n) if n < 40 && n % 2 == 0 => Act::Mute,
        Moment::Disposition(_) | Moment::Transfer(_) | Moment::Discharge(_) | Moment::Bytes(_) => {
            Act::Proceed
        }
    });
    let broker = Broker::start(&store, plan).await;
    let (_connection, session) = session(&[&broker]).await;
    let (producer, consumer) = both(&session).await;
    for number in 0..600 {
        let message = Message::text(number.to_string());
        drop(producer.send_async(message).await.expect("taken"));
    }
    let mut settlements = Vec::new();
    for number in 0..100 {
        let delivery = next(&consumer).await;
        assert_eq!(text(&delivery), number.to_string());
        settlements.push(delivery.accept_async().await.expect("asked"));
    }
    let mut confirmed = 0;
    for settlement in settlements {
        match settlement.await {
            Ok(()) => confirmed += 1,
            Err(SettleError::NotRedelivered) => {}
            Err(other) => panic!("{other}"),
        }
    }
    assert!(confirmed >= 50, "{confirmed}");
    let delivery = next(&consumer).await;
    assert_eq!(text(&delivery), "100", "nothing twice, nothing left out");
}

#[tokio::test]
async fn a_delivery_held_over_a_failover_is_accepted_on_the_new_connection() {
    let store = store();
    let first = Broker::start(&store, Settings::of(1)).await;
    let second = Broker::start(&store, Settings::of(2)).await;
    let (connection, session) = session(&[&first, &second]).await;
    let (producer, consumer) = both(&session).await;
    send(&producer, &["a", "b"]).await;
    let delivery = next(&consumer).await;
    first.kill().await;
    // Before and after it is delivered again.
    until("the failover", || connection.epoch() == Some(Epoch(2))).await;
    delivery.accept().await.expect("accepted");
    assert_eq!(drain(&consumer).await, ["b"]);
    assert_eq!(store.lock().expect("the store").settled.len(), 2);
}

#[tokio::test]
async fn what_was_prefetched_from_a_lost_connection_is_shown_once() {
    let store = store();
    let first = Broker::start(&store, Settings::of(1)).await;
    let second = Broker::start(&store, Settings::of(2)).await;
    let (connection, session) = session(&[&first, &second]).await;
    let (producer, consumer) = both(&session).await;
    let texts: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    for text in &texts {
        producer.send(Message::text(text)).await.expect("stored");
    }
    let first_ten: Vec<String> = {
        let mut seen = Vec::new();
        for _ in 0..10 {
            let delivery = next(&consumer).await;
            delivery.accept().await.expect("accepted");
            seen.push(text(&delivery));
        }
        seen
    };
    first.kill().await;
    until("the failover", || connection.epoch() == Some(Epoch(2))).await;
    let delivery = next(&consumer).await;
    assert!(delivery.redelivered(), "it had been sent ahead");
    delivery.accept().await.expect("accepted");
    let rest = drain(&consumer).await;
    let all: Vec<String> = first_ten
        .into_iter()
        .chain([text(&delivery)])
        .chain(rest)
        .collect();
    assert_eq!(all, texts);
}

#[tokio::test]
async fn a_broker_of_a_lower_epoch_is_refused_for_the_next_address() {
    let store = store();
    let first = Broker::start(&store, Settings::of(5)).await;
    let stale = Broker::start(&store, Settings::of(4)).await;
    let next_active = Broker::start(&store, Settings::of(6)).await;
    let (connection, session) = session(&[&first, &stale, &next_active]).await;
    let (producer, _) = both(&session).await;
    assert_eq!(connection.epoch(), Some(Epoch(5)));
    first.kill().await;
    send(&producer, &["a"]).await;
    assert_eq!(connection.epoch(), Some(Epoch(6)));
}

#[tokio::test]
async fn a_stale_broker_alone_is_named_with_both_epochs() {
    let store = store();
    let stale = Broker::start(&store, Settings::of(4)).await;
    let object = daymark_client::proto::ConnectionFactory {
        brokers: vec![BrokerAddress {
            host: "127.0.0.1".into(),
            port: stale.address.port(),
            member: None,
        }],
        group: None,
        epoch: Some(Epoch(5)),
        settings: FactorySettings {
            initial_connect_attempts: 3,
            ..FactorySettings::default()
        },
    };
    let error = ConnectionFactory::from_object(&object)
        .connect()
        .await
        .err()
        .expect("refused");
    let ConnectError::Unreachable {
        attempts_each,
        attempts,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(*attempts_each, 3);
    let (given, highest) = (Epoch(4), Epoch(5));
    assert_eq!(attempts[0].why, BrokerFailure::StaleEpoch { given, highest });
    assert!(error.to_string().contains("epoch 4"), "{error}");
}

#[tokio::test]
async fn the_first_connection_tries_every_address_and_learns_more() {
    let store = store();
    let learned = Broker::start(&store, Settings::of(2)).await;
    let first = Broker::start(
        &store,
        Settings {
            servers: vec![learned.address],
            ..Settings::of(1)
        },
    )
    .await;
    let dead = dead_address().await;
    let addresses = [
        ("127.0.0.1".to_owned(), dead.port()),
        ("127.0.0.1".to_owned(), first.address.port()),
    ];
    let factory = ConnectionFactory::explicit(addresses, FactorySettings::default());
    let connection = factory.connect().await.expect("connected");
    assert_eq!(connection.address().map(|a| a.port), Some(first.address.port()));
    let mut events = connection.events();
    events.next().await;
    first.kill().await;
    events.next().await;
    assert!(matches!(
        events.next().await,
        Some(ConnectionEvent::FailedOver { epoch: Epoch(2), .. })
    ));
}

#[tokio::test]
async fn a_frozen_broker_does_not_keep_the_client_from_the_active_one() {
    let store = store();
    let frozen = Broker::start(
        &store,
        Settings {
            frozen: true,
            ..Settings::of(1)
        },
    )
    .await;
    let active = Broker::start(&store, Settings::of(2)).await;
    let started = Instant::now();
    let connection = factory(&[&frozen, &active]).connect().await.expect("connected");
    assert_eq!(connection.epoch(), Some(Epoch(2)));
    assert!(started.elapsed() < Duration::from_millis(1500));
}

#[tokio::test]
async fn a_broker_that_falls_silent_is_left_after_the_failure_check_period() {
    let store = store();
    let settings = Settings::of(1);
    let asleep = settings.asleep.clone();
    let first = Broker::start(&store, settings).await;
    let second = Broker::start(&store, Settings::of(2)).await;
    let settings = FactorySettings {
        client_failure_check_period_ms: 300,
        ..FactorySettings::default()
    };
    let factory = factory_with(&[&first, &second], settings);
    let connection = factory.connect().await.expect("connected");
    let session = connection.session().await.expect("a session");
    let (producer, _) = both(&session).await;
    send(&producer, &["a"]).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(
        connection.epoch(),
        Some(Epoch(1)),
        "an idle broker is not a silent one"
    );
    asleep.send_replace(true);
    send(&producer, &["b"]).await;
    assert_eq!(connection.epoch(), Some(Epoch(2)));
}

#[tokio::test]
async fn a_broker_that_comes_late_is_found_while_another_address_is_silent() {
    let store = store();
    let silent = Broker::start(
        &store,
        Settings {
            frozen: true,
            ..Settings::of(1)
        },
    )
    .await;
    let place = dead_address().await;
    let addresses = [
        ("127.0.0.1".to_owned(), silent.address.port()),
        ("127.0.0.1".to_owned(), place.port()),
    ];
    let factory = ConnectionFactory::explicit(addresses, FactorySettings::default());
    let connecting = tokio::spawn(async move { factory.connect().await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let started = Instant::now();
    let _late = Broker::start_at(place, &store, Settings::of(2)).await;
    let connection = connecting.await.expect("no panic").expect("connected");
    assert_eq!(connection.epoch(), Some(Epoch(2)));
    assert!(started.elapsed() < Duration::from_millis(1500));
}

#[tokio::test]
async fn refused_credentials_end_the_search() {
    let store = store();
    let strict = Broker::start(
        &store,
        Settings {
            refuses_credentials: true,
            ..Settings::of(1)
        },
    )
    .await;
    let options = ConnectionOptions {
        credentials: Some(Credentials {
            user: "duke".into(),
            password: "wrong".into(),
        }),
        ..ConnectionOptions::default()
    };
    let error = factory(&[&strict]).connect_with(options).await.err();
    assert!(
        matches!(error, Some(ConnectError::AuthenticationFailed { .. })),
        "{error:?}"
    );
    assert_eq!(strict.connections(), 1);
}

#[tokio::test]
async fn nobody_home_ends_after_the_initial_attempts() {
    let dead = dead_address().await;
    let settings = FactorySettings {
        initial_connect_attempts: 2,
        ..FactorySettings::default()
    };
    let factory = ConnectionFactory::explicit([("127.0.0.1", dead.port())], settings);
    let error = factory.connect().await.err().expect("nobody home");
    assert!(
        matches!(error, ConnectError::Unreachable { attempts_each: 2, .. }),
        "{error}"
    );
    let nobody = ConnectionFactory::explicit(Vec::<(String, u16)>::new(), FactorySettings::default());
    assert!(matches!(
        nobody.connect().await.err(),
        Some(ConnectError::NoAddress)
    ));
}

#[tokio::test]
async fn a_destination_that_is_not_there_is_refused_by_name() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, session) = session(&[&broker]).await;
    for error in [
        session.producer(&Destination::queue("none")).await.err(),
        session.consumer(&Destination::queue("none")).await.err(),
    ] {
        let Some(OpenError::Refused(refusal)) = error else {
            panic!("{error:?}");
        };
        assert_eq!(refusal.condition, "amqp:not-found");
    }
}

#[tokio::test]
async fn a_rejected_message_says_why() {
    let store = store();
    let plan = Settings::of(1).at(Moment::Transfer(1), Act::Reject);
    let broker = Broker::start(&store, plan).await;
    let (_connection, session) = session(&[&broker]).await;
    let (producer, _) = both(&session).await;
    let error = producer.send(Message::text("a")).await.expect_err("rejected");
    assert_eq!(error.advice(), Advice::GiveUp);
    assert!(error.to_string().contains("the queue is full"), "{error}");
    send(&producer, &["b"]).await;
}

#[tokio::test]
async fn a_send_without_an_answer_ends_with_an_unknown_outcome_and_can_be_repeated() {
    let store = store();
    let plan = Settings::of(1).at(Moment::Transfer(1), Act::Mute);
    let broker = Broker::start(&store, plan).await;
    let settings = FactorySettings {
        call_timeout_ms: 150,
        ..FactorySettings::default()
    };
    let connection = factory_with(&[&broker], settings)
        .connect()
        .await
        .expect("connected");
    let session = connection.session().await.expect("a session");
    let (producer, _) = both(&session).await;
    let message = Message::text("a");
    let error = producer.send(message.clone()).await.expect_err("no answer");
    assert_eq!(error.advice(), Advice::ResendSameId);
    let SendError::OutcomeUnknown { duplicate_id } = error else {
        panic!("{error}");
    };
    producer
        .send(message.with_duplicate_id(duplicate_id))
        .await
        .expect("stored");
    assert_eq!(store.lock().expect("the store").texts(), ["a"]);
}

#[tokio::test]
async fn a_full_window_makes_senders_wait_and_then_gives_up() {
    let store = store();
    let mute = Broker::start(&store, Settings::of(2).transfers(|_| Act::Mute)).await;
    let settings = FactorySettings {
        call_timeout_ms: 150,
        ..FactorySettings::default()
    };
    let connection = factory_with(&[&mute], settings)
        .connect()
        .await
        .expect("connected");
    let session = connection.session().await.expect("a session");
    let q = Destination::queue("q");
    let options = ProducerOptions { window: 2 };
    let producer = session.producer_with(&q, options).await.expect("a producer");
    let _first = producer.send_async(Message::text("a")).await.expect("taken");
    let _second = producer.send_async(Message::text("b")).await.expect("taken");
    let error = producer
        .send_async(Message::text("c"))
        .await
        .err()
        .expect("the window is full");
    assert!(matches!(error, SendError::NotSent { .. }), "{error}");
    assert_eq!(error.advice(), Advice::Retry);
}

#[tokio::test]
async fn calls_during_a_failover_end_after_their_own_timeout() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let settings = FactorySettings {
        call_failover_timeout_ms: 200,
        call_timeout_ms: 30_000,
        ..FactorySettings::default()
    };
    let connection = factory_with(&[&broker], settings)
        .connect()
        .await
        .expect("connected");
    let session = connection.session().await.expect("a session");
    let (producer, consumer) = both(&session).await;
    send(&producer, &["a"]).await;
    let delivery = next(&consumer).await;
    broker.kill().await;
    let started = Instant::now();
    let sent = producer.send(Message::text("b")).await.expect_err("no broker");
    assert!(matches!(sent, SendError::OutcomeUnknown { .. }), "{sent}");
    let accepted = delivery.accept().await.expect_err("no broker");
    assert!(matches!(accepted, SettleError::OutcomeUnknown), "{accepted}");
    assert!(
        consumer
            .receive(NOTHING)
            .await
            .expect("it may come back")
            .is_none()
    );
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_reconnection_that_fails_ends_everything_with_the_reason() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let settings = FactorySettings {
        reconnect_period_ms: 200,
        ..FactorySettings::default()
    };
    let connection = factory_with(&[&broker], settings)
        .connect()
        .await
        .expect("connected");
    let session = connection.session().await.expect("a session");
    let (producer, consumer) = both(&session).await;
    let mut events = connection.events();
    events.next().await;
    broker.kill().await;
    until("the loss is noticed", || connection.epoch().is_none()).await;
    let sent = producer.send(Message::text("a")).await.expect_err("no broker");
    assert!(matches!(sent, SendError::Disconnected(_)), "{sent}");
    assert_eq!(sent.advice(), Advice::Reconnect);
    let error = consumer.receive(WAIT).await.expect_err("over");
    assert!(
        error.to_string().contains("did not accept a connection"),
        "{error}"
    );
    events.next().await;
    assert!(matches!(
        events.next().await,
        Some(ConnectionEvent::Disconnected {
            why: Disconnected::GaveUp(_)
        })
    ));
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn without_reconnection_a_lost_connection_is_over() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let settings = FactorySettings {
        reconnect_enabled: false,
        ..FactorySettings::default()
    };
    let connection = factory_with(&[&broker], settings)
        .connect()
        .await
        .expect("connected");
    let session = connection.session().await.expect("a session");
    let (_, consumer) = both(&session).await;
    broker.kill().await;
    assert!(matches!(
        consumer.receive(WAIT).await,
        Err(ReceiveError::Disconnected(Disconnected::NotReconnected { .. }))
    ));
}

#[tokio::test]
async fn a_message_without_a_decision_goes_back() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, session) = session(&[&broker]).await;
    let (producer, consumer) = both(&session).await;
    send(&producer, &["a"]).await;
    drop(next(&consumer).await);
    let again = next(&consumer).await;
    again.release().await.expect("released");
    let again = next(&consumer).await;
    again.reject("cannot be processed").await.expect("rejected");
    assert_eq!(drain(&consumer).await, Vec::<String>::new());
    assert_eq!(store.lock().expect("the store").settled.len(), 1);
}

#[tokio::test]
async fn any_number_of_messages_dropped_at_once_goes_back() {
    const MANY: usize = 1500; // More than the commands that wait for the driver at a time.
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, session) = session(&[&broker]).await;
    let q = Destination::queue("q");
    let producer = session.producer(&q).await.expect("a producer");
    let mut receipts = Vec::new();
    for number in 0..MANY {
        let message = Message::text(number.to_string());
        receipts.push(producer.send_async(message).await.expect("taken"));
        if receipts.len() == 500 {
            for receipt in receipts.drain(..) {
                receipt.await.expect("stored");
            }
        }
    }
    let options = ConsumerOptions {
        prefetch: 2000,
        ..ConsumerOptions::default()
    };
    let consumer = session.consumer_with(&q, options).await.expect("a consumer");
    let mut deliveries = Vec::new();
    for _ in 0..MANY {
        deliveries.push(next(&consumer).await);
    }
    drop(deliveries);
    for _ in 0..MANY {
        next(&consumer).await.accept().await.expect("accepted");
    }
    assert_eq!(store.lock().expect("the store").settled.len(), MANY);
}

#[tokio::test]
async fn a_wait_that_no_clock_can_hold_is_a_long_wait() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, session) = session(&[&broker]).await;
    let (producer, consumer) = both(&session).await;
    let waiting = tokio::spawn(async move { consumer.receive(Duration::MAX).await.map(|got| got.is_some()) });
    send(&producer, &["a"]).await;
    let received = tokio::time::timeout(WAIT, waiting).await.expect("in time");
    assert!(received.expect("no panic").expect("the consumer lives"));
}

#[tokio::test]
async fn the_broker_sends_no_more_ahead_than_the_prefetch() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, session) = session(&[&broker]).await;
    let q = Destination::queue("q");
    let producer = session.producer(&q).await.expect("a producer");
    for number in 0..100 {
        let message = Message::text(number.to_string());
        producer.send(message).await.expect("stored");
    }
    let options = ConsumerOptions {
        prefetch: 10,
        ..ConsumerOptions::default()
    };
    let consumer = session.consumer_with(&q, options).await.expect("a consumer");
    let held = || store.lock().expect("the store").held();
    until("the prefetch", || held() == 10).await;
    let mut count = 0;
    while let Some(delivery) = consumer.receive(NOTHING).await.expect("it lives") {
        assert!(held() <= 11 + count, "{} at {count}", held());
        delivery.accept().await.expect("accepted");
        count += 1;
    }
    assert_eq!(count, 100);
}

#[tokio::test]
async fn closing_a_consumer_gives_back_what_it_held() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (connection, session) = session(&[&broker]).await;
    let (producer, consumer) = both(&session).await;
    send(&producer, &["a"]).await;
    let delivery = next(&consumer).await;
    consumer.close().await;
    assert!(matches!(delivery.accept().await, Err(SettleError::LinkClosed)));
    assert!(matches!(
        consumer.receive(WAIT).await,
        Err(ReceiveError::LinkClosed(_))
    ));
    session.close().await;
    let error = session.producer(&Destination::queue("q")).await.err();
    assert!(matches!(error, Some(OpenError::SessionClosed)), "{error:?}");
    connection.close().await;
}

#[tokio::test]
async fn what_was_sent_is_delivered_although_every_handle_is_dropped() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (connection, session) = session(&[&broker]).await;
    let producer = session
        .producer(&Destination::queue("q"))
        .await
        .expect("a producer");
    let mut receipts = Vec::new();
    for number in 0..50 {
        let message = Message::text(number.to_string());
        receipts.push(producer.send_async(message).await.expect("taken"));
    }
    drop(producer);
    drop(session);
    drop(connection);
    for receipt in receipts {
        receipt.await.expect("stored");
    }
    until("the goodbye", || broker.closed() == 1).await;
}

#[tokio::test]
async fn closing_a_producer_waits_for_its_answers() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (_connection, session) = session(&[&broker]).await;
    let (producer, _) = both(&session).await;
    for number in 0..50 {
        let message = Message::text(number.to_string());
        drop(producer.send_async(message).await.expect("taken"));
    }
    producer.close().await;
    assert_eq!(store.lock().expect("the store").texts().len(), 50);
    let error = producer.send(Message::text("late")).await.expect_err("closed");
    assert!(matches!(error, SendError::LinkClosed(_)), "{error}");
}

fn exported(broker: &Broker, epoch: u64, revision: u64) -> Binding {
    let object = daymark_client::proto::ConnectionFactory {
        brokers: vec![BrokerAddress {
            host: "127.0.0.1".into(),
            port: broker.address.port(),
            member: None,
        }],
        group: Some("orders".parse().expect("a group")),
        epoch: Some(Epoch(epoch)),
        settings: FactorySettings::default(),
    };
    Binding {
        object: Object::ConnectionFactory(Box::new(object)),
        ..queue("q", "", revision)
    }
}

/// A naming server whose name `q` is bound so.
async fn naming_of(binding: Binding) -> Server {
    let state = WatchMessage::State {
        change: Change {
            name: name("q"),
            kind: ChangeKind::Bound {
                binding: Arc::new(binding.clone()),
            },
        },
    };
    let bookmark = WatchMessage::Bookmark {
        revision: Revision(3),
    };
    Server::start(3, move |words| match (words[0].as_str(), words[1].as_str()) {
        ("WATCH", _) => vec![
            Reply::Frame(Frame::Integer(1)),
            Reply::Frame(watch_push(1, &state)),
            Reply::Frame(watch_push(1, &bookmark)),
        ],
        (_, "queue") => vec![document(&queue("queue", "q", 2))],
        _ => vec![document(&binding)],
    })
    .await
}

#[tokio::test]
async fn a_rebind_leads_the_client_away_from_a_frozen_broker() {
    let store = store();
    // Its last words were the answers to the first steps; after that it is silent.
    let silent = Arc::new(AtomicBool::new(false));
    let muted = Arc::clone(&silent);
    let plan = Settings::of(1).transfers(move |_| {
        if muted.load(Ordering::SeqCst) {
            Act::Mute
        } else {
            Act::Proceed
        }
    });
    let first = Broker::start(&store, plan).await;
    let second = Broker::start(&store, Settings::of(2)).await;
    let server = naming_of(exported(&first, 1, 2)).await;
    let naming = naming(&[&server]);
    let factory = naming.connection_factory(&name("q")).await.expect("bound");
    let q = naming.destination(&name("queue")).await.expect("bound");
    assert_eq!(q.address(), "q");
    let connection = factory.connect().await.expect("connected");
    let session = connection.session().await.expect("a session");
    let producer = session.producer(&q).await.expect("a producer");
    send(&producer, &["a"]).await;
    silent.store(true, Ordering::SeqCst);
    let waiting = producer.send_async(Message::text("b")).await.expect("taken");
    let binding = Arc::new(exported(&second, 2, 4));
    server.push(changed(1, 4, ChangeKind::Rebound { binding }));
    waiting.await.expect("stored by the new active");
    assert_eq!(connection.epoch(), Some(Epoch(2)));
    assert_eq!(factory.epoch(), Epoch(2));
    assert_eq!(store.lock().expect("the store").texts(), ["a", "b"]);
}

#[tokio::test]
async fn a_rebind_ends_the_pause_between_attempts() {
    let store = store();
    let first = Broker::start(&store, Settings::of(1)).await;
    let mut binding = exported(&first, 1, 2);
    if let Object::ConnectionFactory(object) = &mut binding.object {
        object.settings.reconnect_interval_ms = 60_000;
        object.settings.max_reconnect_interval_ms = 60_000;
    }
    let server = naming_of(binding).await;
    let naming = naming(&[&server]);
    let factory = naming.connection_factory(&name("q")).await.expect("bound");
    let connection = factory.connect().await.expect("connected");
    first.kill().await;
    until("the loss", || connection.epoch().is_none()).await;
    let second = Broker::start(&store, Settings::of(2)).await;
    let binding = Arc::new(exported(&second, 2, 4));
    server.push(changed(1, 4, ChangeKind::Rebound { binding }));
    until("the new active", || connection.epoch() == Some(Epoch(2))).await;
}

#[tokio::test]
async fn a_name_of_another_kind_is_no_factory() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let server = naming_of(exported(&broker, 1, 2)).await;
    let naming = naming(&[&server]);
    let error = naming.connection_factory(&name("queue")).await.err();
    let Some(LookupError::WrongKind { expected, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!(expected, "connection-factory");
    let error = naming.destination(&name("q")).await.err();
    assert!(matches!(error, Some(LookupError::WrongKind { .. })), "{error:?}");
}
