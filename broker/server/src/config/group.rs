//! `[group]`: how the brokers of a group find each other besides asking naming.

use std::net::Ipv4Addr;

use daymark_client::proto::{Endpoint, MemberName};
use serde::Deserialize;

use crate::error::ConfigError;

/// How many other members a list may name.
const MEMBERS_MAX: usize = 64;

/// How members find each other. Whatever it is, what naming tells of the group is used too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum GroupTransport {
    /// Only from the group's record in naming.
    #[default]
    Naming,
    /// By announcements to a multicast group.
    Multicast(MulticastConfig),
    /// From a list of the other members.
    VirtualMulticast(Vec<VirtualMember>),
}

/// Where announcements go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MulticastConfig {
    /// `multicast_address`. Default 230.30.1.1.
    pub address: Ipv4Addr,
    /// `multicast_port`. Default 9740.
    pub port: u16,
    /// `multicast_time_to_live`: routers an announcement may pass, and one. Default 1: none.
    pub time_to_live: u8,
    /// `bind_interface_address`: an IPv4 address of the interface to use. Default: as the system routes.
    pub interface: Ipv4Addr,
}

impl Default for MulticastConfig {
    fn default() -> Self {
        Self {
            address: Ipv4Addr::new(230, 30, 1, 1),
            port: 9740,
            time_to_live: 1,
            interface: Ipv4Addr::UNSPECIFIED,
        }
    }
}

/// Another member, and where it receives heartbeats: its `peer_listen`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualMember {
    /// Its name.
    pub member: MemberName,
    /// Its peer port.
    pub peer: Endpoint,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Transport {
    #[default]
    Naming,
    Multicast,
    VirtualMulticast,
}

/// `[group]` as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RawGroup {
    transport: Transport,
    multicast_address: Option<Ipv4Addr>,
    multicast_port: Option<u16>,
    multicast_time_to_live: Option<u8>,
    bind_interface_address: Option<Ipv4Addr>,
    virtual_multicast: Option<String>,
}

fn refuse<T>(setting: &'static str, reason: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Group {
        setting,
        reason: reason.into(),
    })
}

impl RawGroup {
    /// `peer_listen` is needed with a fixed port where others have to name it.
    pub(super) fn checked(&self, peer_listen: Option<&Endpoint>) -> Result<GroupTransport, ConfigError> {
        match self.transport {
            Transport::Naming => {
                self.no_multicast()?;
                self.no_list()?;
                Ok(GroupTransport::Naming)
            }
            Transport::Multicast => {
                self.no_list()?;
                Ok(GroupTransport::Multicast(self.multicast()?))
            }
            Transport::VirtualMulticast => {
                self.no_multicast()?;
                if peer_listen.is_none_or(|peer| peer.port == 0) {
                    return refuse(
                        "peer_listen",
                        "virtual multicast needs it, with a fixed port: the other members name it",
                    );
                }
                let list = self.virtual_multicast.as_deref().unwrap_or_default();
                Ok(GroupTransport::VirtualMulticast(members(list)?))
            }
        }
    }

    fn no_list(&self) -> Result<(), ConfigError> {
        match &self.virtual_multicast {
            Some(_) => refuse("virtual_multicast", "it needs transport = \"virtual-multicast\""),
            None => Ok(()),
        }
    }

    fn no_multicast(&self) -> Result<(), ConfigError> {
        let set = [
            ("multicast_address", self.multicast_address.is_some()),
            ("multicast_port", self.multicast_port.is_some()),
            ("multicast_time_to_live", self.multicast_time_to_live.is_some()),
            ("bind_interface_address", self.bind_interface_address.is_some()),
        ];
        match set.iter().find(|(_, is_set)| *is_set) {
            Some((setting, _)) => refuse(setting, "it needs transport = \"multicast\""),
            None => Ok(()),
        }
    }

    fn multicast(&self) -> Result<MulticastConfig, ConfigError> {
        let default = MulticastConfig::default();
        let config = MulticastConfig {
            address: self.multicast_address.unwrap_or(default.address),
            port: self.multicast_port.unwrap_or(default.port),
            time_to_live: self.multicast_time_to_live.unwrap_or(default.time_to_live),
            interface: self.bind_interface_address.unwrap_or(default.interface),
        };
        if !config.address.is_multicast() {
            return refuse(
                "multicast_address",
                format!("{} is not between 224.0.0.0 and 239.255.255.255", config.address),
            );
        }
        if config.port == 0 {
            return refuse("multicast_port", "it must not be 0: every member uses the same");
        }
        if config.interface.is_multicast() || config.interface.is_broadcast() {
            return refuse("bind_interface_address", "it must be the address of an interface");
        }
        Ok(config)
    }
}

/// Reads `host:port|member,...`.
fn members(list: &str) -> Result<Vec<VirtualMember>, ConfigError> {
    const SETTING: &str = "virtual_multicast";
    let mut members: Vec<VirtualMember> = Vec::new();
    for entry in list.split(',').map(str::trim) {
        let Some((peer, member)) = entry.split_once('|') else {
            return refuse(SETTING, format!("{entry:?} is not HOST:PORT|MEMBER"));
        };
        let peer: Endpoint = match peer.trim().parse() {
            Ok(peer) => peer,
            Err(error) => return refuse(SETTING, format!("{entry:?}: {error}")),
        };
        let member: MemberName = match member.trim().parse() {
            Ok(member) => member,
            Err(error) => return refuse(SETTING, format!("{entry:?}: {error}")),
        };
        if peer.port == 0 {
            return refuse(SETTING, format!("{entry:?} has port 0"));
        }
        if members.iter().any(|known| known.member == member) {
            return refuse(SETTING, format!("{member} is named twice"));
        }
        members.push(VirtualMember { member, peer });
    }
    if members.len() > MEMBERS_MAX {
        return refuse(SETTING, format!("more than {MEMBERS_MAX} members"));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GroupTransport, String> {
        let raw: RawGroup = toml::from_str(text).map_err(|error| error.to_string())?;
        let peer = "0.0.0.0:9742".parse().expect("an endpoint");
        raw.checked(Some(&peer)).map_err(|error| error.to_string())
    }

    #[test]
    fn multicast_has_its_defaults_and_can_be_placed() {
        assert_eq!(parse(""), Ok(GroupTransport::Naming));
        let multicast = MulticastConfig::default();
        assert_eq!(multicast.address.to_string(), "230.30.1.1");
        assert_eq!(
            parse("transport = \"multicast\""),
            Ok(GroupTransport::Multicast(multicast))
        );
        let placed = MulticastConfig {
            address: Ipv4Addr::new(239, 1, 2, 3),
            port: 7,
            time_to_live: 4,
            interface: Ipv4Addr::new(10, 0, 0, 1),
        };
        let text = "transport = \"multicast\"\nmulticast_address = \"239.1.2.3\"\nmulticast_port = 7\n\
                    multicast_time_to_live = 4\nbind_interface_address = \"10.0.0.1\"";
        assert_eq!(parse(text), Ok(GroupTransport::Multicast(placed)));
    }

    #[test]
    fn a_list_names_the_other_members() {
        let list =
            "transport = \"virtual-multicast\"\nvirtual_multicast = \"kkm-PC:9742|two, [::1]:9743|three\"";
        let Ok(GroupTransport::VirtualMulticast(members)) = parse(list) else {
            panic!("a list: {:?}", parse(list));
        };
        let shown: Vec<_> = members
            .iter()
            .map(|other| format!("{}|{}", other.peer, other.member))
            .collect();
        assert_eq!(shown, ["kkm-PC:9742|two", "[::1]:9743|three"]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_named() {
        for (text, part) in [
            ("transport = \"pigeon\"", "pigeon"),
            ("multicast_port = 1", "multicast_port"),
            ("virtual_multicast = \"a:1|b\"", "virtual_multicast"),
            (
                "transport = \"multicast\"\nmulticast_address = \"10.0.0.1\"",
                "224.0.0.0",
            ),
            (
                "transport = \"multicast\"\nmulticast_address = \"ff02::1\"",
                "IPv4",
            ),
            ("transport = \"multicast\"\nmulticast_port = 0", "multicast_port"),
            ("transport = \"multicast\"\nmulticast_time_to_live = 256", "256"),
            (
                "transport = \"multicast\"\nbind_interface_address = \"230.1.1.1\"",
                "bind_interface_address",
            ),
            ("transport = \"virtual-multicast\"", "HOST:PORT|MEMBER"),
            (
                "transport = \"virtual-multicast\"\nvirtual_multicast = \"a:1\"",
                "HOST:PORT|MEMBER",
            ),
            (
                "transport = \"virtual-multicast\"\nvirtual_multicast = \"a:0|b\"",
                "port",
            ),
            (
                "transport = \"virtual-multicast\"\nvirtual_multicast = \"a|b\"",
                "virtual_multicast",
            ),
            (
                "transport = \"virtual-multicast\"\nvirtual_multicast = \"a:1|b,c:1|b\"",
                "twice",
            ),
            ("colour = 1", "colour"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text:?}: {error}");
        }
        let raw: RawGroup =
            toml::from_str("transport = \"virtual-multicast\"\nvirtual_multicast = \"a:1|b\"").expect("TOML");
        let error = raw.checked(None).expect_err("no peer_listen").to_string();
        assert!(error.contains("peer_listen"), "{error}");
    }
}
