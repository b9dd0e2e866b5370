//! The conformance cases (`tests/data/conformance`) through each of the four ways to the directory: HTTP, RESP, the Rust
//! client and the command line, at real naming servers. The rules themselves run the same cases in `naming/core`.

#[path = "../../naming/core/tests/conformance/case.rs"]
mod case;
mod cli;
mod client;
mod http;
mod resp;
#[path = "../../naming/core/tests/conformance/words.rs"]
mod words;

use std::path::Path;

use daymark_test_support::Program;
use serde_json::{Map, Value};

use case::{Case, Scope, Step, compare};

/// One way to the directory.
trait Door {
    /// Carries one step out: the document of the answer, or of the error.
    fn ask(&mut self, verb: &str, args: &Map<String, Value>) -> Result<Value, Value>;
}

fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_daymark"))
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/conformance");
    let files = std::fs::read_dir(&folder).expect("the folder of cases");
    let mut paths: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    paths.sort();
    let texts = paths
        .iter()
        .map(|path| std::fs::read_to_string(path).expect("a readable file"));
    texts
        .flat_map(|text| {
            text.lines()
                .map(|line| serde_json::from_str(line).expect(line))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Every case through this door, one after the other, each in a corner of its own.
fn all(door: &mut dyn Door) {
    let mut failures = Vec::new();
    for (number, case) in cases().iter().enumerate() {
        let mut scope = Scope::new(&format!("corner-{number}"));
        // Operation ids are remembered by the server, which the cases share.
        for op in 1..=2 {
            scope
                .saved
                .insert(format!("op{op}"), format!("{number:030x}{op:02x}").into());
        }
        if let Err(failure) = run(door, case, &mut scope) {
            failures.push(format!("{}: {failure}", case.case));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn run(door: &mut dyn Door, case: &Case, scope: &mut Scope) -> Result<(), String> {
    let corner = Map::from_iter([("name".to_owned(), Value::from(scope.corner.clone()))]);
    door.ask("create-subcontext", &corner)
        .map_err(|error| format!("no corner: {error}"))?;
    for (at, step) in case.steps.iter().enumerate() {
        one(door, step, scope).map_err(|failure| format!("step {at}, {}: {failure}", step.verb))?;
    }
    Ok(())
}

fn one(door: &mut dyn Door, step: &Step, scope: &mut Scope) -> Result<(), String> {
    let args = scope.filled(&Value::Object(step.args.clone()));
    let answer = door.ask(&step.verb, args.as_object().expect("arguments"));
    match (answer, &step.expect, &step.error) {
        (Ok(answer), Some(expected), None) => {
            compare(&answer, &scope.filled(expected), "")?;
            for (name, pointer) in &step.save {
                let value = answer
                    .pointer(pointer)
                    .ok_or_else(|| format!("no {pointer} in {answer}"))?;
                scope.saved.insert(name.clone(), value.clone());
            }
            Ok(())
        }
        (Err(error), None, Some(expected)) => compare(&error, &scope.filled(expected), "error"),
        (Ok(answer), ..) => Err(format!("answered instead of refused: {answer}")),
        (Err(error), ..) => Err(format!("refused: {error}")),
    }
}

#[test]
fn every_case_goes_the_same_way_over_http() {
    let program = program();
    let (_naming, address) = program.naming("naming");
    all(&mut http::Http { address });
}

#[test]
fn every_case_goes_the_same_way_over_resp() {
    let program = program();
    let (_naming, address) = program.naming("naming");
    all(&mut resp::Resp::connect(&address));
}

#[test]
fn every_case_goes_the_same_way_through_the_rust_client() {
    let program = program();
    let (_naming, address) = program.naming("naming");
    all(&mut client::Client::of(&address));
}

#[test]
fn every_case_goes_the_same_way_on_the_command_line() {
    let program = program();
    let (_naming, address) = program.naming("naming");
    let mut door = cli::CommandLine::of(&program, &address);
    all(&mut door);
    door.has_used_its_own_verbs();
}
