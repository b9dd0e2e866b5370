//! The program under test, and the processes it is made of.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;

/// The executable, and a directory for everything it writes.
#[derive(Debug)]
pub struct Program {
    exe: PathBuf,
    directory: TempDir,
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// Everything on standard output.
    pub stdout: String,
    /// Everything on standard error.
    pub stderr: String,
}

/// How long a server may take to say where it listens.
const START: Duration = Duration::from_secs(20);
/// How long a command may take.
const RUN: Duration = Duration::from_secs(120);

impl Program {
    /// This executable, with a fresh directory.
    ///
    /// # Panics
    /// When there is no place for temporary files.
    #[must_use]
    pub fn new(exe: impl Into<PathBuf>) -> Self {
        let directory = TempDir::with_prefix("daymark-test-").expect("a temporary directory");
        Self {
            exe: exe.into(),
            directory,
        }
    }

    /// A path in the directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file into the directory and returns its path.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        path
    }

    /// Runs a command to its end, in the directory, without the environment's provider list.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[])
    }

    /// The same with these environment variables.
    ///
    /// # Panics
    /// When it does not end within two minutes.
    #[track_caller]
    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Ran {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let mut process = Process::start(&self.exe, &arguments, self.directory.path(), environment);
        let mut stdout = String::new();
        // Standard output ends with the process.
        while let Some(line) = process.line(RUN) {
            stdout.push_str(&line);
            stdout.push('\n');
        }
        let code = process.ended(RUN).code();
        Ran {
            code,
            stdout,
            stderr: process.whole_log(),
        }
    }

    /// Starts a command without waiting for it.
    #[must_use]
    pub fn start(&self, arguments: &[&str]) -> Process {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Process::start(&self.exe, &arguments, self.directory.path(), &[])
    }

    /// Starts a naming server with its data in `data`; `listen` is `HOST:PORT`. Returns it with its address.
    #[track_caller]
    pub fn naming_at(&self, listen: &str, data: &str) -> (Process, String) {
        let data = self.path(data).display().to_string();
        let mut process = self.start(&[
            "naming",
            "--listen",
            listen,
            "--data",
            &data,
            "--exit-with-parent",
        ]);
        let address = process.announced("listening", START);
        (process, address)
    }

    /// The same on a free port.
    #[track_caller]
    pub fn naming(&self, data: &str) -> (Process, String) {
        self.naming_at("127.0.0.1:0", data)
    }

    /// Starts a broker.
    #[track_caller]
    pub fn broker(&self, broker: &Broker) -> (Process, String) {
        self.broker_with(broker, &[])
    }

    /// Starts a broker with these environment variables.
    #[track_caller]
    pub fn broker_with(&self, broker: &Broker, environment: &[(&str, &str)]) -> (Process, String) {
        let mut process = Process::start(&self.exe, &broker.arguments(), self.directory.path(), environment);
        let admin = process.announced("admin", START);
        (process, admin)
    }
}

/// How to start a broker.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Its name.
    pub name: String,
    /// `primary` or `backup`.
    pub role: String,
    /// Its group.
    pub group: String,
    /// Its store's directory.
    pub store: PathBuf,
    /// The provider list.
    pub naming: String,
    /// Its messaging port on 127.0.0.1.
    pub port: u16,
    /// Its configuration file.
    pub config: Option<PathBuf>,
}

impl Broker {
    fn arguments(&self) -> Vec<String> {
        let mut arguments: Vec<String> = ["broker", "--name", &self.name, "--role", &self.role]
            .into_iter()
            .chain([
                "--group",
                &self.group,
                "--naming",
                &self.naming,
                "--exit-with-parent",
            ])
            .map(str::to_owned)
            .collect();
        arguments.extend(["--store".to_owned(), format!("journal:{}", self.store.display())]);
        arguments.extend(["--listen".to_owned(), format!("127.0.0.1:{}", self.port)]);
        arguments.extend(["--admin".to_owned(), "127.0.0.1:0".to_owned()]);
        if let Some(config) = &self.config {
            arguments.extend(["--config".to_owned(), config.display().to_string()]);
        }
        arguments
    }
}

impl Ran {
    /// Every line of standard output as JSON.
    ///
    /// # Panics
    /// With everything it said, when a line is no JSON document.
    #[track_caller]
    #[must_use]
    pub fn json_lines(&self) -> Vec<Value> {
        let read =
            |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line:?}: {self:?}"));
        self.stdout.lines().map(read).collect()
    }

    /// The one JSON document on standard output.
    ///
    /// # Panics
    /// When there is not exactly one.
    #[track_caller]
    #[must_use]
    pub fn json(&self) -> Value {
        let mut lines = self.json_lines();
        assert_eq!(lines.len(), 1, "{self:?}");
        lines.remove(0)
    }

    /// The same, if it succeeded.
    ///
    /// # Panics
    /// With everything it said, when it did not.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }
}

/// Runs a foreign program to its end.
///
/// # Panics
/// When the system cannot start it.
#[must_use]
pub fn run_tool(tool: &Path, arguments: &[&str]) -> Ran {
    let output = Command::new(tool)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("{}: {error}", tool.display()));
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
