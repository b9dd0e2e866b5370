//! Transactions while brokers are killed: each takes effect whole or not at all, and what was committed stays.
//!
//! Messages go round between two queues, each step of each in a transaction that receives some and sends them on.
//! `DAYMARK_TEST_TRANSACTION_KILLS` (3) says how many brokers are killed, `DAYMARK_TEST_TRANSACTION_SEED` when.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use daymark_client::{
    CommitError, Connection, ConnectionFactory, Consumer, Destination, Message, Producer, ReceiveError,
    TransactedSession,
};
use daymark_test_support::Broker;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::stage::{Member, Pair, wait};

const CONFIG: &str = "[failover]\nauto_switchover = false\n[journal]\nsegment_bytes = 65536\n\
                      [[messaging.queues]]\nname = \"here\"\nmax_delivery_attempts = 0\n\
                      [[messaging.queues]]\nname = \"there\"\nmax_delivery_attempts = 0\n";

/// Messages that go round.
const MESSAGES: usize = 40;
/// Messages of one transaction, at most.
const SIZE: usize = 4;
/// Longer than any failover.
const PATIENCE: Duration = Duration::from_secs(120);

#[test]
fn a_transaction_is_whole_or_not_at_all_whenever_its_broker_is_killed() {
    let kills = number("DAYMARK_TEST_TRANSACTION_KILLS").unwrap_or(3);
    let seed = number("DAYMARK_TEST_TRANSACTION_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut pair = Pair::new(CONFIG);
    let factory = factory(&pair);
    wait(fill(&factory));
    let runtime = Runtime::new().expect("a runtime");
    let over = watch::Sender::new(false);
    let (begins, commits) = channel();
    let carriers = [("here", "there"), ("there", "here")].map(|(from, to)| {
        let (factory, over, begins) = (factory.clone(), over.subscribe(), begins.clone());
        runtime.spawn(async move { Carrier::open(&factory, from, to, begins).await.run(over).await })
    });
    for kill in 0..kills {
        kill_within_a_commit(&mut pair, kill, &commits, &mut random);
    }
    over.send_replace(true);
    let [one, two] = carriers.map(|carrier| runtime.block_on(carrier).expect("it ended in order"));
    assert!(one.committed + two.committed > 0, "nothing was ever committed");
    let found = wait(everything(&factory));
    assert_whole(&found, &[one, two], seed);
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// Explicit addresses: whoever is active answers.
fn factory(pair: &Pair) -> ConnectionFactory {
    let of = |broker: &Broker| ("127.0.0.1", broker.port);
    let builder = [&pair.one, &pair.two]
        .map(|member| of(&member.broker))
        .into_iter()
        .fold(ConnectionFactory::builder(), |builder, (host, port)| {
            builder.add_broker(host, port)
        });
    let builder = builder.reconnect_period(PATIENCE).call_failover_timeout(PATIENCE);
    builder
        .request_blocking_time(PATIENCE)
        .build()
        .expect("a factory")
}

async fn fill(factory: &ConnectionFactory) {
    let connection = factory.connect().await.expect("a connection");
    let session = connection.session().await.expect("a session");
    let producer = session
        .producer(&Destination::queue("here"))
        .await
        .expect("a producer");
    for number in 0..MESSAGES {
        let text = format!("{number} filled 0");
        producer
            .send(Message::text(text))
            .await
            .expect("an acknowledgement");
    }
    connection.close().await;
}

/// Kills the active broker a moment after a commit began: before its record, behind it, or between that and the
/// answer. Then the other one is active, and the killed one its standby.
fn kill_within_a_commit(pair: &mut Pair, kill: u64, commits: &Receiver<()>, random: &mut fastrand::Rng) {
    let Pair { stage, one, two } = pair;
    let (active, standby): (&mut Member, &mut Member) = if kill.is_multiple_of(2) {
        (one, two)
    } else {
        (two, one)
    };
    while commits.try_recv().is_ok() {}
    commits.recv_timeout(PATIENCE).expect("transactions go on");
    std::thread::sleep(Duration::from_micros(random.u64(0..2_000)));
    active.process.kill_9();
    stage.group_served_by(&standby.broker.name, kill + 2);
    active.restart(stage);
    active.watches(&standby.broker.name);
}

/// Carries messages from one queue to the other.
struct Carrier {
    name: &'static str,
    connection: Connection,
    session: TransactedSession,
    consumer: Consumer,
    producer: Producer,
    begins: Sender<()>,
}

/// What became of its transactions.
#[derive(Default)]
struct Log {
    committed: usize,
    /// Of each message, how far commits that were confirmed brought it.
    steps: BTreeMap<usize, usize>,
    /// Transactions that are known to have been undone.
    undone: BTreeSet<String>,
}

impl Carrier {
    async fn open(
        factory: &ConnectionFactory,
        from: &'static str,
        to: &'static str,
        begins: Sender<()>,
    ) -> Self {
        let connection = factory.connect().await.expect("a connection");
        let session = connection.transacted_session().await.expect("a session");
        Self {
            name: from,
            consumer: session
                .consumer(&Destination::queue(from))
                .await
                .expect("a consumer"),
            producer: session
                .producer(&Destination::queue(to))
                .await
                .expect("a producer"),
            connection,
            session,
            begins,
        }
    }

    async fn run(self, over: watch::Receiver<bool>) -> Log {
        let mut log = Log::default();
        let mut attempt = 0;
        while !*over.borrow() {
            attempt += 1;
            self.carry(&format!("{}-{attempt}", self.name), &mut log).await;
        }
        self.connection.close().await;
        log
    }

    /// One transaction.
    async fn carry(&self, attempt: &str, log: &mut Log) {
        let Some(carried) = self.carry_some(attempt).await else {
            log.undone.insert(attempt.to_owned());
            // That it was lost already is no news.
            let _ = self.session.rollback().await;
            return;
        };
        // Nobody listens any more once all kills are done.
        let _ = self.begins.send(());
        match self.session.commit().await {
            Ok(()) => {
                log.committed += usize::from(!carried.is_empty());
                log.steps.extend(carried);
            }
            Err(CommitError::TransactionRolledBack(_)) => {
                log.undone.insert(attempt.to_owned());
            }
            Err(CommitError::TransactionOutcomeUnknown { .. }) => {}
            Err(
                error @ (CommitError::Duplicate(_)
                | CommitError::SessionClosed
                | CommitError::Disconnected(_)),
            ) => panic!("{attempt}: {error}"),
        }
    }

    /// Receives and sends on; the steps of what was, or `None` where the transaction is lost.
    async fn carry_some(&self, attempt: &str) -> Option<BTreeMap<usize, usize>> {
        let mut carried = BTreeMap::new();
        while carried.len() < SIZE {
            let received = self.consumer.receive(Duration::from_millis(20)).await;
            let delivery = match received {
                Ok(Some(delivery)) => delivery,
                Ok(None) => break,
                Err(ReceiveError::RollbackOnly(_)) => return None,
                Err(error) => panic!("{attempt}: {error}"),
            };
            let (number, step) = parse(delivery.message().as_text().unwrap_or_default());
            delivery.accept().await.ok()?;
            let text = format!("{number} {attempt} {}", step + 1);
            self.producer.send(Message::text(text)).await.ok()?;
            carried.insert(number, step + 1);
        }
        Some(carried)
    }
}

/// A message's number and step.
fn parse(text: &str) -> (usize, usize) {
    let words: Vec<&str> = text.split(' ').collect();
    let [number, _, step] = words[..] else {
        panic!("nobody sent {text:?}");
    };
    (number.parse().expect("a number"), step.parse().expect("a step"))
}

/// What lies in both queues.
async fn everything(factory: &ConnectionFactory) -> Vec<String> {
    let connection = factory.connect().await.expect("a connection");
    let session = connection.session().await.expect("a session");
    let mut found = Vec::new();
    for queue in ["here", "there"] {
        let consumer = session
            .consumer(&Destination::queue(queue))
            .await
            .expect("a consumer");
        while let Some(delivery) = consumer.receive_now().await.expect("a working consumer") {
            found.push(delivery.message().as_text().unwrap_or_default().to_owned());
            delivery.accept().await.expect("a confirmation");
        }
    }
    connection.close().await;
    found
}

/// Each message is there once, is as far as a confirmed commit brought it, and was brought there by no transaction that
/// was undone.
fn assert_whole(found: &[String], logs: &[Log], seed: u64) {
    let mut steps = BTreeMap::new();
    for text in found {
        let (number, step) = parse(text);
        let before = steps.insert(number, step);
        assert_eq!(before, None, "seed {seed}: doubled {text:?} in {found:?}");
        let attempt = text.split(' ').nth(1).unwrap_or_default();
        let undone = logs.iter().any(|log| log.undone.contains(attempt));
        assert!(!undone, "seed {seed}: undone and yet there: {text:?}");
    }
    let numbers: Vec<usize> = steps.keys().copied().collect();
    let all: Vec<usize> = (0..MESSAGES).collect();
    assert_eq!(numbers, all, "seed {seed}: lost");
    for (number, step) in logs.iter().flat_map(|log| &log.steps) {
        assert!(
            steps[number] >= *step,
            "seed {seed}: {number} was committed at step {step} and is at {}",
            steps[number]
        );
    }
}
