//! Proton for Python, a foreign AMQP client, in a virtual environment made once below the cargo target
//! directory.
//!
//! It installs into that directory only. Where it cannot be had the test says so and is skipped, or fails
//! where `CI=true`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::tools::{skipped, tool};

/// The version all tests use.
const PACKAGE: &str = "python-qpid-proton==0.40.0";
/// Where there is no ready-made package it is compiled.
const PATIENCE: Duration = Duration::from_secs(600);

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
    let target = target_directory()?;
    let lock = File::create(target.join("test-venv.lock")).map_err(|e| e.to_string())?;
    // Other test programs wait here while the first one installs.
    lock.lock().map_err(|e| e.to_string())?;
    let venv = target.join("test-venv");
    let python = venv.join("bin").join("python");
    let ready = venv.join(format!("ready-{PACKAGE}"));
    if !ready.exists() {
        run(Command::new(python3).args(["-m", "venv", "--clear"]).arg(&venv))?;
        let pip = [
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--quiet",
            PACKAGE,
        ];
        run(Command::new(&python).args(pip))?;
        run(Command::new(&python).args(["-c", "import proton"]))?;
        File::create(&ready).map_err(|e| e.to_string())?;
    }
    Ok(python)
}

/// Test programs lie in `TARGET/PROFILE/deps`.
fn target_directory() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let target = program.ancestors().nth(3).map(Path::to_owned);
    target.ok_or_else(|| format!("{} lies in no cargo target directory", program.display()))
}

/// Runs to the end, within the patience, and gives the last line of what it complained about if it failed.
fn run(command: &mut Command) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    // Read aside, so that a talkative program is not held up by a full pipe.
    let complaints = child.stderr.take().map(|mut stderr| {
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = std::io::Read::read_to_string(&mut stderr, &mut text);
            text
        })
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().map_err(|e| e.to_string())? {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    let text = complaints
        .and_then(|thread| thread.join().ok())
        .unwrap_or_default();
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(format!("{status}: {}", text.lines().last().unwrap_or_default())),
        None => Err(format!("not done after {PATIENCE:?}")),
    }
}

/// Runs a Python program with these arguments to its end.
///
/// # Panics
/// If it cannot be started, fails, or takes longer than `patience`: with all it wrote.
#[must_use]
pub fn run_script(python: &Path, script: &Path, arguments: &[&str], patience: Duration) -> String {
    let child = Command::new(python)
        .arg(script)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{} did not start: {error}", python.display()));
    let (done, finished) = std::sync::mpsc::channel::<()>();
    let pid = rustix::process::Pid::from_child(&child);
    let guard = std::thread::spawn(move || {
        let overdue = finished.recv_timeout(patience) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
        if overdue {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        overdue
    });
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("the output of a child");
    drop(done);
    let overdue = guard.join().expect("the guard only waits");
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    let what = format!("{} {arguments:?}", script.display());
    assert!(
        !overdue,
        "{what} took longer than {patience:?}\n{stdout}\n{stderr}"
    );
    assert!(status.success(), "{what}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}
