//! Who is active, and that nobody else ever acts as if it were.

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use daymark_client::proto::{Epoch, FactorySettings, NamingError};
use daymark_client::{
    Connection, ConnectionFactory, Consumer, Destination, DuplicateId, LookupError, Message, Producer,
    Session,
};
use daymark_test_support::{eventually, http_get};

use crate::stage::{Pair, SOON, Stage, wait};

/// A lease nobody lives long enough to see end.
const LONG_LEASE: &str = "[failover]\nlease_ms = 3600000\n";

/// A primary that is back stays what it is.
const NO_FAILBACK: &str = "[failover]\nauto_switchover = false\n";

#[test]
fn a_standby_is_ready_and_has_no_messaging_port_no_store_and_no_export() {
    let pair = Pair::new("");
    let two = &pair.two;
    assert!(
        TcpStream::connect(("127.0.0.1", two.broker.port)).is_err(),
        "its messaging port refuses"
    );
    assert!(!listening_ports(two.process.id()).contains(&two.broker.port));
    assert!(
        listening_ports(pair.one.process.id()).contains(&pair.one.broker.port),
        "the active one listens"
    );
    assert!(
        open_files_below(two.process.id(), &two.broker.store).is_empty(),
        "it has no file of the store open"
    );
    assert!(!open_files_below(pair.one.process.id(), &pair.one.broker.store).is_empty());

    let factory = pair.stage.json(&["lookup", "QueueConnectionFactory"]);
    assert_eq!(factory["object"]["brokers"][0]["port"], pair.one.broker.port);
    let group = pair.stage.json(&["groups", "orders"]);
    assert_eq!(
        group["exports"],
        serde_json::json!(["ExamplesQueue", "QueueConnectionFactory"])
    );
    let states: Vec<_> = group["members"]
        .as_array()
        .expect("members")
        .iter()
        .map(|m| &m["state"])
        .collect();
    assert_eq!(states, ["active", "standby"]);
    for member in [&pair.one, &pair.two] {
        let ready = http_get(&member.admin, "/readyz").expect("an answer");
        assert_eq!(ready.status, 200, "readiness does not depend on the state");
    }
}

#[test]
fn a_killed_active_is_followed_without_waiting_for_its_lease() {
    let mut pair = Pair::new(LONG_LEASE);
    let killed = Instant::now();
    pair.one.process.kill_9();
    let group = pair.stage.group_served_by("two", 2);
    assert!(
        killed.elapsed() < Duration::from_secs(10),
        "the lease lasts an hour, this took {:?}",
        killed.elapsed()
    );
    assert_eq!(group["epoch"], 2);
    let factory = pair.stage.json(&["lookup", "QueueConnectionFactory"]);
    assert_eq!(factory["object"]["brokers"][0]["port"], pair.two.broker.port);
    assert!(TcpStream::connect(("127.0.0.1", pair.two.broker.port)).is_ok());
}

#[test]
fn messages_survive_the_death_of_both_brokers() {
    let mut pair = Pair::new("");
    wait(async {
        let connection = connect(&pair.stage).await;
        send(&producer(&connection).await, &["a", "b", "c"]).await;
        connection.close().await;
    });
    pair.one.process.kill_9();
    pair.stage.group_served_by("two", 2);
    pair.two.process.kill_9();
    pair.one.restart(&pair.stage);
    pair.stage.group_served_by("one", 3);
    wait(async {
        let connection = connect(&pair.stage).await;
        assert_eq!(receive_all(&connection, 3).await, ["a", "b", "c"]);
    });
}

#[test]
fn a_message_sent_again_to_the_next_active_is_stored_once() {
    let mut pair = Pair::new("");
    let message = || Message::text("once").with_duplicate_id(DuplicateId(0xfeed));
    wait(async {
        let connection = connect(&pair.stage).await;
        producer(&connection)
            .await
            .send(message())
            .await
            .expect("an acknowledgement");
        connection.close().await;
    });
    pair.one.process.kill_9();
    pair.stage.group_served_by("two", 2);
    wait(async {
        // A connection of its own: no client remembers anything, the broker's store does.
        let connection = connect(&pair.stage).await;
        producer(&connection)
            .await
            .send(message())
            .await
            .expect("an acknowledgement");
        assert_eq!(receive_all(&connection, 1).await, ["once"]);
    });
}

#[test]
fn a_planned_stop_withdraws_the_exports_and_is_no_failover() {
    let mut pair = Pair::new("");
    pair.one.process.terminate();
    assert_eq!(
        pair.one.process.ended(SOON).code(),
        Some(0),
        "{}",
        pair.one.process.log()
    );
    let missed = pair.stage.ask(&["lookup", "QueueConnectionFactory"]);
    assert_eq!(missed.code, Some(4), "{missed:?}");
    assert!(
        missed.stderr.starts_with("error: NameUnavailable: "),
        "{missed:?}"
    );
    assert!(missed.stderr.contains("withdrawn"), "{missed:?}");
    let status = http_get(&pair.two.admin, "/v1/status").expect("an answer");
    assert_eq!(status.body["state"], "standby");
}

#[test]
fn a_frozen_active_can_neither_store_nor_acknowledge_nor_change_a_name_after_a_forced_takeover() {
    let pair = Pair::new(LONG_LEASE);
    wait(async {
        let old = alone(pair.one.broker.port).await;
        let old = producer(&old).await;
        send(&old, &["before"]).await;

        pair.one.process.freeze();
        let unacknowledged = old
            .send_async(Message::text("frozen"))
            .await
            .expect("a message on its way");
        let promoted = pair.stage.ask(&["promote", "orders", "two", "--force"]).ok();
        assert!(
            promoted.stdout.contains("two of group orders is active, epoch 2"),
            "{promoted:?}"
        );
        let new = connect(&pair.stage).await;
        send(&producer(&new).await, &["after"]).await;

        pair.one.process.thaw();
        pair.one.watches("two");
        let outcome = unacknowledged.await;
        assert!(
            outcome.is_err(),
            "what the frozen broker had is not acknowledged: {outcome:?}"
        );
        assert_eq!(receive_all(&new, 2).await, ["before", "after"]);
        assert_stale(&pair.stage).await;
    });
    let group = pair.stage.json(&["groups", "orders"]);
    assert_eq!((&group["active"], &group["epoch"]), (&"two".into(), &2.into()));
    let factory = pair.stage.json(&["lookup", "QueueConnectionFactory"]);
    assert_eq!(factory["object"]["brokers"][0]["port"], pair.two.broker.port);
}

#[test]
fn a_superseded_broker_started_again_is_the_standby() {
    let mut pair = Pair::new(NO_FAILBACK);
    pair.one.process.kill_9();
    pair.stage.group_served_by("two", 2);
    pair.one.restart(&pair.stage);
    let group = pair.stage.group_when("one is back", |group| {
        group["members"].as_array().map(Vec::len) == Some(2)
    });
    assert_eq!(group["active"], "two");
    assert_eq!(group["members"][0]["state"], "standby");
    assert!(TcpStream::connect(("127.0.0.1", pair.one.broker.port)).is_err());
}

#[test]
fn a_frozen_active_is_followed_by_itself_and_becomes_the_standby_when_it_wakes() {
    let pair = Pair::new(NO_FAILBACK);
    pair.one.process.freeze();
    pair.stage.group_served_by("two", 2);
    pair.one.process.thaw();
    pair.one.watches("two");
    assert!(TcpStream::connect(("127.0.0.1", pair.one.broker.port)).is_err());
    // The pair is whole again: the next freeze is followed as well.
    pair.two.process.freeze();
    pair.stage.group_served_by("one", 3);
    pair.two.process.thaw();
    pair.two.watches("one");
}

#[test]
fn a_pause_of_300_ms_is_no_failover() {
    for _ in 0..5 {
        let pair = Pair::new(NO_FAILBACK);
        // A machine that was itself asleep made another pause than the one this is about.
        if !(0..3).all(|_| pauses_for_300_ms(&pair)) {
            continue;
        }
        // The next term is the first one after this broker's: nobody had one in between.
        let switched = pair.stage.switch_over("two");
        assert_eq!(switched["epoch"], 2, "{}", pair.two.process.log());
        pair.stage.group_served_by("two", 2);
        let log = pair.two.process.log();
        assert_eq!(log.matches("code=\"promoting\"").count(), 1, "{log}");
        return;
    }
    panic!("this machine cannot pause a process for 300 ms");
}

/// Whether the pause was as short as it should be; then the other broker watches this one afterwards.
fn pauses_for_300_ms(pair: &Pair) -> bool {
    let began = Instant::now();
    pair.one.process.freeze();
    std::thread::sleep(Duration::from_millis(300));
    pair.one.process.thaw();
    let is_short = began.elapsed() < Duration::from_millis(600);
    if is_short {
        pair.two.watches("one");
    }
    is_short
}

#[test]
fn a_primary_that_wakes_or_is_started_again_is_handed_the_service() {
    let mut pair = Pair::new("[failover]\nfailback_delay_ms = 100\n");
    pair.one.process.freeze();
    pair.stage.group_served_by("two", 2);
    pair.one.process.thaw();
    pair.stage.group_served_by("one", 3);
    pair.two.watches("one");
    pair.one.process.kill_9();
    pair.stage.group_served_by("two", 4);
    pair.one.restart(&pair.stage);
    pair.stage.group_served_by("one", 5);
}

#[test]
fn a_switchover_loses_nothing_and_the_old_active_is_the_standby_in_the_same_process() {
    let pair = Pair::new("");
    wait(async {
        let connection = connect(&pair.stage).await;
        let producer = producer(&connection).await;
        send(&producer, &["a"]).await;
        for (to, from, epoch) in [("two", &pair.one, 2), ("one", &pair.two, 3)] {
            let switched = pair.stage.switch_over(to);
            assert_eq!((&switched["to"], &switched["epoch"]), (&to.into(), &epoch.into()));
            pair.stage.group_served_by(to, epoch);
            from.watches(to);
            send(&producer, &[to]).await; // On the same connection, which found its way.
            pair.stage.timeline_with(epoch, to, "last-client");
        }
        connection.close().await;
        let connection = connect(&pair.stage).await;
        assert_eq!(receive_all(&connection, 3).await, ["a", "two", "one"]);
    });
}

#[test]
fn a_broker_that_is_killed_in_the_middle_of_a_handover_is_replaced_by_the_one_before() {
    // Nobody is suspected for its silence, so that the handover to a frozen broker begins and waits.
    let mut pair = Pair::new(
        "[failover]\nsuspect_ms = 60000\nfailed_ms = 90000\nlease_ms = 3600000\n\
         switchover_timeout_ms = 60000\n",
    );
    let one_says = |event: &str| {
        http_get(&pair.one.admin, "/v1/status").is_some_and(|answer| {
            let events = answer.body["events"].as_array().cloned().unwrap_or_default();
            events.iter().any(|told| told["step"] == event)
        })
    };
    eventually(SOON, "one hears that two is ready", || {
        one_says("member-joined-and-ready")
    });
    pair.two.process.freeze();
    let mut switching = pair.stage.program.start(&[
        "switchover",
        "orders",
        "--to",
        "two",
        "--provider",
        &pair.stage.address,
    ]);
    eventually(SOON, "one waits for two", || one_says("released"));
    pair.two.process.kill_9();
    assert_ne!(switching.ended(SOON).code(), Some(0));
    let said = switching.whole_log();
    assert!(said.starts_with("error: HandoverFailed: "), "{said}");
    pair.stage.group_served_by("one", 2);
    wait(async {
        let connection = connect(&pair.stage).await;
        send(&producer(&connection).await, &["after"]).await;
        assert_eq!(receive_all(&connection, 1).await, ["after"]);
    });
}

#[test]
fn naming_that_dies_during_a_failover_stops_no_client_with_addresses_and_the_names_follow() {
    let mut pair = Pair::new(NO_FAILBACK);
    let ports = [pair.one.broker.port, pair.two.broker.port];
    wait(async {
        send(&producer(&explicit(ports).await).await, &["before"]).await;
    });
    // It is asked for the claim and never answers.
    pair.stage.naming.freeze();
    pair.one.process.kill_9();
    let admin = pair.two.admin.clone();
    eventually(SOON, "two takes over", || {
        http_get(&admin, "/v1/status").is_some_and(|answer| answer.body["phase"] != "standby")
    });
    pair.stage.naming.kill_9();
    wait(async {
        let connection = explicit(ports).await;
        send(&producer(&connection).await, &["after"]).await;
        assert_eq!(receive_all(&connection, 2).await, ["before", "after"]);
    });
    let (naming, _) = pair.stage.program.naming_at(&pair.stage.address, "naming");
    pair.stage.naming = naming;
    pair.stage.group_served_by("two", 2);
    let factory = pair.stage.json(&["lookup", "QueueConnectionFactory"]);
    assert_eq!(factory["object"]["brokers"][0]["port"], pair.two.broker.port);
}

/// A connection to whichever of these brokers serves.
async fn explicit(ports: [u16; 2]) -> Connection {
    let settings = FactorySettings {
        initial_connect_attempts: -1,
        ..FactorySettings::default()
    };
    let factory = ConnectionFactory::explicit(ports.map(|port| ("127.0.0.1", port)), settings);
    factory.connect().await.expect("a connection")
}

#[test]
fn a_switchover_that_cannot_be_says_why() {
    let mut pair = Pair::new("");
    // Naming has its exports a moment before it says so itself.
    eventually(SOON, "one is active", || {
        http_get(&pair.one.admin, "/v1/status").is_some_and(|answer| answer.body["state"] == "active")
    });
    for (arguments, code, exit) in [
        (&["switchover", "nothing"][..], "GroupNotFound", 3),
        (&["switchover", "orders", "--to", "three"], "MemberNotFound", 3),
        (&["switchover", "orders", "--to", "one"], "ActiveAlready", 1),
    ] {
        let refused = pair.stage.ask(arguments);
        assert_eq!(refused.code, Some(exit), "{refused:?}");
        let begins = format!("error: {code}: ");
        assert!(refused.stderr.starts_with(&begins), "{refused:?}");
    }
    pair.two.process.terminate();
    pair.two.process.ended(SOON);
    let refused = pair.stage.ask(&["switchover", "orders"]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    pair.one.process.terminate();
    pair.one.process.ended(SOON);
    let refused = pair.stage.ask(&["switchover", "orders"]);
    assert_eq!(refused.code, Some(4), "{refused:?}");
    assert!(refused.stderr.starts_with("error: NoActive: "), "{refused:?}");
}

/// A publication under the old epoch is refused.
async fn assert_stale(stage: &Stage) {
    let (group, one) = (
        "orders".parse().expect("a label"),
        "one".parse().expect("a label"),
    );
    let refused = stage.client().publish(&group, &one, Epoch(1), Vec::new()).await;
    let is_stale = matches!(
        &refused,
        Err(LookupError::Refused(NamingError::StaleEpoch {
            current: Epoch(2),
            ..
        }))
    );
    assert!(is_stale, "{refused:?}");
}

/// A connection through names.
async fn connect(stage: &Stage) -> Connection {
    let name = "QueueConnectionFactory".parse().expect("a name");
    let factory = stage.client().connection_factory(&name).await.expect("a factory");
    factory.connect().await.expect("a connection")
}

/// A connection to this broker and no other, that is not made anew.
pub(crate) async fn alone(port: u16) -> Connection {
    let settings = FactorySettings {
        reconnect_enabled: false,
        ..FactorySettings::default()
    };
    let factory = ConnectionFactory::explicit([("127.0.0.1", port)], settings);
    factory.connect().await.expect("a connection")
}

pub(crate) async fn producer(connection: &Connection) -> Producer {
    let session = connection.session().await.expect("a session");
    session
        .producer(&Destination::queue("examples"))
        .await
        .expect("a producer")
}

/// Returns when every message is acknowledged.
async fn send(producer: &Producer, bodies: &[&str]) {
    for body in bodies {
        producer
            .send(Message::text(*body))
            .await
            .expect("an acknowledgement");
    }
}

/// Receives and accepts so many messages, and makes sure that there is no other.
async fn receive_all(connection: &Connection, count: usize) -> Vec<String> {
    let session = connection.session().await.expect("a session");
    let consumer = consumer(&session).await;
    let bodies = receive_from(&consumer, count).await;
    let more = consumer
        .receive(Duration::from_millis(200))
        .await
        .expect("a working consumer");
    assert!(more.is_none(), "one more: {more:?}");
    bodies
}

/// Receives and accepts so many messages.
pub(crate) async fn receive(connection: &Connection, count: usize) -> Vec<String> {
    let session = connection.session().await.expect("a session");
    receive_from(&consumer(&session).await, count).await
}

async fn consumer(session: &Session) -> Consumer {
    let consumer = session.consumer(&Destination::queue("examples")).await;
    consumer.expect("a consumer")
}

async fn receive_from(consumer: &Consumer, count: usize) -> Vec<String> {
    let mut bodies = Vec::new();
    for _ in 0..count {
        let delivery = consumer
            .receive(SOON)
            .await
            .expect("a working consumer")
            .expect("a message");
        bodies.push(delivery.message().as_text().unwrap_or_default().to_owned());
        delivery.accept().await.expect("a confirmation");
    }
    bodies
}

/// The TCP ports a process listens on.
fn listening_ports(pid: u32) -> BTreeSet<u16> {
    let sockets: BTreeSet<String> = targets_of(pid)
        .into_iter()
        .filter_map(|target| Some(target.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    ["tcp", "tcp6"]
        .iter()
        .filter_map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")).ok())
        .flat_map(|table| table.lines().skip(1).map(str::to_owned).collect::<Vec<_>>())
        .filter_map(|line| listening_port(&line, &sockets))
        .collect()
}

/// The local port of a line of `/proc/PID/net/tcp`, if it is one of these sockets and listens.
fn listening_port(line: &str, sockets: &BTreeSet<String>) -> Option<u16> {
    const LISTENS: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let port = local.rsplit_once(':')?.1;
    (*state == LISTENS && sockets.contains(*inode)).then(|| u16::from_str_radix(port, 16).ok())?
}

fn open_files_below(pid: u32, directory: &Path) -> Vec<String> {
    let below = directory.display().to_string();
    targets_of(pid)
        .into_iter()
        .filter(|target| target.starts_with(&below))
        .collect()
}

/// What the file descriptors of a process are.
fn targets_of(pid: u32) -> Vec<String> {
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors");
    let targets = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.ok()?.path()).ok());
    targets.map(|target| target.display().to_string()).collect()
}
