//! Free ports for processes that must be told their port before they listen on it.

use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};

/// A loopback port nobody listens on. One connection was made through it and closed from its side, so that the
/// system keeps it out of the free ports it hands out for a minute, while a listener may still take it.
///
/// # Errors
/// What the system says.
pub(super) fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let address = listener.local_addr()?;
    let client = TcpStream::connect(address)?;
    let (server, _) = listener.accept()?;
    drop(server);
    drop(client);
    Ok(address.port())
}
