//! A journal in a directory as a store.
//!
//! The `journal` crate does everything; this translates.

use std::path::PathBuf;

use daymark_journal::{Batch, Holder, Journal, Options, Seqs};

use super::{AppendError, Done, Fenced, Locked, Log, OnFailure, OpenError, OpenStore, Store, Usage, Visit};

/// A journal in a directory.
#[derive(Clone, Debug)]
pub struct JournalStore {
    /// The directory. It is created if only its last component is missing.
    pub dir: PathBuf,
    /// Sizes and limits.
    pub options: Options,
}

impl Store for JournalStore {
    fn lock(&self, holder: &Holder, force: bool) -> Result<Box<dyn Locked>, OpenError> {
        let options = self.options.clone();
        let locked = if force {
            daymark_journal::Locked::acquire_forced(&self.dir, holder, options)
        } else {
            daymark_journal::Locked::acquire(&self.dir, holder, options)
        };
        Ok(Box::new(locked?))
    }
}

impl Locked for daymark_journal::Locked {
    fn epoch(&self) -> u64 {
        Self::epoch(self)
    }

    fn begin(self: Box<Self>, epoch: u64) -> Result<Box<dyn Fenced>, OpenError> {
        Ok(Box::new(Self::begin(*self, epoch)?))
    }
}

impl Fenced for daymark_journal::Fenced {
    fn recover(self: Box<Self>, visit: &mut Visit<'_>) -> Result<Log, OpenError> {
        let (journal, _) = Self::recover(*self, visit)?;
        Ok(Log::new(journal))
    }
}

impl OpenStore for Journal {
    fn submit(&self, batch: Batch, done: Done) -> Result<Seqs, AppendError> {
        Ok(Self::submit(self, batch, move |result| {
            done(result.map_err(AppendError::from));
        })?)
    }

    fn release_before(&self, seq: u64) {
        Self::release_before(self, seq);
    }

    /// Whole segments are given back, so there is nothing to win while there is only the one in use.
    fn usage(&self) -> Usage {
        let segments = self.segments();
        let sealed = segments.iter().any(|segment| !segment.active);
        let active = segments.iter().find(|segment| segment.active);
        Usage {
            bytes: segments.iter().map(|segment| segment.bytes).sum(),
            before: active.filter(|_| sealed).map(|segment| segment.first_seq),
        }
    }

    fn next_seq(&self) -> u64 {
        Self::next_seq(self)
    }

    fn epoch(&self) -> u64 {
        Self::epoch(self)
    }

    fn failed(&self) -> Option<AppendError> {
        Self::failed(self).map(AppendError::from)
    }

    fn on_failure(&self, hook: OnFailure) {
        Self::on_failure(self, move |error| hook(error.into()));
    }

    fn close(&self) {
        Self::close(self);
    }
}
