//! Several ways to naming, for what must arrive in time on a network that loses packets.
//!
//! A connection whose packets are lost again and again falls silent for longer each time (RFC 6298 section 5), soon
//! for longer than a lease lasts; what is sent behind waits with them. Another connection knows nothing of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use daymark_client::proto::{GroupName, LeaseId, MemberName, Renewed};
use daymark_client::{LookupError, Naming};
use tokio::task::JoinSet;

/// How long one way may stay without an answer before the next one is tried beside it.
const AGAIN: Duration = Duration::from_millis(50);

/// Connections that take turns, so that each is there when it is needed.
#[derive(Clone)]
pub(super) struct Ways {
    all: [Naming; 3],
    turn: Arc<AtomicUsize>,
}

impl Ways {
    /// This client's connection, and others of its kind.
    pub(super) fn new(naming: &Naming) -> Self {
        let another = || Naming::new(naming.providers().clone(), naming.config().clone());
        Self {
            all: [naming.clone(), another(), another()],
            turn: Arc::default(),
        }
    }

    /// Renews on one of them, and on the next ones beside it until one is answered. Renewing twice is renewing once.
    pub(super) async fn renew(
        &self,
        group: &GroupName,
        member: &MemberName,
        lease: LeaseId,
    ) -> Result<Renewed, LookupError> {
        let mut asked = JoinSet::new();
        loop {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            let naming = self.all[turn % self.all.len()].clone();
            let (group, member) = (group.clone(), member.clone());
            asked.spawn(async move { naming.renew(&group, &member, lease).await });
            if let Ok(Some(Ok(answer))) = tokio::time::timeout(AGAIN, asked.join_next()).await {
                return answer;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use daymark_client::NamingConfig;
    use daymark_client::proto::{Endpoint, JoinRequest, Role};
    use daymark_naming_server::{NamingOptions, Server};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::Notify;

    use super::*;

    fn endpoint(port: u16) -> Endpoint {
        Endpoint {
            host: "127.0.0.1".to_owned(),
            port,
        }
    }

    /// A naming server behind a port whose first connection falls silent when it is told to.
    async fn behind_a_port(directory: &Path) -> (Server, Naming, Arc<Notify>) {
        let options = NamingOptions {
            listen: endpoint(0),
            ..NamingOptions::new(directory)
        };
        let server = Server::start(options).await.expect("a naming server");
        let behind = server.local_addr();
        let port = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = port.local_addr().expect("an address");
        let (silence, never) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let mut silenced = Some(Arc::clone(&silence));
        tokio::spawn(async move {
            while let Ok((mut client, _)) = port.accept().await {
                let until = silenced.take().unwrap_or_else(|| Arc::clone(&never));
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(behind).await.expect("the server");
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = until.notified() => std::future::pending().await,
                    }
                });
            }
        });
        let patient = NamingConfig {
            call_timeout: Duration::from_secs(600),
            total_timeout: Duration::from_secs(600),
            ..NamingConfig::default()
        };
        let providers = address.to_string().parse().expect("a provider list");
        (server, Naming::new(providers, patient), silence)
    }

    #[tokio::test]
    async fn a_connection_that_falls_silent_holds_no_renewal_up() {
        let directory = tempfile::tempdir().expect("a directory");
        let (_server, naming, silence) = behind_a_port(directory.path()).await;
        let group: GroupName = "orders".parse().expect("a label");
        let member: MemberName = "one".parse().expect("a label");
        let request = JoinRequest {
            role: Role::Primary,
            endpoint: endpoint(1),
            admin: None,
            peer: None,
            lease_ms: 600_000,
            shadow: Vec::new(),
        };
        let joined = naming.join(&group, &member, request).await.expect("a member");
        silence.notify_one();
        let ways = Ways::new(&naming);
        for _ in 0..4 {
            let renewing = ways.renew(&group, &member, joined.lease);
            let renewed = tokio::time::timeout(Duration::from_secs(60), renewing).await;
            assert_eq!(renewed.expect("in time").expect("renewed").epoch, joined.epoch);
        }
    }
}
