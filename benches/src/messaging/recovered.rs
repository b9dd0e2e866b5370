//! How long a store takes that is taken over, and what of that is reading. Each call gives seconds, and begins with
//! nothing of the store in the page cache, as on a host that takes over from another.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use daymark_broker_server::messaging::{Messaging, MessagingConfig};
use daymark_journal::{Holder, Locked, Options};

use crate::{Outcome, other};

/// The broker's whole recovery: lock, epoch, records, queues, a port that could be opened.
///
/// # Errors
/// That the store cannot be read, or that it holds fewer or more messages.
pub fn broker(store: &Path, messages: u64) -> Outcome<f64> {
    let config = MessagingConfig {
        max_bytes: 2 << 30,
        ..MessagingConfig::default()
    };
    forget(store)?;
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
///
/// # Errors
/// That the store cannot be read.
pub fn journal(store: &Path) -> Outcome<f64> {
    forget(store)?;
    let began = Instant::now();
    let locked = Locked::acquire(store, &Holder::here("bench"), Options::default())?;
    let epoch = locked.epoch() + 1;
    let (journal, _) = locked.begin(epoch)?.recover(|_| Ok::<(), String>(()))?;
    let elapsed = began.elapsed().as_secs_f64();
    journal.close();
    Ok(elapsed)
}

/// Reading all segments once, and nothing else.
///
/// # Errors
/// That they cannot be read.
pub fn files(store: &Path) -> Outcome<f64> {
    forget(store)?;
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
