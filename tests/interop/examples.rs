//! The programs in `examples/` do what they show, against the pair of brokers that the README starts.

use std::path::{Path, PathBuf};
use std::process::Command;

use daymark_test_support::java::Java;
use daymark_test_support::{proton, run_to_end};

use crate::pair::{Pair, wait};
use crate::stage::PATIENCE;

#[path = "../../examples/rust/send_receive.rs"]
#[allow(dead_code, reason = "its main is for people")]
mod send_receive;

#[test]
fn the_example_in_rust_sends_and_receives() {
    let pair = Pair::new("");
    let text = wait(send_receive::send_and_receive(&pair.stage.address)).expect("a message");
    assert_eq!(text, "stored before this returns");
}

#[test]
fn the_rust_program_in_the_readme_is_part_of_that_example() {
    let lines_of = |file: &str| {
        let text = std::fs::read_to_string(root().join(file)).expect("a file of the repository");
        text.lines()
            .map(|line| line.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let readme = lines_of("README.md");
    let from = readme.iter().position(|line| line.starts_with("let naming = "));
    let program = readme.iter().skip(from.expect("where the program begins"));
    let shown: Vec<_> = program.take_while(|line| !line.is_empty()).collect();
    assert!(shown.len() >= 5, "{shown:?}");
    let example = lines_of("examples/rust/send_receive.rs");
    let is_part = example
        .windows(shown.len())
        .any(|lines| lines.iter().eq(shown.iter().copied()));
    assert!(is_part, "README and example differ: {shown:?}");
}

#[test]
fn the_example_in_python_sends_and_receives() {
    let Some(python) = proton::python() else { return };
    let pair = Pair::new("");
    let script = root().join("examples/python/send_receive.py");
    let printed = proton::run_script(&python, &script, &[&pair.stage.address], PATIENCE);
    assert_eq!(printed, "received: hello from Python\n");
}

#[test]
fn the_example_in_java_sends_and_receives() {
    let Some(java) = Java::project("examples-java", &root().join("examples/java")) else {
        return;
    };
    let pair = Pair::new("");
    let ports = [&pair.one, &pair.two].map(|member| member.broker.port);
    let brokers = ports.map(|port| format!("amqp://127.0.0.1:{port}")).join(",");
    let mut command: Command = java.command("daymark.examples.SendReceive", &[]);
    command.env("BROKERS", brokers);
    assert_eq!(run_to_end(command, PATIENCE), "received: hello from Java\n");
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
