//! The heartbeat: what every broker tells its peers, 20 times a second and whenever it changes.
//!
//! On the wire: two bytes of length, big-endian, then that many bytes of JSON.

use std::io;

use bytes::{BufMut, Bytes, BytesMut};
use daymark_client::proto::{Endpoint, Epoch, GroupName, MemberName, MemberState, Role};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest heartbeat, in bytes. A group and two endpoints take a few hundred.
const BYTES_MAX: u16 = 4096;

/// The version of the heartbeat. A peer of another version is not understood and not heard.
pub(crate) const VERSION: u32 = 1;

/// What a broker says of itself. Unknown keys are ignored, so that newer brokers may say more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    pub(crate) version: u32,
    pub(crate) group: GroupName,
    pub(crate) member: MemberName,
    pub(crate) state: MemberState,
    pub(crate) epoch: Epoch,
    /// Set once an operator stops it: whether a standby should take over.
    pub(crate) leaving: Option<bool>,
    /// Where it serves AMQP while it is active.
    pub(crate) endpoint: Endpoint,
    /// Where it receives heartbeats.
    pub(crate) peer: Endpoint,
    /// Its configured role.
    #[serde(default = "backup")]
    pub(crate) role: Role,
    /// Whether it is a standby that could take over now.
    #[serde(default)]
    pub(crate) ready: bool,
    /// Tells one run of its process from the next.
    #[serde(default)]
    pub(crate) incarnation: u64,
    /// Set once it has released the store for another member: for whom.
    #[serde(default)]
    pub(crate) hands_over_to: Option<MemberName>,
    /// Whether that is because the primary is back.
    #[serde(default)]
    pub(crate) is_failback: bool,
    /// How it gave the service up, for the timeline of whoever it is for.
    #[serde(default)]
    pub(crate) gave_up: Vec<PastStep>,
    /// How many clients are connected to it.
    #[serde(default)]
    pub(crate) clients: u64,
}

/// A step of a handover that is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PastStep {
    /// Its code.
    pub(crate) step: String,
    /// How long before the heartbeat that first tells it, in microseconds.
    pub(crate) ago_us: u64,
}

const fn backup() -> Role {
    Role::Backup
}

impl Heartbeat {
    /// The heartbeat as it goes on the wire.
    pub(crate) fn encode(&self) -> io::Result<Bytes> {
        let json = serde_json::to_vec(self)?;
        let length = u16::try_from(json.len())
            .ok()
            .filter(|length| *length <= BYTES_MAX);
        let length = length.ok_or_else(|| io::Error::other("a heartbeat of more than 4096 bytes"))?;
        let mut frame = BytesMut::with_capacity(json.len() + 2);
        frame.put_u16(length);
        frame.put_slice(&json);
        Ok(frame.freeze())
    }

    /// Reads one heartbeat; `None` when the connection ended before one began.
    pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Self>> {
        let length = match from.read_u16().await {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        if length > BYTES_MAX {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("a heartbeat of {length} bytes: at most {BYTES_MAX} are allowed"),
            ));
        }
        let mut json = vec![0; usize::from(length)];
        from.read_exact(&mut json).await?;
        Ok(Some(serde_json::from_slice(&json)?))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn heartbeat(member: &str, state: MemberState) -> Heartbeat {
        Heartbeat {
            version: VERSION,
            group: "orders".parse().expect("a label"),
            member: member.parse().expect("a label"),
            state,
            epoch: Epoch(3),
            leaving: None,
            endpoint: "127.0.0.1:9741".parse().expect("an endpoint"),
            peer: "127.0.0.1:9742".parse().expect("an endpoint"),
            role: Role::Primary,
            ready: false,
            incarnation: 7,
            hands_over_to: None,
            is_failback: false,
            gave_up: vec![PastStep {
                step: "released".to_owned(),
                ago_us: 12,
            }],
            clients: 0,
        }
    }

    #[tokio::test]
    async fn a_heartbeat_is_read_as_it_was_sent() {
        let sent = heartbeat("a", MemberState::Active);
        let wire = sent.encode().expect("bytes");
        let mut wire = wire.as_ref();
        let read = Heartbeat::read(&mut wire).await.expect("a heartbeat");
        assert_eq!(read, Some(sent));
        assert_eq!(Heartbeat::read(&mut wire).await.expect("the end"), None);
    }

    #[tokio::test]
    async fn what_is_no_heartbeat_is_an_error() {
        for wire in [
            &b"\xff\xff"[..],
            b"\x00\x02{",
            b"\x00\x02{}",
            b"GET / HTTP/1.1\r\n\r\n",
        ] {
            let mut from = wire;
            assert!(Heartbeat::read(&mut from).await.is_err(), "{wire:?}");
        }
    }
}
