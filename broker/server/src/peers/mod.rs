//! The mesh of heartbeats between the brokers of a group.
//!
//! Other members are told by naming, or found by a [`Discovery`]: either way they are addresses to dial.
//! Every broker listens for its peers, dials those it knows, and speaks on every connection. It reports what
//! it hears and which connections end; what that means is decided elsewhere. A killed process ends its
//! connections, which is noticed within about a millisecond. A connection on which nothing comes any more is given up
//! and dialled anew: after a cut, TCP itself would send on the old one only after as long again as the cut took.
//! Invariant: every connection that reported a heartbeat reports its end.

mod dial;
pub(crate) mod discovery;
pub(crate) mod frame;
pub(crate) mod multicast;
pub(crate) mod probe;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use daymark_client::proto::{Endpoint, GroupName, MemberName};
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use discovery::Discovery;
use frame::{Heartbeat, VERSION};

/// How many connections peers may have here. Each known peer needs one; a probe takes one for a moment.
const CONNECTIONS_MAX: usize = 128;
/// How many members a discovery may find.
const FOUND_MAX: usize = 64;
/// How long a new connection may take to say who it is.
const INTRODUCTION: Duration = Duration::from_secs(5);
/// After so many heartbeats that did not come a connection is given up.
const MISSED_MAX: u32 = 100;

/// What the mesh reports.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A heartbeat arrived.
    Heartbeat(Heartbeat),
    /// A connection on which this peer had spoken ended.
    Dropped(MemberName),
    /// Nobody listens where this peer should be.
    Refused(MemberName),
    /// This member receives heartbeats there, as it was announced or listed.
    Found(MemberName, Endpoint),
}

/// The mesh. Dropping it ends every connection.
#[derive(Debug)]
pub(crate) struct Mesh {
    shared: Arc<Shared>,
    said: watch::Sender<Bytes>,
    dialing: BTreeMap<MemberName, Dialing>,
    /// Whom the discovery found.
    found: BTreeMap<MemberName, Endpoint>,
    discovery: Option<Box<dyn Discovery>>,
    tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Dialing {
    endpoint: Endpoint,
    /// Cleared when it is not to be dialled again.
    wanted: Arc<AtomicBool>,
}

/// What every connection needs.
#[derive(Debug)]
struct Shared {
    me: MemberName,
    group: GroupName,
    interval: Duration,
    said: watch::Receiver<Bytes>,
    heard: mpsc::Sender<Heard>,
    /// Wakes every dialer that waits between two attempts.
    dial_now: Notify,
}

impl Mesh {
    /// Starts to accept peers and to speak to them.
    ///
    /// # Errors
    /// That the first heartbeat is too long to be sent.
    pub(crate) fn start(
        listener: TcpListener,
        first: &Heartbeat,
        interval: Duration,
        heard: mpsc::Sender<Heard>,
    ) -> io::Result<Self> {
        let (said, receiver) = watch::channel(first.encode()?);
        let shared = Arc::new(Shared {
            me: first.member.clone(),
            group: first.group.clone(),
            interval,
            said: receiver,
            heard,
            dial_now: Notify::new(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self {
            shared,
            said,
            dialing: BTreeMap::new(),
            found: BTreeMap::new(),
            discovery: None,
            tasks,
        })
    }

    /// Says this from now on, and at once.
    ///
    /// # Errors
    /// That the heartbeat is too long to be sent; the last one is repeated then.
    pub(crate) fn say(&self, heartbeat: &Heartbeat) -> io::Result<()> {
        self.said.send_replace(heartbeat.encode()?);
        Ok(())
    }

    /// Asks this discovery too, whenever somebody is looked for.
    pub(crate) fn discover_with(&mut self, discovery: Box<dyn Discovery>) {
        self.discovery = Some(discovery);
    }

    /// Dials a member that the discovery found, if it is not dialled there already.
    pub(crate) fn found(&mut self, member: MemberName, endpoint: Endpoint) {
        let known = self
            .dialing
            .get(&member)
            .is_some_and(|dialing| dialing.endpoint == endpoint);
        if known || (self.found.len() >= FOUND_MAX && !self.found.contains_key(&member)) {
            return;
        }
        tracing::debug!(%member, %endpoint, "a member was found");
        let mut peers: BTreeMap<_, _> = self
            .dialing
            .iter()
            .map(|(peer, at)| (peer.clone(), at.endpoint.clone()))
            .collect();
        peers.insert(member.clone(), endpoint.clone());
        self.found.insert(member, endpoint);
        self.dial(&peers);
    }

    /// Dials these peers from now on, and those that were found. One that is no longer named is not dialled
    /// again; a connection that stands goes on.
    pub(crate) fn dial(&mut self, told: &BTreeMap<MemberName, Endpoint>) {
        let mut peers = self.found.clone();
        peers.extend(told.clone());
        self.dialing.retain(|member, dialing| {
            let keep = peers.get(member) == Some(&dialing.endpoint);
            dialing.wanted.store(keep, Ordering::Relaxed);
            keep
        });
        while self.tasks.try_join_next().is_some() {}
        for (member, endpoint) in &peers {
            if *member == self.shared.me || self.dialing.contains_key(member) {
                continue;
            }
            let wanted = Arc::new(AtomicBool::new(true));
            self.tasks.spawn(dial::keep_dialling(
                member.clone(),
                endpoint.clone(),
                Arc::clone(&wanted),
                Arc::clone(&self.shared),
            ));
            let endpoint = endpoint.clone();
            self.dialing.insert(member.clone(), Dialing { endpoint, wanted });
        }
    }

    /// Dials everybody now who is not connected, and asks who else is there.
    pub(crate) fn dial_now(&self) {
        if let Some(discovery) = &self.discovery {
            discovery.ask();
        }
        self.shared.dial_now.notify_waiters();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else {
            return; // The semaphore is never closed.
        };
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, from)) => {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    serve(stream, from, &shared).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a peer's connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, from: SocketAddr, shared: &Shared) {
    if let Err(error) = converse(stream, shared).await {
        tracing::debug!(%from, %error, "a peer's connection ended");
    }
}

/// Speaks and listens until the connection ends; then reports the end of whoever spoke on it.
async fn converse(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reading, writing) = stream.into_split();
    let mut peer = None;
    let ended = tokio::select! {
        ended = listen(reading, shared, &mut peer) => ended,
        ended = speak(writing, shared) => ended,
    };
    if let Some(peer) = peer {
        // Nobody listens any more only when the broker ends.
        let _ = shared.heard.send(Heard::Dropped(peer)).await;
    }
    ended
}

async fn speak(mut writing: OwnedWriteHalf, shared: &Shared) -> io::Result<()> {
    let mut said = shared.said.clone();
    loop {
        let heartbeat = said.borrow_and_update().clone();
        writing.write_all(&heartbeat).await?;
        match tokio::time::timeout(shared.interval, said.changed()).await {
            Ok(Ok(())) | Err(_) => {}
            Ok(Err(_)) => return Ok(()), // The mesh is gone.
        }
    }
}

async fn listen(reading: OwnedReadHalf, shared: &Shared, peer: &mut Option<MemberName>) -> io::Result<()> {
    let mut reading = BufReader::new(reading);
    let first = tokio::time::timeout(INTRODUCTION, Heartbeat::read(&mut reading));
    let mut next = first.await.map_err(io::Error::from)??;
    while let Some(heartbeat) = next {
        check(&heartbeat, shared)?;
        if peer.as_ref().is_some_and(|peer| *peer != heartbeat.member) {
            return Err(io::Error::other("a peer changed its name"));
        }
        if peer.is_none() {
            *peer = Some(heartbeat.member.clone());
        }
        if shared.heard.send(Heard::Heartbeat(heartbeat)).await.is_err() {
            return Ok(()); // The broker ends.
        }
        let more = tokio::time::timeout(
            shared.interval.saturating_mul(MISSED_MAX),
            Heartbeat::read(&mut reading),
        );
        next = more.await.map_err(io::Error::from)??;
    }
    Ok(())
}

/// Whether it comes from another broker of this group, in a version that is understood.
fn check(heartbeat: &Heartbeat, shared: &Shared) -> io::Result<()> {
    let refuse = |why: String| {
        tracing::warn!(member = %heartbeat.member, why, "a peer is not heard");
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    };
    if heartbeat.version != VERSION {
        return refuse(format!("it speaks version {}, not {VERSION}", heartbeat.version));
    }
    if heartbeat.group != shared.group {
        return refuse(format!("it belongs to group {}", heartbeat.group));
    }
    if heartbeat.member == shared.me {
        return refuse("it has the name of this broker".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::frame::tests::heartbeat;
    use super::*;
    use daymark_client::proto::MemberState;

    /// Longer than anything a test waits for.
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Node {
        mesh: Mesh,
        heard: mpsc::Receiver<Heard>,
        endpoint: Endpoint,
    }

    async fn node(name: &str) -> Node {
        node_that_speaks_every(Duration::from_millis(50), name).await
    }

    async fn node_that_speaks_every(interval: Duration, name: &str) -> Node {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let (sender, heard) = mpsc::channel(64);
        let first = heartbeat(name, MemberState::Standby);
        let mesh = Mesh::start(listener, &first, interval, sender).expect("a mesh");
        Node {
            mesh,
            heard,
            endpoint: address.parse().expect("an endpoint"),
        }
    }

    async fn next(node: &mut Node) -> Heard {
        tokio::time::timeout(PATIENCE, node.heard.recv())
            .await
            .expect("something is heard")
            .expect("the mesh lives")
    }

    async fn until(node: &mut Node, wanted: impl Fn(&Heard) -> bool) -> Heard {
        loop {
            let heard = next(node).await;
            if wanted(&heard) {
                return heard;
            }
        }
    }

    fn one(name: &str, endpoint: &Endpoint) -> BTreeMap<MemberName, Endpoint> {
        BTreeMap::from([(name.parse().expect("a label"), endpoint.clone())])
    }

    #[tokio::test]
    async fn both_ends_hear_each_other_although_only_one_dials() {
        let (mut a, mut b) = (node("a").await, node("b").await);
        a.mesh.dial(&one("b", &b.endpoint));
        assert!(matches!(next(&mut a).await, Heard::Heartbeat(said) if said.member.as_str() == "b"));
        assert!(matches!(next(&mut b).await, Heard::Heartbeat(said) if said.member.as_str() == "a"));
    }

    #[tokio::test]
    async fn a_change_is_said_at_once_and_an_end_is_noticed() {
        let (mut a, b) = (node("a").await, node("b").await);
        a.mesh.dial(&one("b", &b.endpoint));
        next(&mut a).await;
        b.mesh
            .say(&heartbeat("b", MemberState::Active))
            .expect("a heartbeat");
        let is_active =
            |heard: &Heard| matches!(heard, Heard::Heartbeat(said) if said.state == MemberState::Active);
        until(&mut a, is_active).await;
        drop(b);
        let dropped = until(&mut a, |heard| !matches!(heard, Heard::Heartbeat(_))).await;
        assert!(matches!(dropped, Heard::Dropped(peer) if peer.as_str() == "b"));
        let refused = until(&mut a, |heard| matches!(heard, Heard::Refused(_))).await;
        assert!(matches!(refused, Heard::Refused(peer) if peer.as_str() == "b"));
    }

    #[tokio::test]
    async fn a_connection_on_which_nothing_comes_any_more_is_dialled_anew() {
        let mut a = node_that_speaks_every(Duration::from_millis(2), "a").await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let endpoint: Endpoint = listener
            .local_addr()
            .expect("an address")
            .to_string()
            .parse()
            .expect("an endpoint");
        a.mesh.dial(&one("b", &endpoint));
        let (mut first, _) = listener.accept().await.expect("a connection");
        let said = heartbeat("b", MemberState::Standby).encode().expect("bytes");
        first.write_all(&said).await.expect("written");
        let dropped = until(&mut a, |heard| !matches!(heard, Heard::Heartbeat(_))).await;
        assert!(matches!(dropped, Heard::Dropped(peer) if peer.as_str() == "b"));
        let second = tokio::time::timeout(PATIENCE, listener.accept()).await;
        second.expect("dialled again").expect("a connection");
    }

    #[tokio::test]
    async fn who_belongs_to_another_group_or_has_our_name_is_not_heard() {
        let mut a = node("a").await;
        let mut stranger = heartbeat("b", MemberState::Active);
        stranger.group = "others".parse().expect("a label");
        let mut newer = heartbeat("b", MemberState::Active);
        newer.version = VERSION + 1;
        for said in [stranger, newer, heartbeat("a", MemberState::Active)] {
            let address = (a.endpoint.host.as_str(), a.endpoint.port);
            let mut stream = TcpStream::connect(address).await.expect("a connection");
            let said = said.encode().expect("bytes");
            stream.write_all(&said).await.expect("written");
            // It is closed, after whatever heartbeats were under way.
            let closed = async { while let Ok(Some(_)) = Heartbeat::read(&mut stream).await {} };
            tokio::time::timeout(PATIENCE, closed).await.expect("closed");
        }
        assert!(a.heard.try_recv().is_err());
    }
}
