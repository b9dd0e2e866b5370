//! Finding the other members without naming: announcements to a multicast group, or a list.
//!
//! Either way only addresses are found; they feed the mesh of heartbeats, and what is heard there counts. An
//! announcement is never evidence that a member lives or is active.
//!
//! On the wire: `DMGM`, the version (one byte), the length of the rest (two bytes, big-endian), then that many
//! bytes of JSON, and nothing behind it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use daymark_client::proto::{Endpoint, GroupName, MemberName};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Heard;
use crate::config::VirtualMember;

const MAGIC: &[u8; 4] = b"DMGM";
const VERSION: u8 = 1;
const HEADER: usize = 7;
/// The longest announcement in bytes: it fits into one packet of an Ethernet.
pub(super) const BYTES_MAX: usize = 1400;

/// A way to find members. What it finds it reports as [`Heard::Found`].
pub(crate) trait Discovery: fmt::Debug + Send + Sync {
    /// Asks now who is there, and does not wait for answers.
    fn ask(&self);
}

/// What a member says of itself to whoever listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Announcement {
    pub(crate) group: GroupName,
    pub(crate) member: MemberName,
    /// Where it receives heartbeats; the host is left out if it is the one the announcement comes from.
    host: Option<String>,
    port: u16,
    /// Whether others are to announce themselves at once.
    pub(crate) asks: bool,
}

impl Announcement {
    /// `host` is `None` where the member listens on every address and was not told which one to tell.
    pub(crate) fn new(group: GroupName, member: MemberName, host: Option<String>, port: u16) -> Self {
        Self {
            group,
            member,
            host,
            port,
            asks: false,
        }
    }

    /// The same, asking others to announce themselves.
    pub(super) fn asking(&self) -> Self {
        Self {
            asks: true,
            ..self.clone()
        }
    }

    /// The announcement as it goes on the wire; `None` if it is too long.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        let json = serde_json::to_vec(self).ok()?;
        let length = u16::try_from(json.len()).ok()?;
        let mut packet = MAGIC.to_vec();
        packet.push(VERSION);
        packet.extend(length.to_be_bytes());
        packet.extend(json);
        (packet.len() <= BYTES_MAX).then_some(packet)
    }

    /// Reads a packet; `None` for whatever is not an announcement of this version.
    pub(super) fn decode(packet: &[u8]) -> Option<Self> {
        let (header, json) = packet.split_at_checked(HEADER)?;
        let length = usize::from(u16::from_be_bytes([header[5], header[6]]));
        if &header[..4] != MAGIC || header[4] != VERSION || json.len() != length {
            return None;
        }
        serde_json::from_slice(json).ok()
    }

    /// Where its sender receives heartbeats.
    pub(super) fn endpoint(&self, from: SocketAddr) -> Option<Endpoint> {
        let host = match &self.host {
            Some(host) => host.clone(),
            None => match from.ip() {
                IpAddr::V4(address) => address.to_string(),
                IpAddr::V6(_) => return None,
            },
        };
        let endpoint = Endpoint {
            host,
            port: self.port,
        };
        // Read as any other input, so that a host nobody could dial goes no further.
        endpoint.to_string().parse().ok()
    }
}

/// Members from a list. They are found at once and for ever.
#[derive(Debug)]
pub(crate) struct Listed {
    others: Vec<VirtualMember>,
    found: mpsc::Sender<Heard>,
}

impl Listed {
    /// Reports the members of the list to `found`, and again whenever asked.
    pub(crate) fn start(others: Vec<VirtualMember>, found: mpsc::Sender<Heard>) -> Self {
        let listed = Self { others, found };
        listed.ask();
        listed
    }
}

impl Discovery for Listed {
    fn ask(&self) {
        for VirtualMember { member, peer } in &self.others {
            // Where the driver is busy it asks again; where it ended nobody needs to know.
            let _ = self.found.try_send(Heard::Found(member.clone(), peer.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(host: Option<&str>) -> Announcement {
        let (group, member) = ("orders".parse().expect("a label"), "a".parse().expect("a label"));
        Announcement::new(group, member, host.map(str::to_owned), 9742)
    }

    #[test]
    fn an_announcement_is_read_as_it_was_sent() {
        let sent = announcement(Some("kkam"));
        let packet = sent.encode().expect("a packet");
        assert_eq!(Announcement::decode(&packet), Some(sent.clone()));
        let from = "10.0.0.7:1".parse().expect("an address");
        assert_eq!(sent.endpoint(from).expect("an endpoint").to_string(), "kkam:9742");
        let endpoint = announcement(None).endpoint(from).expect("an endpoint");
        assert_eq!(endpoint.to_string(), "10.0.0.7:9742");
    }

    #[test]
    fn what_is_no_announcement_is_ignored() {
        let packet = announcement(None).encode().expect("a packet");
        for length in 0..packet.len() {
            assert_eq!(Announcement::decode(&packet[..length]), None, "cut at {length}");
        }
        for at in 0..HEADER {
            let mut changed = packet.clone();
            changed[at] ^= 1;
            assert_eq!(Announcement::decode(&changed), None, "changed at {at}");
        }
        let mut longer = packet;
        longer.push(b' ');
        assert_eq!(Announcement::decode(&longer), None);
        let nowhere = announcement(Some("no host"));
        assert_eq!(nowhere.endpoint("10.0.0.7:1".parse().expect("an address")), None);
    }

    #[tokio::test]
    async fn a_list_is_found_at_once_and_whenever_asked() {
        let (found, mut heard) = mpsc::channel(8);
        let other = VirtualMember {
            member: "two".parse().expect("a label"),
            peer: "kkm-PC:9742".parse().expect("an endpoint"),
        };
        let listed = Listed::start(vec![other.clone()], found);
        listed.ask();
        for _ in 0..2 {
            match heard.recv().await {
                Some(Heard::Found(member, peer)) => {
                    assert_eq!((member, peer), (other.member.clone(), other.peer.clone()))
                }
                heard => panic!("a member was expected: {heard:?}"),
            }
        }
    }
}
