//! Free ports for processes that must be told their port before they listen on it.

use std::net::{Ipv4Addr, TcpListener, TcpStream};

/// A loopback port nobody listens on. One connection was made through it and closed from its side, so that the
/// system keeps it out of the free ports it hands out for a minute, while a listener may still take it.
///
/// # Panics
/// When the system has no free port.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    let client = TcpStream::connect(address).expect("a connection to it");
    let (server, _) = listener.accept().expect("its other end");
    drop(server);
    drop(client);
    address.port()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_listened_on() {
        let ports: BTreeSet<u16> = (0..20).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 20);
        for port in ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("a listener");
        }
    }
}
