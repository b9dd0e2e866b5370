//! The broker beside its peers, in one run, as ratios.
//!
//! `cargo bench -p daymark-benches --bench messaging [-- SECTION...]`: sections are `stream`, `many`, `large`,
//! `persistent`, `latency` and `memory`; all of them without a word. The load is a C program on Debian's Proton
//! (`libqpid-proton11-dev`, a C compiler), the same for everybody. The peers are RabbitMQ (Debian's
//! `rabbitmq-server`), Apache ActiveMQ Artemis (fetched by Maven) and `ramqp-brokerd` (built by cargo). A peer that is
//! missing leaves its place empty and is named at the end. The table is printed, and written to
//! `target/benches/messaging.md`.

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use daymark_benches::directory::floor;
use daymark_benches::messaging::load::{Load, Stream};
use daymark_benches::messaging::{Broker, brokers};
use daymark_benches::table::{Table, target};
use daymark_benches::{Measurements, Outcome};

/// How often each figure is measured; the median counts.
const ROUNDS: usize = 3;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "as-daymark") {
        return daymark_cli::main_with(arguments.into_iter().skip(1));
    }
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    match bench(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no measurement: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whom we measure: ourselves first.
struct Field {
    brokers: Vec<Broker>,
    load: Load,
    table: Table,
}

fn bench(sections: &[&str]) -> Outcome<()> {
    let sections: Vec<&str> = sections
        .iter()
        .filter(|word| !word.starts_with('-'))
        .copied()
        .collect();
    let wanted = |section: &str| sections.is_empty() || sections.contains(&section);
    let dir = tempfile::tempdir()?;
    let target = target()?;
    let mut table = Table::default();
    let mut field = vec![brokers::daymark(dir.path())?];
    field.extend(table.peer(brokers::rabbitmq(dir.path())));
    field.extend(table.peer(brokers::artemis(dir.path(), &target)));
    field.extend(table.peer(brokers::ramqp(&target)));
    let load = Load::build(&target)?;
    let mut field = Field {
        brokers: field,
        load,
        table,
    };
    if wanted("stream") {
        field.stream("stream", 1, 100, [20.0, 4.0, 1.1], Some([40.0, 8.0, 2.0]));
    }
    if wanted("many") {
        field.stream("many", 8, 100, [1.0; 3], None);
    }
    if wanted("large") {
        field.stream("large", 1, 10 << 10, [1.0; 3], None);
    }
    if wanted("persistent") {
        field.persistent(dir.path())?;
    }
    if wanted("latency") {
        field.latency();
    }
    if wanted("memory") {
        field.memory();
    }
    field.table.write("messaging.md")
}

/// The place of a peer in the figures wanted: RabbitMQ, Artemis, ramqp-brokerd.
fn place(broker: &Broker) -> usize {
    match broker.name {
        "RabbitMQ" => 0,
        "Artemis" => 1,
        _ => 2,
    }
}

impl Field {
    /// The median of as many rounds, each of which asks everybody in turn. One that fails is left out.
    fn medians(
        &mut self,
        mut measure: impl FnMut(&Load, &Broker, usize) -> Outcome<f64>,
    ) -> Vec<Option<f64>> {
        let mut measured: Vec<Vec<f64>> = self.brokers.iter().map(|_| Vec::new()).collect();
        for round in 0..ROUNDS {
            for (broker, all) in self.brokers.iter().zip(&mut measured) {
                let one = measure(&self.load, broker, round);
                all.extend(
                    self.table
                        .peer(one.map_err(|error| format!("{}: {error}", broker.name).into())),
                );
            }
        }
        let median = |all: Vec<f64>| all.into_iter().collect::<Measurements>().median();
        measured.into_iter().map(median).collect()
    }

    /// A figure where more is better.
    fn more(&mut self, what: &str, unit: &str, figures: &[Option<f64>], wanted: [f64; 3]) {
        let others: Vec<_> = self
            .others(figures)
            .map(|(broker, figure)| (broker.name, figure, wanted[place(broker)]))
            .collect();
        self.table.figure(what, unit, figures[0].unwrap_or(0.0), &others);
    }

    /// A figure where less is better: each peer's must be so many times ours.
    fn less(&mut self, what: &str, unit: &str, figures: &[Option<f64>], wanted: [f64; 3]) {
        let ours = figures[0].unwrap_or(f64::NAN);
        let others: Vec<String> = self
            .others(figures)
            .map(|(broker, figure)| {
                let Some(theirs) = figure else {
                    return format!("{}: not measured", broker.name);
                };
                let wanted = wanted[place(broker)];
                let verdict = if theirs / ours >= wanted {
                    "reached"
                } else {
                    "**missed**"
                };
                let ratio = theirs / ours;
                format!(
                    "{} {theirs:.1} → 1/{ratio:.1} (wanted 1/{wanted}: {verdict})",
                    broker.name
                )
            })
            .collect();
        self.table
            .line(format!("| {what} | {ours:.2} {unit} | {} |", others.join("<br>")));
    }

    fn others(&self, figures: &[Option<f64>]) -> impl Iterator<Item = (&Broker, Option<f64>)> {
        self.brokers.iter().zip(figures.to_vec()).skip(1)
    }

    fn stream(
        &mut self,
        queue: &str,
        connections: u32,
        bytes: usize,
        wanted: [f64; 3],
        cost: Option<[f64; 3]>,
    ) {
        let mut costs: Vec<Vec<f64>> = self.brokers.iter().map(|_| Vec::new()).collect();
        let names: Vec<&str> = self.brokers.iter().map(|broker| broker.name).collect();
        let rates = self.medians(|load, broker, round| {
            // As many as take some seconds: the slow ones get fewer.
            let messages = match (broker.name, bytes) {
                ("Daymark" | "ramqp-brokerd", 100) => 1_000_000,
                ("Daymark" | "ramqp-brokerd", _) => 150_000,
                (_, 100) => 100_000,
                (_, _) => 30_000,
            };
            let stream = Stream {
                connections,
                messages,
                bytes,
            };
            let streamed = load.stream(broker, &format!("{queue}-{round}-"), stream)?;
            if let Some(place) = names.iter().position(|name| *name == broker.name) {
                costs[place].push(streamed.cost_us);
            }
            Ok(streamed.rate)
        });
        let what = format!(
            "non-persistent, at least once, {bytes} bytes, {connections} producers, {connections} consumers"
        );
        self.more(&what, "msg/s", &rates, wanted);
        let costs: Vec<_> = costs
            .into_iter()
            .map(|all| all.into_iter().collect::<Measurements>().median())
            .collect();
        self.less(
            "the same: broker processor time per message",
            "µs",
            &costs,
            cost.unwrap_or([1.0; 3]),
        );
    }

    fn persistent(&mut self, dir: &std::path::Path) -> Outcome<()> {
        const PRODUCERS: u32 = 64;
        let rates = self.medians(|load, broker, round| {
            let messages = if broker.name == "Daymark" { 200_000 } else { 30_000 };
            load.persistent(broker, &format!("persistent-{round}-"), PRODUCERS, messages)
        });
        // What ramqp-brokerd acknowledges is only in its memory.
        let rates: Vec<_> = self
            .brokers
            .iter()
            .zip(rates)
            .map(|(broker, rate)| rate.filter(|_| broker.name != "ramqp-brokerd"))
            .collect();
        let what = "persistent with fsync, 64 producers waiting for each acknowledgement";
        self.more(what, "msg/s", &rates, [2.0, 2.0, 0.0]);
        let bare: Vec<f64> = (0..ROUNDS)
            .map(|round| {
                floor::journal(
                    &dir.join(format!("bare-{round}")),
                    130,
                    64,
                    Duration::from_secs(3),
                )
            })
            .collect::<Outcome<_>>()?;
        let bare = bare.into_iter().collect::<Measurements>().median();
        self.table.figure(
            "the same, beside the bare journal",
            "msg/s",
            rates[0].unwrap_or(0.0),
            &[("bare journal", bare, 0.8)],
        );
        Ok(())
    }

    fn latency(&mut self) {
        let mut worse = Vec::new();
        let p50 = self.medians(|load, broker, round| {
            let (p50, p99) = load.latency(broker, &format!("latency-{round}"), 20_000)?;
            worse.push((broker.name, p99));
            Ok(p50)
        });
        let of = |name: &str| {
            let of_one = worse
                .iter()
                .filter(|(broker, _)| *broker == name)
                .map(|(_, p99)| *p99);
            of_one.collect::<Measurements>().median()
        };
        let p99: Vec<_> = self.brokers.iter().map(|broker| of(broker.name)).collect();
        self.less("one message outstanding, p50", "µs", &p50, [1.0; 3]);
        self.less("one message outstanding, p99", "µs", &p99, [1.0; 3]);
    }

    fn memory(&mut self) {
        const IDLE: u32 = 5_000;
        const PILE: u64 = 1_000_000;
        let once = |measured: Vec<(usize, f64)>, count: usize| -> Vec<Option<f64>> {
            (0..count)
                .map(|place| {
                    measured
                        .iter()
                        .find(|(at, _)| *at == place)
                        .map(|(_, figure)| *figure)
                })
                .collect()
        };
        let (mut idle, mut piled) = (Vec::new(), Vec::new());
        for (place, broker) in self.brokers.iter().enumerate() {
            let named =
                |error: Box<dyn std::error::Error + Send + Sync>| format!("{}: {error}", broker.name).into();
            let grown = self.load.idle(broker, IDLE).map_err(named);
            idle.extend(self.table.peer(grown).map(|bytes| (place, bytes / 1024.0)));
            let grown = self.load.pile(broker, "pile", PILE).map_err(named);
            piled.extend(
                self.table
                    .peer(grown)
                    .map(|bytes| (place, bytes as f64 / f64::from(1 << 20))),
            );
        }
        let count = self.brokers.len();
        self.less(
            "memory of an idle connection, of 5,000",
            "KiB",
            &once(idle, count),
            [3.0, 3.0, 1.0],
        );
        let what = "memory of 1,000,000 persistent messages of 100 bytes";
        self.less(what, "MiB", &once(piled, count), [3.0, 3.0, 1.0]);
    }
}
