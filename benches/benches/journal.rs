//! The journal beside a bare segment file and `fjall`, in one run, as ratios.
//!
//! `cargo bench -p daymark-benches --bench journal --features fjall [-- SECTION...]`: sections are `append`, `lag` and
//! `recovery`; all of them without a word. Without the feature, which compiles some twenty crates more, `fjall` is left
//! out. Records have 200 bytes; every producer waits until its record is durable; in `lag` each record ends the one
//! 200,000 before it. `DAYMARK_BENCH_DIR` is where the files go, the system's place for temporary files without it.
//! The table is printed, and written to `target/benches/journal.md`.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use daymark_benches::logs::{Kind, kinds, load};
use daymark_benches::table::{Beside, Table};
use daymark_benches::{Measurements, Outcome};

/// How often each figure is measured; the median counts.
const ROUNDS: usize = 3;
/// How long each load lasts.
const TIME: Duration = Duration::from_secs(4);
const MILLION: u64 = 1_000_000;

/// So many times a peer's figure is wanted: a bare segment's, fjall's.
type Wanted = [f64; 2];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match bench(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("no measurement: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(words: &[String]) -> Outcome<()> {
    let sections: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |section: &str| sections.is_empty() || sections.iter().any(|word| *word == section);
    let dir = match std::env::var_os("DAYMARK_BENCH_DIR") {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let mut table = Table::default();
    let kinds = kinds();
    if wanted("append") {
        for (producers, wanted) in [(1, [1.0, 0.95]), (64, [1.0, 1.4]), (512, [1.0, 1.6])] {
            appends(&mut table, &kinds, dir.path(), producers, false, wanted)?;
        }
    }
    if wanted("lag") {
        appends(&mut table, &kinds, dir.path(), 64, true, [1.0, 1.75])?;
    }
    if wanted("recovery") {
        recovery(&mut table, &kinds, dir.path())?;
    }
    table.write("journal.md")
}

fn appends(
    table: &mut Table,
    kinds: &[Kind],
    dir: &Path,
    producers: usize,
    ends: bool,
    wanted: Wanted,
) -> Outcome<()> {
    let [rates, written, costs] = medians(kinds, |kind, round| {
        let dir = dir.join(format!("{producers}-{ends}-{}-{round}", kind.name));
        let appended = load::append(kind, &dir, producers, ends, TIME)?;
        std::fs::remove_dir_all(&dir)?;
        Ok([appended.rate, appended.written, appended.cost_us])
    })?;
    let kept = if ends { ", each ends an older one" } else { "" };
    let what = format!("{producers} producers{kept}");
    table.figure(&what, "records/s", rates[0], &beside(kinds, &rates, wanted));
    let others = beside(kinds, &written, [0.0, 1.0]);
    table.cost(
        &format!("{what}: bytes written for a byte"),
        "",
        written[0],
        &others,
    );
    let others = beside(kinds, &costs, [0.0, 1.0]);
    table.cost(
        &format!("{what}: processor time of a record"),
        "µs",
        costs[0],
        &others,
    );
    Ok(())
}

fn recovery(table: &mut Table, kinds: &[Kind], dir: &Path) -> Outcome<()> {
    let [times] = medians(kinds, |kind, round| {
        let dir = dir.join(format!("recovery-{}-{round}", kind.name));
        let time = load::recover(kind, &dir, MILLION)?;
        std::fs::remove_dir_all(&dir)?;
        Ok([time * 1000.0])
    })?;
    let others = beside(kinds, &times, [0.0, 3.8]);
    table.cost(
        "1,000,000 records: open and look at all, warm",
        "ms",
        times[0],
        &others,
    );
    Ok(())
}

/// The medians of as many rounds, each of which asks everybody in turn.
fn medians<const N: usize>(
    kinds: &[Kind],
    mut measure: impl FnMut(Kind, usize) -> Outcome<[f64; N]>,
) -> Outcome<[Vec<f64>; N]> {
    let mut measured = vec![Vec::new(); kinds.len()];
    for round in 0..ROUNDS {
        for (kind, all) in kinds.iter().zip(&mut measured) {
            all.push(measure(*kind, round)?);
        }
    }
    let median = |all: &Vec<[f64; N]>, which: usize| {
        let one: Measurements = all.iter().map(|figures| figures[which]).collect();
        one.median().unwrap_or(f64::NAN)
    };
    Ok(std::array::from_fn(|which| {
        measured.iter().map(|all| median(all, which)).collect()
    }))
}

/// What the others reach, and what is wanted beside them.
fn beside(kinds: &[Kind], figures: &[f64], wanted: Wanted) -> Vec<Beside<'static>> {
    let others = kinds.iter().zip(figures).skip(1).zip(wanted);
    others
        .map(|((kind, figure), wanted)| (kind.name, Some(*figure), wanted))
        .collect()
}
