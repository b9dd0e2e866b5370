//! Numbers and labels that identify things: epochs, revisions, leases, operations, groups, members.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl $name {
            /// The next one.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

counter! {
    /// The fencing number of one term of office of a group's active broker (compare a Raft term).
    /// It only grows. 0 means that nobody was ever active.
    Epoch
}

counter! {
    /// The number of a committed write: one counter for the whole directory, starting at 1.
    Revision
}

counter! {
    /// One membership of one broker, from its join to its end. It is the revision of the join.
    LeaseId
}

/// A client-made identity of one write. A repeated id returns the first answer instead of writing again.
///
/// In JSON and on the wire it is 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u128);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for OpId {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let valid = (1..=32).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u128::from_str_radix(text, 16) {
            Ok(id) if valid => Ok(Self(id)),
            Ok(_) | Err(_) => Err(InvalidLabel::OpId {
                text: text.to_owned(),
            }),
        }
    }
}

impl Serialize for OpId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for OpId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?
                .parse()
                .map_err(de::Error::custom)
        } else {
            u128::deserialize(deserializer).map(Self)
        }
    }
}

/// A group name, member name or operation id that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabel {
    /// A label was empty or longer than 64 bytes.
    #[error(
        "{what} name of {length} bytes: it must have 1 to {} bytes",
        InvalidLabel::BYTES_MAX
    )]
    Length {
        /// `group`, `member` or `step`.
        what: &'static str,
        /// Bytes given.
        length: usize,
    },
    /// A label held a character other than ASCII letters, digits, `.`, `_` and `-`.
    #[error("{what} name {text:?} holds {found:?}: only ASCII letters, digits, '.', '_' and '-' are allowed")]
    Character {
        /// `group`, `member` or `step`.
        what: &'static str,
        /// The label.
        text: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// An operation id was not 1 to 32 hexadecimal digits.
    #[error("operation id {text:?} is not 1 to 32 hexadecimal digits")]
    OpId {
        /// What was given.
        text: String,
    },
}

impl InvalidLabel {
    /// The longest group or member name, in bytes.
    pub const BYTES_MAX: usize = 64;
}

fn check_label(what: &'static str, text: &str) -> Result<(), InvalidLabel> {
    if text.is_empty() || text.len() > InvalidLabel::BYTES_MAX {
        return Err(InvalidLabel::Length {
            what,
            length: text.len(),
        });
    }
    let allowed = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match text.chars().find(|c| !allowed(c)) {
        Some(found) => Err(InvalidLabel::Character {
            what,
            text: text.to_owned(),
            found,
        }),
        None => Ok(()),
    }
}

macro_rules! label {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Box<str>);

        impl $name {
            /// The label as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = InvalidLabel;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check_label($what, text)?;
                Ok(Self(text.into()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

label! {
    /// The name of one active/standby set of brokers, for example `orders`:
    /// 1 to 64 ASCII letters, digits, `.`, `_`, `-`.
    GroupName, "group"
}

label! {
    /// The name of one broker inside its group, for example `kkam`:
    /// 1 to 64 ASCII letters, digits, `.`, `_`, `-`.
    MemberName, "member"
}

label! {
    /// The stable code of one step of a failover, for example `lock-taken`:
    /// 1 to 64 ASCII letters, digits, `.`, `_`, `-`.
    StepCode, "step"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_with_a_blank_is_refused_and_the_character_is_named() {
        let refused = "or ders".parse::<GroupName>();
        assert_eq!(
            refused,
            Err(InvalidLabel::Character {
                what: "group",
                text: "or ders".into(),
                found: ' '
            })
        );
    }

    #[test]
    fn an_operation_id_prints_and_parses_as_hexadecimal() {
        let id = OpId(0xbeef);
        assert_eq!(id.to_string().parse::<OpId>(), Ok(id));
        assert!("+1".parse::<OpId>().is_err());
        assert!("".parse::<OpId>().is_err());
    }
}
