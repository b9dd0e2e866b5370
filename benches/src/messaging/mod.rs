//! The broker beside its peers, all asked by the same programs.

pub mod brokers;
pub mod floor;
pub mod load;
pub mod recovered;

/// How a broker is asked: where it listens, what a queue is called there, whom its processor time belongs to.
#[derive(Debug)]
pub struct Broker {
    /// As the table calls it.
    pub name: &'static str,
    /// `HOST:PORT` of its AMQP 1.0 port.
    pub address: String,
    /// What comes before the name of a queue.
    pub prefix: &'static str,
    /// The process that does its work.
    pub id: u32,
    /// Everything that must live as long as it serves.
    _processes: Vec<crate::peer::Peer>,
}
