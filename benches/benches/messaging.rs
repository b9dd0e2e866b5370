//! The broker beside its peers, in one run, as ratios.
//!
//! `cargo bench -p daymark-benches --bench messaging [-- SECTION...]`: sections are `stream`, `many`, `large`, `jms`,
//! `persistent`, `latency`, `memory` and `recovery`; all of them without a word. The load is a C program on Debian's Proton
//! (`libqpid-proton11-dev`, a C compiler), the same for everybody, and in `jms` a Java program on Qpid JMS. The peers
//! are RabbitMQ (Debian's `rabbitmq-server`), Apache ActiveMQ Artemis (fetched by Maven) and `ramqp-brokerd` (built by
//! cargo, which takes minutes, once). A peer that is missing, or does not finish a load within a minute, leaves its
//! place empty and is named at the end. The table is printed, and written to `target/benches/messaging.md`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use daymark_benches::directory::floor as bare;
use daymark_benches::messaging::load::{Filled, Load, Stream, Streamed};
use daymark_benches::messaging::{Broker, brokers, floor, recovered};
use daymark_benches::table::{Beside, Table, target};
use daymark_benches::{Measurements, Outcome};

/// How often each figure is measured; the median counts.
const ROUNDS: usize = 3;
/// The loads, in the order in which they are measured.
const LOADS: [&str; 6] = ["stream", "many", "large", "jms", "persistent", "latency"];

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = arguments.iter().filter_map(|word| word.to_str()).collect();
    let outcome = match words.as_slice() {
        ["as-daymark", ..] => return daymark_cli::main_with(arguments.into_iter().skip(1)),
        ["as-floor", dir] => floor::run(dir),
        ["as-recovery", what, messages, store] => recovered::run(what, messages, Path::new(store)),
        sections => bench(sections),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no measurement: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(sections: &[&str]) -> Outcome<()> {
    let sections: Vec<&str> = sections
        .iter()
        .filter(|word| !word.starts_with('-'))
        .copied()
        .collect();
    if let Some(unknown) = sections
        .iter()
        .find(|word| !matches!(**word, "memory" | "recovery") && !LOADS.contains(word))
    {
        return Err(format!("there is no section {unknown}").into());
    }
    let wanted = |section: &&str| sections.is_empty() || sections.contains(section);
    let target = target()?;
    let load = Load::build(&target)?;
    let mut table = Table::default();
    let loads: Vec<&str> = LOADS.into_iter().filter(wanted).collect();
    if !loads.is_empty() {
        let dir = tempfile::tempdir()?;
        let mut field = Field {
            brokers: started(&mut table, dir.path(), &target)?,
            load: &load,
            table: &mut table,
        };
        for section in loads {
            field.section(section, dir.path())?;
        }
    }
    if wanted(&"memory") {
        let dir = tempfile::tempdir()?;
        // Brokers that did nothing yet.
        let mut field = Field {
            brokers: started(&mut table, dir.path(), &target)?,
            load: &load,
            table: &mut table,
        };
        field.memory();
    }
    if wanted(&"recovery") {
        recovery(&mut table, &load)?;
    }
    table.write("messaging.md")
}

/// What it takes to take over a store with a million messages, none of it in the page cache, beside reading the files.
fn recovery(table: &mut Table, load: &Load) -> Outcome<()> {
    const MILLION: u64 = 1_000_000;
    let dir = tempfile::tempdir()?;
    let broker = brokers::daymark(dir.path())?;
    let piled = load.pile(&broker, "pile", MILLION)?;
    drop(broker);
    let store = dir.path().join("store");
    let mut times = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (what, times) in recovered::ALL.into_iter().zip(&mut times) {
            times.push(recovered::seconds(what, &store, piled.count)?);
        }
    }
    let [ours, files, journal] = times.map(|all| {
        all.into_iter()
            .collect::<Measurements>()
            .median()
            .unwrap_or(f64::NAN)
            * 1000.0
    });
    let what = format!("recovery: {} messages, nothing in the page cache", piled.count);
    let others = [
        ("reading the files once", files, 1.5),
        ("the journal alone, every record looked at", journal, 1.5),
    ];
    let beside: Vec<String> = others
        .iter()
        .map(|(whom, theirs, most)| {
            let ratio = ours / theirs;
            let verdict = if ratio <= *most { "reached" } else { "**missed**" };
            format!("{whom} {theirs:.0} ms → {ratio:.2} × (wanted at most {most} ×: {verdict})")
        })
        .collect();
    table.line(format!("| {what} | {ours:.0} ms | {} |", beside.join("<br>")));
    Ok(())
}

/// Whom we measure: ourselves first.
fn started(table: &mut Table, dir: &Path, target: &Path) -> Outcome<Vec<Broker>> {
    let mut all = vec![brokers::daymark(dir)?];
    all.extend(table.peer(brokers::rabbitmq(dir)));
    all.extend(table.peer(brokers::artemis(dir, target)));
    all.extend(table.peer(brokers::ramqp(target)));
    Ok(all)
}

/// So many times a peer's figure is wanted, in the order RabbitMQ, Artemis, ramqp-brokerd; 0 where nothing is.
type Wanted = [f64; 3];

/// The place of a peer in the figures wanted.
fn place(broker: &Broker) -> usize {
    match broker.name {
        "RabbitMQ" => 0,
        "Artemis" => 1,
        _ => 2,
    }
}

/// Messages of 100 bytes that keep a broker busy for some seconds.
fn some_seconds(broker: &Broker) -> u64 {
    match broker.name {
        "Daymark" | "ramqp-brokerd" => 1_000_000,
        "Artemis" => 100_000,
        _ => 30_000,
    }
}

struct Field<'a> {
    brokers: Vec<Broker>,
    load: &'a Load,
    table: &'a mut Table,
}

impl Field<'_> {
    fn section(&mut self, section: &str, dir: &Path) -> Outcome<()> {
        match section {
            "stream" => self.stream("stream", 1, 100, [20.0, 4.0, 1.1], [40.0, 8.0, 2.0]),
            "many" => self.stream("many", 8, 100, [1.0; 3], [1.0; 3]),
            "large" => self.stream("large", 1, 10 << 10, [1.0; 3], [1.0; 3]),
            "jms" => self.jms(),
            "persistent" => self.persistent(dir)?,
            _ => self.latency(),
        }
        Ok(())
    }

    /// The medians of as many rounds, each of which asks everybody in turn. One that fails is left out from then on.
    fn medians(
        &mut self,
        section: &str,
        mut measure: impl FnMut(&Load, &Broker, usize) -> Outcome<(f64, f64)>,
    ) -> [Vec<Option<f64>>; 2] {
        let mut measured: Vec<Option<[Vec<f64>; 2]>> =
            self.brokers.iter().map(|_| Some(Default::default())).collect();
        for round in 0..ROUNDS {
            for (broker, all) in self.brokers.iter().zip(&mut measured) {
                let Some([first, second]) = all else {
                    continue;
                };
                let one = measure(self.load, broker, round)
                    .map_err(|error| format!("{section}: {}: {error}", broker.name).into());
                if let Some(one) = self.table.peer(one) {
                    first.push(one.0);
                    second.push(one.1);
                } else {
                    *all = None;
                }
            }
        }
        let median = |all: &Vec<f64>| all.iter().copied().collect::<Measurements>().median();
        [0, 1].map(|which| {
            measured
                .iter()
                .map(|all| all.as_ref().and_then(|all| median(&all[which])))
                .collect()
        })
    }

    /// A rate and a cost of each message, in one row each.
    fn rates(
        &mut self,
        section: &str,
        what: &str,
        wanted: [Wanted; 2],
        mut measure: impl FnMut(&Load, &Broker, usize) -> Outcome<Streamed>,
    ) {
        let [rates, costs] = self.medians(section, |load, broker, round| {
            measure(load, broker, round).map(|streamed| (streamed.rate, streamed.cost_us))
        });
        self.more(what, "msg/s", &rates, wanted[0]);
        let what = format!("{section}: broker processor time per message");
        self.less(&what, "µs", &costs, wanted[1]);
    }

    /// A figure where more is better.
    fn more(&mut self, what: &str, unit: &str, figures: &[Option<f64>], wanted: Wanted) {
        let (ours, others) = self.beside(figures, wanted);
        self.table.figure(what, unit, ours, &others);
    }

    /// A figure where less is better.
    fn less(&mut self, what: &str, unit: &str, figures: &[Option<f64>], wanted: Wanted) {
        let (ours, others) = self.beside(figures, wanted);
        self.table.cost(what, unit, ours, &others);
    }

    /// Our figure, and those of the others with what is wanted beside them.
    fn beside(&self, figures: &[Option<f64>], wanted: Wanted) -> (f64, Vec<Beside<'static>>) {
        let others = self.brokers.iter().zip(figures).skip(1);
        let others = others.map(|(broker, figure)| (broker.name, *figure, wanted[place(broker)]));
        (figures[0].unwrap_or(f64::NAN), others.collect())
    }

    fn stream(&mut self, section: &str, connections: u32, bytes: usize, wanted: Wanted, cost: Wanted) {
        let what = format!(
            "{section}: non-persistent, at least once, {bytes} bytes, {connections} producers, \
             {connections} consumers"
        );
        // Ten kibibytes take about seven times as long as a hundred bytes.
        let slower = if bytes > 1000 { 7 } else { 1 };
        self.rates(section, &what, [wanted, cost], |load, broker, round| {
            let stream = Stream {
                connections,
                messages: some_seconds(broker) / slower,
                bytes,
            };
            load.stream(broker, &format!("{section}-{round}-"), stream)
        });
    }

    fn jms(&mut self) {
        let what = "jms: non-persistent, 100 bytes, Qpid JMS, 1 producer, 1 consumer";
        self.rates("jms", what, [[1.0; 3]; 2], |load, broker, round| {
            let messages = some_seconds(broker).min(200_000);
            load.jms(broker, &format!("jms-{round}"), messages)
        });
    }

    fn persistent(&mut self, dir: &Path) -> Outcome<()> {
        const PRODUCERS: u32 = 64;
        // Beside the peers, in their turn: the bare journal behind a bare port.
        self.brokers.push(brokers::floor(dir)?);
        let what = "persistent: with fsync, 64 producers waiting for each acknowledgement";
        let [rates, costs] = self.medians("persistent", |load, broker, round| {
            // What ramqp-brokerd acknowledges is only in its memory.
            if broker.name == "ramqp-brokerd" {
                return Err("it has no fsync".into());
            }
            let messages = if matches!(broker.name, "Daymark" | "bare journal") {
                150_000
            } else {
                30_000
            };
            let streamed = load.persistent(broker, &format!("persistent-{round}-"), PRODUCERS, messages)?;
            Ok((streamed.rate, streamed.cost_us))
        });
        self.brokers.pop();
        self.more(what, "msg/s", &rates, [2.0, 2.0, 0.0]);
        let cost = "persistent: broker processor time per message";
        self.less(cost, "µs", &costs, [0.0; 3]);
        let ours = rates[0].unwrap_or(f64::NAN);
        let floors = [(
            "bare journal, same port and client",
            rates.last().copied().flatten(),
            0.8,
        )];
        self.table
            .figure("persistent: beside the floor", "msg/s", ours, &floors);
        let alone: Vec<f64> = (0..ROUNDS)
            .map(|round| {
                let dir = dir.join(format!("bare-{round}"));
                bare::journal(&dir, 130, PRODUCERS as usize, Duration::from_secs(3))
            })
            .collect::<Outcome<_>>()?;
        let alone = alone.into_iter().collect::<Measurements>().median();
        let floors = [("bare journal, threads of one process and no network", alone, 0.8)];
        self.table
            .figure("persistent: beside the bare journal", "msg/s", ours, &floors);
        Ok(())
    }

    fn latency(&mut self) {
        let [p50, p99] = self.medians("latency", |load, broker, round| {
            load.latency(broker, &format!("latency-{round}"), 20_000)
        });
        self.less("latency: one message outstanding, p50", "µs", &p50, [1.0; 3]);
        self.less("latency: one message outstanding, p99", "µs", &p99, [1.0; 3]);
    }

    fn memory(&mut self) {
        const MIB: f64 = 1024.0 * 1024.0;
        let idle = self.filled(5_000, |load, broker, count| load.idle(broker, count as u32));
        let each: Vec<_> = idle
            .iter()
            .map(|filled| filled.map(|(_, each)| each / 1024.0))
            .collect();
        let whole: Vec<_> = idle
            .iter()
            .map(|filled| filled.map(|(whole, _)| whole / MIB))
            .collect();
        self.less(
            "memory: process with 5,000 idle connections",
            "MiB",
            &whole,
            [3.0, 3.0, 1.0],
        );
        self.less(
            "memory: one idle connection of these",
            "KiB",
            &each,
            [3.0, 3.0, 1.0],
        );
        let piled = self.filled(1_000_000, |load, broker, count| load.pile(broker, "pile", count));
        let each: Vec<_> = piled.iter().map(|filled| filled.map(|(_, each)| each)).collect();
        let whole: Vec<_> = piled
            .iter()
            .map(|filled| filled.map(|(whole, _)| whole / MIB))
            .collect();
        let what = "memory: process with 1,000,000 queued persistent messages of 100 bytes";
        self.less(what, "MiB", &whole, [3.0, 3.0, 1.0]);
        self.less(
            "memory: one queued message of these",
            "bytes",
            &each,
            [3.0, 3.0, 1.0],
        );
    }

    /// The bytes of the whole process with so many of something, and of each. Where a broker did not take as many in
    /// time, the bytes of all are reckoned from those it took, and the table says so.
    fn filled(
        &mut self,
        wanted: u64,
        fill: impl Fn(&Load, &Broker, u64) -> Outcome<Filled>,
    ) -> Vec<Option<(f64, f64)>> {
        let mut all = Vec::new();
        for broker in &self.brokers {
            let filled = fill(self.load, broker, wanted)
                .map_err(|error| format!("memory: {}: {error}", broker.name).into());
            let filled = self.table.peer(filled).filter(|filled| filled.count > 0);
            if let Some(filled) = filled.filter(|filled| filled.count < wanted) {
                let few = format!(
                    "| (reckoned from {}: {} in time) | | |",
                    broker.name, filled.count
                );
                self.table.line(few);
            }
            all.push(filled.map(|filled| {
                let each = filled.with.saturating_sub(filled.before) as f64 / filled.count as f64;
                (filled.before as f64 + each * wanted as f64, each)
            }));
        }
        all
    }
}
