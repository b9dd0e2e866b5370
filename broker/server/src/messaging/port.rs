//! The AMQP port: it accepts connections and moves their bytes.
//!
//! It always reads while a write is blocked, unless the store is far behind, and writes many frames at once.

use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use daymark_amqp::{AmqpError, Config, Connection, Sasl, Symbol, condition};
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep_until};

use super::MessagingConfig;
use super::peer::Peer;
use super::shared::{MAX_UNSETTLED, Phase, Shared, idle_timeout};

/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 << 10;
/// Slices of output written at once.
const WRITE_SLICES: usize = 64;
/// Connections above the limit that are told so; more are dropped without a word.
const REFUSED_AT_ONCE: usize = 64;
/// Turns of a connection that always has something to do, before others get theirs.
const TURNS_AT_ONCE: u32 = 16;
/// Wait after the system had no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts connections until the phase changes, and waits for their end.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut phase = shared.status.phase.subscribe();
    let mut connections = JoinSet::new();
    while *phase.borrow_and_update() == Phase::Serving {
        tokio::select! {
            stream = next(&listener) => {
                accept(&mut connections, stream, &shared, phase.clone());
            }
            Some(ended) = connections.join_next(), if !connections.is_empty() => report(ended),
            _ = phase.changed() => {}
        }
    }
    drop(listener);
    while let Some(ended) = connections.join_next().await {
        report(ended);
    }
}

async fn next(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection ended by a fault of this broker");
    }
}

/// `phase` must not have seen any change since the port was seen to be open: the connection would miss it.
fn accept(
    connections: &mut JoinSet<()>,
    (stream, remote): (TcpStream, SocketAddr),
    shared: &Arc<Shared>,
    phase: watch::Receiver<Phase>,
) {
    let limit = shared.config.max_connections;
    let open = connections.len();
    if open >= limit.saturating_add(REFUSED_AT_ONCE) {
        return;
    }
    let unwelcome = (open >= limit).then(|| {
        let text = format!("this broker takes {limit} connections at a time");
        AmqpError::new(condition::RESOURCE_LIMIT_EXCEEDED, text)
    });
    let task = Task::new((stream, remote), Arc::clone(shared), phase, unwelcome);
    shared.connections.fetch_add(1, Ordering::Relaxed);
    let counted = Counted(Arc::clone(shared));
    connections.spawn(async move {
        let _counted = counted;
        task.run().await;
    });
}

/// A connection that counts while it lives.
struct Counted(Arc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn engine_config(config: &MessagingConfig) -> Config {
    Config {
        max_frame_size: config.max_frame_bytes,
        max_message_size: config.max_message_bytes,
        max_partial: config.max_message_bytes.saturating_mul(2),
        max_unsettled: MAX_UNSETTLED,
        idle_timeout: idle_timeout(config),
        sasl: Sasl::Server {
            mechanisms: vec![Symbol::from_static("ANONYMOUS"), Symbol::from_static("PLAIN")],
            required: false,
        },
        ..Config::default()
    }
}

/// One connection and its socket.
struct Task {
    stream: TcpStream,
    peer: Peer,
    waker: Arc<Notify>,
    phase: watch::Receiver<Phase>,
}

impl Task {
    fn new(
        (stream, remote): (TcpStream, SocketAddr),
        shared: Arc<Shared>,
        phase: watch::Receiver<Phase>,
        unwelcome: Option<AmqpError>,
    ) -> Self {
        // Only latency suffers without it.
        let _ = stream.set_nodelay(true);
        let waker = Arc::new(Notify::new());
        let amqp = Connection::server(engine_config(&shared.config), Instant::now());
        let peer = Peer::new(shared, remote, amqp, Arc::clone(&waker), unwelcome);
        Self {
            stream,
            peer,
            waker,
            phase,
        }
    }

    async fn run(mut self) {
        let timer = sleep_until(tokio::time::Instant::now());
        tokio::pin!(timer);
        let mut closing = false;
        let mut turns = 0;
        loop {
            turns += 1;
            // Waiting for a socket that is ready lets nobody else run.
            if turns == TURNS_AT_ONCE {
                turns = 0;
                tokio::task::yield_now().await;
            }
            self.peer.turn();
            if !self.write() {
                return;
            }
            if self.peer.is_over() {
                return;
            }
            if self.peer.can_resume() {
                continue;
            }
            arm(timer.as_mut(), self.peer.next_timeout());
            tokio::select! {
                ready = self.stream.ready(self.interest()), if self.wants_socket() => {
                    if ready.is_ok_and(|ready| ready.is_readable() || ready.is_read_closed()) {
                        self.read();
                    }
                }
                () = self.waker.notified() => {}
                () = timer.as_mut() => {
                    self.peer.handle_timeout(Instant::now());
                }
                changed = self.phase.changed(), if !closing => {
                    closing = true;
                    let phase = self.phase.borrow_and_update().clone();
                    match phase {
                        Phase::Closing(error) if changed.is_ok() => self.peer.close(error),
                        Phase::Serving | Phase::Closing(_) | Phase::Cut => return,
                    }
                }
            }
        }
    }

    fn wants_input(&self) -> bool {
        self.peer.amqp.wants_input() && !self.peer.paused && !self.peer.is_waiting()
    }

    fn wants_socket(&self) -> bool {
        self.wants_input() || self.peer.amqp.has_output()
    }

    fn interest(&self) -> Interest {
        match (self.wants_input(), self.peer.amqp.has_output()) {
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (false, true) => Interest::WRITABLE,
            (true | false, false) => Interest::READABLE,
        }
    }

    /// Reads once. A read that does not fill the buffer has emptied the socket: it is then waited for anew and not
    /// asked a second time only to hear so. What comes in since the read began makes it ready all the same, because
    /// only what was known of it before is taken back.
    fn read(&mut self) {
        if !self.wants_input() {
            return;
        }
        let Self { stream, peer, .. } = self;
        let buffer = peer.amqp.read_buf(READ_BYTES);
        let room = buffer.capacity() - buffer.len();
        let mut read = Err(ErrorKind::WouldBlock.into());
        let _ = stream.try_io(Interest::READABLE, || {
            read = stream.try_read_buf(buffer);
            match read {
                Ok(bytes) if (1..room).contains(&bytes) => Err(ErrorKind::WouldBlock.into()),
                Ok(_) | Err(_) => Ok(()),
            }
        });
        match read {
            Ok(0) => self.peer.amqp.input_closed(),
            Ok(_) => self.peer.input_received(Instant::now()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.peer.amqp.input_closed(),
        }
    }

    /// Writes what the socket takes. False if it is broken and all is over.
    fn write(&mut self) -> bool {
        loop {
            let amqp = &mut self.peer.amqp;
            let mut slices = [IoSlice::new(&[]); WRITE_SLICES];
            let filled = amqp.output_slices(&mut slices);
            if filled == 0 {
                return true;
            }
            match self.stream.try_write_vectored(&slices[..filled]) {
                Ok(written) => amqp.output_written(written, Instant::now()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                Err(_) => {
                    amqp.input_closed();
                    return false;
                }
            }
        }
    }
}

/// Sets the timer unless it would go off early enough anyway; it may go off too early, never too late.
fn arm(timer: std::pin::Pin<&mut Sleep>, at: Option<Instant>) {
    let at = at.map_or_else(
        || tokio::time::Instant::now() + Duration::from_secs(3600),
        tokio::time::Instant::from_std,
    );
    if timer.is_elapsed() || at < timer.deadline() {
        timer.reset(at);
    }
}
