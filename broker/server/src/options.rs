//! What a broker is started with.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use daymark_client::Providers;
use daymark_client::proto::{Endpoint, GroupName, MemberName, Role};

use crate::config::Config;
use crate::store::{InvalidPostgresUrl, JournalStore, MemoryStore, PostgresStore, PostgresUrl, Store};

/// What a broker is started with. Everything else stands in `broker.toml`.
#[derive(Clone, Debug)]
pub struct BrokerOptions {
    /// Its name in the group.
    pub name: MemberName,
    /// Its configured role: a preference, not its state.
    pub role: Role,
    /// The group it belongs to.
    pub group: GroupName,
    /// The store the group shares.
    pub store: StoreUrl,
    /// The naming servers.
    pub naming: Providers,
    /// Where it serves AMQP while it is active. The port must not be 0: others are told of it beforehand.
    pub listen: Endpoint,
    /// Where its admin endpoint listens in every state. Default: the host of `listen`, any free port.
    pub admin: Option<Endpoint>,
    /// `broker.toml`. Default: none, and every setting has its default.
    pub config: Option<PathBuf>,
}

/// Where a group keeps its messages. Text form `journal:DIR`,
/// `postgres://USER@HOST:PORT/DATABASE?schema=NAME` or `memory:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// A journal in a directory.
    Journal {
        /// The directory. It is created if only its last component is missing.
        dir: PathBuf,
    },
    /// Tables in PostgreSQL.
    Postgres(PostgresUrl),
    /// The memory of this process, for tests: everything in it ends with the process.
    Memory {
        /// Which of the stores in memory; brokers in one process that name the same one share it.
        name: String,
    },
}

impl StoreUrl {
    /// The store of `group`, to be opened with the settings of `config`.
    pub(crate) fn store(&self, group: &GroupName, config: &Config) -> Arc<dyn Store> {
        match self {
            Self::Journal { dir } => Arc::new(JournalStore {
                dir: dir.clone(),
                options: config.journal.clone(),
            }),
            Self::Postgres(url) => Arc::new(PostgresStore::new(url.clone(), group.as_str(), config.postgres)),
            Self::Memory { name } => Arc::new(MemoryStore::named(name)),
        }
    }
}

/// A text that is not a store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStoreUrl {
    /// `journal:` without a directory.
    #[error("{text:?} names no directory: write journal:DIR")]
    NoDirectory {
        /// What was given.
        text: String,
    },
    /// A PostgreSQL URL that cannot be used.
    #[error(transparent)]
    Postgres(#[from] InvalidPostgresUrl),
    /// No kind, or one that nobody knows.
    #[error("{text:?} is not a store: write journal:DIR or postgres://HOST/DATABASE")]
    Unknown {
        /// What was given.
        text: String,
    },
}

impl FromStr for StoreUrl {
    type Err = InvalidStoreUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("journal", "")) => Err(InvalidStoreUrl::NoDirectory {
                text: text.to_owned(),
            }),
            Some(("journal", dir)) => Ok(Self::Journal { dir: dir.into() }),
            Some(("memory", name)) => Ok(Self::Memory {
                name: name.to_owned(),
            }),
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(text.parse()?)),
            Some(_) | None => Err(InvalidStoreUrl::Unknown {
                text: text.to_owned(),
            }),
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal { dir } => write!(f, "journal:{}", dir.display()),
            Self::Postgres(url) => url.fmt(f),
            Self::Memory { name } => write!(f, "memory:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stores_read_and_print_alike() {
        for text in [
            "journal:/srv/orders",
            "postgres://db/orders",
            "memory:",
            "memory:orders",
        ] {
            let store: StoreUrl = text.parse().expect(text);
            assert_eq!(store.to_string(), text);
        }
    }

    #[test]
    fn what_is_not_a_store_says_why() {
        for (text, part) in [
            ("journal:", "no directory"),
            ("postgres://host/db?sslmode=require", "not built"),
            ("/srv/orders", "journal:DIR"),
            ("", "journal:DIR"),
        ] {
            let error = text.parse::<StoreUrl>().expect_err(text).to_string();
            assert!(error.contains(part), "{text:?}: {error}");
        }
    }
}
