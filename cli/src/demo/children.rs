//! The processes of the demo. Each is this executable again, in a process group of its own (so that Ctrl-C
//! reaches the demo alone), with its standard input held by the demo (so that it ends when the demo is gone,
//! however that happened) and its log in a file.
//!
//! Invariant: no child outlives its `Child`.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout, Command};

use super::DemoError;

/// How to run `daymark`: the executable and what comes before the verb.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The executable.
    pub exe: PathBuf,
    /// Arguments before the verb; none for `daymark` itself.
    pub prefix: Vec<OsString>,
}

impl Launch {
    /// This executable, which is `daymark`.
    ///
    /// # Errors
    /// What the system says when it does not know where the executable is.
    pub fn current() -> io::Result<Self> {
        Ok(Self {
            exe: std::env::current_exe()?,
            prefix: Vec::new(),
        })
    }
}

/// A running process that has said where it listens.
pub(super) struct Child {
    /// What it is, for people.
    pub(super) what: String,
    /// Where it said it listens: `HOST:PORT`.
    pub(super) address: String,
    process: tokio::process::Child,
    log: PathBuf,
    /// Held open while the child may live.
    _stdin: Option<ChildStdin>,
    /// Held open so that the child can go on writing.
    _stdout: BufReader<ChildStdout>,
}

/// How long a process may take to say where it listens.
const START_TIMEOUT: Duration = Duration::from_secs(10);

impl Child {
    /// Starts a process and waits until it prints `ANNOUNCEMENT HOST:PORT`.
    pub(super) async fn start(
        launch: &Launch,
        what: String,
        arguments: Vec<OsString>,
        announcement: &str,
        log: PathBuf,
    ) -> Result<Self, DemoError> {
        let failed = |why: String| DemoError::Start {
            what: what.clone(),
            why,
            log: tail(&log),
        };
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .map_err(|e| failed(e.to_string()))?;
        let mut process = Command::new(&launch.exe)
            .args(&launch.prefix)
            .args(arguments)
            .arg("--exit-with-parent")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let stdin = process.stdin.take();
        let stdout = process
            .stdout
            .take()
            .ok_or_else(|| failed("it has no standard output".into()))?;
        let mut stdout = BufReader::new(stdout);
        let address = tokio::time::timeout(START_TIMEOUT, announced(&mut stdout, announcement))
            .await
            .map_err(|_| {
                failed(format!(
                    "it did not say `{announcement}` within {START_TIMEOUT:?}"
                ))
            })?
            .map_err(&failed)?;
        Ok(Self {
            what,
            address,
            process,
            log,
            _stdin: stdin,
            _stdout: stdout,
        })
    }

    /// Ends it with SIGKILL and waits until it is gone. Returns when the signal was sent.
    pub(super) async fn kill(&mut self) -> io::Result<SystemTime> {
        let at = SystemTime::now();
        self.process.start_kill()?;
        self.process.wait().await?;
        Ok(at)
    }

    /// Waits until it ends by itself, which none of the demo's processes should.
    pub(super) async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.process.wait().await
    }

    /// The end of its log.
    pub(super) fn tail(&self) -> String {
        tail(&self.log)
    }
}

async fn announced(stdout: &mut BufReader<ChildStdout>, announcement: &str) -> Result<String, String> {
    let mut line = String::new();
    loop {
        line.clear();
        match stdout.read_line(&mut line).await {
            Ok(0) => return Err("it ended".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(error.to_string()),
        }
        if let Some(address) = line
            .trim_end()
            .strip_prefix(announcement)
            .and_then(|l| l.strip_prefix(' '))
        {
            return Ok(address.to_owned());
        }
    }
}

/// How many lines of a log are worth showing.
const TAIL_LINES: usize = 20;

fn tail(log: &Path) -> String {
    let text = std::fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let text = text.unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
}
