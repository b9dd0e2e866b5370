//! The directory beside its peers: what is bound, who serves it, who asks.

pub mod etcd;
pub mod floor;
pub mod load;
pub mod peers;
pub mod resp;
pub mod watchers;
pub mod zookeeper;

/// How many names the lookups go to.
pub const NAMES: u64 = 100_000;

/// The key in every peer: the form in which `redis-benchmark` writes `binding:__rand_int__`.
#[must_use]
pub fn key(index: u64) -> String {
    format!("binding:{index:012}")
}

/// What is bound to `key(index)`, as JSON: a queue with an address of its own.
#[must_use]
pub fn object(index: u64) -> String {
    let address = format!("orders.region-{:03}.warehouse-{index:012}.incoming", index % 200);
    format!(r#"{{"type":"queue","address":"{address}"}}"#)
}

/// Its attributes, as JSON.
#[must_use]
pub fn attributes(index: u64) -> String {
    format!(
        r#"{{"owner":["team-{:04}"],"description":["Orders of one warehouse, in the order in which they came"],"tier":["{}"]}}"#,
        index % 1000,
        index % 3
    )
}

/// The bytes of name, value and attributes: what one binding must at least cost.
#[must_use]
pub fn payload(index: u64) -> usize {
    key(index).len() + object(index).len() + attributes(index).len()
}

/// A number that looks random and follows from `state` alone (xorshift).
pub(crate) fn scrambled(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
