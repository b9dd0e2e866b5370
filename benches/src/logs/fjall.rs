//! `fjall`, an embedded store: one batch with a synced journal for what waits together, the number of a record as its
//! key.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::bare::Committed;
use super::{Kind, Log};
use crate::Outcome;

/// See [`Kind`].
pub const KIND: Kind = Kind {
    name: "fjall",
    create,
    recover,
};

fn open(dir: &Path) -> Outcome<(Database, Keyspace)> {
    let database = Database::builder(dir).open()?;
    let records = database.keyspace("records", KeyspaceCreateOptions::default)?;
    Ok((database, records))
}

fn create(dir: &Path) -> Outcome<Box<dyn Log>> {
    let (database, records) = open(dir)?;
    Ok(Committed::start(move |group| {
        let mut batch = database.batch().durability(Some(PersistMode::SyncData));
        for item in group {
            batch.insert(&records, item.number.to_be_bytes(), &*item.record);
            if let Some(ended) = item.ends {
                batch.remove(&records, ended.to_be_bytes());
            }
        }
        Ok(batch.commit()?)
    }))
}

fn recover(dir: &Path) -> Outcome<u64> {
    let (_database, records) = open(dir)?;
    let mut count = 0;
    for record in records.iter() {
        let (_, value) = record.into_inner()?;
        count += u64::from(!value.is_empty());
    }
    Ok(count)
}
