//! A proxy between clients and one broker that interferes at exactly one moment: before or after the n-th frame of
//! a kind in one direction, or after the n-th byte.
//!
//! It forwards everything else unchanged and in order. Invariant: what comes before the moment has been written
//! to the other side, and nothing of what comes after it.

mod frame;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use frame::Piece;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the broker.
    ToBroker,
    /// From the broker to the client.
    ToClient,
}

/// What is counted until the moment comes. Counting begins at 1, when the order is given, over all connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// This many pieces of this kind.
    Piece(Piece, usize),
    /// This many bytes.
    Bytes(usize),
}

/// What happens at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The connection is closed on both sides, before the frame is forwarded.
    CutBefore,
    /// The frame is forwarded, then the connection is closed on both sides. No answer to it comes back.
    CutAfter,
    /// As `CutBefore`; the port closes too, and every other connection with it, as if the broker had died.
    DieBefore,
    /// As `CutAfter`; the port closes too, and every other connection with it.
    DieAfter,
    /// Nothing more is forwarded in either direction; the sockets stay open until the proxy thaws or is dropped.
    FreezeBefore,
    /// The frame is forwarded, then as `FreezeBefore`.
    FreezeAfter,
    /// The frame and what follows it in this direction waits so long.
    Delay(Duration),
}

/// A running proxy. Dropped, it closes its port and its connections.
pub struct Proxy {
    /// Where clients connect.
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// An order given to a proxy.
#[derive(Clone)]
pub struct Order {
    shared: Arc<Shared>,
    number: usize,
}

impl Order {
    /// Whether its moment has come; of a freeze, whether the connection is frozen.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.shared.lock().orders[self.number].done
    }
}

struct Shared {
    broker: SocketAddr,
    state: Mutex<State>,
    thawed: Condvar,
}

#[derive(Default)]
struct State {
    orders: Vec<Given>,
    connections: Vec<Connection>,
    /// New connections are frozen from the beginning.
    frozen: bool,
    over: bool,
}

struct Given {
    way: Way,
    moment: Moment,
    act: Act,
    counted: usize,
    /// Its moment has come.
    begun: bool,
    /// Whoever waits for it may go on: a connection that is to freeze is frozen.
    done: bool,
}

struct Connection {
    client: TcpStream,
    broker: TcpStream,
    frozen: bool,
    /// The connection is about to be closed: only in this direction is anything still forwarded.
    last: Option<Way>,
}

impl Connection {
    fn cut(&self) {
        // A side that is closed already needs no closing.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.broker.shutdown(Shutdown::Both);
    }
}

impl Proxy {
    /// A proxy in front of a broker, on a free port of the loopback interface.
    ///
    /// # Panics
    /// When the system gives no port or no thread.
    #[must_use]
    pub fn start(broker: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared {
            broker,
            state: Mutex::default(),
            thawed: Condvar::new(),
        });
        let serving = Arc::clone(&shared);
        std::thread::spawn(move || accept(&listener, &serving));
        Self { address, shared }
    }

    /// Interferes once, when the moment comes.
    pub fn at(&self, way: Way, moment: Moment, act: Act) -> Order {
        let mut state = self.shared.lock();
        state.orders.push(Given {
            way,
            moment,
            act,
            counted: 0,
            begun: false,
            done: false,
        });
        Order {
            shared: Arc::clone(&self.shared),
            number: state.orders.len() - 1,
        }
    }

    /// Freezes every connection, those too that are made from now on, as if the broker's machine had stopped.
    pub fn freeze(&self) {
        self.set_frozen(true);
    }

    /// Lets every frozen connection go on where it stopped.
    pub fn thaw(&self) {
        self.set_frozen(false);
        self.shared.thawed.notify_all();
    }

    fn set_frozen(&self, frozen: bool) {
        let mut state = self.shared.lock();
        state.frozen = frozen;
        for connection in &mut state.connections {
            connection.frozen = frozen;
        }
    }

    /// Closes the port and every connection, as if the broker had died.
    pub fn die(&self) {
        self.shared.die(self.address);
    }

    /// Connections that were made, failed ones too.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.lock().connections.len()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.die();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn die(&self, address: SocketAddr) {
        let mut state = self.lock();
        if std::mem::replace(&mut state.over, true) {
            return;
        }
        state.connections.iter().for_each(Connection::cut);
        drop(state);
        self.thawed.notify_all();
        // Wakes whoever waits for the next client, so that the port closes; it may be closed already.
        let _ = TcpStream::connect(address);
    }

    /// The order whose moment has come with `bytes` that are a piece or a part of one, and how many of the
    /// bytes come before it.
    fn due(&self, way: Way, piece: Option<Piece>, bytes: usize) -> Option<(Act, usize)> {
        let mut due = None;
        for order in &mut self.lock().orders {
            if order.begun || order.way != way {
                continue;
            }
            let before = match order.moment {
                Moment::Piece(wanted, at) if piece == Some(wanted) => {
                    order.counted += 1;
                    (order.counted == at).then_some(0)
                }
                Moment::Bytes(at) => {
                    let before = at.saturating_sub(order.counted);
                    order.counted += bytes;
                    (order.counted >= at).then_some(before)
                }
                Moment::Piece(..) => None,
            };
            if let Some(before) = before {
                order.begun = true;
                order.done = !matches!(order.act, Act::FreezeBefore | Act::FreezeAfter);
                due = due.or(Some((order.act, before)));
            }
        }
        due
    }

    /// Waits while the connection is frozen; false once everything is over in this direction.
    fn pass(&self, number: usize, way: Way) -> bool {
        let state = self.lock();
        let waiting = |state: &mut State| !state.over && state.connections[number].frozen;
        let state = self
            .thawed
            .wait_while(state, waiting)
            .unwrap_or_else(PoisonError::into_inner);
        !state.over && state.connections[number].last.is_none_or(|last| last == way)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.lock().over {
            return;
        }
        let Ok(broker) = TcpStream::connect(shared.broker) else {
            // The client finds its connection closed.
            continue;
        };
        if let Err(error) = serve(client, broker, shared, listener) {
            eprintln!("the proxy lost a connection: {error}");
        }
    }
}

fn serve(
    client: TcpStream,
    broker: TcpStream,
    shared: &Arc<Shared>,
    listener: &TcpListener,
) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    broker.set_nodelay(true)?;
    let address = listener.local_addr()?;
    let (cut_client, cut_broker) = (client.try_clone()?, broker.try_clone()?);
    let number = {
        let mut state = shared.lock();
        if state.over {
            return Ok(());
        }
        let frozen = state.frozen;
        state.connections.push(Connection {
            client: cut_client,
            broker: cut_broker,
            frozen,
            last: None,
        });
        state.connections.len() - 1
    };
    let ways = [
        (Way::ToBroker, client.try_clone()?, broker.try_clone()?),
        (Way::ToClient, broker, client),
    ];
    for (way, from, to) in ways {
        let pipe = Pipe {
            way,
            number,
            address,
            from,
            to,
            shared: Arc::clone(shared),
        };
        std::thread::spawn(move || pipe.run());
    }
    Ok(())
}

/// One direction of one connection.
struct Pipe {
    way: Way,
    number: usize,
    address: SocketAddr,
    from: TcpStream,
    to: TcpStream,
    shared: Arc<Shared>,
}

impl Pipe {
    /// Forwards until either side ends, and takes the other side with it.
    fn run(mut self) {
        let mut waiting = Vec::new();
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = self.from.read(&mut buffer) {
            waiting.extend_from_slice(&buffer[..read]);
            while let Some((piece, len)) = frame::first(&waiting) {
                let bytes: Vec<u8> = waiting.drain(..len).collect();
                if !self.forward(piece, &bytes) {
                    return self.cut();
                }
            }
        }
        self.cut();
    }

    fn cut(&self) {
        self.shared.lock().connections[self.number].cut();
    }

    /// Whether the connection goes on.
    fn forward(&mut self, piece: Piece, bytes: &[u8]) -> bool {
        let Some((act, before)) = self.shared.due(self.way, Some(piece), bytes.len()) else {
            return self.write(bytes);
        };
        let (first, rest) = bytes.split_at(before.min(bytes.len()));
        if matches!(act, Act::CutAfter | Act::DieAfter) {
            self.shared.lock().connections[self.number].last = Some(self.way);
        }
        match act {
            Act::CutBefore => {
                self.write(first);
                false
            }
            Act::CutAfter => {
                self.write(bytes);
                false
            }
            Act::DieBefore | Act::DieAfter => {
                self.write(if act == Act::DieBefore { first } else { bytes });
                self.shared.die(self.address);
                false
            }
            Act::FreezeBefore => self.write(first) && self.freeze() && self.write(rest),
            Act::FreezeAfter => self.write(bytes) && self.freeze(),
            Act::Delay(pause) => {
                let until = Instant::now() + pause;
                let written = self.write(first);
                std::thread::sleep(until.saturating_duration_since(Instant::now()));
                written && self.write(rest)
            }
        }
    }

    fn freeze(&self) -> bool {
        let mut state = self.shared.lock();
        state.connections[self.number].frozen = true;
        for order in &mut state.orders {
            order.done = order.begun;
        }
        true
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        self.shared.pass(self.number, self.way) && self.to.write_all(bytes).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eventually;

    const LIMIT: Duration = Duration::from_secs(30);
    const OPEN: &[u8] = &[0, 0, 0, 12, 2, 0, 0, 0, 0x00, 0x53, 0x10, 0x45];
    const FLOW: &[u8] = &[0, 0, 0, 12, 2, 0, 0, 0, 0x00, 0x53, 0x13, 0x45];

    /// A client and a broker that are connected through a proxy.
    fn stage() -> (Proxy, TcpListener, TcpStream, TcpStream) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let proxy = Proxy::start(listener.local_addr().expect("an address"));
        let client = TcpStream::connect(proxy.address).expect("the proxy");
        let (broker, _) = listener.accept().expect("the client");
        for stream in [&client, &broker] {
            stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        }
        (proxy, listener, client, broker)
    }

    fn all(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        // A reset is an end like another.
        let _ = stream.read_to_end(&mut bytes);
        bytes
    }

    #[test]
    fn a_connection_is_cut_before_the_frame_that_was_named() {
        let (proxy, _listener, mut client, mut broker) = stage();
        let order = proxy.at(Way::ToBroker, Moment::Piece(Piece::Flow, 2), Act::CutBefore);
        client
            .write_all(&[OPEN, FLOW, OPEN, FLOW, OPEN].concat())
            .expect("written");
        assert_eq!(all(&mut broker), [OPEN, FLOW, OPEN].concat());
        assert!(order.is_done());
        assert!(all(&mut client).is_empty());
    }

    #[test]
    fn a_connection_is_cut_after_the_byte_that_was_named() {
        let (proxy, _listener, mut client, mut broker) = stage();
        proxy.at(Way::ToBroker, Moment::Bytes(17), Act::CutBefore);
        client.write_all(&[OPEN, FLOW, OPEN].concat()).expect("written");
        assert_eq!(all(&mut broker), [OPEN, &FLOW[..5]].concat());
    }

    #[test]
    fn a_death_closes_the_port_too() {
        let (proxy, _listener, mut client, mut broker) = stage();
        proxy.at(Way::ToClient, Moment::Piece(Piece::Open, 1), Act::DieAfter);
        broker.write_all(&[OPEN, FLOW].concat()).expect("written");
        assert_eq!(all(&mut client), OPEN);
        let place = proxy.address;
        eventually(LIMIT, "a closed port", || TcpStream::connect(place).is_err());
    }

    #[test]
    fn a_frozen_connection_forwards_nothing_until_it_thaws() {
        let (proxy, _listener, mut client, mut broker) = stage();
        let order = proxy.at(Way::ToBroker, Moment::Piece(Piece::Open, 1), Act::FreezeAfter);
        client.write_all(&[OPEN, FLOW].concat()).expect("written");
        let mut first = [0; OPEN.len()];
        broker.read_exact(&mut first).expect("the first frame");
        eventually(LIMIT, "the moment", || order.is_done());
        broker.set_nonblocking(true).expect("an option");
        assert!(broker.read(&mut first).is_err(), "nothing came through");
        broker.set_nonblocking(false).expect("an option");
        proxy.thaw();
        broker.read_exact(&mut first).expect("the second frame");
        assert_eq!(first, FLOW);
    }

    #[test]
    fn a_delayed_frame_comes_late_and_in_order() {
        let (proxy, _listener, mut client, mut broker) = stage();
        let pause = Duration::from_millis(50);
        proxy.at(Way::ToBroker, Moment::Piece(Piece::Open, 1), Act::Delay(pause));
        let began = Instant::now();
        client.write_all(&[OPEN, FLOW].concat()).expect("written");
        let mut both = [0; OPEN.len() + FLOW.len()];
        broker.read_exact(&mut both).expect("both");
        assert!(began.elapsed() >= pause);
        assert_eq!(both, [OPEN, FLOW].concat()[..]);
    }
}
