//! Load from a process of its own, on peers for which no ready tool speaks the protocol. Prints one number:
//! how many operations a second were answered.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::{NAMES, attributes, etcd, key, object, resp, scrambled, zookeeper};
use crate::{Outcome, other};

/// How many connections clients that share share: those of etcd, whose HTTP/2 carries several calls on each, and
/// those of Daymark where it is asked in the same shape.
pub const SHARED_CONNECTIONS: usize = 8;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Daymark: `REBIND` over RESP, a connection for each client.
    Rebind,
    /// Daymark: `REBIND` over RESP, the clients on a few connections.
    RebindShared,
    /// etcd: `Put`.
    Put,
    /// etcd: a serializable `Range` over one key.
    Range,
    /// ZooKeeper: `setData`.
    SetData,
    /// ZooKeeper: `getData`.
    GetData,
    /// etcd: `Put` of every key once.
    FillEtcd,
    /// ZooKeeper: `create` of every node once.
    FillZooKeeper,
}

impl Work {
    const ALL: [(&'static str, Self); 8] = [
        ("rebind", Self::Rebind),
        ("rebind-shared", Self::RebindShared),
        ("put", Self::Put),
        ("range", Self::Range),
        ("set-data", Self::SetData),
        ("get-data", Self::GetData),
        ("fill-etcd", Self::FillEtcd),
        ("fill-zookeeper", Self::FillZooKeeper),
    ];

    /// The word it has on the command line.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, work)| *work == self)
            .map_or("", |(word, _)| word)
    }

    /// The work of this word.
    ///
    /// # Errors
    /// That there is none.
    pub fn of(word: &str) -> Outcome<Self> {
        let found = Self::ALL.iter().find(|(known, _)| *known == word);
        Ok(found.ok_or_else(|| other(format!("no work {word:?}")))?.1)
    }

    const fn fills(self) -> bool {
        matches!(self, Self::FillEtcd | Self::FillZooKeeper)
    }
}

/// Works from `clients` at once, each with one call outstanding, for `time`, or until everything is filled.
/// Returns the operations of each second.
///
/// # Errors
/// The first one of any client.
pub async fn run(work: Work, address: &str, clients: usize, time: Duration) -> Outcome<f64> {
    let (mut to_etcd, mut to_daymark) = (Vec::new(), Vec::new());
    for _ in 0..SHARED_CONNECTIONS {
        match work {
            Work::Put | Work::Range | Work::FillEtcd => to_etcd.push(etcd::Client::connect(address).await?),
            Work::RebindShared => to_daymark.push(resp::Shared::connect(address).await?),
            Work::Rebind | Work::SetData | Work::GetData | Work::FillZooKeeper => {}
        }
    }
    let mut tasks = JoinSet::new();
    let began = Instant::now();
    for client in 0..clients {
        let share = Share {
            client: client as u64,
            clients: clients as u64,
            end: (!work.fills()).then_some(began + time),
        };
        match work {
            Work::Rebind => tasks.spawn(rebind(address.to_owned(), share)),
            Work::RebindShared => tasks.spawn(rebind_shared(
                to_daymark[client % SHARED_CONNECTIONS].clone(),
                share,
            )),
            Work::Put | Work::FillEtcd => {
                tasks.spawn(put(to_etcd[client % SHARED_CONNECTIONS].clone(), share))
            }
            Work::Range => tasks.spawn(range(to_etcd[client % SHARED_CONNECTIONS].clone(), share)),
            Work::SetData | Work::GetData | Work::FillZooKeeper => {
                tasks.spawn(zookeeper(work, address.to_owned(), share))
            }
        };
    }
    let mut done = 0;
    while let Some(finished) = tasks.join_next().await {
        done += finished??;
    }
    Ok(done as f64 / began.elapsed().as_secs_f64())
}

/// What one client does: its part of all names once, or random names until the end.
#[derive(Clone, Copy, Debug)]
struct Share {
    client: u64,
    clients: u64,
    end: Option<Instant>,
}

impl Share {
    fn indices(self) -> impl Iterator<Item = u64> + Send {
        let mut state = 0x9E37_79B9_7F4A_7C15 ^ (self.client + 1);
        let mut next = self.client;
        std::iter::from_fn(move || match self.end {
            Some(end) => (Instant::now() < end).then(|| scrambled(&mut state) % NAMES),
            None => {
                let index = next;
                next += self.clients;
                (index < NAMES).then_some(index)
            }
        })
    }
}

async fn rebind(address: String, share: Share) -> Outcome<u64> {
    let mut client = resp::Client::connect(&address).await?;
    let mut done = 0;
    for index in share.indices() {
        client
            .ask(&["REBIND", &key(index), &object(index), "ATTRS", &attributes(index)])
            .await?;
        done += 1;
    }
    Ok(done)
}

async fn rebind_shared(client: resp::Shared, share: Share) -> Outcome<u64> {
    let mut done = 0;
    for index in share.indices() {
        client
            .ask(&["REBIND", &key(index), &object(index), "ATTRS", &attributes(index)])
            .await?;
        done += 1;
    }
    Ok(done)
}

/// The value in the peers: as long as the one in Daymark.
fn value(index: u64) -> String {
    format!("{}{}", object(index), attributes(index))
}

async fn put(mut client: etcd::Client, share: Share) -> Outcome<u64> {
    let mut done = 0;
    for index in share.indices() {
        client.put(&key(index), &value(index)).await?;
        done += 1;
    }
    Ok(done)
}

async fn range(mut client: etcd::Client, share: Share) -> Outcome<u64> {
    let mut done = 0;
    for index in share.indices() {
        client.range(&key(index)).await?;
        done += 1;
    }
    Ok(done)
}

async fn zookeeper(work: Work, address: String, share: Share) -> Outcome<u64> {
    let mut client = zookeeper::Client::connect(&address).await?;
    let mut done = 0;
    for index in share.indices() {
        let path = format!("/{}", key(index));
        match work {
            Work::GetData => client.get_data(&path).await?,
            Work::SetData => client.set_data(&path, &value(index)).await?,
            Work::FillZooKeeper => client.create(&path, &value(index)).await?,
            Work::Rebind | Work::RebindShared | Work::Put | Work::Range | Work::FillEtcd => {
                return Err(other("not ZooKeeper's work").into());
            }
        }
        done += 1;
    }
    Ok(done)
}
