//! Producers that each wait until their record is durable, and what they cost.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::{Kind, LAG, Log, RECORD};
use crate::peer::processor_time;
use crate::{Outcome, other};

/// Bytes of which every record is a part, too many to compress.
const NOISE: usize = 1 << 20;

/// What a load showed.
#[derive(Clone, Copy, Debug)]
pub struct Appended {
    /// Records a second.
    pub rate: f64,
    /// Bytes the process had written to the disk for each byte of a record, as `/proc/self/io` counts them: pages, and
    /// those of a file that is filled beforehand.
    pub written: f64,
    /// Microseconds of processor time for each record, producers included.
    pub cost_us: f64,
}

/// Appends from so many producers for a while. With `ends` every record ends the one [`LAG`] before it.
///
/// # Errors
/// That the log fails.
pub fn append(kind: Kind, dir: &Path, producers: usize, ends: bool, time: Duration) -> Outcome<Appended> {
    let log: Arc<dyn Log> = (kind.create)(dir)?.into();
    let noise = noise();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let next = Arc::new(AtomicU64::new(0));
    let (written, spent) = (written_bytes()?, processor_time(std::process::id())?);
    let began = Instant::now();
    let count = runtime.block_on(async {
        let tasks: Vec<_> = (0..producers)
            .map(|_| {
                let producer = Producer {
                    log: Arc::clone(&log),
                    next: Arc::clone(&next),
                    noise: Arc::clone(&noise),
                    ends,
                };
                tokio::spawn(producer.run(began + time))
            })
            .collect();
        let mut count = 0;
        for task in tasks {
            count += task.await??;
        }
        Outcome::Ok(count)
    })?;
    let elapsed = began.elapsed().as_secs_f64();
    drop(log);
    let cost_us = (processor_time(std::process::id())? - spent) * 1e6 / count as f64;
    let written = (written_bytes()? - written) as f64 / (count * RECORD as u64) as f64;
    Ok(Appended {
        rate: count as f64 / elapsed,
        written,
        cost_us,
    })
}

struct Producer {
    log: Arc<dyn Log>,
    next: Arc<AtomicU64>,
    noise: Arc<[u8]>,
    ends: bool,
}

impl Producer {
    async fn run(self, end: Instant) -> Outcome<u64> {
        let mut count = 0;
        while Instant::now() < end {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let (done, durable) = oneshot::channel();
            let ended = number.checked_sub(LAG).filter(|_| self.ends);
            self.log
                .append(number, record(&self.noise, number), ended, done)?;
            durable.await.map_err(|_| other("a record was not stored"))?;
            count += 1;
        }
        Ok(count)
    }
}

/// Fills a log with so many records, closes it, and returns the seconds it then takes to open it and look at all of
/// them: everything is in the page cache.
///
/// # Errors
/// That the log fails, or comes back with fewer or more.
pub fn recover(kind: Kind, dir: &Path, records: u64) -> Outcome<f64> {
    const AHEAD: usize = 1024;
    let log = (kind.create)(dir)?;
    let noise = noise();
    let mut waiting = std::collections::VecDeque::with_capacity(AHEAD);
    for number in 0..records {
        let (done, durable) = oneshot::channel();
        log.append(number, record(&noise, number), None, done)?;
        waiting.push_back(durable);
        if waiting.len() == AHEAD {
            stored(&mut waiting, AHEAD / 2)?;
        }
    }
    stored(&mut waiting, AHEAD)?;
    drop(log);
    let began = Instant::now();
    let found = (kind.recover)(dir)?;
    let elapsed = began.elapsed().as_secs_f64();
    if found == records {
        return Ok(elapsed);
    }
    Err(other(format!("{found} of {records} records came back")).into())
}

/// Waits for the oldest of them.
fn stored(waiting: &mut std::collections::VecDeque<oneshot::Receiver<()>>, most: usize) -> Outcome<()> {
    for durable in waiting.drain(..most.min(waiting.len())) {
        durable
            .blocking_recv()
            .map_err(|_| other("a record was not stored"))?;
    }
    Ok(())
}

fn noise() -> Arc<[u8]> {
    let mut state = 0x9E37_79B9_7F4A_7C15;
    let next = || crate::directory::scrambled(&mut state).to_le_bytes()[3];
    std::iter::repeat_with(next).take(NOISE + RECORD).collect()
}

fn record(noise: &[u8], number: u64) -> &[u8] {
    let at = (number.wrapping_mul(7919) % NOISE as u64) as usize;
    &noise[at..at + RECORD]
}

fn written_bytes() -> Outcome<u64> {
    let io = std::fs::read_to_string("/proc/self/io")?;
    let line = io.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line.ok_or_else(|| other("no write_bytes"))?.parse()?)
}
