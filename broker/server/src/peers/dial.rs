//! Keeping one connection to one peer.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use daymark_client::proto::{Endpoint, MemberName};
use tokio::net::TcpStream;

use super::{Heard, Shared, converse, probe};

/// How long one attempt may take.
const CONNECT: Duration = Duration::from_secs(1);
/// The first pause after an attempt that failed; it doubles up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// How long a connection must have lived for the next one to be made without a pause.
const LIVED: Duration = Duration::from_secs(1);

/// Dials `peer` while it is wanted, again at once when a connection that had lived ends. A refusal is
/// reported.
pub(super) async fn keep_dialling(
    peer: MemberName,
    endpoint: Endpoint,
    wanted: Arc<AtomicBool>,
    shared: Arc<Shared>,
) {
    let mut pause = PAUSE_MIN;
    while wanted.load(Ordering::Relaxed) {
        match connect(&endpoint).await {
            Ok(stream) => {
                let since = Instant::now();
                if let Err(error) = converse(stream, &shared).await {
                    tracing::debug!(%peer, %endpoint, %error, "the connection to a peer ended");
                }
                if since.elapsed() >= LIVED {
                    pause = PAUSE_MIN;
                    continue;
                }
            }
            Err(error) => {
                tracing::debug!(%peer, %endpoint, %error, "a peer is not reached");
                if probe::is_refusal(&error) && shared.heard.send(Heard::Refused(peer.clone())).await.is_err()
                {
                    return; // The broker ends.
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.dial_now.notified() => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let connecting = TcpStream::connect((endpoint.host.as_str(), endpoint.port));
    tokio::time::timeout(CONNECT, connecting)
        .await
        .map_err(io::Error::from)?
}
