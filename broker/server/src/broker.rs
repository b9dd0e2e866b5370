//! A broker from its options to its end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use daymark_broker_core::failover::Failover;
use daymark_client::proto::Endpoint;
use daymark_client::{Naming, NamingConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::config::{Config, GroupTransport};
use crate::control::status::{About, StatusBoard};
use crate::control::{ANSWER, Driver, Identity, Parts, first_heartbeat};
use crate::error::{BrokerError, ConfigError};
use crate::home::Home;
use crate::options::{BrokerOptions, StoreUrl};
use crate::peers::discovery::{Announcement, Discovery, Listed};
use crate::peers::multicast::Multicast;
use crate::peers::{Heard, Mesh};

/// A broker whose admin and peer endpoints listen. It takes part in its group once it runs.
pub struct Broker {
    driver: Driver,
    admin: SocketAddr,
    /// The admin endpoint ends with the broker.
    tasks: JoinSet<()>,
}

impl std::fmt::Debug for Broker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Broker")
            .field("admin", &self.admin)
            .finish_non_exhaustive()
    }
}

/// Runs a broker until `stop` resolves or it can no longer be a member of its group. As soon as its admin
/// endpoint listens, the line `admin HOST:PORT` is written to standard output.
///
/// # Errors
/// `BrokerError` with an exit code of its own for each way to end that nobody asked for.
pub async fn run(options: BrokerOptions, stop: impl Future<Output = ()>) -> Result<(), BrokerError> {
    let broker = Broker::start(options).await?;
    announce(&format!("admin {}\n", broker.admin_addr()));
    broker.run(stop).await
}

/// Whoever started the broker may no longer read what it says; that is no reason to end.
fn announce(line: &str) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

impl Broker {
    /// Reads the configuration and opens the admin and the peer endpoint. Neither the store nor naming is
    /// touched.
    ///
    /// # Errors
    /// `BrokerError::Config` or `BrokerError::Listen`.
    pub async fn start(options: BrokerOptions) -> Result<Self, BrokerError> {
        let config = match &options.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        check_store(&options.store)?;
        if options.listen.port == 0 {
            let address = options.listen.to_string();
            return Err(ConfigError::ListenPort { address }.into());
        }
        let any_port = Endpoint {
            host: options.listen.host.clone(),
            port: 0,
        };
        let admin = bind("admin", options.admin.as_ref().unwrap_or(&any_port)).await?;
        let peer = bind("peer", config.peer_listen.as_ref().unwrap_or(&any_port)).await?;
        Self::assemble(options, config, admin, peer)
    }

    fn assemble(
        options: BrokerOptions,
        config: Config,
        admin: Bound,
        peer: Bound,
    ) -> Result<Self, BrokerError> {
        let host = |bound: &str| config.advertise_host.clone().unwrap_or_else(|| reachable(bound));
        let told = |bound: &Bound| Endpoint {
            host: host(&bound.host),
            port: bound.address.port(),
        };
        let me = Identity {
            member: options.name,
            role: options.role,
            group: options.group,
            endpoint: Endpoint {
                host: host(&options.listen.host),
                port: options.listen.port,
            },
            listen: options.listen,
            admin: told(&admin),
            peer: told(&peer),
        };
        let failover = Failover::new(me.member.clone(), me.role, config.failover);
        let board = StatusBoard::new(about(&me, &options.store), failover.view());
        let (heard_by, heard) = mpsc::channel(1024);
        let (wishes_to, wishes) = mpsc::channel(16);
        let interval = config.failover.timing.heartbeat;
        let discovery = discovery(&config, &me, &peer, &heard_by)?;
        let mesh = Mesh::start(peer.listener, &first_heartbeat(&me), interval, heard_by);
        let mut mesh = mesh.map_err(|source| BrokerError::Listen {
            what: "peer",
            address: me.peer.to_string(),
            source,
        })?;
        if let Some(discovery) = discovery {
            mesh.discover_with(discovery);
        }
        let store = options.store.store(&me.group, &config);
        let mut tasks = JoinSet::new();
        let admin_state = Admin::new(board.clone(), wishes_to, &config);
        tasks.spawn(admin::serve(admin.listener, admin_state));
        let driver = Driver::new(Parts {
            naming: Naming::new(options.naming, naming_config()),
            me,
            config: Arc::new(config),
            store,
            mesh,
            heard,
            wishes,
            board,
            failover,
        });
        let admin = admin.address;
        Ok(Self { driver, admin, tasks })
    }

    /// Where the admin endpoint listens.
    #[must_use]
    pub const fn admin_addr(&self) -> SocketAddr {
        self.admin
    }

    /// Takes part in the group until `stop` resolves or it no longer can.
    ///
    /// # Errors
    /// `BrokerError` for each way to end that nobody asked for.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), BrokerError> {
        let Self { driver, tasks, .. } = self;
        let ending = driver.run(stop).await;
        drop(tasks);
        BrokerError::from_ending(ending)
    }
}

/// What finds the other members besides naming.
fn discovery(
    config: &Config,
    me: &Identity,
    peer: &Bound,
    heard_by: &mpsc::Sender<Heard>,
) -> Result<Option<Box<dyn Discovery>>, BrokerError> {
    match &config.group {
        GroupTransport::Naming => Ok(None),
        GroupTransport::VirtualMulticast(others) => {
            Ok(Some(Box::new(Listed::start(others.clone(), heard_by.clone()))))
        }
        GroupTransport::Multicast(multicast) => {
            // Whoever hears it knows the way to where it comes from; this machine's name it may not know.
            let anywhere = peer.address.ip().is_unspecified() && config.advertise_host.is_none();
            let host = (!anywhere).then(|| me.peer.host.clone());
            let mine = Announcement::new(me.group.clone(), me.member.clone(), host, me.peer.port);
            let started = Multicast::start(*multicast, mine, heard_by.clone());
            let started = started.map_err(|source| BrokerError::Listen {
                what: "group",
                address: format!("{}:{}", multicast.address, multicast.port),
                source,
            })?;
            Ok(Some(Box::new(started)))
        }
    }
}

struct Bound {
    host: String,
    address: SocketAddr,
    listener: TcpListener,
}

async fn bind(what: &'static str, endpoint: &Endpoint) -> Result<Bound, BrokerError> {
    let bound = async {
        let listener = TcpListener::bind((endpoint.host.as_str(), endpoint.port)).await?;
        Ok((listener.local_addr()?, listener))
    };
    let (address, listener) = bound.await.map_err(|source| BrokerError::Listen {
        what,
        address: endpoint.to_string(),
        source,
    })?;
    let host = endpoint.host.clone();
    Ok(Bound {
        host,
        address,
        listener,
    })
}

/// A host that others can connect to: a wildcard address becomes this machine's name.
fn reachable(host: &str) -> String {
    match host.parse::<std::net::IpAddr>() {
        Ok(address) if address.is_unspecified() => daymark_journal::Holder::here("").host,
        Ok(_) | Err(_) => host.to_owned(),
    }
}

/// What can be known of the store without opening it, so that a standby need not find out in an emergency.
fn check_store(store: &StoreUrl) -> Result<(), ConfigError> {
    match store {
        StoreUrl::Journal { dir } => check_directory(dir),
        StoreUrl::Postgres(_) | StoreUrl::Memory { .. } => Ok(()),
    }
}

fn check_directory(dir: &Path) -> Result<(), ConfigError> {
    let refuse = |why| {
        Err(ConfigError::Store {
            dir: dir.to_owned(),
            why,
        })
    };
    if dir.exists() {
        return if dir.is_dir() {
            Ok(())
        } else {
            refuse("it is not a directory")
        };
    }
    match dir.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            refuse("its parent directory does not exist")
        }
        Some(_) | None => Ok(()),
    }
}

fn about(me: &Identity, store: &StoreUrl) -> About {
    About {
        member: me.member.clone(),
        role: me.role,
        group: me.group.clone(),
        store: store.to_string(),
        endpoint: me.endpoint.clone(),
        admin: me.admin.clone(),
        peer: me.peer.clone(),
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        home: Home::here(),
    }
}

/// The rules bound every question themselves; within that the client tries all servers.
fn naming_config() -> NamingConfig {
    NamingConfig {
        total_timeout: ANSWER,
        ..NamingConfig::default()
    }
}
