//! Why a broker does not start, or ends without having been told to.

use std::path::PathBuf;

use daymark_broker_core::failover::{Ending, InvalidSettings, Step};
use daymark_client::proto::Name;

use crate::messaging::MessagingConfigError;

/// Why a broker ended. The text of every variant stands alone; `exit_code` tells them apart.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// An option or a setting cannot be used. Nothing was touched.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The admin or the peer endpoint cannot listen, or the multicast group cannot be joined.
    #[error("the {what} endpoint cannot listen on {address}: {source}")]
    Listen {
        /// `admin`, `peer` or `group`.
        what: &'static str,
        /// The address asked for.
        address: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A step of a promotion failed. Everything was released.
    #[error("promotion failed at step {}: {why}", step.as_str())]
    StepFailed {
        /// Which.
        step: Step,
        /// Why.
        why: String,
    },
    /// The store failed while the broker was active. Nothing was acknowledged that is not durable.
    #[error("the store failed: {why}")]
    StoreFailed {
        /// Why.
        why: String,
    },
}

impl BrokerError {
    /// The exit code of the process: 2 configuration, 6 an endpoint cannot listen, 10 a promotion failed,
    /// 11 the store failed.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => 2,
            Self::Listen { .. } => 6,
            Self::StepFailed { .. } => 10,
            Self::StoreFailed { .. } => 11,
        }
    }

    /// The end of a broker as the rules tell it: `Ok` if an operator stopped it.
    pub(crate) fn from_ending(ending: Ending) -> Result<(), Self> {
        Err(match ending {
            Ending::Stopped => return Ok(()),
            Ending::StepFailed { step, why } => Self::StepFailed { step, why },
            Ending::StoreFailed { why } => Self::StoreFailed { why },
        })
    }
}

/// An option or a setting that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The file is not TOML, or holds a key or a value that nobody knows.
    #[error("{}: {reason}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser found, with line and column.
        reason: String,
    },
    /// A number outside its range.
    #[error("{setting} is {value}: {rule}")]
    OutOfRange {
        /// The setting.
        setting: &'static str,
        /// What was asked for.
        value: i64,
        /// What is allowed.
        rule: &'static str,
    },
    /// Failover settings that do not fit together.
    #[error(transparent)]
    Failover(#[from] InvalidSettings),
    /// Queue settings that cannot be used.
    #[error(transparent)]
    Messaging(#[from] MessagingConfigError),
    /// An exported factory has a setting that no client could use.
    #[error("factory {export}: {why}")]
    Factory {
        /// The name it is exported under.
        export: Name,
        /// What cannot be used.
        why: daymark_client::proto::InvalidSetting,
    },
    /// A factory under the empty name, which is the root context.
    #[error("a factory cannot be exported under the empty name: it is the root context")]
    RootExported,
    /// A name is exported twice.
    #[error("{name} is exported twice")]
    ExportTwice {
        /// The name.
        name: Name,
    },
    /// A text that is not an endpoint.
    #[error("{setting}: {reason}")]
    Endpoint {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A setting of `[group]` that cannot be used.
    #[error("{setting}: {reason}")]
    Group {
        /// The setting.
        setting: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// `--listen` with port 0.
    #[error(
        "--listen {address} has port 0: the port of a broker is told to clients before it opens, so it must be fixed"
    )]
    ListenPort {
        /// The address.
        address: String,
    },
    /// The store's directory cannot be one.
    #[error("store journal:{}: {why}", dir.display())]
    Store {
        /// The directory.
        dir: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
}
