//! Proton for Python, a foreign AMQP client, in a virtual environment made once below the cargo target
//! directory.
//!
//! It installs into that directory only. Where it cannot be had the test says so and is skipped, or fails
//! where `CI=true`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::provision::{once, run, run_to_end};
use crate::tools::{skipped, tool};

/// The version all tests use.
const PACKAGE: &str = "python-qpid-proton==0.40.0";

/// A Python interpreter that can `import proton`, or `None` after saying that the test is skipped.
///
/// # Panics
/// When there is none and `CI=true`.
#[must_use]
pub fn python() -> Option<PathBuf> {
    let python3 = tool("python3")?;
    match provision(&python3) {
        Ok(python) => Some(python),
        Err(why) => {
            skipped(&format!("Proton for Python cannot be installed: {why}"));
            None
        }
    }
}

fn provision(python3: &Path) -> Result<PathBuf, String> {
    let interpreter = |venv: &Path| venv.join("bin").join("python");
    let venv = once("venv", PACKAGE, |venv| {
        run(Command::new(python3).args(["-m", "venv", "--clear"]).arg(venv))?;
        let pip = ["-m", "pip", "install", "--disable-pip-version-check", "--quiet"];
        run(Command::new(interpreter(venv)).args(pip).arg(PACKAGE))?;
        run(Command::new(interpreter(venv)).args(["-c", "import proton"]))
    })?;
    Ok(interpreter(&venv))
}

/// Runs a Python program with these arguments to its end.
///
/// # Panics
/// If it cannot be started, fails, or takes longer than `patience`: with all it wrote.
#[must_use]
pub fn run_script(python: &Path, script: &Path, arguments: &[&str], patience: Duration) -> String {
    let mut command = Command::new(python);
    command.arg(script).args(arguments);
    run_to_end(command, patience)
}
