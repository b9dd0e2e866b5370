//! Go programs, built once below the cargo target directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::provision::{once, run, target_directory, text_of};
use crate::tools::{skipped, tool};

/// The program built from `main.go`, `go.mod` and `go.sum` in this directory; `None` after saying that the test
/// is skipped.
///
/// # Panics
/// When Go or a module cannot be had and `CI=true`, or when it does not compile.
#[must_use]
pub fn program(name: &str, directory: &Path) -> Option<PathBuf> {
    let go = tool("go")?;
    if let Err(why) = fetch(name, &go, directory) {
        skipped(&format!("the modules of {name} cannot be fetched: {why}"));
        return None;
    }
    let program = compile(name, &go, directory)
        .unwrap_or_else(|why| panic!("{} does not compile: {why}", directory.display()));
    Some(program)
}

/// Everything the program depends on, in the module cache.
fn fetch(name: &str, go: &Path, source: &Path) -> Result<PathBuf, String> {
    let key = text_of(&source.join("go.mod"))? + &text_of(&source.join("go.sum"))?;
    once(&format!("go-{name}-modules"), &key, |_| {
        run(go_command(go, source)?.args(["mod", "download"]))
    })
}

fn compile(name: &str, go: &Path, source: &Path) -> Result<PathBuf, String> {
    let mut key = String::new();
    for file in ["main.go", "go.mod", "go.sum"] {
        key.push_str(&text_of(&source.join(file))?);
    }
    let directory = once(&format!("go-{name}"), &key, |directory| {
        let mut command = go_command(go, source)?;
        command.args(["build", "-buildvcs=false", "-o"]);
        run(command.arg(directory.join(name)).arg("."))
    })?;
    Ok(directory.join(name))
}

/// Go with its caches below the cargo target directory, in the directory of the program.
fn go_command(go: &Path, source: &Path) -> Result<Command, String> {
    let target = target_directory()?;
    let mut command = Command::new(go);
    command
        .current_dir(source)
        .env("GOMODCACHE", target.join("test-go-modules"))
        .env("GOCACHE", target.join("test-go-cache"))
        .env("GOTOOLCHAIN", "local")
        // What a program needs is said by its files alone.
        .env("GOFLAGS", "-mod=readonly -modcacherw");
    Ok(command)
}
