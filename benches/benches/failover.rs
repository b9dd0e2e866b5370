//! How long clients go without service: last acknowledgement before a failover to the first one after.
//!
//! `cargo bench -p daymark-benches --bench failover [-- WORD...]`, real processes, 30 runs of each cause. Words choose:
//! the causes `kill`, `freeze`, `cut` and `switchover`, the brokers `daymark` and `artemis`, and the clients `rust` and
//! `jms`; `runs=N` and `artemis-runs=N` (10) say how often. Everything is measured without a word, in about 25 minutes.
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
use daymark_benches::failover::artemis::{Artemis, Tuning};
use daymark_benches::failover::client::{self, Client, Gap};
use daymark_benches::failover::daymark::Daymark;
use daymark_benches::failover::report::{Series, Tables, shares};
use daymark_benches::failover::{Cause, Pair, measure};
use daymark_benches::table::target;
use daymark_test_support::Hosts;
use daymark_test_support::java::Java;

/// How long a client may be without service before a run is given up.
const DEADLINE: Duration = Duration::from_secs(30);
/// The same where the client notices silence only after a minute.
const PATIENT: Duration = Duration::from_secs(120);
/// Runs of what takes a minute each.
const FEW: usize = 2;

/// The options that `docs/client.md` recommends.
const RECOMMENDED: &str = "jms.connectTimeout=250&failover.reconnectDelay=5&failover.useReconnectBackOff=false\
                           &failover.nested.amqp.idleTimeout=1000";

const RUST: &str = "Rust";
const JMS: &str = "Qpid JMS";
const JMS_TUNED: &str = "Qpid JMS, recommended options";

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
            eprintln!("no measurement: {error}");
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
}

impl Choice {
    fn of(words: &[&str]) -> Outcome<Self> {
        let chosen = |all: &[&'static str]| {
            let chosen: Vec<&str> = all.iter().filter(|one| words.contains(one)).copied().collect();
            if chosen.is_empty() { all.to_vec() } else { chosen }
        };
        let number = |key: &str, default| {
            let given = words
                .iter()
                .find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
            given.map_or(Ok(default), str::parse::<usize>)
        };
        let named = chosen(&Cause::ALL.map(Cause::as_str));
        let causes = Cause::ALL
            .into_iter()
            .filter(|cause| named.contains(&cause.as_str()));
        Ok(Self {
            causes: causes.collect(),
            brokers: chosen(&["daymark", "artemis"]),
            clients: chosen(&["rust", "jms"]),
            runs: number("runs", 30)?,
            artemis_runs: number("artemis-runs", 10)?,
        })
    }

    fn bench(&self) -> Outcome<()> {
        let java = if self.clients.contains(&"jms") {
            client::java()
        } else {
            None
        };
        let mut tables = Tables::default();
        if self.brokers.contains(&"daymark") {
            self.daymark(java.as_ref(), &mut tables)?;
        }
        if let Some(java) = java.as_ref().filter(|_| self.brokers.contains(&"artemis")) {
            for tuning in [Tuning::Defaults, Tuning::Fastest] {
                let outcome = self.artemis(java, tuning, &mut tables);
                tables.peer(outcome);
            }
        }
        tables.finish()
    }

    fn daymark(&self, java: Option<&Java>, tables: &mut Tables) -> Outcome<()> {
        let (cut, others): (Vec<Cause>, Vec<Cause>) =
            self.causes.iter().partition(|cause| **cause == Cause::Cut);
        if !others.is_empty() {
            let dir = tempfile::tempdir()?;
            let mut pair = Daymark::start(dir.path(), None)?;
            self.with_every_client(&mut pair, java, &others, tables)?;
        }
        if !cut.is_empty() {
            // A thread that is on a host does not come back.
            std::thread::scope(|scope| scope.spawn(|| self.cut(java, tables)).join())
                .map_err(|_| "the bench of a cut network panicked")??;
        }
        Ok(())
    }

    fn cut(&self, java: Option<&Java>, tables: &mut Tables) -> Outcome<()> {
        let Some(hosts) = Hosts::with_lossy_cable() else {
            return Ok(()); // It has said why.
        };
        hosts.enter(1);
        let dir = tempfile::tempdir()?;
        let mut pair = Daymark::start(dir.path(), Some(hosts))?;
        self.with_every_client(&mut pair, java, &[Cause::Cut], tables)
    }

    fn with_every_client(
        &self,
        pair: &mut Daymark,
        java: Option<&Java>,
        causes: &[Cause],
        tables: &mut Tables,
    ) -> Outcome<()> {
        if self.clients.contains(&"rust") {
            let client = Client::own(pair.naming(), "QueueConnectionFactory")?;
            for cause in causes {
                tables.add(self.of_daymark(pair, &client, RUST, *cause)?);
            }
        }
        for (name, options) in [(JMS, ""), (JMS_TUNED, RECOMMENDED)] {
            let Some(java) = java else {
                continue;
            };
            let client = Client::jms(java, &uri(&pair.addresses(), options))?;
            for cause in causes {
                tables.add(self.of_daymark(pair, &client, name, *cause)?);
            }
        }
        Ok(())
    }

    fn of_daymark(
        &self,
        pair: &mut Daymark,
        client: &Client,
        name: &'static str,
        cause: Cause,
    ) -> Outcome<Series> {
        let is_silent = matches!(cause, Cause::Freeze | Cause::Cut);
        let (runs, deadline) = if is_silent && name == JMS {
            (self.runs.min(FEW), PATIENT)
        } else {
            (self.runs, DEADLINE)
        };
        let mut parts = Vec::new();
        let gaps = repeat(runs, || {
            let gap = measure(pair, client, cause, deadline)?;
            if let Some(gap) = gap {
                pair.become_whole()?; // By then the timeline has been told.
                parts.push(shares(&gap, &pair.steps()?));
            }
            Ok(gap)
        })?;
        Ok(series("Daymark", name, cause, &gaps, deadline, parts))
    }

    fn artemis(&self, java: &Java, tuning: Tuning, tables: &mut Tables) -> Outcome<()> {
        let (broker, name, options) = match tuning {
            Tuning::Defaults => ("Artemis, defaults", JMS, ""),
            Tuning::Fastest => ("Artemis, fastest", JMS_TUNED, RECOMMENDED),
        };
        let dir = tempfile::tempdir()?;
        let mut pair = Artemis::start(dir.path(), &target()?, tuning)?;
        let client = Client::jms(java, &uri(&pair.addresses(), options))?;
        for cause in &self.causes {
            let (runs, deadline) = match (cause, tuning) {
                (Cause::Cut, _) | (Cause::Switchover, Tuning::Defaults) => continue,
                (Cause::Freeze, _) => (1, DEADLINE),
                (Cause::Kill | Cause::Switchover, _) => (self.artemis_runs, PATIENT),
            };
            let gaps = repeat(runs, || measure(&mut pair, &client, *cause, deadline))?;
            tables.add(series(broker, name, *cause, &gaps, deadline, Vec::new()));
        }
        Ok(())
    }
}

fn repeat(times: usize, run: impl FnMut() -> Outcome<Option<Gap>>) -> Outcome<Vec<Option<Gap>>> {
    std::iter::repeat_with(run).take(times).collect()
}

fn series(
    broker: &'static str,
    client: &'static str,
    cause: Cause,
    gaps: &[Option<Gap>],
    deadline: Duration,
    shares: Vec<Vec<(String, f64)>>,
) -> Series {
    let unserved = gaps.iter().filter(|gap| gap.is_none()).count();
    Series {
        broker,
        client,
        cause,
        gaps: gaps.iter().flatten().map(Gap::ms).collect(),
        unserved: (unserved, deadline.as_secs()),
        shares,
    }
}

fn uri([one, two]: &[String; 2], options: &str) -> String {
    format!("failover:(amqp://{one},amqp://{two})?{options}")
}
