//! Local transactions of the client, against a broker that loses its connections at chosen frames.

mod support;

use daymark_client::proto::{Epoch, FactorySettings};
use daymark_client::{
    Advice, CommitError, Connection, ConnectionEvent, DuplicateId, Message, OpenError, ReceiveError,
    RollbackReason, SendError, SettleError,
};
use daymark_test_support::proxy::{Act, Moment, Piece, Way};
use support::broker::{self, Broker, Settings, store};
use support::client::*;

async fn failed_over(connection: &Connection) {
    until("the failover", || connection.epoch() == Some(Epoch(2))).await;
}

#[tokio::test]
async fn what_is_done_in_a_transaction_takes_effect_with_the_commit_and_not_before() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (connection, session) = session(&[&broker]).await;
    let (plain, _) = both(&session).await;
    send(&plain, &["work"]).await;
    session.close().await;
    let (session, producer, consumer) = transacted(&connection).await;
    let delivery = next(&consumer).await;
    send(&producer, &["result", "report"]).await;
    delivery.accept().await.expect("taken into the transaction");
    assert_eq!(
        store.lock().expect("the store").texts(),
        ["work"],
        "nothing has happened yet"
    );
    session.commit().await.expect("committed");
    assert_eq!(store.lock().expect("the store").texts(), ["result", "report"]);
    // The next transaction has begun.
    send(&producer, &["more"]).await;
    session.commit().await.expect("committed");
    assert_eq!(
        store.lock().expect("the store").texts(),
        ["result", "report", "more"]
    );
}

#[tokio::test]
async fn a_rollback_undoes_sends_and_accepts() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (connection, session) = session(&[&broker]).await;
    let (plain, _) = both(&session).await;
    send(&plain, &["work"]).await;
    session.close().await;
    let (session, producer, consumer) = transacted(&connection).await;
    next(&consumer)
        .await
        .accept()
        .await
        .expect("taken into the transaction");
    send(&producer, &["result"]).await;
    session.rollback().await.expect("rolled back");
    let again = next(&consumer).await;
    assert_eq!((text(&again).as_str(), again.delivery_count()), ("work", 1));
    again.accept().await.expect("taken into the transaction");
    session.commit().await.expect("committed");
    assert!(store.lock().expect("the store").texts().is_empty());
}

#[tokio::test]
async fn sends_without_waiting_are_all_in_the_commit_and_those_after_it_in_the_next() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (connection, _) = session(&[&broker]).await;
    let (session, producer, _) = transacted(&connection).await;
    for number in 0..200 {
        let message = Message::text(number.to_string());
        drop(producer.send_async(message).await.expect("taken"));
    }
    session.commit().await.expect("committed");
    assert_eq!(store.lock().expect("the store").texts().len(), 200);
    let receipt = producer.send_async(Message::text("late")).await.expect("taken");
    session.rollback().await.expect("rolled back");
    // Whether it had been answered before the rollback or not, it is not stored.
    let _ = receipt.await;
    assert_eq!(store.lock().expect("the store").texts().len(), 200);
}

#[tokio::test]
async fn a_transaction_without_work_commits_even_while_there_is_no_broker() {
    let pair = Pair::start().await;
    let connection = pair.connect().await;
    let (session, ..) = transacted(&connection).await;
    session.commit().await.expect("nothing to do");
    let mut events = connection.events();
    pair.proxy.die();
    assert_eq!(
        codes(&mut events, 3).await,
        ["connected", "interrupted", "failed-over"]
    );
    session.commit().await.expect("nothing was lost");
    session.rollback().await.expect("nothing to undo");
}

#[tokio::test]
async fn a_failover_after_work_makes_the_transaction_rollback_only_and_the_session_stays_usable() {
    let pair = Pair::start().await;
    let connection = pair.connect().await;
    let (session, producer, consumer) = transacted(&connection).await;
    // The answer to the second message is the moment.
    let moment = Moment::Piece(Piece::Disposition, 3);
    let order = pair.proxy.at(Way::ToClient, moment, Act::DieBefore);
    send(&producer, &["a"]).await;
    let error = producer.send(Message::text("b")).await.expect_err("it is lost");
    assert!(order.is_done());
    assert!(
        matches!(
            error,
            SendError::RollbackOnly(RollbackReason::ConnectionLost { .. })
        ),
        "{error}"
    );
    assert_eq!(error.advice(), Advice::RollBack);
    failed_over(&connection).await;
    let error = producer
        .send(Message::text("c"))
        .await
        .expect_err("the next call says so");
    assert!(matches!(error, SendError::RollbackOnly(_)), "{error}");
    let error = consumer.receive(NOTHING).await.expect_err("and so does this one");
    assert!(matches!(error, ReceiveError::RollbackOnly(_)), "{error}");
    let error = session.commit().await.expect_err("it was rolled back");
    assert!(matches!(error, CommitError::TransactionRolledBack(_)), "{error}");
    assert_eq!(error.advice(), Advice::Retry);
    assert!(pair.texts().is_empty());
    send(&producer, &["a", "b"]).await;
    session.commit().await.expect("the session is usable");
    assert_eq!(pair.texts(), ["a", "b"]);
}

#[tokio::test]
async fn a_lost_transaction_is_rolled_back_without_an_error_where_the_program_asks_for_that() {
    let pair = Pair::start().await;
    let connection = pair.connect().await;
    let (session, producer, consumer) = transacted(&connection).await;
    send(&producer, &["a"]).await;
    session.commit().await.expect("committed");
    let delivery = next(&consumer).await;
    delivery.accept().await.expect("taken into the transaction");
    send(&producer, &["b"]).await;
    pair.proxy.die();
    failed_over(&connection).await;
    session.rollback().await.expect("it is rolled back already");
    let again = next(&consumer).await;
    assert_eq!(text(&again), "a", "what was accepted comes again");
    assert!(again.redelivered());
    again.accept().await.expect("taken into the transaction");
    session.commit().await.expect("committed");
    assert!(pair.texts().is_empty());
}

#[tokio::test]
async fn a_receive_that_waits_while_its_transaction_is_lost_says_so_and_leaves_the_message_for_the_next() {
    let pair = Pair::start().await;
    let connection = pair.connect().await;
    let (session, producer, consumer) = transacted(&connection).await;
    send(&producer, &["a"]).await;
    session.commit().await.expect("committed");
    next(&consumer).await.accept().await.expect("taken");
    // Nothing is there to be received until the next connection brings what came back.
    let mut waiting = std::pin::pin!(consumer.receive(WAIT));
    let waits = tokio::time::timeout(NOTHING, waiting.as_mut()).await;
    assert!(waits.is_err(), "{waits:?}");
    pair.proxy.die();
    let error = waiting.await.expect_err("it was lost");
    assert!(matches!(error, ReceiveError::RollbackOnly(_)), "{error}");
    session.rollback().await.expect("it is rolled back already");
    let again = next(&consumer).await;
    assert!(again.redelivered());
    again.accept().await.expect("taken");
    session.commit().await.expect("committed");
    assert!(pair.texts().is_empty());
}

#[tokio::test]
async fn an_accept_of_a_message_from_the_lost_connection_says_that_it_comes_again() {
    let pair = Pair::start().await;
    let connection = pair.connect().await;
    let (session, producer, consumer) = transacted(&connection).await;
    send(&producer, &["a"]).await;
    session.commit().await.expect("committed");
    let delivery = next(&consumer).await;
    pair.proxy.die();
    failed_over(&connection).await;
    let error = delivery.accept().await.expect_err("too late");
    assert!(matches!(error, SettleError::Redelivered), "{error}");
    next(&consumer).await.accept().await.expect("taken");
    session
        .commit()
        .await
        .expect("receiving is no work, so nothing was lost");
    assert!(pair.texts().is_empty());
}

/// A commit of `a` and `b` that the first broker never confirms. Returns the ids to send them again with.
async fn unknown_commit(
    pair: &Pair,
    act: Act,
) -> (Connection, daymark_client::TransactedSession, [DuplicateId; 2]) {
    let connection = pair.connect().await;
    let (session, producer, _) = transacted(&connection).await;
    let order = pair
        .proxy
        .at(Way::ToBroker, Moment::Piece(Piece::Discharge, 1), act);
    send(&producer, &["a", "b"]).await;
    let error = session.commit().await.expect_err("nobody confirmed");
    assert!(order.is_done());
    assert_eq!(error.advice(), Advice::ResendSameId);
    let CommitError::TransactionOutcomeUnknown { duplicate_ids } = error else {
        panic!("{error}");
    };
    failed_over(&connection).await;
    (
        connection,
        session,
        duplicate_ids.try_into().expect("the ids of both"),
    )
}

async fn again(connection: &Connection, ids: [DuplicateId; 2]) -> Result<(), CommitError> {
    let (session, producer, _) = transacted(connection).await;
    for (text, id) in ["a", "b"].into_iter().zip(ids) {
        let message = Message::text(text).with_duplicate_id(id);
        producer.send(message).await.expect("taken");
    }
    session.commit().await
}

#[tokio::test]
async fn a_commit_that_never_reached_the_broker_is_done_by_its_retry() {
    let pair = Pair::start().await;
    let (connection, _session, ids) = unknown_commit(&pair, Act::DieBefore).await;
    assert!(pair.texts().is_empty());
    again(&connection, ids).await.expect("committed");
    assert_eq!(pair.texts(), ["a", "b"]);
}

#[tokio::test]
async fn a_commit_that_was_done_and_not_confirmed_is_not_done_again_by_its_retry() {
    let pair = Pair::start().await;
    let (connection, session, ids) = unknown_commit(&pair, Act::DieAfter).await;
    until("the first broker's commit", || pair.texts().len() == 2).await;
    let error = again(&connection, ids).await.expect_err("it was done before");
    assert!(matches!(error, CommitError::Duplicate(_)), "{error}");
    assert_eq!(error.advice(), Advice::GoOn);
    assert_eq!(pair.texts(), ["a", "b"]);
    let (producer, _) = both(&session).await;
    send(&producer, &["c"]).await;
    session.commit().await.expect("the session is usable");
    assert_eq!(pair.texts(), ["a", "b", "c"]);
}

#[tokio::test]
async fn a_commit_without_an_answer_ends_with_an_unknown_outcome_after_the_call_timeout() {
    let store = store();
    let plan = Settings::of(1).at(broker::Moment::Discharge(1), broker::Act::Mute);
    let broker = Broker::start(&store, plan).await;
    let settings = FactorySettings {
        call_timeout_ms: 500,
        ..FactorySettings::default()
    };
    let connection = factory_with(&[&broker], settings)
        .connect()
        .await
        .expect("connected");
    let (session, producer, _) = transacted(&connection).await;
    send(&producer, &["a"]).await;
    let error = session.commit().await.expect_err("no answer");
    assert!(
        matches!(error, CommitError::TransactionOutcomeUnknown { .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_commit_that_the_broker_refuses_says_why_and_the_next_transaction_begins() {
    let store = store();
    let plan = Settings::of(1).at(broker::Moment::Discharge(1), broker::Act::Reject);
    let broker = Broker::start(&store, plan).await;
    let (connection, _) = session(&[&broker]).await;
    let (session, producer, _) = transacted(&connection).await;
    send(&producer, &["a"]).await;
    let error = session.commit().await.expect_err("refused");
    assert!(
        matches!(
            error,
            CommitError::TransactionRolledBack(RollbackReason::Refused(_))
        ),
        "{error}"
    );
    assert!(error.to_string().contains("it took too long"), "{error}");
    send(&producer, &["b"]).await;
    session.commit().await.expect("committed");
    assert_eq!(store.lock().expect("the store").texts(), ["b"]);
}

#[tokio::test]
async fn a_transaction_with_a_message_that_was_refused_is_not_committed_in_part() {
    let store = store();
    let plan = Settings::of(1).at(broker::Moment::Transfer(2), broker::Act::Reject);
    let broker = Broker::start(&store, plan).await;
    let (connection, _) = session(&[&broker]).await;
    let (session, producer, _) = transacted(&connection).await;
    for text in ["a", "b", "c"] {
        drop(producer.send_async(Message::text(text)).await.expect("taken"));
    }
    let error = session.commit().await.expect_err("one was refused");
    let CommitError::TransactionRolledBack(RollbackReason::MessageRefused(why)) = &error else {
        panic!("{error}");
    };
    assert_eq!(why.description, "the queue is full");
    assert!(store.lock().expect("the store").texts().is_empty());
}

#[tokio::test]
async fn a_consumer_may_be_closed_before_the_commit_of_what_it_received() {
    let store = store();
    let broker = Broker::start(&store, Settings::of(1)).await;
    let (connection, session) = session(&[&broker]).await;
    let (plain, _) = both(&session).await;
    send(&plain, &["a", "b"]).await;
    session.close().await;
    let (session, _, consumer) = transacted(&connection).await;
    next(&consumer).await.accept().await.expect("taken");
    consumer.close().await;
    session.commit().await.expect("committed");
    assert_eq!(store.lock().expect("the store").texts(), ["b"]);
}

#[tokio::test]
async fn a_broker_without_transactions_refuses_the_session_by_name() {
    let store = store();
    let settings = Settings {
        without_transactions: true,
        ..Settings::of(1)
    };
    let broker = Broker::start(&store, settings).await;
    let (connection, _) = session(&[&broker]).await;
    let error = connection.transacted_session().await.err().expect("refused");
    let OpenError::Refused(refusal) = &error else {
        panic!("{error}");
    };
    assert_eq!(refusal.condition, "amqp:not-implemented");
}

#[tokio::test]
async fn a_connection_that_is_over_ends_the_transaction_with_its_reason() {
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
    let mut events = connection.events();
    let (session, producer, _) = transacted(&connection).await;
    send(&producer, &["a"]).await;
    broker.kill().await;
    while !matches!(
        events.next().await,
        Some(ConnectionEvent::Disconnected { .. }) | None
    ) {}
    let error = session.commit().await.expect_err("over");
    assert!(matches!(error, CommitError::Disconnected(_)), "{error}");
    assert_eq!(error.advice(), Advice::Reconnect);
}
