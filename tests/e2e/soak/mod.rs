//! Producers and consumers while everything fails that can: nothing acknowledged is lost, nothing comes twice,
//! and every producer's order is kept.
//!
//! `cargo test` runs a short story. The long one, with 50 producers and 50 consumers and faults by chance:
//! `DAYMARK_SOAK_MINUTES=30 cargo test -p daymark --test e2e soak::a_long -- --nocapture`. `DAYMARK_SOAK_SEED` repeats the
//! faults of a run, `DAYMARK_SOAK_STREAMS` (50) says how many producers and consumers there are.

mod checker;
mod clients;
mod faults;
mod jms;
mod relay;
mod world;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use daymark_client::{ConnectionFactory, Naming, NamingConfig};
use daymark_test_support::java::Java;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinSet;

use checker::{Stream, Sums};
use clients::Ends;
use faults::{Fault, Who};
use jms::{Jms, Kind};
use relay::Line;
use world::World;

/// The end of a soak: everybody has sent and received everything.
const FINISH: Duration = Duration::from_secs(180);
/// Longer than any fault: nothing is given up.
const PATIENCE: Duration = Duration::from_secs(600);

#[test]
fn a_short_soak_loses_and_doubles_nothing_and_keeps_the_order() {
    let faults = [
        Fault::Kill(Who::Active),
        Fault::CutClients(Line::Silent, 700),
        Fault::KillNaming(300),
        Fault::Freeze(Who::Active, 2_500),
    ];
    let soak = Soak::new(4, 0, Duration::from_millis(5));
    soak.run(0, &mut faults.into_iter());
}

#[test]
fn a_short_soak_of_qpid_jms_loses_and_doubles_nothing_and_keeps_the_order() {
    let faults = [Fault::Kill(Who::Active), Fault::CutClients(Line::Broken, 300)];
    let soak = Soak::new(0, 4, Duration::from_millis(5));
    soak.run(0, &mut faults.into_iter());
}

#[test]
fn a_full_disk_stops_a_broker_and_loses_nothing() {
    let soak = Soak::new(2, 0, Duration::from_millis(5));
    soak.run(0, &mut [Fault::DiskFull(1_000)].into_iter());
}

#[test]
fn a_long_soak_loses_and_doubles_nothing_and_keeps_the_order() {
    let Some(minutes) = number("DAYMARK_SOAK_MINUTES") else {
        return println!("not asked for: DAYMARK_SOAK_MINUTES says how long");
    };
    let seed = number("DAYMARK_SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    let streams = number("DAYMARK_SOAK_STREAMS").unwrap_or(50);
    println!("seed {seed}, {streams} producers and consumers, {minutes} min");
    let mut random = fastrand::Rng::with_seed(seed);
    let until = Instant::now() + Duration::from_secs(minutes * 60);
    let mut faults = std::iter::from_fn(|| (Instant::now() < until).then(|| Fault::any(&mut random)));
    let streams = usize::try_from(streams).expect("a count");
    let jms = streams / 5;
    let soak = Soak::new(streams - jms, jms, Duration::from_millis(20));
    soak.run(seed, &mut faults);
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|error| panic!("{variable}={text}: {error}")),
    )
}

/// A stream with a JMS client: who sends and who receives, a client on the Rust library where none is named.
struct Mix {
    producer: Option<Kind>,
    consumer: Option<Kind>,
}

const JMS: [Mix; 4] = [
    Mix {
        producer: Some(Kind::Send),
        consumer: None,
    },
    Mix {
        producer: None,
        consumer: Some(Kind::ReceiveTransacted),
    },
    Mix {
        producer: Some(Kind::SendTransacted),
        consumer: Some(Kind::Receive),
    },
    Mix {
        producer: Some(Kind::Send),
        consumer: Some(Kind::ReceiveTransacted),
    },
];

/// Running processes, and clients that send and receive.
struct Soak {
    runtime: Runtime,
    world: World,
    streams: Vec<Arc<Ends>>,
    clients: JoinSet<()>,
    jms: Option<Jms>,
    over: watch::Sender<bool>,
    began: Instant,
}

impl Soak {
    /// So many streams between Rust clients, and so many that a JMS client sends to or receives from, where JMS
    /// can be had.
    fn new(streams: usize, jms: usize, pace: Duration) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let java = (jms > 0).then(jms::program).flatten();
        let jms = if java.is_some() { jms } else { 0 };
        let rust = (0..streams).map(|number| format!("s{number}"));
        let names: Vec<String> = rust.chain((0..jms).map(|number| format!("j{number}"))).collect();
        let mut world = runtime.block_on(World::new(&config(&names)));
        world.become_whole().expect("a beginning");
        let over = watch::Sender::new(false);
        let ends = |name: &String| {
            Arc::new(Ends {
                name: name.clone(),
                stream: Mutex::new(Stream::new(name.clone())),
                pace,
                over: over.subscribe(),
            })
        };
        let all: Vec<Arc<Ends>> = names.iter().map(ends).collect();
        let mut soak = Self {
            runtime,
            world,
            streams: all,
            clients: JoinSet::new(),
            jms: None,
            over,
            began: Instant::now(),
        };
        soak.start_clients(streams);
        if let Some(java) = java {
            soak.start_jms(&java, streams, pace);
        }
        soak
    }

    /// The streams from this one on have a JMS client at one end or at both.
    fn start_jms(&mut self, java: &Java, from: usize, pace: Duration) {
        let mut jms = Vec::new();
        for (number, ends) in self.streams[from..].iter().enumerate() {
            let mix = &JMS[number % JMS.len()];
            let clients = [mix.producer, mix.consumer].into_iter().flatten();
            jms.extend(clients.map(|kind| (kind, Arc::clone(ends))));
            let factory = self.factory(false, false);
            let _entered = self.runtime.enter();
            if mix.producer.is_none() {
                self.clients
                    .spawn(clients::produce(factory.clone(), Arc::clone(ends)));
            }
            if mix.consumer.is_none() {
                self.clients.spawn(clients::consume(factory, Arc::clone(ends)));
            }
        }
        let directory = self.world.directory();
        self.jms = Some(Jms::start(java, &directory, &self.world.to_brokers, pace, &jms));
    }

    /// Every kind of producer meets every kind of consumer, by names and by addresses.
    fn start_clients(&mut self, count: usize) {
        for (number, ends) in self.streams.iter().take(count).enumerate() {
            let by_hand = number % 3 == 2;
            let factories = [false, true].map(|of_consumer| {
                let named = (number + usize::from(of_consumer)).is_multiple_of(2);
                self.factory(named && !by_hand, by_hand && !of_consumer)
            });
            let [sending, receiving] = factories;
            let _entered = self.runtime.enter();
            let (producer, consumer) = (Arc::clone(ends), Arc::clone(ends));
            match number % 3 {
                0 => self.clients.spawn(clients::produce(sending, producer)),
                1 => self
                    .clients
                    .spawn(clients::produce_in_transactions(sending, producer)),
                _ => self.clients.spawn(clients::produce_by_hand(sending, producer)),
            };
            if number % 4 < 2 {
                self.clients.spawn(clients::consume(receiving, consumer));
            } else {
                self.clients
                    .spawn(clients::consume_in_transactions(receiving, consumer));
            }
        }
    }

    fn factory(&self, named: bool, by_hand: bool) -> ConnectionFactory {
        if named {
            let providers = self.world.providers().parse().expect("a provider list");
            let naming = Naming::new(providers, NamingConfig::default());
            let name = "QueueConnectionFactory".parse().expect("a name");
            let factory = self.runtime.block_on(naming.connection_factory(&name));
            return factory.expect("a factory");
        }
        let [one, two] = &self.world.to_brokers;
        let builder = ConnectionFactory::builder()
            .add_broker(one.address.ip().to_string(), one.address.port())
            .add_broker(two.address.ip().to_string(), two.address.port())
            .reconnect_period(PATIENCE)
            .call_failover_timeout(PATIENCE)
            .client_failure_check_period(Duration::from_millis(1_000))
            .request_blocking_time(if by_hand { Duration::ZERO } else { PATIENCE });
        builder.build().expect("a factory")
    }

    /// Lets the faults happen one after the other, sometimes the next before the last is over, then lets everybody
    /// finish, and counts.
    fn run(mut self, seed: u64, faults: &mut dyn Iterator<Item = Fault>) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut story: Vec<String> = Vec::new();
        let mut broken = None;
        for fault in faults {
            self.flow();
            let at = self.began.elapsed().as_secs_f64();
            let who = self.world.seats[self.world.active()].name().to_owned();
            story.push(format!("{at:8.2} s  {fault}, {who} is active"));
            for ends in &self.streams {
                let mut stream = ends.stream();
                stream.dying(false); // What the last fault did is over: messages flow.
                stream.dying(fault.is_death());
            }
            let said = fault.happen(&mut self.world);
            self.world.notes.extend(said);
            self.world.heal();
            let hurry = random.u8(0..4) == 0;
            broken = if hurry {
                None
            } else {
                self.world.become_whole().err()
            };
            story.append(&mut self.world.notes);
            println!("{}  {:?}", story.last().map_or("", String::as_str), self.sums());
            if broken.is_some() {
                break;
            }
        }
        let end = broken.map_or_else(|| self.finish(), Err);
        story.append(&mut self.world.notes);
        let sums = self.sums();
        let told: String = self.streams.iter().map(|ends| ends.stream().broken()).collect();
        println!("seed {seed}: {sums:?}");
        let is_kept = sums.is_kept() && !story.iter().any(|line| line.starts_with("BROKEN"));
        assert!(
            end.is_ok() && is_kept,
            "seed {seed}: {end:?}\n{sums:?}\n{told}\n{}\n{}",
            story.join("\n"),
            self.world.logs()
        );
        assert!(sums.acknowledged > 0 && sums.consumed > 0, "{sums:?}");
    }

    /// A fault that nobody notices tests nothing: messages flow before it.
    fn flow(&self) {
        let enough = self.sums().acknowledged + 20 * self.streams.len() as u64;
        let until = Instant::now() + Duration::from_secs(10);
        while self.sums().acknowledged < enough && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        self.world.become_whole()?;
        self.over.send_replace(true);
        if let Some(jms) = &self.jms {
            jms.end();
        }
        let clients = &mut self.clients;
        let all = async {
            while let Some(ended) = clients.join_next().await {
                ended.map_err(|error| format!("a client ended: {error}"))?;
            }
            Ok(())
        };
        let ended = self
            .runtime
            .block_on(async { tokio::time::timeout(FINISH, all).await });
        ended.unwrap_or_else(|_| Err(format!("{} clients have not finished", self.clients.len())))?;
        self.jms.as_ref().map_or(Ok(()), |jms| jms.ended(FINISH))
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::default();
        for ends in &self.streams {
            sums.add(ends.stream().sums());
        }
        sums
    }
}

/// Both brokers' configuration: a queue for each stream, on which deliveries may fail as often as they like.
fn config(names: &[String]) -> String {
    let queue =
        |name: &String| format!("[[messaging.queues]]\nname = \"soak.{name}\"\nmax_delivery_attempts = 0\n");
    let queues: String = names.iter().map(queue).collect();
    format!(
        "[failover]\nfailback_delay_ms = 500\nfailover_on_shutdown = true\n[journal]\nsegment_bytes = 65536\n\
         [[factories]]\nexport = \"QueueConnectionFactory\"\n\
         settings = {{ reconnect_period_ms = 600000, call_failover_timeout_ms = 600000, \
         request_blocking_time_ms = 600000, client_failure_check_period_ms = 1000 }}\n{queues}"
    )
}
