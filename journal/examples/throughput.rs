//! How fast the journal appends and opens on this machine.
//!
//! `cargo run --release --example throughput -- DIR [records]` appends records of 200 bytes with 64
//! outstanding batches (kept up by completion callbacks), then with 64 blocking threads, then opens the
//! result and reads it back. DIR must not exist; it is left behind.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use daymark_journal::{Batch, Holder, Journal, JournalError, Locked, OpenError, Options, Recovery, Stats};

const PRODUCERS: u64 = 64;
const BODY: [u8; 200] = [0x5A; 200];

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn main() -> Outcome {
    let mut arguments = std::env::args().skip(1);
    let dir = PathBuf::from(arguments.next().ok_or("usage: throughput DIR [records]")?);
    let records = arguments
        .next()
        .map_or(Ok(1_000_000), |text| text.parse::<u64>())?;

    let (journal, recovery) = open(&dir)?;
    println!("open, new directory        {:>10.2?}", recovery.elapsed);
    report("64 outstanding, callbacks", records, &journal, || {
        outstanding(&journal, records)
    })?;
    journal.close();

    let reread = read_files(&dir)?;
    let (journal, recovery) = open(&dir)?;
    println!(
        "open, {} records      {:>10.2?}  ({} MiB; reading the files alone took {reread:.2?})",
        recovery.records,
        recovery.elapsed,
        recovery.bytes >> 20
    );
    report("64 blocking threads", records / 4, &journal, || {
        blocking(&journal, records / 4)
    })?;
    report("one blocking thread", records / 100, &journal, || {
        producer(&journal, records / 100)
    })?;
    journal.close();
    Ok(())
}

fn open(dir: &Path) -> Result<(Journal, Recovery), OpenError> {
    let locked = Locked::acquire(dir, &Holder::here("throughput"), Options::default())?;
    let next = locked.epoch() + 1;
    locked.begin(next)?.recover(|_| Ok::<(), String>(()))
}

fn report(what: &str, records: u64, journal: &Journal, run: impl FnOnce() -> Outcome) -> Outcome {
    let before = journal.stats();
    let started = Instant::now();
    run()?;
    let elapsed = started.elapsed();
    let after = journal.stats();
    let syncs = after.syncs - before.syncs;
    println!(
        "{what:<26} {:>10.0} records/s  {:>7} syncs of {:>9.2?}  {:>6.1} records each  longest {:.2?}",
        records as f64 / elapsed.as_secs_f64(),
        syncs,
        mean_sync(&before, &after),
        records as f64 / syncs.max(1) as f64,
        Duration::from_nanos(after.sync_nanos_max),
    );
    Ok(())
}

fn mean_sync(before: &Stats, after: &Stats) -> Duration {
    let syncs = (after.syncs - before.syncs).max(1);
    Duration::from_nanos((after.sync_nanos - before.sync_nanos) / syncs)
}

fn one() -> Batch {
    let mut batch = Batch::with_capacity(BODY.len());
    batch.push(1, &[&BODY]);
    batch
}

/// Each completion submits the next record, so that 64 are always on their way.
fn outstanding(journal: &Journal, records: u64) -> Outcome {
    let left = Arc::new(AtomicU64::new(records - PRODUCERS));
    let (finished, done) = mpsc::channel();
    for _ in 0..PRODUCERS {
        next(journal.clone(), Arc::clone(&left), finished.clone())?;
    }
    drop(finished);
    done.iter().try_for_each(|result| result)?;
    Ok(())
}

fn next(
    journal: Journal,
    left: Arc<AtomicU64>,
    finished: mpsc::Sender<Result<(), JournalError>>,
) -> Result<(), JournalError> {
    let handle = journal.clone();
    let done = move |result: Result<_, JournalError>| {
        let more = left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
            .is_ok();
        let outcome = match result {
            Ok(_) if more => next(handle, left, finished.clone()),
            other => other.map(|_| ()),
        };
        // Nobody listens any more after the first error.
        let _ = finished.send(outcome);
    };
    journal.submit(one(), done).map(|_| ())
}

fn blocking(journal: &Journal, records: u64) -> Outcome {
    let results: Vec<Result<(), String>> = std::thread::scope(|scope| {
        let spawn = |_| scope.spawn(|| producer(journal, records / PRODUCERS).map_err(|e| e.to_string()));
        let threads: Vec<_> = (0..PRODUCERS).map(spawn).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread
                .join()
                .unwrap_or_else(|_| Err("a producer panicked".to_owned()))
        };
        threads.into_iter().map(join).collect()
    });
    results.into_iter().collect::<Result<(), String>>()?;
    Ok(())
}

fn producer(journal: &Journal, records: u64) -> Outcome {
    for _ in 0..records {
        journal.append_and_wait(one())?;
    }
    Ok(())
}

/// Time to read all segment files, as a yardstick.
fn read_files(dir: &Path) -> Result<Duration, std::io::Error> {
    let started = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("seg-"))
        {
            let mut file = std::fs::File::open(path)?;
            while std::io::Read::read(&mut file, &mut buffer)? > 0 {}
        }
    }
    Ok(started.elapsed())
}
