//! Foreign programs that the tests fetch or build themselves, once, below the cargo target directory.
//!
//! Nothing outside that directory is touched. Invariant: what is there under a key is whole, and test programs
//! that want it at the same time wait for the first.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Where there is no ready-made package it is compiled, perhaps on a busy machine.
const PATIENCE: Duration = Duration::from_secs(600);

/// The directory `TARGET/test-NAME`, filled by `install` unless that was done before for the same `key`: the
/// text that says what is to be in it.
pub(crate) fn once(
    name: &str,
    key: &str,
    install: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<PathBuf, String> {
    let directory = target_directory()?.join(format!("test-{name}"));
    let lock = File::create(directory.with_extension("lock")).map_err(|e| e.to_string())?;
    lock.lock().map_err(|e| e.to_string())?;
    let ready = directory.join("ready");
    if std::fs::read_to_string(&ready).is_ok_and(|found| found == key) {
        return Ok(directory);
    }
    if directory.exists() {
        std::fs::remove_dir_all(&directory).map_err(|e| e.to_string())?;
    }
    std::fs::create_dir_all(&directory).map_err(|e| e.to_string())?;
    install(&directory)?;
    std::fs::write(&ready, key).map_err(|e| e.to_string())?;
    Ok(directory)
}

/// Test programs lie in `TARGET/PROFILE/deps`.
pub(crate) fn target_directory() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let target = program.ancestors().nth(3).map(Path::to_owned);
    target.ok_or_else(|| format!("{} lies in no cargo target directory", program.display()))
}

/// The text of a file.
pub(crate) fn text_of(file: &Path) -> Result<String, String> {
    std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

/// Runs to the end, within the patience, and gives the last lines of what it complained about if it failed.
pub(crate) fn run(command: &mut Command) -> Result<(), String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
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
        Some(status) => {
            let lines: Vec<_> = text.lines().collect();
            let tail = &lines[lines.len().saturating_sub(20)..];
            Err(format!("{status}: {}", tail.join("\n")))
        }
        None => Err(format!("not done after {PATIENCE:?}")),
    }
}

/// Runs a program to its end and gives what it printed.
///
/// # Panics
/// If it cannot be started, fails, or takes longer than `patience`: with all it wrote.
#[must_use]
pub fn run_to_end(mut command: Command, patience: Duration) -> String {
    let what = format!("{command:?}");
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{what} did not start: {error}"));
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
    assert!(
        !overdue,
        "{what} took longer than {patience:?}\n{stdout}\n{stderr}"
    );
    assert!(status.success(), "{what}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}
