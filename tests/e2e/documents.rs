//! What the documents say is so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use daymark_broker_server::{CLIENT_CODES, Config, EVENT_CODES};
use serde_json::Value;

use crate::stage::program;

type Arrows = BTreeMap<String, BTreeSet<String>>;

/// Crates that may see everything: only what they are allowed to hide from others is in the list.
const SEES_EVERYTHING: &str = "tests/support";

#[test]
fn the_arrows_drawn_are_the_arrows_there_are() {
    assert_eq!(drawn(), built());
}

#[test]
fn the_settings_documented_are_read_and_are_the_defaults() {
    let text = std::fs::read_to_string(root().join("docs/broker.md")).expect("docs/broker.md");
    let after = text.split_once("```toml\n").expect("where the settings begin").1;
    let settings = after.split_once("```").expect("where they end").0;
    let program = program();
    let file = program.file("broker.toml", settings);
    let documented = Config::read(&file).expect("settings that can be used");
    let default = Config::default();
    assert_eq!(documented.failover, default.failover);
    assert_eq!(documented.messaging, default.messaging);
    assert_eq!(documented.factories, default.factories);
    assert_eq!(documented.drain_timeout, default.drain_timeout);
    assert_eq!(documented.journal.segment_bytes, default.journal.segment_bytes);
    assert_eq!(documented.journal.preallocate, default.journal.preallocate);
}

/// The rows of a table in `docs/failover.md`, each as its cells.
fn failover_table(name: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join("docs/failover.md")).expect("docs/failover.md");
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let after = text.split_once(&begin).expect("where the table begins").1;
    let table = after.split_once(&end).expect("where it ends").0;
    let cells = |line: &str| {
        let cells = line.trim().trim_matches('|').split(" | ");
        cells
            .map(|cell| cell.trim().trim_matches('`').to_owned())
            .collect()
    };
    table.trim().lines().skip(2).map(cells).collect()
}

#[test]
fn every_setting_of_failover_is_documented_with_its_default() {
    let table = failover_table("settings");
    let lines = table.iter().map(|row| format!("{} = {}\n", row[0], row[1]));
    let program = program();
    let file = program.file(
        "broker.toml",
        &format!("[failover]\n{}", lines.collect::<String>()),
    );
    let documented = Config::read(&file).expect("settings that can be used");
    let default = Config::default();
    assert_eq!(documented.failover, default.failover);
    assert_eq!(documented.active_transport, default.active_transport);
    assert_eq!(documented.switchover_drain, default.switchover_drain);
    // Whoever writes an unknown key is told every key there is.
    let file = program.file("unknown.toml", "[failover]\nunknown = 1\n");
    let refused = Config::read(&file).expect_err("an unknown key").to_string();
    let expected = refused
        .split_once("expected one of")
        .expect("the keys there are")
        .1;
    let keys: BTreeSet<&str> = expected.split('`').skip(1).step_by(2).collect();
    let rows: BTreeSet<&str> = table.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(rows, keys);
}

#[test]
fn every_event_code_is_documented() {
    let table = failover_table("events");
    let rows: BTreeSet<&str> = table.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(rows, EVENT_CODES.into_iter().chain(CLIENT_CODES).collect());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the workspace")
        .to_owned()
}

fn drawn() -> Arrows {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    let after = text
        .split_once("<!-- arrows -->")
        .expect("where the arrows begin")
        .1;
    let list = after.split_once("<!-- /arrows -->").expect("where they end").0;
    let arrow = |line: &str| {
        let (from, to) = line
            .strip_prefix("- ")
            .and_then(|line| line.split_once(" -> "))
            .expect("an arrow");
        (from.to_owned(), to.split(", ").map(str::to_owned).collect())
    };
    list.trim().lines().map(arrow).collect()
}

/// What depends on what in the manifests, development dependencies left out.
fn built() -> Arrows {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .current_dir(root())
        .output()
        .expect("cargo metadata");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("its JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let arrows = packages.iter().map(|package| {
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        (
            path_of(manifest.parent().expect("a directory")),
            dependencies(package),
        )
    });
    arrows
        .filter(|(from, to)| from != SEES_EVERYTHING && !to.is_empty())
        .collect()
}

fn dependencies(package: &Value) -> BTreeSet<String> {
    let dependencies = package["dependencies"].as_array().expect("dependencies");
    dependencies
        .iter()
        .filter(|dependency| dependency["kind"].is_null())
        .filter_map(|dependency| dependency["path"].as_str())
        .map(|path| path_of(Path::new(path)))
        .collect()
}

fn path_of(directory: &Path) -> String {
    directory
        .strip_prefix(root())
        .expect("inside the workspace")
        .display()
        .to_string()
}
