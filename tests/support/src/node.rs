//! Node programs with packages from npm, installed once below the cargo target directory.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::provision::{once, run, text_of};
use crate::tools::{skipped, tool};

/// Node, and a copy of `script` that has the packages which `package.json` and `package-lock.json` beside it name;
/// `None` after saying that the test is skipped.
///
/// # Panics
/// When it cannot be had and `CI=true`.
#[must_use]
pub fn script(script: &Path) -> Option<(PathBuf, PathBuf)> {
    let (node, npm) = (tool("node")?, tool("npm")?);
    match install(&npm, script) {
        Ok(copy) => Some((node, copy)),
        Err(why) => {
            skipped(&format!(
                "the packages of {} cannot be installed: {why}",
                script.display()
            ));
            None
        }
    }
}

/// Packages are looked for beside the script, so it is run from a copy beside them.
fn install(npm: &Path, script: &Path) -> Result<PathBuf, String> {
    let source = script.parent().ok_or("a script lies in a directory")?;
    let files = ["package.json", "package-lock.json"];
    let name = script.file_name().ok_or("a script is a file")?;
    let stem = script.file_stem().ok_or("a script has a name")?.display();
    let mut key = text_of(script)?;
    for file in files {
        key.push_str(&text_of(&source.join(file))?);
    }
    let directory = once(&format!("node-{stem}"), &key, |directory| {
        for file in files.iter().map(Path::new).chain([Path::new(name)]) {
            std::fs::copy(source.join(file), directory.join(file)).map_err(|e| e.to_string())?;
        }
        let quiet = ["ci", "--no-audit", "--no-fund", "--loglevel=error"];
        let cache = directory.join("cache");
        run(Command::new(npm)
            .args(quiet)
            .arg("--cache")
            .arg(&cache)
            .current_dir(directory))
    })?;
    Ok(directory.join(name))
}
