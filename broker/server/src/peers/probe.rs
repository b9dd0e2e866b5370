//! Asking one broker whether it lives: at its peer port, and at its messaging port, at the same time.
//!
//! A process that was killed refuses at once. One that is frozen still accepts, because its kernel does;
//! so only what it says counts as an answer.

use std::io;
use std::time::Duration;

use daymark_broker_core::failover::ProbeAnswer;
use daymark_client::proto::{Endpoint, GroupName, MemberName, MemberState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::frame::Heartbeat;

/// The header an AMQP client may begin with (SASL); a broker answers it at once.
const AMQP_SASL_HEADER: &[u8; 8] = b"AMQP\x03\x01\x00\x00";

/// What one of the two ports said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    Active,
    Standby,
    Refused,
}

/// Whom to ask, and where.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) group: GroupName,
    pub(crate) member: MemberName,
    pub(crate) messaging: Endpoint,
    pub(crate) peer: Option<Endpoint>,
}

/// Asks both ports. Answers as soon as one of them speaks, or both refuse, or the time is over.
pub(crate) async fn probe(target: Target, timeout: Duration) -> ProbeAnswer {
    let asking = async {
        let messaging = ask_messaging(&target.messaging);
        let peer = ask_peer(&target);
        tokio::pin!(messaging, peer);
        let (first, second) = tokio::select! {
            first = &mut messaging => (first, decide_later(first, peer).await),
            first = &mut peer => (first, decide_later(first, messaging).await),
        };
        combine(first, second)
    };
    tokio::time::timeout(timeout, asking)
        .await
        .unwrap_or(ProbeAnswer::Silent)
}

/// The second port is asked only if the first did not settle it.
async fn decide_later(first: Port, second: impl Future<Output = Port>) -> Port {
    match first {
        Port::Active | Port::Standby => first,
        Port::Refused => second.await,
    }
}

fn combine(first: Port, second: Port) -> ProbeAnswer {
    match (first, second) {
        (Port::Active, _) | (_, Port::Active) => ProbeAnswer::Active,
        (Port::Standby, _) | (_, Port::Standby) => ProbeAnswer::Standby,
        (Port::Refused, Port::Refused) => ProbeAnswer::Refused,
    }
}

async fn ask_messaging(endpoint: &Endpoint) -> Port {
    let asked = async {
        let mut stream = connect(endpoint).await?;
        stream.write_all(AMQP_SASL_HEADER).await?;
        let mut answer = [0; 1];
        stream.read_exact(&mut answer).await?;
        Ok(Port::Active)
    };
    settle(asked.await).await
}

async fn ask_peer(target: &Target) -> Port {
    let Some(endpoint) = &target.peer else {
        return Port::Refused; // It has no peer port, so only its messaging port can speak.
    };
    let asked = async {
        let mut stream = connect(endpoint).await?;
        match Heartbeat::read(&mut stream).await? {
            Some(said) if said.member == target.member && said.group == target.group => {
                Ok(match said.state {
                    MemberState::Active => Port::Active,
                    MemberState::Standby => Port::Standby,
                })
            }
            Some(_) | None => Ok(Port::Refused), // Somebody else has the port now, or it is closing.
        }
    };
    settle(asked.await).await
}

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await
}

/// A refusal is an answer. Any other error says nothing: the rest of the time is waited out.
async fn settle(asked: io::Result<Port>) -> Port {
    match asked {
        Ok(port) => port,
        Err(error) if is_refusal(&error) => Port::Refused,
        Err(_) => std::future::pending().await,
    }
}

/// Whether the system at the other end says that no process is there, or that it just ended.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    [
        io::ErrorKind::ConnectionRefused,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::UnexpectedEof,
    ]
    .contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::super::frame::tests::heartbeat;
    use super::*;
    use tokio::net::TcpListener;

    async fn listener() -> (TcpListener, Endpoint) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let endpoint = listener.local_addr().expect("an address").to_string();
        (listener, endpoint.parse().expect("an endpoint"))
    }

    fn target(messaging: &Endpoint, peer: &Endpoint) -> Target {
        Target {
            group: "orders".parse().expect("a label"),
            member: "a".parse().expect("a label"),
            messaging: messaging.clone(),
            peer: Some(peer.clone()),
        }
    }

    async fn nobody() -> Endpoint {
        listener().await.1
    }

    #[tokio::test]
    async fn a_process_that_is_gone_refuses_without_waiting() {
        let target = target(&nobody().await, &nobody().await);
        let answer = probe(target, Duration::from_secs(60)).await;
        assert_eq!(answer, ProbeAnswer::Refused);
    }

    #[tokio::test]
    async fn a_frozen_process_accepts_and_is_silent_all_the_same() {
        let (_messaging, messaging) = listener().await;
        let (_peer, peer) = listener().await;
        let answer = probe(target(&messaging, &peer), Duration::from_millis(50)).await;
        assert_eq!(answer, ProbeAnswer::Silent);
    }

    #[tokio::test]
    async fn a_heartbeat_from_the_peer_port_is_the_answer() {
        for (state, expected) in [
            (MemberState::Active, ProbeAnswer::Active),
            (MemberState::Standby, ProbeAnswer::Standby),
        ] {
            let (listener, peer) = listener().await;
            let said = heartbeat("a", state).encode().expect("bytes");
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                stream.write_all(&said).await.expect("written");
                let _ = stream.read_u8().await;
            });
            let answer = probe(target(&nobody().await, &peer), Duration::from_secs(60)).await;
            assert_eq!(answer, expected);
        }
    }

    #[tokio::test]
    async fn another_broker_at_the_old_port_is_not_the_one_asked_for() {
        let (listener, peer) = listener().await;
        let said = heartbeat("other", MemberState::Active).encode().expect("bytes");
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            stream.write_all(&said).await.expect("written");
            let _ = stream.read_u8().await;
        });
        let answer = probe(target(&nobody().await, &peer), Duration::from_secs(60)).await;
        assert_eq!(answer, ProbeAnswer::Refused);
    }
}
