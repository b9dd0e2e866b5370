//! Looking for the active broker at an address that an operator gave.

use std::time::Duration;

use daymark_client::proto::{Endpoint, GroupName};
use tokio::net::TcpStream;

use crate::peers::frame::Heartbeat;

/// Between two attempts within one search.
const PAUSE: Duration = Duration::from_millis(100);

/// Asks the peer port at `endpoint` until a broker of this group speaks there or the time is over.
pub(super) async fn seek(endpoint: Endpoint, group: GroupName, timeout: Duration) -> Option<Heartbeat> {
    let asking = async {
        loop {
            match ask(&endpoint).await {
                Ok(Some(heartbeat)) if heartbeat.group == group => return heartbeat,
                Ok(Some(heartbeat)) => {
                    tracing::warn!(%endpoint, found = %heartbeat.group, "active_transport_url leads to another group");
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%endpoint, %error, "nobody answers at active_transport_url"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::time::timeout(timeout, asking).await.ok()
}

async fn ask(endpoint: &Endpoint) -> std::io::Result<Option<Heartbeat>> {
    let mut stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    Heartbeat::read(&mut stream).await
}
