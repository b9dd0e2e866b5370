//! Reading a directory back.

use crate::error::OpenError;
use crate::journal::Journal;
use crate::open::Base;
use crate::types::{Record, Recovery};

pub(crate) fn run<E>(
    base: Base,
    epoch: u64,
    _visit: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<(Journal, Recovery), OpenError> {
    base.check_owner(epoch)?;
    let source = std::io::Error::other("recovery is not written yet");
    Err(OpenError::Io {
        op: "recover",
        file: base.dir,
        source,
    })
}
