//! Plays the games of `tests/fuzzing` for as long as one likes.
//!
//!     cargo run --release -p daymark-amqp --example fuzz -- --minutes 10
//!     cargo run --release -p daymark-amqp --example fuzz -- --seed 4711     # one seed again
//!     cargo run --release -p daymark-amqp --example fuzz -- --record        # the corpus anew
//!
//! It ends at the first finding and prints the seed that replays it. Findings are panics, which broken accounts are
//! too, games that take longer than a second, and memory that grows.

#[path = "../tests/fuzzing/mod.rs"]
mod fuzzing;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How long one game may take.
const GAME: Duration = Duration::from_secs(1);
/// How far memory may grow beyond what it is after the first thousand games.
const GROWTH_KIB: u64 = 64 * 1024;
/// Seeds between two lines of progress.
const ROUND: u64 = 10_000;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |place: usize| arguments.get(place).and_then(|text| text.parse::<u64>().ok());
    match (arguments.first().map(String::as_str), number(1)) {
        (Some("--record"), _) => {
            fuzzing::record(now());
            ExitCode::SUCCESS
        }
        (Some("--seed"), Some(seed)) => {
            fuzzing::damage(&fuzzing::conversations(), seed, now());
            fuzzing::company(seed, now());
            ExitCode::SUCCESS
        }
        (Some("--minutes"), Some(minutes)) => play(Duration::from_secs(60 * minutes)),
        _ => {
            eprintln!("usage: fuzz --minutes N | --seed N | --record");
            ExitCode::from(2)
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this program is no rule")]
fn now() -> Instant {
    Instant::now()
}

fn play(length: Duration) -> ExitCode {
    let corpus = fuzzing::conversations();
    let (began, mut base, mut total) = (now(), None, fuzzing::Tally::default());
    let first = u64::from(std::process::id()) << 32;
    let mut seed = first;
    while began.elapsed() < length {
        let start = now();
        let games = catch_unwind(|| {
            [
                fuzzing::damage(&corpus, seed, start),
                fuzzing::company(seed, start),
            ]
        });
        let Ok(games) = games else {
            eprintln!("FINDING: seed {seed} panics");
            return ExitCode::FAILURE;
        };
        if start.elapsed() > 2 * GAME {
            eprintln!("FINDING: seed {seed} took {:?}", start.elapsed());
            return ExitCode::FAILURE;
        }
        games.into_iter().for_each(|game| total.add(game));
        seed += 1;
        if (seed - first) % ROUND == 0 {
            let used = resident_kib();
            println!("{} seeds, {total:?}, {used} KiB", seed - first);
            if used > *base.get_or_insert(used) + GROWTH_KIB {
                eprintln!("FINDING: memory grows");
                return ExitCode::FAILURE;
            }
        }
    }
    println!(
        "{} seeds from {first} in {:?} without a finding: {total:?}",
        seed - first,
        began.elapsed()
    );
    ExitCode::SUCCESS
}

/// Memory of this process, as the system counts it; 0 where it does not say.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}
