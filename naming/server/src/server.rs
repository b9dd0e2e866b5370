//! The server as a whole: start, accept, stop.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use daymark_naming_proto::{Endpoint, NamingError};
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use crate::descriptors::room_for_connections;
use crate::dispatch::{Counters, Dispatcher, room_for_writes};
use crate::door::{self, Doors};
use crate::error::{StartError, StopReason};
use crate::hub::{self, Hub};
use crate::leases;
use crate::options::{Limits, NamingOptions};
use crate::replica::{self, Replica, Started};
use crate::room::InputRoom;

/// Connections the system may hold ready for us.
const BACKLOG: i32 = 1024;
/// How often a failing accept is tried again, while there is no connection whose end could help, before the
/// listener counts as broken.
const ACCEPT_FAILURES_MAX: u32 = 100;

/// A running naming server.
///
/// Dropping it ends it at once, without waiting for answers under way; whatever was acknowledged is durable. It
/// blocks the thread for the write under way, but not longer than `Limits::stop_timeout`.
pub struct Server {
    local_addr: SocketAddr,
    dispatcher: Arc<Dispatcher>,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<Option<StopReason>>,
    accepting: Option<JoinHandle<()>>,
    helpers: Vec<JoinHandle<()>>,
    /// Whether the data directory was given up already.
    is_over: bool,
}

impl Server {
    /// Starts a server and returns when it answers: everything it had acknowledged is there, and it takes
    /// writes.
    ///
    /// # Errors
    /// `StartError` says what stands in the way, and who.
    pub async fn start(mut options: NamingOptions) -> Result<Self, StartError> {
        options.limits.connections_max = room_for_connections(options.limits.connections_max);
        let listener = listen(&options.listen).await?;
        let local_addr = listener.local_addr().map_err(|source| StartError::CannotListen {
            listen: options.listen.clone(),
            source,
        })?;
        let Started {
            replica,
            state,
            leases,
            identity,
            log_full,
        } = replica::start(&options).await?;
        let (stop, stopping) = watch::channel(false);
        let hub = Arc::new(Hub::new(state.clone(), options.limits.watches_max));
        let helpers = vec![
            tokio::spawn(leases::keep(leases.clone(), replica.clone())),
            tokio::spawn(hub::follow(hub.clone(), state.load().revision())),
            tokio::spawn(compact(replica.clone(), log_full)),
        ];
        let dispatcher = Arc::new(Dispatcher {
            state,
            replica,
            leases,
            hub,
            identity,
            waiters: Semaphore::new(options.limits.waiters_max),
            writes: room_for_writes(options.limits.write_bytes_max),
            input: InputRoom::new(options.limits.input_bytes_max),
            limits: options.limits,
            counters: Counters::default(),
            stopping,
        });
        let (ended, stopped) = watch::channel(None);
        let doors = Arc::new(Doors::new(dispatcher.clone()));
        let accepting = tokio::spawn(accept(listener, doors, ended));
        tracing::info!(%local_addr, cluster_id = %dispatcher.identity.cluster_id, "naming server listens");
        Ok(Self {
            local_addr,
            dispatcher,
            stop,
            stopped,
            accepting: Some(accepting),
            helpers,
            is_over: false,
        })
    }

    /// Where the server listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The id of the cluster this server belongs to: 32 hexadecimal digits, made with the data directory.
    #[must_use]
    pub fn cluster_id(&self) -> &str {
        &self.dispatcher.identity.cluster_id
    }

    /// Why the server takes no writes now, if so. Lookups are answered nevertheless.
    #[must_use]
    pub fn impaired(&self) -> Option<String> {
        match self.dispatcher.replica.check_leads() {
            Ok(()) => None,
            Err(NamingError::ServiceUnavailable { reason }) => Some(reason),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Returns when the server no longer serves, and why. A full or failing disk is no such reason: the
    /// server then refuses writes and goes on answering lookups.
    pub async fn stopped(&self) -> StopReason {
        let mut stopped = self.stopped.clone();
        let reason = stopped.wait_for(Option::is_some).await;
        reason
            .ok()
            .and_then(|reason| reason.clone())
            .unwrap_or(StopReason::Requested)
    }

    /// Stops: no connection is accepted any more, answers under way are finished within
    /// `Limits::stop_timeout`, then the data directory is released. Neither the replica nor the disk is waited for
    /// longer than that again each; where the disk does not answer, the directory stays locked until the process
    /// ends.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        self.dispatcher.hub.close();
        if let Some(accepting) = self.accepting.take()
            && accepting.await.is_err()
        {
            tracing::warn!("the listener did not end well");
        }
        for helper in self.helpers.drain(..) {
            helper.abort();
        }
        let limit = self.dispatcher.limits.stop_timeout;
        self.dispatcher.replica.stop(limit).await;
        self.is_over = true;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        self.dispatcher.hub.close();
        for helper in self.helpers.drain(..).chain(self.accepting.take()) {
            helper.abort();
        }
        if !self.is_over {
            self.dispatcher
                .replica
                .abandon(self.dispatcher.limits.stop_timeout);
        }
    }
}

/// Makes a snapshot whenever the log is large enough.
async fn compact(replica: Replica, log_full: Arc<Notify>) {
    loop {
        log_full.notified().await;
        replica.compact().await;
    }
}

/// Opens the port at the first address of the host that can be used.
async fn listen(endpoint: &Endpoint) -> Result<TcpListener, StartError> {
    let refused = |source: io::Error| {
        let listen = endpoint.clone();
        if source.kind() == io::ErrorKind::AddrInUse {
            StartError::PortInUse { listen, source }
        } else {
            StartError::CannotListen { listen, source }
        }
    };
    let addresses = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port))
        .await
        .map_err(refused)?;
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in addresses {
        match listen_at(address) {
            Ok(listener) => return Ok(listener),
            Err(error) => last = error,
        }
    }
    Err(refused(last))
}

fn listen_at(address: SocketAddr) -> io::Result<TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, Some(socket2::Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections until the server stops, then waits for those it has.
async fn accept(listener: TcpListener, doors: Arc<Doors>, ended: watch::Sender<Option<StopReason>>) {
    let limits = doors.dispatcher().limits.clone();
    let mut connections = JoinSet::new();
    let reason = accept_until_stopped(&listener, &doors, &limits, &mut connections).await;
    drop(listener);
    let finish = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(limits.stop_timeout, finish).await.is_err() {
        tracing::warn!(connections = connections.len(), "connections were cut off");
        connections.shutdown().await;
    }
    ended.send_replace(Some(reason));
}

async fn accept_until_stopped(
    listener: &TcpListener,
    doors: &Arc<Doors>,
    limits: &Limits,
    connections: &mut JoinSet<()>,
) -> StopReason {
    let mut failures = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = doors.dispatcher().stops() => return StopReason::Requested,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, peer)) => {
                failures = 0;
                welcome(stream, peer, doors, limits, connections);
            }
            // Out of descriptors, most often: the next connection that ends frees one.
            Err(error) if failures < ACCEPT_FAILURES_MAX || !connections.is_empty() => {
                failures = failures.saturating_add(1);
                tracing::warn!(%error, "no connection accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            Err(error) => {
                return StopReason::ListenerFailed {
                    why: error.to_string(),
                };
            }
        }
    }
}

fn welcome(
    stream: TcpStream,
    peer: SocketAddr,
    doors: &Arc<Doors>,
    limits: &Limits,
    connections: &mut JoinSet<()>,
) {
    doors
        .dispatcher()
        .counters
        .connections
        .fetch_add(1, Ordering::Relaxed);
    if connections.len() >= limits.connections_max {
        Counters::count(&doors.dispatcher().counters.connections_refused);
        let refusal = format!(
            "-LIMITEXCEEDED connections: the limit is {}\r\n",
            limits.connections_max
        );
        // A peer that cannot take one line now is closed without it.
        let _ = stream.try_write(refusal.as_bytes());
        return;
    }
    if let Err(error) = prepare(&stream) {
        tracing::debug!(%peer, %error, "connection lost as it came");
        return;
    }
    let doors = doors.clone();
    connections.spawn(async move {
        if let Err(error) = door::serve(stream, doors).await {
            tracing::debug!(%peer, %error, "connection ended");
        }
    });
}

/// Answers leave at once, and a silent peer that vanished is noticed within about two minutes.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}
