//! The state that reads are answered from: one root, replaced whole by the apply task.
//!
//! Invariant: a revision is announced only after the root that holds it was put in place.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use bytes::Bytes;
use daymark_naming_core::Directory;
use daymark_naming_proto::{ChangeSet, NamingError, Revision};
use tokio::sync::watch;

use crate::index::{Found, Index};

/// The JSON document of an answer.
pub(crate) fn to_json<T: serde::Serialize>(value: &T) -> Result<Bytes, NamingError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| NamingError::ServiceUnavailable {
            reason: format!("the answer has no JSON form: {error}"),
        })
}

/// Appends a number in decimal digits.
pub(crate) fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        // A digit is below ten.
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Where the apply task puts each new root and everybody else reads it.
pub(crate) struct State {
    current: ArcSwap<Directory>,
    index: Index,
    revision: watch::Sender<Revision>,
}

impl State {
    /// A state that keeps about so many bytes of encoded answers.
    pub(crate) fn new(directory: Directory, reply_bytes_max: usize) -> Self {
        let revision = directory.revision();
        let index = Index::new(reply_bytes_max);
        index.replace(&directory, || ());
        Self {
            current: ArcSwap::from_pointee(directory),
            index,
            revision: watch::Sender::new(revision),
        }
    }

    /// The root now. Not to be held across a wait.
    pub(crate) fn load(&self) -> Guard<Arc<Directory>> {
        self.current.load()
    }

    /// The root now, to be kept.
    pub(crate) fn load_full(&self) -> Arc<Directory> {
        self.current.load_full()
    }

    /// A lookup of a name as it is printed. False where `out` is as it was, and a walk has to answer.
    pub(crate) fn read(
        &self,
        text: &[u8],
        out: &mut Vec<u8>,
        write: impl FnOnce(&Found<'_>, &mut Vec<u8>),
    ) -> bool {
        self.index.read(text, out, write)
    }

    /// Puts a new root in place, which `sets` lead to, and tells everybody who waits for one.
    pub(crate) fn publish(&self, directory: Directory, sets: &[Arc<ChangeSet>]) {
        let revision = directory.revision();
        let root = Arc::new(directory);
        self.index.follow(sets, || self.current.store(root));
        self.announce(revision);
    }

    /// Puts a root in place that has nothing to do with the one before.
    pub(crate) fn replace(&self, directory: Directory) {
        let revision = directory.revision();
        let root = Arc::new(directory);
        self.index.replace(&root, || self.current.store(root.clone()));
        self.announce(revision);
    }

    fn announce(&self, revision: Revision) {
        self.revision.send_if_modified(|seen| {
            let newer = *seen != revision;
            *seen = revision;
            newer
        });
    }

    /// Tells of each new revision.
    pub(crate) fn revisions(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::push_number;

    #[test]
    fn numbers_are_written_as_they_are() {
        for number in [0, 7, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
