//! Queues over real sockets, as a client of our own engine sees them.

mod messaging_support;

use bytes::Bytes;
use daymark_amqp::{
    AttachOptions, CloseReason, DeliveryState, Event, Message, OpenOptions, Outcome, RcvSettleMode, Sasl,
    SndSettleMode, Source, Symbol, Target, TargetNode, Value, condition, message::MessageBuilder,
};
use daymark_broker_server::messaging::{DestinationConfig, MessagingConfig};
use messaging_support::{
    Broker, Client, delivery_count, durable, fleeting, numbered, one_queue, served, text,
};
use tempfile::tempdir;

fn failed() -> Outcome {
    Outcome::Modified {
        delivery_failed: true,
        undeliverable_here: false,
        annotations: None,
    }
}

#[test]
fn a_message_goes_from_a_sender_to_a_receiver() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    client.put(sender, durable("one"));
    client.put(sender, fleeting("two"));
    client.receiver("q", 10);
    let (one, two) = (client.receive(), client.receive());
    assert_eq!((text(&one), text(&two)), ("one".into(), "two".into()));
    assert_eq!(delivery_count(&one), 0);
    client.accept_surely(&one);
    client.accept_surely(&two);
    let stats = broker.stats();
    assert_eq!((stats.messages, stats.queues[0].accepted), (0, 2));
    broker.stop();
}

#[test]
fn the_broker_says_who_it_is_and_where_the_others_are() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let client = Client::connect(broker.addr);
    let open = client.amqp.remote_open().unwrap();
    assert_eq!(open.container_id, "kkam");
    let offered: Vec<_> = open.offered_capabilities.iter().map(Symbol::as_str).collect();
    // What Qpid JMS asks for.
    let all = [
        "sole-connection-for-container",
        "DELAYED_DELIVERY",
        "ANONYMOUS-RELAY",
        "SHARED-SUBS",
    ];
    assert_eq!(offered, all);
    assert_eq!(
        open.properties.get("product"),
        Some(&Value::String("daymark".into()))
    );
    assert!(open.properties.get("version").is_some());
    assert_eq!(open.properties.get("daymark:epoch"), Some(&Value::Ulong(1)));
    assert_eq!(
        open.properties.get("daymark:group"),
        Some(&Value::String("orders".into()))
    );
    let Some(Value::List(brokers)) = open.properties.get("failover-server-list") else {
        panic!("{open:?}");
    };
    let hosts: Vec<_> = brokers.iter().map(|broker| format!("{broker:?}")).collect();
    assert!(
        hosts[0].contains("9741") && hosts[1].contains("9742"),
        "{hosts:?}"
    );
    broker.stop();
}

#[test]
fn clients_enter_with_sasl_or_without() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let plain = Sasl::Plain {
        user: "anyone".into(),
        password: "anything".into(),
    };
    for sasl in [Sasl::None, Sasl::Anonymous, plain] {
        let mut client = Client::dial(broker.addr, sasl);
        client.open(OpenOptions::new("someone"));
    }
    let mut client = Client::dial(broker.addr, Sasl::External);
    client.amqp.open(OpenOptions::new("someone")).unwrap();
    assert!(matches!(client.closed(), CloseReason::SaslFailed(_)));
    broker.stop();
}

#[test]
fn a_released_message_takes_its_old_place_and_a_failed_one_counts() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    for name in ["a", "b", "c"] {
        client.put(sender, durable(name));
    }
    let link = client.receiver("q", 2);
    let (a, b) = (client.receive(), client.receive());
    client.settle(&b, Outcome::Released);
    client.settle(&a, failed());
    client.amqp.grant_credit(link, 3, false).unwrap();
    let again: Vec<_> = (0..3).map(|_| client.receive()).collect();
    // b was released before a failed, and was sent again only when there was credit: a stands before it.
    let names: Vec<_> = again.iter().map(text).collect();
    assert_eq!(names, ["a", "b", "c"]);
    assert_eq!(again.iter().map(delivery_count).collect::<Vec<_>>(), [1, 0, 0]);
    broker.stop();
}

#[test]
fn a_rejected_message_is_gone_where_nobody_wants_dead_letters() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    client.put(sender, durable("bad"));
    client.receiver("q", 1);
    let bad = client.receive();
    client.settle(&bad, Outcome::Rejected(None));
    let stats = broker.until("the rejection", |stats| stats.messages == 0);
    assert_eq!(stats.queues[0].rejected, 1);
    broker.stop();
}

#[test]
fn what_a_lost_connection_held_goes_to_another_with_its_count_raised() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let mut first = Client::connect(broker.addr);
    let sender = first.sender("q");
    first.put(sender, durable("a"));
    first.put(sender, durable("b"));
    first.receiver("q", 5);
    assert_eq!(text(&first.receive()), "a");
    first.vanish();
    let mut second = Client::connect(broker.addr);
    second.receiver("q", 5);
    let (a, b) = (second.receive(), second.receive());
    assert_eq!((text(&a), text(&b)), ("a".into(), "b".into()));
    assert_eq!(delivery_count(&a), 1);
    broker.stop();
}

#[test]
fn competing_consumers_share_within_their_credit() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let mut one = Client::connect(broker.addr);
    let mut two = Client::connect(broker.addr);
    one.receiver("q", 2);
    two.receiver("q", 1);
    let sender = one.sender("q");
    for number in 0..5 {
        one.put(sender, fleeting(&number.to_string()));
    }
    let mut got = [text(&one.receive()), text(&one.receive()), text(&two.receive())];
    got.sort();
    assert_eq!(got, ["0", "1", "2"]);
    let message = |event: &Event| matches!(event, Event::Message(_)).then_some(());
    assert!(
        !one.sees(message) && !two.sees(message),
        "more than the credit was sent"
    );
    assert_eq!(broker.stats().messages, 5);
    broker.stop();
}

#[test]
fn a_higher_priority_is_delivered_first() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    for (name, priority) in [("low", 1), ("normal", 4), ("high", 8), ("later", 8)] {
        client.put(sender, MessageBuilder::new().priority(priority).text(name));
    }
    client.receiver("q", 4);
    let names: Vec<_> = (0..4).map(|_| text(&client.receive())).collect();
    assert_eq!(names, ["high", "later", "normal", "low"]);
    broker.stop();
}

#[test]
fn drain_is_answered_after_all_there_was() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    for name in ["a", "b", "c"] {
        client.put(sender, durable(name));
    }
    let link = client.receiver("q", 0);
    client.amqp.grant_credit(link, 10, true).unwrap();
    let mut before = 0;
    loop {
        let drained = client.wait("message or drained", |event| {
            let drained = matches!(event, Event::Drained { .. });
            (drained || matches!(event, Event::Message(_))).then_some(drained)
        });
        if drained {
            break;
        }
        before += 1;
    }
    assert_eq!(before, 3);
    assert_eq!(client.amqp.credit(link), 0);
    broker.stop();
}

#[test]
fn a_settled_sender_and_a_settled_receiver_need_no_answers() {
    let (_dir, broker, mut client) = served();
    let attach = AttachOptions {
        snd_settle_mode: SndSettleMode::Settled,
        ..AttachOptions::from("settled", "q")
    };
    let link = client.attach_receiver(attach).unwrap();
    client.amqp.grant_credit(link, 5, false).unwrap();
    let sender = client.sender("q");
    client.put(sender, durable("once"));
    let message = client.receive();
    assert!(message.settled);
    broker.until("the message to be gone", |stats| stats.messages == 0);
    broker.stop();
}

#[test]
fn both_receiver_settle_modes_end_settled() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    for mode in [RcvSettleMode::First, RcvSettleMode::Second] {
        client.put(sender, durable("x"));
        let attach = AttachOptions {
            rcv_settle_mode: mode,
            ..AttachOptions::from(format!("{mode:?}"), "q")
        };
        let link = client.attach_receiver(attach).unwrap();
        client.amqp.grant_credit(link, 1, false).unwrap();
        let message = client.receive();
        client.accept_surely(&message);
        client.amqp.detach(link, true, None).unwrap();
        client.detached(link);
    }
    assert_eq!(broker.stats().messages, 0);
    broker.stop();
}

#[test]
fn an_anonymous_link_sends_each_message_where_it_says() {
    let (_dir, broker, mut client) = served();
    let attach = AttachOptions {
        target: Some(Target::Node(TargetNode::default())),
        ..AttachOptions::to("relay", "")
    };
    let relay = client.attach_sender(attach).unwrap();
    client.put(relay, MessageBuilder::new().to("q").text("here"));
    let lost = client.send(relay, MessageBuilder::new().to("nowhere").text("lost"));
    let Outcome::Rejected(Some(error)) = client.outcome(relay, lost) else {
        panic!("a message to nowhere was not rejected");
    };
    assert_eq!(error.condition, condition::NOT_FOUND);
    assert!(error.to_string().contains("nowhere"), "{error}");
    let silent = client.send(relay, fleeting("where?"));
    let Outcome::Rejected(Some(error)) = client.outcome(relay, silent) else {
        panic!("a message without an address was not rejected");
    };
    assert_eq!(error.condition, condition::INVALID_FIELD);
    client.receiver("q", 1);
    assert_eq!(text(&client.receive()), "here");
    broker.stop();
}

#[test]
fn an_unknown_queue_is_not_found_unless_clients_may_create_it() {
    let (dir, broker, mut client) = served();
    let error = client.attach_sender(AttachOptions::to("s", "new")).unwrap_err();
    assert_eq!(error.condition, condition::NOT_FOUND);
    assert!(error.to_string().contains("\"new\""), "{error}");
    let error = client
        .attach_receiver(AttachOptions::from("r", "new"))
        .unwrap_err();
    assert_eq!(error.condition, condition::NOT_FOUND);
    broker.stop();

    let config = MessagingConfig {
        auto_create: true,
        max_queues: 2,
        ..one_queue()
    };
    let broker = Broker::start_with(dir.path(), config.clone());
    let mut client = Client::connect(broker.addr);
    let sender = client.sender("new");
    client.put(sender, durable("kept"));
    let error = client.attach_sender(AttachOptions::to("s", "third")).unwrap_err();
    assert_eq!(error.condition, condition::RESOURCE_LIMIT_EXCEEDED);
    broker.stop();

    let broker = Broker::start_with(dir.path(), config);
    assert_eq!((broker.recovered.messages, broker.recovered.queues), (1, 2));
    broker.stop();
}

#[test]
fn what_this_broker_does_not_have_is_refused_by_name() {
    let (_dir, broker, mut client) = served();
    let mut filtered = Source::address("q");
    filtered
        .filter
        .insert(Symbol::from_static("sieve"), Value::from("fine"));
    let attach = AttachOptions {
        source: Some(filtered),
        ..AttachOptions::from("filtered", "q")
    };
    let error = client.attach_receiver(attach).unwrap_err();
    assert_eq!(error.condition, condition::NOT_IMPLEMENTED);
    assert!(error.to_string().contains("sieve"), "{error}");
    let coordinator = AttachOptions {
        target: Some(Target::Coordinator {
            capabilities: vec![Symbol::from_static("amqp:distributed-transactions")],
        }),
        ..AttachOptions::to("coordinator", "")
    };
    let error = client.attach_sender(coordinator).unwrap_err();
    assert_eq!(error.condition, condition::NOT_IMPLEMENTED);
    broker.stop();
}

#[test]
fn connections_links_and_messages_beyond_the_limit_are_refused_with_words() {
    let dir = tempdir().unwrap();
    let config = MessagingConfig {
        max_connections: 1,
        max_links_per_connection: 2,
        max_message_bytes: 1_000,
        ..one_queue()
    };
    let broker = Broker::start_with(dir.path(), config);
    let mut client = Client::connect(broker.addr);
    let mut extra = Client::dial(broker.addr, Sasl::Anonymous);
    extra.open(OpenOptions::new("extra"));
    let CloseReason::Remote(Some(error)) = extra.closed() else {
        panic!("a connection too many was let in");
    };
    assert_eq!(error.condition, condition::RESOURCE_LIMIT_EXCEEDED);

    let sender = client.sender("q");
    client.sender("q");
    let error = client.attach_sender(AttachOptions::to("third", "q")).unwrap_err();
    assert_eq!(error.condition, condition::RESOURCE_LIMIT_EXCEEDED);

    client.put(sender, durable("fits"));
    // The engine on this side knows the limit; the peer below does not keep it.
    let sent = client
        .amqp
        .send(sender, daymark_amqp::Outgoing::new(durable(&"x".repeat(2_000))));
    assert!(sent.is_err(), "the limit was not announced");
    broker.stop();
}

#[test]
fn a_message_larger_than_a_frame_arrives_whole() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    let body: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
    let message = MessageBuilder::new().durable(true).data(&body);
    client.put(sender, message.clone());
    client.receiver("q", 1);
    assert_eq!(client.receive().payload, message);
    broker.stop();
}

#[test]
fn a_full_queue_stops_credit_and_goes_on_when_there_is_room() {
    let dir = tempdir().unwrap();
    let config = MessagingConfig {
        queues: vec![DestinationConfig {
            max_messages: Some(100),
            ..DestinationConfig::new("q")
        }],
        producer_credit: 20,
        ..MessagingConfig::default()
    };
    let broker = Broker::start_with(dir.path(), config);
    let mut client = Client::connect(broker.addr);
    let sender = client.sender("q");
    let mut sent = 0;
    for _ in 0..400 {
        while client.amqp.sendable(sender) > 0 && sent < 1_000 {
            client.send(sender, fleeting("x"));
            sent += 1;
        }
        client.step();
    }
    assert!(
        (100..=120).contains(&sent),
        "sent {sent}: the limit and at most one window"
    );
    assert!(broker.stats().queues[0].held);
    let link = client.receiver("q", 0);
    client.amqp.grant_credit(link, 60, false).unwrap();
    for _ in 0..60 {
        let message = client.receive();
        client.settle(&message, Outcome::Accepted);
    }
    client.send(sender, fleeting("room again"));
    broker.stop();
}

#[test]
fn a_message_sent_again_with_its_duplicate_id_is_stored_once() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    client.put(sender, numbered("first", "0123456789abcdef0123456789abcdef"));
    client.put(sender, numbered("again", "0123456789abcdef0123456789abcdef"));
    let stats = broker.stats();
    assert_eq!((stats.messages, stats.queues[0].duplicates), (1, 1));
    broker.stop();
}

#[test]
fn a_malformed_message_is_rejected_and_the_link_goes_on() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    let bad = client.send(sender, Bytes::from_static(b"not a message"));
    let Outcome::Rejected(Some(error)) = client.outcome(sender, bad) else {
        panic!("garbage was accepted");
    };
    assert_eq!(error.condition, condition::DECODE_ERROR);
    client.put(sender, fleeting("good"));
    broker.stop();
}

#[test]
fn a_sender_whose_messages_are_turned_down_is_given_credit_all_the_same() {
    let (_dir, broker, mut client) = served();
    let attach = AttachOptions {
        target: Some(Target::Node(TargetNode::default())),
        ..AttachOptions::to("relay", "")
    };
    let relay = client.attach_sender(attach).unwrap();
    let bound = client.sender("q");
    for _ in 0..100 {
        for (link, message) in [
            (relay, MessageBuilder::new().to("nowhere").text("lost")),
            (bound, Bytes::from_static(b"not a message")),
        ] {
            let delivery = client.send(link, message);
            let outcome = client.outcome(link, delivery);
            assert!(matches!(outcome, Outcome::Rejected(Some(_))), "{outcome:?}");
        }
    }
    broker.stop();
}

#[test]
fn a_sender_that_aborted_all_it_had_credit_for_is_given_more() {
    let dir = tempdir().unwrap();
    let config = MessagingConfig {
        producer_credit: 1,
        idle_timeout_ms: 500,
        ..one_queue()
    };
    let broker = Broker::start_with(dir.path(), config);
    let mut client = Client::connect(broker.addr);
    let sender = client.sender("q");
    while client.amqp.sendable(sender) == 0 {
        client.step();
    }
    // Transfer on channel and handle 0: delivery 0, tag "t", aborted.
    let fields = b"\x43\x43\xa0\x01t\x43\x42\x42\x40\x40\x40\x41";
    let mut frame = vec![0, 0, 0, 13 + 12, 2, 0, 0, 0, 0, 0x53, 0x14, 0xc0, 13, 10];
    frame.extend_from_slice(fields);
    frame[3] = u8::try_from(frame.len()).unwrap();
    frame[12] = u8::try_from(fields.len() + 1).unwrap();
    client.write_raw(&frame);
    client.read_raw_until("a flow", b"\x00\x53\x13");
    broker.stop();
}

#[test]
fn a_stop_closes_connections_and_says_so() {
    let (_dir, broker, mut client) = served();
    client.sender("q");
    let stopping = broker.stop_gracefully();
    let CloseReason::Remote(Some(error)) = client.closed() else {
        panic!("the broker left without a word");
    };
    assert_eq!(error.condition, condition::CONNECTION_FORCED);
    stopping.join().unwrap();
}

#[test]
fn an_accept_just_before_the_close_counts() {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    client.put(sender, durable("done"));
    client.receiver("q", 1);
    let done = client.receive();
    let accepted = DeliveryState::ACCEPTED;
    client
        .amqp
        .settle(done.link, done.delivery, accepted, true)
        .unwrap();
    client.amqp.close(None);
    client.closed();
    let stats = broker.until("the end of the connection", |stats| stats.connections == 0);
    assert_eq!((stats.messages, stats.queues[0].requeued), (0, 0));
    broker.stop();
}

#[test]
fn a_slow_store_slows_producers_and_loses_nothing() {
    let dir = tempdir().unwrap();
    let config = MessagingConfig {
        max_pending_bytes: 2_000,
        ..one_queue()
    };
    let broker = Broker::start_with(dir.path(), config);
    let mut clients: Vec<_> = (0..3).map(|_| Client::connect(broker.addr)).collect();
    let links: Vec<_> = clients.iter_mut().map(|client| client.sender("q")).collect();
    let body = "x".repeat(500);
    let mut sent = Vec::new();
    for _ in 0..100 {
        for (client, link) in clients.iter_mut().zip(&links) {
            sent.push(client.send(*link, durable(&body)));
        }
    }
    for (number, delivery) in sent.into_iter().enumerate() {
        let at = number % links.len();
        assert_eq!(clients[at].outcome(links[at], delivery), Outcome::Accepted);
    }
    assert_eq!(broker.stats().messages, 300);
    broker.stop();
}

#[test]
fn a_consumer_that_settles_nothing_is_cut_off_and_goes_on_when_it_settles() {
    cut_off_until_it_settles(true);
}

#[test]
fn a_consumer_that_lets_the_broker_settle_goes_on_likewise() {
    cut_off_until_it_settles(false);
}

fn cut_off_until_it_settles(settled: bool) {
    let (_dir, broker, mut client) = served();
    let sender = client.sender("q");
    for _ in 1..10_500 {
        client.send(sender, fleeting("x"));
    }
    client.put(sender, fleeting("x"));
    assert_eq!(broker.stats().messages, 10_500);
    let mut idle = Client::connect(broker.addr);
    idle.receiver("q", 20_000);
    let held: Vec<_> = (0..10_000).map(|_| idle.receive()).collect();
    assert!(!idle.sees(|event| matches!(event, Event::Message(_)).then_some(())));
    assert_eq!(broker.stats().queues[0].unsettled, 10_000);
    let (first, rest) = held.split_at(10);
    let accept = |idle: &mut Client, message: &Message| {
        let accepted = DeliveryState::ACCEPTED;
        idle.amqp
            .settle(message.link, message.delivery, accepted, settled)
            .unwrap();
    };
    for message in first {
        accept(&mut idle, message);
        idle.receive();
    }
    for message in rest {
        accept(&mut idle, message);
    }
    for _ in 10..500 {
        idle.receive();
    }
    broker.stop();
}

#[test]
fn a_consumer_that_does_not_read_holds_back_only_what_its_buffers_take() {
    let dir = tempdir().unwrap();
    let broker = Broker::start(dir.path());
    let mut deaf = Client::connect(broker.addr);
    deaf.receiver("q", 1_000);
    let mut client = Client::connect(broker.addr);
    let sender = client.sender("q");
    let body = "x".repeat(200_000);
    let total = 150;
    for _ in 0..total {
        client.put(sender, fleeting(&body));
    }
    // The outbox, the output and the sockets' own buffers together take less than 80 of them.
    let held_at_most = 80;
    client.receiver("q", 1_000);
    for _ in held_at_most..total {
        let message = client.receive();
        client.settle(&message, Outcome::Accepted);
    }
    let stats = broker.stats();
    assert!(stats.queues[0].unsettled <= held_at_most, "{stats:?}");
    deaf.vanish();
    for _ in 0..held_at_most {
        client.receive();
    }
    broker.stop();
}
