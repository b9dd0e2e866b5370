//! What clients say to a transaction coordinator: declare and discharge.

use crate::desc;
use crate::message::section_body;
use crate::read::DecodeError;
use crate::state::{TxnId, txn_id};
use crate::value::Symbol;
use crate::write::{ListWriter, put_binary, put_bool, put_ulong};
use bytes::Bytes;

/// The coordinator's capability to keep transactions of one connection.
pub const LOCAL_TRANSACTIONS: Symbol = Symbol::from_static("amqp:local-transactions");

/// The message that asks for a new transaction. Send it on a link to [`crate::Target::Coordinator`]; the
/// disposition carries [`crate::DeliveryState::Declared`].
#[must_use]
pub fn declare(global_id: Option<&[u8]>) -> Bytes {
    let mut buf = value_section();
    let mut list = ListWriter::described(&mut buf, desc::DECLARE);
    list.option(global_id, put_binary);
    list.finish();
    buf.into()
}

/// The message that commits a transaction, or rolls it back if `fail`. The disposition is accepted, or
/// rejected with `amqp:transaction:rollback`.
#[must_use]
pub fn discharge(txn: &TxnId, fail: bool) -> Bytes {
    let mut buf = value_section();
    let mut list = ListWriter::described(&mut buf, desc::DISCHARGE);
    list.with(|buf| put_binary(buf, txn.as_bytes()));
    list.with(|buf| put_bool(buf, fail));
    list.finish();
    buf.into()
}

fn value_section() -> Vec<u8> {
    let mut buf = vec![0];
    put_ulong(&mut buf, desc::VALUE);
    buf
}

/// What a client orders.
#[derive(Debug, PartialEq)]
pub(crate) enum Order {
    Declare { global_id: Option<Bytes> },
    Discharge { txn: TxnId, fail: bool },
}

impl Order {
    /// Reads the body; sections before it are stepped over.
    pub(crate) fn decode(message: &[u8]) -> Result<Self, DecodeError> {
        let mut body = section_body(message, desc::VALUE)?.ok_or(DecodeError::Missing("amqp-value"))?;
        let code = body.descriptor()?;
        let mut fields = body.list()?;
        match code {
            desc::DECLARE => {
                let global_id = fields.binary("global-id")?.map(Bytes::copy_from_slice);
                Ok(Self::Declare { global_id })
            }
            desc::DISCHARGE => Ok(Self::Discharge {
                txn: txn_id(&mut fields)?,
                fail: fields.boolean("fail")?,
            }),
            _ => Err(DecodeError::Descriptor),
        }
    }
}
