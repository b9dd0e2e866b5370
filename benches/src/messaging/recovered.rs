//! How long a store takes that is taken over, and what of that is reading.
//!
//! Each begins with nothing of the store in the page cache, as on a host that takes over from another, and in a process
//! of its own, as a standby that never read a store before: memory that was used once is there faster.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use daymark_broker_server::messaging::{Messaging, MessagingConfig};
use daymark_journal::{Holder, Locked, Options};

use crate::{Outcome, other};

/// What is timed.
pub const ALL: [&str; 3] = ["broker", "files", "journal"];

/// Seconds that one of [`ALL`] takes in a process of its own, which [`run`]s it.
///
/// # Errors
/// What that process says.
pub fn seconds(what: &str, store: &Path, messages: u64) -> Outcome<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args(["as-recovery", what, &messages.to_string()])
        .arg(store);
    let output = command.output()?;
    if !output.status.success() {
        return Err(other(String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().parse()?)
}

/// Times one of [`ALL`] in this process and prints the seconds.
///
/// # Errors
/// That the store cannot be read, or that it holds fewer or more messages.
pub fn run(what: &str, messages: &str, store: &Path) -> Outcome<()> {
    forget(store)?;
    let seconds = match what {
        "broker" => broker(store, messages.parse()?)?,
        "files" => files(store)?,
        _ => journal(store)?,
    };
    println!("{seconds}");
    Ok(())
}

/// The broker's whole recovery: lock, epoch, records, queues, a port that could be opened.
fn broker(store: &Path, messages: u64) -> Outcome<f64> {
    let config = MessagingConfig {
        max_bytes: 2 << 30,
        ..MessagingConfig::default()
    };
    let began = Instant::now();
    let locked = Locked::acquire(store, &Holder::here("bench"), Options::default())?;
    let epoch = locked.epoch() + 1;
    let (messaging, recovered) = Messaging::recover(locked.begin(epoch)?, config)?;
    let elapsed = began.elapsed().as_secs_f64();
    drop(messaging);
    if recovered.messages == messages {
        return Ok(elapsed);
    }
    Err(other(format!("{} of {messages} messages came back", recovered.messages)).into())
}

/// The journal alone: every record is shown and forgotten.
fn journal(store: &Path) -> Outcome<f64> {
    let began = Instant::now();
    let locked = Locked::acquire(store, &Holder::here("bench"), Options::default())?;
    let epoch = locked.epoch() + 1;
    let (journal, _) = locked.begin(epoch)?.recover(|_| Ok::<(), String>(()))?;
    let elapsed = began.elapsed().as_secs_f64();
    journal.close();
    Ok(elapsed)
}

/// Reading all segments once, and nothing else.
fn files(store: &Path) -> Outcome<f64> {
    let began = Instant::now();
    let mut buffer = vec![0; 1 << 20];
    for segment in segments(store)? {
        let mut file = File::open(segment)?;
        while file.read(&mut buffer)? > 0 {}
    }
    Ok(began.elapsed().as_secs_f64())
}

fn segments(store: &Path) -> Outcome<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(store)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("seg-") {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Takes the store out of the page cache.
fn forget(store: &Path) -> Outcome<()> {
    for segment in segments(store)? {
        let file = File::open(segment)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    Ok(())
}
