//! Broker groups: one active/standby set, its members, its epoch and its exports.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Attributes, Epoch, GroupName, LeaseId, MemberName, Name, Object, Revision, UnavailableReason};

/// A host and a port. Text form `host:port`; an IPv6 address stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// Host name or address, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A text that is not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not host:port: {reason}")]
pub struct InvalidEndpoint {
    /// What was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Endpoint {
    /// Parses `host`, `host:port`, `[v6]` or `[v6]:port`; a port that is not given becomes `default_port`.
    ///
    /// # Errors
    /// `InvalidEndpoint` when there is no host or the port is not a number below 65536.
    pub fn parse_or(text: &str, default_port: Option<u16>) -> Result<Self, InvalidEndpoint> {
        let refuse = |reason| InvalidEndpoint {
            text: text.to_owned(),
            reason,
        };
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest
                    .split_once(']')
                    .ok_or_else(|| refuse("the bracket is not closed"))?;
                (host, after.strip_prefix(':'))
            }
            None => match text.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => {
                    return Err(refuse("an IPv6 address stands in brackets"));
                }
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            },
        };
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(refuse("there is no host"));
        }
        let port = match port {
            Some(port) => port
                .parse()
                .map_err(|_| refuse("the port is not a number from 0 to 65535"))?,
            None => default_port.ok_or_else(|| refuse("there is no port"))?,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse_or(text, None)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// What a member was configured to be: a preference, not its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Becomes active when everything is well.
    Primary,
    /// Becomes active when the primary cannot.
    Backup,
}

impl Role {
    /// `primary` or `backup`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        }
    }
}

/// What a member is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// Serves clients under the group's epoch.
    Active,
    /// Waits. It exports nothing and listens on no messaging port.
    Standby,
}

impl MemberState {
    /// `active` or `standby`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Standby => "standby",
        }
    }
}

/// One name a broker offers, with what it binds there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Export {
    /// The name, from the root. Contexts on the way are made when it is published.
    pub name: Name,
    /// What it is bound to.
    pub object: Object,
    /// Its attributes.
    #[serde(default)]
    pub attributes: Attributes,
}

/// What a broker says of itself when it joins its group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// Its configured role.
    pub role: Role,
    /// Where it serves AMQP while it is active.
    pub endpoint: Endpoint,
    /// Where its admin and health endpoint listens; it does so in every state.
    #[serde(default)]
    pub admin: Option<Endpoint>,
    /// Where its peers send heartbeats.
    #[serde(default)]
    pub peer: Option<Endpoint>,
    /// How long it stays a member without renewing, in milliseconds: 100 to 3,600,000.
    pub lease_ms: u64,
    /// What it would export as the active one. Shown by tools, never returned by `lookup`.
    #[serde(default)]
    pub shadow: Vec<Export>,
}

/// One broker of a group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: MemberName,
    /// What it is now.
    pub state: MemberState,
    /// What it said when it joined.
    #[serde(flatten)]
    pub joined: JoinRequest,
    /// Its membership.
    pub lease: LeaseId,
}

/// Why a claim should be granted although the group may have an active member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Evidence {
    /// None: granted only where the group has no active member, or its lease has ended.
    None,
    /// The claimant holds the exclusive lock of the group's store. This outranks a lease: whoever holds the
    /// store is the only one who can acknowledge a message.
    StoreLock,
    /// An operator says so.
    Operator,
}

impl Evidence {
    /// The evidence as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::StoreLock => "store-lock",
            Self::Operator => "operator",
        }
    }
}

/// Why the active member takes its exports back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WithdrawReason {
    /// An operator stopped it.
    Planned,
    /// It hands over to another member.
    Handover,
    /// It can no longer serve.
    Failed,
}

impl WithdrawReason {
    /// The reason as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Handover => "handover",
            Self::Failed => "failed",
        }
    }
}

/// Exports that are known but not available.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withholding {
    /// Why.
    pub reason: UnavailableReason,
    /// The revision that withheld them.
    pub since: Revision,
    /// When that was: milliseconds since 1970 UTC on the directory's clock.
    pub since_unix_ms: u64,
    /// When they are expected back, in milliseconds from then, where somebody said so.
    pub eta_ms: Option<u64>,
}

/// A group as tools see it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupView {
    /// Its name.
    pub name: GroupName,
    /// The epoch of the last claim that was granted.
    pub epoch: Epoch,
    /// The active member, where there is one.
    pub active: Option<MemberName>,
    /// Everybody whose lease runs, sorted by name.
    pub members: Vec<Member>,
    /// The names exported, published or withheld, sorted.
    pub exports: Vec<Name>,
    /// The epoch under which the exports were published.
    pub exports_epoch: Epoch,
    /// Why the exports are not available; `None` while they are.
    pub withheld: Option<Withholding>,
    /// The revision that last changed the group.
    pub revision: Revision,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_read_and_print_alike() {
        for text in ["kkam:9741", "127.0.0.1:1", "[::1]:9736"] {
            assert_eq!(
                text.parse::<Endpoint>().map(|e| e.to_string()),
                Ok(text.to_owned())
            );
        }
        assert_eq!(
            Endpoint::parse_or("kkam", Some(9736)).map(|e| e.to_string()),
            Ok("kkam:9736".into())
        );
        assert_eq!(
            Endpoint::parse_or("[::1]", Some(9736)).map(|e| e.to_string()),
            Ok("[::1]:9736".into())
        );
    }

    #[test]
    fn what_is_not_an_endpoint_says_why() {
        for text in [
            "",
            ":9741",
            "kkam",
            "kkam:x",
            "kkam:70000",
            "::1:9",
            "[::1",
            "a b:1",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text:?}");
        }
    }
}
