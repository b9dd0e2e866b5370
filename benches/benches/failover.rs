//! How long clients go without service: last acknowledgement before a failover to the first one after.
//!
//! `cargo bench -p daymark-benches --bench failover [-- WORD...]`, real processes, 30 runs of each cause. Words choose:
//! the causes `kill`, `freeze`, `cut` and `switchover`, the brokers `daymark` and `artemis`, and the clients `rust`, `jms` and
//! `jms-tuned`; `runs=N` and `artemis-runs=N` (10) say how often. Everything is measured without a word, in about 30 minutes;
//! after `minutes=N` (45) no further run begins. A run that goes wrong is counted, and the next one begins with another
//! pair and client. Each run is told on standard error. Whatever was started ends with the bench, however that ends.
//!
//! - `daymark`: a naming server and two brokers with a journal and default settings, except that a primary that is back
//!   stays the standby.
//! - `artemis`: Apache ActiveMQ Artemis (fetched by Maven) as a pair with a shared store, as `artemis create` leaves it and as
//!   fast as it can sensibly be made. A primary that is back takes over, which takes many seconds: hence fewer runs.
//! - The clients are a Java program on Qpid JMS (`java/`, fetched by Maven), with nothing but `failover:(…)` and with the
//!   options that `docs/client.md` recommends, and one on our own library. Each sends one acknowledged message after
//!   another.
//!
//! A frozen broker goes on only after its clients are served again. `cut` runs in two network namespaces, which needs root:
//! the active broker is alone on the first host, and the standby, naming and the client on the second; every packet
//! between them is lost, and the store's directory stays in reach of both. A frozen Artemis keeps the lock of its store,
//! and so would one that is cut off: nobody follows, which is tried once for a freeze. Without `failover-on-shutdown` a
//! planned stop of Artemis is no failover at all.
//!
//! The table is printed, with ratios and where our time went, and written to `target/benches/failover.md`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use daymark_benches::Outcome;
use daymark_benches::failover::Cause;
use daymark_benches::failover::artemis::{Artemis, Tuning};
use daymark_benches::failover::client::{self, Client};
use daymark_benches::failover::daymark::Daymark;
use daymark_benches::failover::end::{self, End};
use daymark_benches::failover::report::Tables;
use daymark_benches::failover::row::{DAYMARK, RUST, Row, Stage};
use daymark_benches::table::target;
use daymark_test_support::Hosts;
use daymark_test_support::java::Java;

/// How long a client may be without service before a run is given up.
const DEADLINE: Duration = Duration::from_secs(30);
/// The same where the client notices silence only after a minute, and tries for another one to connect.
const PATIENT: Duration = Duration::from_secs(180);
/// Runs of what takes minutes each.
const FEW: usize = 2;

/// What is wanted of ours, in milliseconds: for so many of a hundred, or for all.
const KILL: &[(usize, f64)] = &[(50, 60.0), (99, 150.0)];
const SWITCHOVER: &[(usize, f64)] = &[(99, 50.0)];
const SILENCE: &[(usize, f64)] = &[(100, 2_000.0)];
/// Where nothing but the lease decides: its 1,500 ms and a tenth of a second.
const LEASE: &[(usize, f64)] = &[(100, 1_600.0), (100, 2_000.0)];

const JMS: &str = "Qpid JMS";
const JMS_TUNED: &str = "Qpid JMS, recommended options";

/// The options that `docs/client.md` recommends.
const RECOMMENDED: &str = "jms.connectTimeout=250&failover.reconnectDelay=5&failover.useReconnectBackOff=false\
                           &failover.nested.amqp.idleTimeout=800&failover.nested.transport.connectTimeout=250";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "as-daymark") {
        return daymark_cli::main_with(arguments.into_iter().skip(1));
    }
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let outcome = match words[..] {
        ["as-client", naming, factory] => as_client(naming, factory),
        _ => Choice::of(&words).and_then(|choice| choice.bench()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("the bench ended: {error}");
            ExitCode::FAILURE
        }
    }
}

fn as_client(naming: &str, factory: &str) -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(client::run(naming, factory))
}

/// What is measured.
#[derive(Debug)]
struct Choice {
    causes: Vec<Cause>,
    brokers: Vec<&'static str>,
    clients: Vec<&'static str>,
    runs: usize,
    artemis_runs: usize,
    minutes: u64,
}

/// A client program: on our own library where there is no Java, or on Qpid JMS with options.
#[derive(Clone, Copy, Debug)]
struct Program<'a> {
    name: &'static str,
    jms: Option<(&'a Java, &'static str)>,
}

impl Choice {
    fn of(words: &[&str]) -> Outcome<Self> {
        let chosen = |all: &[&'static str]| {
            let chosen: Vec<&str> = all.iter().filter(|one| words.contains(one)).copied().collect();
            if chosen.is_empty() { all.to_vec() } else { chosen }
        };
        let number = |key: &str, default: usize| {
            let given = words
                .iter()
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            given.map_or(Ok(default), str::parse)
        };
        let named = chosen(&Cause::ALL.map(Cause::as_str));
        let causes = Cause::ALL
            .into_iter()
            .filter(|cause| named.contains(&cause.as_str()));
        Ok(Self {
            causes: causes.collect(),
            brokers: chosen(&["daymark", "artemis"]),
            clients: chosen(&["rust", "jms", "jms-tuned"]),
            runs: number("runs", 30)?,
            artemis_runs: number("artemis-runs", 10)?,
            minutes: u64::try_from(number("minutes", 45)?)?,
        })
    }

    fn bench(&self) -> Outcome<()> {
        let needs_java = self.clients.iter().any(|client| *client != "rust");
        let java = needs_java.then(client::java).flatten();
        let end = End::after(self.minutes)?;
        let mut tables = Tables::default();
        if self.brokers.contains(&"daymark") {
            let programs = self.programs(java.as_ref());
            self.daymark(&programs, end, &mut tables);
            if self.causes.contains(&Cause::Cut) {
                // A thread that is on a host does not come back.
                std::thread::scope(|scope| scope.spawn(|| self.cut(&programs, end, &mut tables)).join())
                    .map_err(|_| "the bench of a cut network panicked")?;
            }
        }
        if let Some(java) = java.as_ref().filter(|_| self.brokers.contains(&"artemis")) {
            for (client, tuning) in [("jms", Tuning::Defaults), ("jms-tuned", Tuning::Fastest)] {
                if self.clients.contains(&client) {
                    self.artemis(java, tuning, end, &mut tables)?;
                }
            }
        }
        tables.finish()?;
        end::go_on()
    }

    fn programs<'a>(&self, java: Option<&'a Java>) -> Vec<Program<'a>> {
        let program = |client: &&'static str| {
            let jms = |options| java.map(|java| Some((java, options)));
            let (name, jms) = match *client {
                "jms" => (JMS, jms("")?),
                "jms-tuned" => (JMS_TUNED, jms(RECOMMENDED)?),
                _ => (RUST, None),
            };
            Some(Program { name, jms })
        };
        self.clients.iter().filter_map(program).collect()
    }

    fn daymark(&self, programs: &[Program<'_>], end: End, tables: &mut Tables) {
        for program in programs {
            // What one client left in the store is not read again under another one.
            let mut stage = Stage::new(|| Daymark::start(None));
            for cause in self.causes.iter().filter(|cause| **cause != Cause::Cut) {
                let row = self.row_of_daymark(program.name, *cause);
                tables.add(stage.row(row, |pair| program.start(pair), end));
            }
        }
    }

    fn cut(&self, programs: &[Program<'_>], end: End, tables: &mut Tables) {
        let Some(hosts) = Hosts::with_poor_cable() else {
            return; // It has said why.
        };
        hosts.enter(1);
        for program in programs {
            let mut stage = Stage::new(|| Daymark::start(Some(&hosts)));
            let row = self.row_of_daymark(program.name, Cause::Cut);
            tables.add(stage.row(row, |pair| program.start(pair), end));
        }
    }

    fn row_of_daymark(&self, client: &'static str, cause: Cause) -> Row {
        let is_silent = matches!(cause, Cause::Freeze | Cause::Cut);
        let (runs, deadline) = match client {
            JMS if is_silent => (self.runs.min(FEW), PATIENT),
            _ => (self.runs, DEADLINE),
        };
        let wanted = match cause {
            Cause::Kill => KILL,
            Cause::Freeze | Cause::Cut if client == RUST => LEASE,
            Cause::Freeze | Cause::Cut => SILENCE,
            Cause::Switchover => SWITCHOVER,
        };
        Row {
            broker: DAYMARK,
            client,
            cause,
            runs,
            deadline,
            wanted,
        }
    }

    fn artemis(&self, java: &Java, tuning: Tuning, end: End, tables: &mut Tables) -> Outcome<()> {
        let (broker, client, options) = match tuning {
            Tuning::Defaults => ("Artemis, defaults", JMS, ""),
            Tuning::Fastest => ("Artemis, fastest", JMS_TUNED, RECOMMENDED),
        };
        let target = target()?;
        let mut stage = Stage::new(|| Artemis::start(&target, tuning));
        for cause in &self.causes {
            let (runs, deadline) = match (cause, tuning) {
                (Cause::Cut, _) | (Cause::Switchover, Tuning::Defaults) => continue,
                (Cause::Freeze, _) => (1, DEADLINE),
                (Cause::Kill | Cause::Switchover, _) => (self.artemis_runs, PATIENT),
            };
            let row = Row {
                broker,
                client,
                cause: *cause,
                runs,
                deadline,
                wanted: &[],
            };
            tables.add(stage.row(row, |pair| jms(java, &pair.addresses(), options), end));
        }
        Ok(())
    }
}

impl Program<'_> {
    fn start(&self, pair: &Daymark<'_>) -> Outcome<Client> {
        match self.jms {
            None => Client::own(pair.naming(), "QueueConnectionFactory"),
            Some((java, options)) => jms(java, &pair.addresses(), options),
        }
    }
}

fn jms(java: &Java, [one, two]: &[String; 2], options: &str) -> Outcome<Client> {
    Client::jms(java, &format!("failover:(amqp://{one},amqp://{two})?{options}"))
}
