//! What a directory of many bindings costs: memory, time to restore it from a snapshot, time of a lookup.
//!
//! `cargo run --release -p daymark-naming-core --example memory [bindings]`; Linux only, because it reads its
//! resident memory from `/proc`. Each binding has some 300 bytes: a name of 27, a value of 210 and two
//! attributes of 63 together.

#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

use std::time::Instant;

use daymark_naming_core::{Command, Directory, Limits};
use daymark_naming_proto::{Attributes, Name, Object, OpId, Write};

const PER_CONTEXT: usize = 1_000;
const LOOKUPS: usize = 1_000_000;

fn main() {
    let count = std::env::args()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000_000);
    let before = resident();
    let started = Instant::now();
    let directory = filled(count);
    let (wrote, written) = (started.elapsed(), resident() - before);
    let snapshot = directory.to_snapshot();
    let bytes = text_bytes(&directory, count);
    drop(directory);
    println!(
        "{count} bindings, {} bytes each, {} MB in a snapshot",
        bytes / count,
        snapshot.len() / 1_000_000
    );
    println!(
        "written one by one: {wrote:?}, {:.2} x the bytes",
        written as f64 / bytes as f64
    );
    let started = Instant::now();
    let restored = Directory::from_snapshot(&snapshot).expect("a snapshot");
    println!("restored: {:?}", started.elapsed());
    drop(snapshot);
    let names: Vec<Name> = (0..count).map(name).collect();
    let started = Instant::now();
    for at in 0..LOOKUPS {
        restored
            .lookup(&names[at.wrapping_mul(7919) % count])
            .expect("a binding");
    }
    println!(
        "lookup: {:.0} ns",
        started.elapsed().as_nanos() as f64 / LOOKUPS as f64
    );
}

fn name(at: usize) -> Name {
    let text = format!("jms/area-{:04}/queue-{at:08}", at / PER_CONTEXT);
    text.parse().expect("a name")
}

fn filled(count: usize) -> Directory {
    let mut directory = Directory::new(Limits::default());
    let mut op = 0;
    let mut write = |write: Write| {
        op += 1;
        let command = Command {
            op: OpId(op),
            at_unix_ms: 1_000,
            write,
        };
        directory.apply(&command).expect("a write");
    };
    let context = |text: String| Write::CreateSubcontext {
        name: text.parse().expect("a name"),
        attributes: Attributes::new(),
    };
    write(context("jms".to_owned()));
    for at in 0..count {
        if at % PER_CONTEXT == 0 {
            write(context(format!("jms/area-{:04}", at / PER_CONTEXT)));
        }
        let json = format!(
            "{{\"address\":\"queue-{at:08}\",\"note\":\"{}\"}}",
            "x".repeat(171)
        );
        let attributes = [
            ("region", vec![format!("eu-west-{}", at % 7)]),
            ("description", vec![format!("the queue of tenant {at:016}")]),
        ];
        write(Write::Bind {
            name: name(at),
            object: Object::Value { json: json.into() },
            attributes: attributes.into_iter().collect(),
        });
    }
    directory
}

/// Names, values and attributes, without anything that holds them.
fn text_bytes(directory: &Directory, count: usize) -> usize {
    let binding = directory.lookup(&name(count - 1)).expect("a binding");
    let attributes = binding.attributes.iter();
    let attributes: usize = attributes
        .map(|(id, values)| id.len() + values.map(str::len).sum::<usize>())
        .sum();
    let Object::Value { json } = &binding.object else {
        return 0;
    };
    count * (binding.name.as_str().len() + json.len() + attributes)
}

/// Resident memory in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<usize>().ok());
    1024 * kilobytes.unwrap_or_default()
}
