//! Go programs, built once below the cargo target directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::provision::{once, run, target_directory, text_of};
use crate::tools::{skipped, tool};

/// The program built from `main.go`, `go.mod` and `go.sum` in this directory; `None` after saying that the test
/// is skipped.
///
/// # Panics
/// When it cannot be had and `CI=true`.
#[must_use]
pub fn program(name: &str, directory: &Path) -> Option<PathBuf> {
    let go = tool("go")?;
    match build(name, &go, directory) {
        Ok(program) => Some(program),
        Err(why) => {
            skipped(&format!("{} cannot be built: {why}", directory.display()));
            None
        }
    }
}

fn build(name: &str, go: &Path, source: &Path) -> Result<PathBuf, String> {
    let modules = target_directory()?.join("test-go-modules");
    let cache = target_directory()?.join("test-go-cache");
    let mut key = String::new();
    for file in ["main.go", "go.mod", "go.sum"] {
        key.push_str(&text_of(&source.join(file))?);
    }
    let directory = once(&format!("go-{name}"), &key, |directory| {
        let mut command = Command::new(go);
        command
            .args(["build", "-modcacherw", "-buildvcs=false", "-o"])
            .arg(directory.join(name))
            .arg(".")
            .current_dir(source)
            .env("GOMODCACHE", modules)
            .env("GOCACHE", cache)
            .env("GOTOOLCHAIN", "local");
        run(&mut command)
    })?;
    Ok(directory.join(name))
}
