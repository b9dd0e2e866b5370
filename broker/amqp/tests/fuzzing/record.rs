//! The conversations that are damaged: recorded once, kept in `tests/corpus`, read again by every run.

use bytes::Bytes;
use daymark_amqp::message::MessageBuilder;
use daymark_amqp::{
    AcceptOptions, AmqpError, AttachOptions, Config, Connection, Credentials, DeliveryState, Event, Fields,
    Filter, LifetimePolicy, LinkId, OpenOptions, Outcome, Outgoing, Sasl, SaslCode, Source, Symbol, Target,
    TargetNode, TxnId, condition, mechanism, txn,
};
use std::path::{Path, PathBuf};
use std::time::Instant;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus")
}

/// Every recorded conversation with its name, in the order of the names.
pub(crate) fn corpus() -> Vec<(String, Vec<u8>)> {
    let entries = std::fs::read_dir(directory()).expect("tests/corpus");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        (name, std::fs::read(path).expect("a conversation"))
    };
    files.into_iter().map(read).collect()
}

/// Writes the conversations anew.
pub(crate) fn record(now: Instant) {
    std::fs::create_dir_all(directory()).expect("tests/corpus");
    for (name, [client, server]) in [
        ("plain", everything(now, 65_536)),
        ("small-frames", everything(now, 512)),
    ] {
        let write = |side: &str, bytes: &[u8]| {
            std::fs::write(directory().join(format!("{name}-{side}")), bytes).expect("a file");
        };
        write("client", &client);
        write("server", &server);
    }
}

/// Two sides, and all that each has said.
struct Talk {
    client: Connection,
    server: Connection,
    said: [Vec<u8>; 2],
    now: Instant,
}

impl Talk {
    /// Carries everything; gives what the client and what the server saw.
    fn carry(&mut self) -> [Vec<Event>; 2] {
        let mut seen = [Vec::new(), Vec::new()];
        for _ in 0..6 {
            let bytes = self.client.take_output(self.now);
            self.server.input(&bytes, self.now);
            self.said[0].extend(bytes);
            seen[1].extend(std::iter::from_fn(|| self.server.poll_event()));
            let bytes = self.server.take_output(self.now);
            self.client.input(&bytes, self.now);
            self.said[1].extend(bytes);
            seen[0].extend(std::iter::from_fn(|| self.client.poll_event()));
        }
        seen
    }

    /// Accepts the link that the client has just asked for.
    fn accept(&mut self) -> LinkId {
        let [_, seen] = self.carry();
        let requested = seen.iter().find_map(|event| {
            if let Event::LinkRequested { link, attach, .. } = event {
                Some((*link, AcceptOptions::echo(attach)))
            } else {
                None
            }
        });
        let (link, accept) = requested.expect("a link to accept");
        self.server.accept_link(link, accept).expect("a link that waits");
        link
    }
}

/// Everything a connection can be used for, once: SASL, links with all that a terminus can say, messages both ways in
/// one frame and many, every outcome, a transaction, a refusal, errors.
fn everything(now: Instant, max_frame_size: u32) -> [Vec<u8>; 2] {
    let config = |sasl| Config {
        max_frame_size,
        sasl,
        ..Config::default()
    };
    let plain = Sasl::Plain {
        user: "user".into(),
        password: "password".into(),
    };
    let mechanisms = vec![mechanism::PLAIN, mechanism::ANONYMOUS];
    let required = true;
    let mut talk = Talk {
        client: Connection::client(config(plain), now),
        server: Connection::server(config(Sasl::Server { mechanisms, required }), now),
        said: [Vec::new(), Vec::new()],
        now,
    };
    open(&mut talk);
    links(&mut talk);
    talk.client
        .close(Some(AmqpError::new(condition::CONNECTION_FORCED, "enough")));
    talk.carry();
    talk.said
}

fn open(talk: &mut Talk) {
    let options = OpenOptions {
        hostname: Some("host".into()),
        desired_capabilities: vec![Symbol::from_static("ANONYMOUS-RELAY")],
        properties: Fields::new().with(Symbol::from_static("product"), "fuzz"),
        ..OpenOptions::new("client")
    };
    talk.client.open(options).expect("the first command");
    let [_, seen] = talk.carry();
    assert!(
        matches!(&seen[..], [Event::SaslInit(init)] if matches!(init.credentials, Credentials::Plain { .. })),
        "{seen:?}"
    );
    talk.server.sasl_outcome(SaslCode::Ok, None).expect("a decision");
    talk.carry();
    talk.server.open(OpenOptions::new("server")).expect("an answer");
    talk.carry();
}

fn links(talk: &mut Talk) {
    let session = talk.client.begin().expect("a session");
    talk.carry();

    let sender = talk
        .client
        .attach_sender(session, AttachOptions::to("out", "queue"))
        .expect("a link");
    let taker = talk.accept();
    talk.server.grant_credit(taker, 20, false).expect("credit");
    talk.carry();
    for size in [10, 3_000, 0] {
        let message = MessageBuilder::new()
            .durable(true)
            .to("queue")
            .application_property("n", 1_u32);
        let message = message.data(&vec![b'x'; size]);
        talk.client.send(sender, Outgoing::new(message)).expect("credit");
    }
    let [_, seen] = talk.carry();
    let outcomes = [Outcome::Accepted, Outcome::Released, Outcome::Rejected(None)];
    for (event, outcome) in seen.into_iter().zip(outcomes) {
        if let Event::Message(message) = event {
            talk.server
                .settle(taker, message.delivery, outcome.into(), true)
                .expect("a delivery");
        }
    }

    let source = Source {
        filter: Fields::new()
            .with(
                Symbol::from_static("jms-selector"),
                Filter::selector_value("a = 1"),
            )
            .with(Symbol::from_static("no-local"), Filter::no_local_value()),
        default_outcome: Some(Outcome::Modified {
            delivery_failed: true,
            undeliverable_here: false,
            annotations: None,
        }),
        outcomes: vec![Symbol::from_static("amqp:accepted:list")],
        capabilities: vec![Symbol::from_static("topic")],
        ..Source::address("topic")
    };
    let attach = AttachOptions {
        source: Some(source),
        ..AttachOptions::from("in", "topic")
    };
    let receiver = talk.client.attach_receiver(session, attach).expect("a link");
    let giver = talk.accept();
    talk.client.grant_credit(receiver, 3, true).expect("credit");
    talk.carry();
    talk.server
        .send(giver, Outgoing::new(MessageBuilder::new().text("text")))
        .expect("credit");
    talk.server.drained(giver).expect("a drain");
    talk.carry();

    transaction(talk, session, sender);

    let dynamic = TargetNode {
        dynamic: true,
        dynamic_node_properties: Fields::new()
            .with(LifetimePolicy::KEY, LifetimePolicy::DeleteOnClose.value()),
        ..TargetNode::default()
    };
    let attach = AttachOptions {
        target: Some(Target::Node(dynamic)),
        ..AttachOptions::to("temporary", "")
    };
    talk.client.attach_sender(session, attach).expect("a link");
    let [_, seen] = talk.carry();
    if let Some(Event::LinkRequested { link, .. }) = seen.last() {
        let error = AmqpError::new(condition::NOT_FOUND, "no such thing");
        talk.server.refuse_link(*link, error).expect("a link that waits");
    }
    talk.carry();
    talk.client.detach(receiver, false, None).expect("a link");
    talk.carry();
    talk.client.end(session, None).expect("a session");
    talk.carry();
}

fn transaction(talk: &mut Talk, session: daymark_amqp::SessionId, sender: LinkId) {
    let coordinator = AttachOptions {
        target: Some(Target::Coordinator {
            capabilities: vec![txn::LOCAL_TRANSACTIONS],
        }),
        ..AttachOptions::to("coordinator", "")
    };
    let orders = talk.client.attach_sender(session, coordinator).expect("a link");
    let taker = talk.accept();
    talk.server.grant_credit(taker, 5, false).expect("credit");
    talk.carry();
    talk.client
        .send(orders, Outgoing::new(txn::declare(None)))
        .expect("credit");
    let id = TxnId::new(Bytes::from_static(b"1"));
    let [_, seen] = talk.carry();
    if let Some(Event::Declare { link, delivery, .. }) = seen.last() {
        let declared = DeliveryState::Declared(id.clone());
        talk.server
            .settle(*link, *delivery, declared, true)
            .expect("a delivery");
    }
    talk.carry();
    let outgoing = Outgoing {
        txn: Some(id.clone()),
        ..Outgoing::new(MessageBuilder::new().text("in a transaction"))
    };
    talk.client.send(sender, outgoing).expect("credit");
    talk.client
        .send(orders, Outgoing::new(txn::discharge(&id, false)))
        .expect("credit");
    let [_, seen] = talk.carry();
    if let Some(Event::Discharge { link, delivery, .. }) = seen.last() {
        talk.server
            .settle(*link, *delivery, DeliveryState::ACCEPTED, true)
            .expect("a delivery");
    }
    talk.carry();
}
