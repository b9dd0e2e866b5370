//! Ours.

use std::path::Path;

use daymark_journal::{Batch, Holder, Journal, Locked, Options};
use tokio::sync::oneshot;

use super::{Kind, LAG, Log};
use crate::Outcome;

/// See [`Kind`].
pub const KIND: Kind = Kind {
    name: "journal",
    create,
    recover,
};

/// How often the journal is told what it may give back.
const RELEASE_EVERY: u64 = 4096;

const RECORD_KIND: u8 = 0;
const END_KIND: u8 = 1;

struct Ours(Journal);

fn create(dir: &Path) -> Outcome<Box<dyn Log>> {
    let (journal, _) = open(dir)?;
    Ok(Box::new(Ours(journal)))
}

fn recover(dir: &Path) -> Outcome<u64> {
    let (journal, records) = open(dir)?;
    journal.close();
    Ok(records)
}

fn open(dir: &Path) -> Outcome<(Journal, u64)> {
    let locked = Locked::acquire(dir, &Holder::here("bench"), Options::default())?;
    let epoch = locked.epoch() + 1;
    let mut records = 0;
    let (journal, _) = locked.begin(epoch)?.recover(|record| {
        records += u64::from(record.kind == RECORD_KIND);
        Ok::<(), String>(())
    })?;
    Ok((journal, records))
}

impl Log for Ours {
    fn append(
        &self,
        number: u64,
        record: &[u8],
        ends: Option<u64>,
        done: oneshot::Sender<()>,
    ) -> Outcome<()> {
        let mut batch = Batch::with_capacity(record.len() + 16);
        batch.push(RECORD_KIND, &[record]);
        if let Some(ended) = ends {
            batch.push(END_KIND, &[&ended.to_le_bytes()]);
        }
        let seqs = self.0.submit(batch, move |result| {
            if result.is_ok() {
                // A producer that went away needs no answer.
                let _ = done.send(());
            }
        })?;
        // Two records for each of those that are still alive.
        if ends.is_some() && number.is_multiple_of(RELEASE_EVERY) {
            self.0.release_before(seqs.first.saturating_sub(2 * LAG));
        }
        Ok(())
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        self.0.close();
    }
}
