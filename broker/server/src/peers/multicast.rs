//! Announcements by UDP multicast: once a second, at once when somebody asks, and never more than a few.
//!
//! It decides nothing and remembers nobody. Packets that are no announcements, come from another group or
//! exceed the rate are ignored, so that whoever floods the port costs a little time and no memory.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

use super::Heard;
use super::discovery::{Announcement, BYTES_MAX, Discovery};
use crate::config::MulticastConfig;

/// How often a member announces itself.
const EVERY: Duration = Duration::from_secs(1);
/// The shortest time between two announcements of one member.
const PAUSE: Duration = Duration::from_millis(100);
/// How many announcements are read in a second; a group of sixteen sends sixteen.
const READ_PER_SECOND: u32 = 500;

/// The announcements of one member. Dropping it ends them.
#[derive(Debug)]
pub(crate) struct Multicast {
    ask: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Discovery for Multicast {
    fn ask(&self) {
        self.ask.notify_one();
    }
}

impl Multicast {
    /// Joins the multicast group and begins to announce `me`.
    ///
    /// # Errors
    /// That the socket cannot be bound, or the group not be joined on that interface.
    pub(crate) fn start(
        config: MulticastConfig,
        me: Announcement,
        found: mpsc::Sender<Heard>,
    ) -> io::Result<Self> {
        let too_long = || io::Error::other("the announcement is too long for one packet");
        let plain = me.encode().ok_or_else(too_long)?;
        let asking = me.asking().encode().ok_or_else(too_long)?;
        let socket = Arc::new(bind(config)?);
        let (ask, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let sender = Sender {
            socket: Arc::clone(&socket),
            to: SocketAddrV4::new(config.address, config.port).into(),
            plain,
            asking,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(sender.announce(Arc::clone(&ask), Arc::clone(&answer)));
        tasks.spawn(listen(socket, me, answer, found));
        Ok(Self { ask, _tasks: tasks })
    }
}

/// A socket that hears the group, together with others on this machine.
fn bind(config: MulticastConfig) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    // Bound to the group's address, so that packets to this port for anybody else are not heard.
    socket.bind(&SocketAddr::from((config.address, config.port)).into())?;
    socket.join_multicast_v4(&config.address, &config.interface)?;
    if config.interface != Ipv4Addr::UNSPECIFIED {
        socket.set_multicast_if_v4(&config.interface)?;
    }
    socket.set_multicast_ttl_v4(config.time_to_live.into())?;
    socket.set_multicast_loop_v4(true)?;
    UdpSocket::from_std(socket.into())
}

struct Sender {
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    plain: Vec<u8>,
    asking: Vec<u8>,
}

impl Sender {
    /// Asks at first, then announces every second, and at once when asked, within the rate.
    async fn announce(self, ask: Arc<Notify>, answer: Arc<Notify>) {
        let mut packet = &self.asking;
        loop {
            if let Err(error) = self.socket.send_to(packet, self.to).await {
                tracing::debug!(%error, "an announcement was not sent");
            }
            tokio::time::sleep(PAUSE).await;
            packet = tokio::select! {
                biased;
                () = ask.notified() => &self.asking,
                () = answer.notified() => &self.plain,
                () = tokio::time::sleep(EVERY) => &self.plain,
            };
        }
    }
}

async fn listen(socket: Arc<UdpSocket>, me: Announcement, answer: Arc<Notify>, found: mpsc::Sender<Heard>) {
    let mut buffer = [0; BYTES_MAX + 1];
    let mut rate = Rate::new(Instant::now());
    loop {
        let (length, from) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                tracing::debug!(%error, "an announcement was not received");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if !rate.permits(Instant::now()) {
            continue;
        }
        let Some((other, peer)) = understood(&buffer[..length], from, &me) else {
            continue;
        };
        if other.asks {
            answer.notify_one();
        }
        if found.send(Heard::Found(other.member, peer)).await.is_err() {
            return; // The broker ends.
        }
    }
}

/// The announcement of another member of this group, and where to reach it.
fn understood(
    packet: &[u8],
    from: SocketAddr,
    me: &Announcement,
) -> Option<(Announcement, daymark_client::proto::Endpoint)> {
    let other = Announcement::decode(packet)?;
    if other.group != me.group || other.member == me.member {
        return None;
    }
    let endpoint = other.endpoint(from)?;
    Some((other, endpoint))
}

/// Counts what was read in this second.
struct Rate {
    since: Instant,
    read: u32,
}

impl Rate {
    fn new(now: Instant) -> Self {
        Self { since: now, read: 0 }
    }

    fn permits(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.read += 1;
        self.read <= READ_PER_SECOND
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daymark_test_support::free_port;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn config(port: u16) -> MulticastConfig {
        MulticastConfig {
            port,
            interface: Ipv4Addr::LOCALHOST,
            ..MulticastConfig::default()
        }
    }

    fn member(group: &str, name: &str, port: u16) -> Announcement {
        let host = Some("127.0.0.1".to_owned());
        let (group, name) = (group.parse().expect("a label"), name.parse().expect("a label"));
        Announcement::new(group, name, host, port)
    }

    async fn found(heard: &mut mpsc::Receiver<Heard>) -> String {
        match tokio::time::timeout(PATIENCE, heard.recv()).await {
            Ok(Some(Heard::Found(member, peer))) => format!("{member} at {peer}"),
            heard => panic!("a member was expected: {heard:?}"),
        }
    }

    #[tokio::test]
    async fn members_of_one_group_find_each_other_and_nobody_else() {
        let port = free_port();
        let (stranger_found, _stranger_heard) = mpsc::channel(64);
        let _stranger =
            Multicast::start(config(port), member("other", "x", 3), stranger_found).expect("a socket");
        let (one_found, mut one_heard) = mpsc::channel(64);
        let one = Multicast::start(config(port), member("orders", "one", 1), one_found).expect("a socket");
        let noise = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        for packet in [&b""[..], b"DMGM", &[0xff; 2000]] {
            let _ = noise.send_to(packet, (Ipv4Addr::new(230, 30, 1, 1), port)).await;
        }
        let (two_found, mut two_heard) = mpsc::channel(64);
        let _two = Multicast::start(config(port), member("orders", "two", 2), two_found).expect("a socket");
        for _ in 0..2 {
            assert_eq!(found(&mut one_heard).await, "two at 127.0.0.1:2");
            assert_eq!(found(&mut two_heard).await, "one at 127.0.0.1:1");
            one.ask();
        }
    }

    #[test]
    fn a_flood_is_read_up_to_a_rate() {
        let start = Instant::now();
        let mut rate = Rate::new(start);
        let permitted = (0..10_000).filter(|_| rate.permits(start)).count();
        assert_eq!(permitted, 500);
        assert!(rate.permits(start + Duration::from_secs(1)));
    }

    #[tokio::test]
    async fn an_interface_that_is_not_here_is_an_error() {
        let config = MulticastConfig {
            interface: Ipv4Addr::new(192, 0, 2, 1),
            ..config(free_port())
        };
        let (found, _heard) = mpsc::channel(1);
        assert!(Multicast::start(config, member("orders", "one", 1), found).is_err());
    }
}
