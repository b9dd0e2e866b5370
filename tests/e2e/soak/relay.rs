//! A network that can be cut: connections go through until it falls silent, or breaks.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// They go through.
    Whole,
    /// They wait; nobody is told.
    Silent,
    /// Connections are closed, and new ones at once.
    Broken,
}

/// A relay on a free port of the loopback interface.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) address: SocketAddr,
    line: watch::Sender<Line>,
}

impl Relay {
    /// A whole line to where somebody listens, now or later.
    pub(super) async fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let line = watch::Sender::new(Line::Whole);
        let seen = line.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, to, seen.clone()));
            }
        });
        Self { address, line }
    }

    pub(super) fn set(&self, line: Line) {
        self.line.send_replace(line);
    }
}

/// Carries one connection until either side ends it or the line breaks.
async fn carry(client: TcpStream, to: SocketAddr, mut line: watch::Receiver<Line>) {
    let seen = line.clone();
    let carried = async {
        passes(&mut seen.clone()).await;
        let Ok(server) = TcpStream::connect(to).await else {
            return;
        };
        for side in [&client, &server] {
            let _ = side.set_nodelay(true);
        }
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        tokio::select! {
            () = pump(from_client, to_server, seen.clone()) => {}
            () = pump(from_server, to_client, seen) => {}
        }
    };
    tokio::select! {
        () = carried => {}
        _ = line.wait_for(|line| *line == Line::Broken) => {}
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<Line>) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        passes(&mut line).await;
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

async fn passes(line: &mut watch::Receiver<Line>) {
    // The sender lives as long as the relay is of interest.
    let _ = line.wait_for(|line| *line != Line::Silent).await;
}
