//! Our client against servers that know nothing of Daymark. Each is a small broker on a foreign library, started by the
//! test itself; every case is run against each of them.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use daymark_client::proto::FactorySettings;
use daymark_client::{
    Advice, ConnectError, Connection, ConnectionEvent, ConnectionFactory, ConnectionOptions, Consumer,
    ConsumerOptions, Credentials, Delivery, Destination, Events, Message, OpenError, ReceiveError, SendError,
    Session, Subscription, Value,
};
use daymark_test_support::{Process, Program, eventually, free_port, node, proton, tool};

use crate::pair::wait;
use crate::stage::PATIENCE;

/// How long anything may take.
const WAIT: Duration = Duration::from_secs(30);
/// Debian's, which anybody may run.
const RABBITMQ: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// After so long without a sign of life the servers end a connection.
const IDLE: Duration = Duration::from_secs(4);

/// Runs each of these cases to its end, and says so.
macro_rules! cases {
    ($server:expr, $($case:ident)+) => {
        wait(async {
            $($case($server).await; println!("ok {}", stringify!($case));)+
        })
    };
}

#[test]
fn our_client_works_with_a_server_on_rhea() {
    let Some((node, script)) = node::script(&file("node/server.js")) else {
        return;
    };
    let server = Server::start(&node, &script);
    every_case(&server);
    cases!(&server, passwords_are_checked);
}

#[test]
fn our_client_works_with_a_server_on_proton() {
    let Some(python) = proton::python() else { return };
    every_case(&Server::start(&python, &file("proton_server.py")));
}

/// A broker that people run, of 2022: what it does not know is more than what small servers leave out.
#[test]
fn our_client_works_with_rabbitmq() {
    let Some(server) = rabbitmq() else { return };
    cases!(
        &server,
        messages_arrive_as_sent
        every_outcome_does_what_it_says
        no_more_is_sent_ahead_than_was_asked_for
        a_large_message_goes_both_ways
        twenty_sessions_share_a_connection
        a_session_that_the_server_ends_says_why_to_what_was_in_it
    );
}

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/interop")
        .join(name)
}

struct Server {
    port: u16,
    /// Before the address of every queue.
    prefix: &'static str,
    /// Whether it answers a drain. RabbitMQ 3.10 fails over it, and ends the session.
    drains: bool,
    /// Whether it counts deliveries that failed. RabbitMQ 3.10 does not know that outcome, and ends the session.
    counts: bool,
    _processes: Vec<Process>,
    _directory: Program,
}

impl Server {
    fn start(interpreter: &Path, script: &Path) -> Self {
        let directory = Program::new(interpreter);
        let arguments = [script.display().to_string()];
        let mut process = Process::start(interpreter, &arguments, &directory.path("."), &[]);
        let port = process.announced("listening", PATIENCE);
        Self {
            port: port.parse().expect("a port"),
            prefix: "",
            drains: true,
            counts: true,
            _processes: vec![process],
            _directory: directory,
        }
    }

    fn factory(&self) -> ConnectionFactory {
        let settings = FactorySettings {
            call_timeout_ms: 30_000,
            ..FactorySettings::default()
        };
        ConnectionFactory::explicit([("127.0.0.1", self.port)], settings)
    }

    fn queue(&self, name: &str) -> Destination {
        Destination::queue(format!("{}{name}", self.prefix))
    }

    async fn has_no_more(&self, consumer: &Consumer) {
        if self.drains {
            let more = consumer.receive_now().await.expect("an answer");
            assert!(more.is_none(), "{more:?}");
        }
    }

    async fn session(&self) -> (Connection, Session) {
        let connection = self.factory().connect().await.expect("connected");
        let session = connection.session().await.expect("a session");
        (connection, session)
    }
}

/// Debian's, with its plugin for AMQP 1.0, and an `epmd` of its own.
fn rabbitmq() -> Option<Server> {
    let (epmd, server) = (tool("epmd")?, tool(RABBITMQ)?);
    let directory = Program::new(&server);
    let (port, nodes, names) = (free_port(), free_port().to_string(), free_port().to_string());
    let plugins = directory.file("plugins", "[rabbitmq_amqp1_0].\n");
    let config = format!(
        "listeners.tcp.default = 127.0.0.1:{port}\namqp1_0.default_user = guest\namqp1_0.protocol_strict_mode = false\n"
    );
    let config = directory.file("rabbitmq.conf", &config);
    let here = directory.path(".").display().to_string();
    let arguments = ["-address", "127.0.0.1", "-port", &names].map(str::to_owned);
    let epmd = Process::start(&epmd, &arguments, &directory.path("."), &[]);
    let environment = [
        ("HOME", &*here),
        ("ERL_EPMD_PORT", &names),
        ("RABBITMQ_NODENAME", "daymark-test@localhost"),
        ("RABBITMQ_DIST_PORT", &nodes),
        ("RABBITMQ_MNESIA_BASE", &here),
        ("RABBITMQ_LOG_BASE", &here),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", &*plugins.display().to_string()),
        ("RABBITMQ_CONFIG_FILE", &*config.display().to_string()),
        // Then the script becomes the server, and ends with it.
        ("RABBITMQ_ALLOW_INPUT", "true"),
    ];
    let server = Process::start(&server, &[], &directory.path("."), &environment);
    eventually(PATIENCE, "RabbitMQ listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    Some(Server {
        port,
        prefix: "/queue/",
        drains: false,
        counts: false,
        _processes: vec![server, epmd],
        _directory: directory,
    })
}

fn every_case(server: &Server) {
    cases!(
        server,
        messages_arrive_as_sent
        every_outcome_does_what_it_says
        a_sender_hears_what_became_of_its_message
        no_more_is_sent_ahead_than_was_asked_for
        a_large_message_goes_both_ways
        twenty_sessions_share_a_connection
        what_is_not_there_is_refused_and_the_session_lives
        what_the_server_does_not_do_is_refused_by_name
        a_link_that_the_server_ends_says_why
        a_connection_that_the_server_closes_is_made_anew
        a_socket_that_ends_within_a_send_is_made_anew_and_the_message_sent_again
        an_idle_connection_is_kept_alive
    );
}

async fn next(consumer: &Consumer) -> Delivery {
    let delivery = consumer.receive(WAIT).await.expect("the consumer lives");
    delivery.expect("a message")
}

fn text(delivery: &Delivery) -> &str {
    delivery.message().as_text().expect("text")
}

/// The next event, which is no other than this one; for its values.
async fn event(events: &mut Events, code: &str) -> ConnectionEvent {
    let event = tokio::time::timeout(WAIT, events.next()).await;
    let event = event.expect("an event in time").expect("an event");
    assert_eq!(event.code(), code, "{event:?}");
    event
}

async fn messages_arrive_as_sent(server: &Server) {
    let (connection, session) = server.session().await;
    assert_eq!(connection.epoch().map(|epoch| epoch.0), Some(0), "it has none");
    let queue = server.queue("kinds");
    let producer = session.producer(&queue).await.expect("a producer");
    let described = Message {
        message_id: Some("id-1".into()),
        correlation_id: Some("c-1".into()),
        content_type: Some("text/plain".into()),
        reply_to: Some(Destination::queue("answers")),
        ..Message::text("text")
    };
    let sent = [
        described
            .with_priority(7)
            .with_property("b", true)
            .with_property("s", "ß"),
        Message::bytes(vec![0, 1, 255]),
        Message::map([("a", Value::from("1")), ("b", true.into())]),
        Message::stream([Value::from("one"), true.into()]),
        Message::default().non_persistent(),
    ];
    let mut expected = Vec::new();
    for message in sent {
        // RabbitMQ gives a subject of its own to what has none.
        let message = message.with_subject("subject");
        let sent = producer.send(message.clone()).await.expect("stored");
        expected.push(message.with_duplicate_id(sent.duplicate_id));
    }
    let consumer = session.consumer(&queue).await.expect("a consumer");
    for message in expected {
        let delivery = next(&consumer).await;
        assert_eq!(*delivery.message(), message);
        delivery.accept().await.expect("accepted");
    }
    server.has_no_more(&consumer).await;
    connection.close().await;
}

async fn every_outcome_does_what_it_says(server: &Server) {
    let (connection, session) = server.session().await;
    let queue = server.queue("outcomes");
    let producer = session.producer(&queue).await.expect("a producer");
    let back: &[(&str, bool)] = if server.counts {
        &[("released", false), ("modified", true)]
    } else {
        &[("released", false)]
    };
    for body in ["accepted", "rejected"]
        .into_iter()
        .chain(back.iter().map(|(body, _)| *body))
    {
        producer.send(Message::text(body)).await.expect("stored");
    }
    let one = ConsumerOptions {
        prefetch: 1,
        ..ConsumerOptions::default()
    };
    let consumer = session.consumer_with(&queue, one).await.expect("a consumer");
    let delivery = next(&consumer).await;
    assert_eq!(text(&delivery), "accepted");
    delivery.accept().await.expect("accepted");
    let delivery = next(&consumer).await;
    assert_eq!(text(&delivery), "rejected");
    delivery.reject("not this one").await.expect("rejected");
    for &(body, failed) in back {
        let delivery = next(&consumer).await;
        assert_eq!((text(&delivery), delivery.delivery_count()), (body, 0));
        if failed {
            delivery.modify(true, false).await.expect("modified");
        } else {
            delivery.release().await.expect("released");
        }
        let delivery = until(&consumer, body).await;
        assert_eq!(delivery.delivery_count(), u32::from(failed));
        delivery.accept().await.expect("accepted");
    }
    server.has_no_more(&consumer).await;
    connection.close().await;
}

/// The next message of this text. What was sent ahead in the meantime goes back behind it.
async fn until(consumer: &Consumer, body: &str) -> Delivery {
    loop {
        let delivery = next(consumer).await;
        if text(&delivery) == body {
            return delivery;
        }
        delivery.release().await.expect("released");
    }
}

async fn a_sender_hears_what_became_of_its_message(server: &Server) {
    let (connection, session) = server.session().await;
    let send = async |address: &str| {
        let producer = session.producer(&Destination::queue(address)).await;
        let sent = producer.expect("a producer").send(Message::text("x")).await;
        sent.expect_err("not accepted")
    };
    let why = send("rejects").await;
    let SendError::Rejected(refusal) = &why else {
        panic!("{why:?}")
    };
    assert_eq!(refusal.to_string(), "amqp:precondition-failed: not this one");
    for address in ["releases", "modifies"] {
        let why = send(address).await;
        assert!(matches!(why, SendError::Released), "{address}: {why:?}");
    }
    connection.close().await;
}

async fn no_more_is_sent_ahead_than_was_asked_for(server: &Server) {
    let (connection, session) = server.session().await;
    let queue = server.queue("credit");
    let producer = session.producer(&queue).await.expect("a producer");
    for number in 0..5 {
        let sent = producer.send(Message::text(number.to_string())).await;
        sent.expect("stored");
    }
    let options = ConsumerOptions {
        prefetch: 2,
        ..ConsumerOptions::default()
    };
    // Two are here, undecided: the other three are for whoever else asks.
    let slow = session.consumer_with(&queue, options).await.expect("a consumer");
    let held = next(&slow).await;
    let (other, others) = server.session().await;
    let quick = others.consumer(&queue).await.expect("a consumer");
    let mut received = Vec::new();
    while received.len() < 2 {
        let delivery = next(&quick).await;
        delivery.accept().await.expect("accepted");
        received.push(text(&delivery).to_owned());
    }
    assert_eq!(received.last().map(String::as_str), Some("4"), "{received:?}");
    held.accept().await.expect("accepted");
    connection.close().await;
    other.close().await;
}

async fn a_large_message_goes_both_ways(server: &Server) {
    let (connection, session) = server.session().await;
    let queue = server.queue("large");
    let body: Vec<u8> = (0_u32..2 << 20)
        .map(|n| n.to_le_bytes()[n as usize % 3])
        .collect();
    let producer = session.producer(&queue).await.expect("a producer");
    producer.send(Message::bytes(body.clone())).await.expect("stored");
    let consumer = session.consumer(&queue).await.expect("a consumer");
    let delivery = next(&consumer).await;
    assert!(delivery.message().as_bytes().is_some_and(|got| *got == body));
    delivery.accept().await.expect("accepted");
    connection.close().await;
}

async fn twenty_sessions_share_a_connection(server: &Server) {
    let (connection, _) = server.session().await;
    let mut consumers = Vec::new();
    for number in 0..20 {
        let session = connection.session().await.expect("a session");
        let queue = server.queue(&format!("session-{number}"));
        let producer = session.producer(&queue).await.expect("a producer");
        producer
            .send(Message::text(number.to_string()))
            .await
            .expect("stored");
        consumers.push(session.consumer(&queue).await.expect("a consumer"));
    }
    for (number, consumer) in consumers.iter().enumerate() {
        let delivery = next(consumer).await;
        assert_eq!(text(&delivery), number.to_string());
        delivery.accept().await.expect("accepted");
    }
    connection.close().await;
}

async fn what_is_not_there_is_refused_and_the_session_lives(server: &Server) {
    let (connection, session) = server.session().await;
    let missing = Destination::queue("missing");
    let refused = [
        session.producer(&missing).await.err().expect("refused"),
        session.consumer(&missing).await.err().expect("refused"),
    ];
    for why in refused {
        let OpenError::Refused(refusal) = &why else {
            panic!("{why:?}")
        };
        assert_eq!(refusal.to_string(), "amqp:not-found: there is no missing");
        assert_eq!(why.advice(), Advice::GiveUp);
    }
    goes_on(&session).await;
    connection.close().await;
}

/// What went wrong with one link touches no other.
async fn goes_on(session: &Session) {
    let producer = session.producer(&Destination::queue("there")).await;
    let producer = producer.expect("a producer");
    producer.send(Message::text("x")).await.expect("stored");
}

async fn what_the_server_does_not_do_is_refused_by_name(server: &Server) {
    let (connection, session) = server.session().await;
    let queue = server.queue("plain");
    let topic = Destination::topic("topic");
    let producer = session.producer(&queue).await.expect("a producer");
    producer.send(Message::text("still there")).await.expect("stored");
    let options = ConsumerOptions::default;
    let wishes = [
        (
            session
                .consumer_with(
                    &queue,
                    ConsumerOptions {
                        selector: Some("a = 1".into()),
                        ..options()
                    },
                )
                .await
                .err(),
            "the broker does not apply the selector",
        ),
        (
            session
                .consumer_with(
                    &topic,
                    ConsumerOptions {
                        no_local: true,
                        ..options()
                    },
                )
                .await
                .err(),
            "the broker does not leave out what the connection sends",
        ),
        (
            session.browser(&queue).await.err(),
            "the broker does not let queues be browsed",
        ),
        (
            {
                let subscription = Some(Subscription::shared("s"));
                session
                    .consumer_with(
                        &topic,
                        ConsumerOptions {
                            subscription,
                            ..options()
                        },
                    )
                    .await
                    .err()
            },
            "the broker does not share subscriptions",
        ),
        (session.anonymous_producer().await.err(), "amqp:not-found"),
        (session.temporary_queue().await.err(), "amqp:not-found"),
        (connection.transacted_session().await.err(), "amqp:not-found"),
    ];
    for (why, words) in wishes {
        let Some(OpenError::Refused(refusal)) = &why else {
            panic!("{words}: {why:?}")
        };
        assert!(refusal.to_string().contains(words), "{refusal}");
    }
    let later = Message::text("later").with_delivery_delay(Duration::from_secs(60));
    let why = producer.send(later).await.expect_err("not delayed");
    assert!(
        why.to_string().contains("does not deliver messages later"),
        "{why}"
    );
    let consumer = session.consumer(&queue).await.expect("a consumer");
    let delivery = next(&consumer).await;
    assert_eq!(text(&delivery), "still there");
    delivery.accept().await.expect("accepted");
    server.has_no_more(&consumer).await;
    connection.close().await;
}

/// RabbitMQ 3.10 does it over an outcome that it does not know.
async fn a_session_that_the_server_ends_says_why_to_what_was_in_it(server: &Server) {
    let (connection, session) = server.session().await;
    let queue = server.queue("session");
    let producer = session.producer(&queue).await.expect("a producer");
    producer.send(Message::text("1")).await.expect("stored");
    let consumer = session.consumer(&queue).await.expect("a consumer");
    let delivery = next(&consumer).await;
    delivery.modify(true, false).await.expect("said");
    let received = consumer.receive(WAIT).await.expect_err("ended");
    let sent = producer.send(Message::text("2")).await.expect_err("ended");
    let (ReceiveError::LinkClosed(received), SendError::LinkClosed(sent)) = (&received, &sent) else {
        panic!("{received:?}, {sent:?}");
    };
    assert_eq!(received.condition, "amqp:invalid-field", "{received}");
    assert_eq!(received, sent);
    connection.close().await;
}

async fn a_link_that_the_server_ends_says_why(server: &Server) {
    let (connection, session) = server.session().await;
    let producer = session
        .producer(&Destination::queue("gone"))
        .await
        .expect("a producer");
    producer.send(Message::text("1")).await.expect("stored");
    // Its end comes a moment after the acknowledgement, perhaps while the next message is on its way.
    let mut reasons = Vec::new();
    for _ in 0..100 {
        match producer.send(Message::text("2")).await {
            Ok(_) | Err(SendError::OutcomeUnknown { .. }) => {}
            Err(why) => reasons.push(why),
        }
    }
    let says_why = |why: &SendError| matches!(why, SendError::LinkClosed(refusal) if refusal.condition == "amqp:resource-deleted");
    assert!(reasons.len() > 90 && reasons.iter().all(says_why), "{reasons:?}");
    goes_on(&session).await;
    connection.close().await;
}

async fn a_connection_that_the_server_closes_is_made_anew(server: &Server) {
    let (connection, session) = server.session().await;
    let queue = server.queue("over a closed connection");
    let producer = session.producer(&queue).await.expect("a producer");
    let consumer = session.consumer(&queue).await.expect("a consumer");
    let closes = session
        .producer(&Destination::queue("closes"))
        .await
        .expect("a producer");
    let mut events = connection.events();
    event(&mut events, "connected").await;
    closes.send(Message::text("go")).await.expect("stored");
    let ConnectionEvent::Interrupted { why } = event(&mut events, "interrupted").await else {
        unreachable!("its code says so")
    };
    assert!(why.contains("amqp:connection:forced: going away"), "{why}");
    event(&mut events, "failed-over").await;
    producer.send(Message::text("after")).await.expect("stored");
    let delivery = next(&consumer).await;
    assert_eq!(text(&delivery), "after");
    delivery.accept().await.expect("accepted");
    connection.close().await;
}

async fn a_socket_that_ends_within_a_send_is_made_anew_and_the_message_sent_again(server: &Server) {
    let (connection, session) = server.session().await;
    let queue = server.queue("drops");
    let producer = session.producer(&queue).await.expect("a producer");
    let mut events = connection.events();
    event(&mut events, "connected").await;
    // The server forgets it with the first connection, and keeps it from the second.
    producer.send(Message::text("twice")).await.expect("stored");
    event(&mut events, "interrupted").await;
    event(&mut events, "failed-over").await;
    let consumer = session.consumer(&queue).await.expect("a consumer");
    let delivery = next(&consumer).await;
    assert_eq!(text(&delivery), "twice");
    delivery.accept().await.expect("accepted");
    server.has_no_more(&consumer).await;
    connection.close().await;
}

async fn an_idle_connection_is_kept_alive(server: &Server) {
    let (connection, session) = server.session().await;
    let mut events = connection.events();
    event(&mut events, "connected").await;
    let heard = tokio::time::timeout(IDLE + IDLE / 4, events.next()).await;
    assert!(heard.is_err(), "{heard:?}");
    goes_on(&session).await;
    connection.close().await;
}

async fn passwords_are_checked(server: &Server) {
    let login = |password: &str| ConnectionOptions {
        credentials: Some(Credentials {
            user: "guest".into(),
            password: password.into(),
        }),
        ..ConnectionOptions::default()
    };
    let connection = server
        .factory()
        .connect_with(login("secret"))
        .await
        .expect("connected");
    let session = connection.session().await.expect("a session");
    goes_on(&session).await;
    connection.close().await;
    let refused = server.factory().connect_with(login("wrong")).await.err();
    assert!(
        matches!(refused, Some(ConnectError::AuthenticationFailed { .. })),
        "{refused:?}"
    );
}
