//! Delivery states: outcomes, and what transactions add to them.

use crate::desc;
use crate::error::AmqpError;
use crate::list::List;
use crate::read::{DecodeError, Reader};
use crate::value::Fields;
use crate::write::{ListWriter, put_binary, put_bool, put_ulong};
use bytes::Bytes;
use std::sync::Arc;

type Result<T> = std::result::Result<T, DecodeError>;

/// How a delivery ended. Cloning is cheap: one disposition may speak of thousands of deliveries.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Taken over by the receiver.
    Accepted,
    /// Refused for good: invalid or unprocessable.
    Rejected(Option<Arc<AmqpError>>),
    /// Not taken, and as if it had not been delivered.
    Released,
    /// Not taken, and changed.
    Modified {
        /// Count this as a failed delivery.
        delivery_failed: bool,
        /// Do not deliver to this link again.
        undeliverable_here: bool,
        /// Annotations to merge into the message's.
        annotations: Option<Arc<Fields>>,
    },
}

impl Outcome {
    /// Refused, with the reason.
    #[must_use]
    pub fn rejected(error: AmqpError) -> Self {
        Self::Rejected(Some(Arc::new(error)))
    }
}

/// The id of a transaction, chosen by the coordinator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId(Bytes);

impl TxnId {
    /// An id of these bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The state of a delivery at one end.
#[derive(Clone, Debug, PartialEq)]
pub enum DeliveryState {
    /// Received up to here (only used to resume deliveries).
    Received {
        /// Section of the message.
        section_number: u32,
        /// Byte within the section.
        section_offset: u64,
    },
    /// Final.
    Outcome(Outcome),
    /// The coordinator declared a transaction.
    Declared(TxnId),
    /// Final when the transaction commits.
    Transactional {
        /// The transaction.
        txn: TxnId,
        /// The provisional outcome; none on a transfer.
        outcome: Option<Outcome>,
    },
}

impl From<Outcome> for DeliveryState {
    fn from(outcome: Outcome) -> Self {
        Self::Outcome(outcome)
    }
}

impl DeliveryState {
    /// Accepted, the commonest state.
    pub const ACCEPTED: Self = Self::Outcome(Outcome::Accepted);

    /// The outcome, provisional or final.
    #[must_use]
    pub const fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Outcome(outcome)
            | Self::Transactional {
                outcome: Some(outcome),
                ..
            } => Some(outcome),
            Self::Received { .. } | Self::Declared(_) | Self::Transactional { outcome: None, .. } => None,
        }
    }

    /// The transaction this state waits for.
    #[must_use]
    pub const fn txn(&self) -> Option<&TxnId> {
        if let Self::Transactional { txn, .. } = self {
            Some(txn)
        } else {
            None
        }
    }
}

pub(crate) fn put_state(buf: &mut Vec<u8>, state: &DeliveryState) {
    match state {
        DeliveryState::Outcome(outcome) => put_outcome(buf, outcome),
        DeliveryState::Received {
            section_number,
            section_offset,
        } => {
            let mut list = ListWriter::described(buf, desc::RECEIVED);
            list.uint(*section_number);
            list.with(|buf| put_ulong(buf, *section_offset));
            list.finish();
        }
        DeliveryState::Declared(txn) => {
            let mut list = ListWriter::described(buf, desc::DECLARED);
            list.with(|buf| put_binary(buf, txn.as_bytes()));
            list.finish();
        }
        DeliveryState::Transactional { txn, outcome } => {
            let mut list = ListWriter::described(buf, desc::TRANSACTIONAL);
            list.with(|buf| put_binary(buf, txn.as_bytes()));
            list.option(outcome.as_ref(), put_outcome);
            list.finish();
        }
    }
}

pub(crate) fn put_outcome(buf: &mut Vec<u8>, outcome: &Outcome) {
    match outcome {
        Outcome::Accepted => buf.extend_from_slice(&[0, 0x53, 0x24, 0x45]),
        Outcome::Released => buf.extend_from_slice(&[0, 0x53, 0x26, 0x45]),
        Outcome::Rejected(error) => {
            let mut list = ListWriter::described(buf, desc::REJECTED);
            list.option(error.as_deref(), put_error);
            list.finish();
        }
        Outcome::Modified {
            delivery_failed,
            undeliverable_here,
            annotations,
        } => {
            let mut list = ListWriter::described(buf, desc::MODIFIED);
            list.with(|buf| put_bool(buf, *delivery_failed));
            list.with(|buf| put_bool(buf, *undeliverable_here));
            match annotations {
                Some(fields) => list.fields(fields),
                None => list.null(),
            }
            list.finish();
        }
    }
}

pub(crate) fn put_error(buf: &mut Vec<u8>, error: &AmqpError) {
    let mut list = ListWriter::described(buf, desc::ERROR);
    list.symbol(Some(&error.condition));
    list.string(error.description.as_deref().map(brief));
    list.fields(&error.info);
    list.finish();
}

/// As much of a text as surely fits into the smallest frame a peer may allow.
fn brief(text: &str) -> &str {
    text.split_at(text.floor_char_boundary(320)).0
}

/// A delivery state in a field of a performative; `None` if null.
pub(crate) fn state_field(list: &mut List<'_>) -> Result<Option<DeliveryState>> {
    let Some(mut raw) = list.raw()? else {
        return Ok(None);
    };
    let code = raw.descriptor()?;
    let mut fields = raw.list()?;
    Ok(Some(match code {
        desc::RECEIVED => DeliveryState::Received {
            section_number: fields.uint("section-number")?.unwrap_or(0),
            section_offset: fields.ulong("section-offset")?.unwrap_or(0),
        },
        desc::DECLARED => DeliveryState::Declared(txn_id(&mut fields)?),
        desc::TRANSACTIONAL => DeliveryState::Transactional {
            txn: txn_id(&mut fields)?,
            outcome: outcome_field(&mut fields)?,
        },
        _ => DeliveryState::Outcome(outcome_body(code, &mut fields)?),
    }))
}

pub(crate) fn txn_id(fields: &mut List<'_>) -> Result<TxnId> {
    let id = fields.binary("txn-id")?.ok_or(DecodeError::Missing("txn-id"))?;
    Ok(TxnId(Bytes::copy_from_slice(id)))
}

/// An outcome in a field; `None` if null.
pub(crate) fn outcome_field(list: &mut List<'_>) -> Result<Option<Outcome>> {
    let Some(mut raw) = list.raw()? else {
        return Ok(None);
    };
    let code = raw.descriptor()?;
    outcome_body(code, &mut raw.list()?).map(Some)
}

fn outcome_body(code: u64, fields: &mut List<'_>) -> Result<Outcome> {
    Ok(match code {
        desc::ACCEPTED => Outcome::Accepted,
        desc::RELEASED => Outcome::Released,
        desc::REJECTED => Outcome::Rejected(error_field(fields)?.map(Arc::new)),
        desc::MODIFIED => {
            let delivery_failed = fields.boolean("delivery-failed")?;
            let undeliverable_here = fields.boolean("undeliverable-here")?;
            let annotations = fields.fields("message-annotations")?;
            let annotations = (!annotations.is_empty()).then(|| Arc::new(annotations));
            Outcome::Modified {
                delivery_failed,
                undeliverable_here,
                annotations,
            }
        }
        _ => return Err(DecodeError::Descriptor),
    })
}

/// An error in a field; `None` if null.
pub(crate) fn error_field(list: &mut List<'_>) -> Result<Option<AmqpError>> {
    let Some(mut raw) = list.raw()? else {
        return Ok(None);
    };
    error(&mut raw).map(Some)
}

fn error(raw: &mut Reader<'_>) -> Result<AmqpError> {
    if raw.descriptor()? != desc::ERROR {
        return Err(DecodeError::Descriptor);
    }
    let mut fields = raw.list()?;
    Ok(AmqpError {
        condition: fields
            .symbol("condition")?
            .ok_or(DecodeError::Missing("condition"))?,
        description: fields.string("description")?,
        info: fields.fields("info")?,
    })
}
