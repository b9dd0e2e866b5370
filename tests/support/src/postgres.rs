//! A PostgreSQL server of the test's own, from the packages of the system: fresh, durable, with a password.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::deadline::eventually;
use crate::process::Process;
use crate::tools::skipped;
use crate::{free_port, run_tool};

/// Where Debian keeps the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// How long the server may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);
/// The system's user that the server runs as where the test is root, whom it refuses.
const USER: &str = "postgres";
const PASSWORD: &str = "a-word-nobody-shows";

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct Postgres {
    server: Option<Process>,
    programs: PathBuf,
    directory: TempDir,
    port: u16,
}

impl Postgres {
    /// Makes a database cluster and starts its server, on a free port of 127.0.0.1. `None` after saying that
    /// the test is skipped, where PostgreSQL is not installed.
    ///
    /// # Panics
    /// When it does not start; when it is not installed and `CI=true`.
    #[must_use]
    pub fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            skipped("the PostgreSQL server is not installed (.ci/run installs it)");
            return None;
        };
        let directory = TempDir::with_prefix("daymark-postgres-").expect("a temporary directory");
        let mut postgres = Self {
            server: None,
            programs,
            directory,
            port: free_port(),
        };
        postgres.initialise();
        postgres.resume();
        Some(postgres)
    }

    fn initialise(&self) {
        let word = self.directory.path().join("password");
        fs::write(&word, PASSWORD).expect("a file");
        if let Some((uid, gid)) = other_user() {
            for path in [self.directory.path(), &word] {
                chown(path, Some(uid), Some(gid)).expect("a directory to give away");
            }
        }
        let mut arguments = lowered();
        arguments.push(self.programs.join("initdb").display().to_string());
        let options = [
            "--no-sync",
            "--no-locale",
            "--encoding=UTF8",
            "--username=daymark",
        ];
        arguments.extend(options.map(str::to_owned));
        arguments.extend([
            "--auth=scram-sha-256".to_owned(),
            format!("--pwfile={}", word.display()),
        ]);
        arguments.push(format!("--pgdata={}", self.data().display()));
        let output = Command::new("setpriv")
            .args(&arguments)
            .current_dir(self.directory.path())
            .output()
            .expect("initdb");
        assert!(output.status.success(), "{output:?}");
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Starts the server on the same data and the same port.
    ///
    /// # Panics
    /// When it does not answer in time.
    pub fn resume(&mut self) {
        let mut arguments = lowered();
        arguments.push(self.programs.join("postgres").display().to_string());
        arguments.extend(["-D".to_owned(), self.data().display().to_string()]);
        arguments.extend(["-k".to_owned(), self.directory.path().display().to_string()]);
        arguments.extend(["-h".to_owned(), "127.0.0.1".to_owned()]);
        arguments.extend(["-p".to_owned(), self.port.to_string()]);
        let server = Process::start(Path::new("setpriv"), &arguments, self.directory.path(), &[]);
        self.server = Some(server);
        let ready = self.programs.join("pg_isready");
        let port = self.port.to_string();
        eventually(PATIENCE, "PostgreSQL answers", || {
            run_tool(&ready, &["-h", "127.0.0.1", "-p", &port, "-q"]).code == Some(0)
        });
    }

    /// Stops the server in an orderly way: sessions are ended, data stays.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.interrupt();
            let _ = server.ended(PATIENCE);
        }
    }

    /// Kills the server's first process; the others notice and end.
    pub fn kill_9(&mut self) {
        if let Some(mut server) = self.server.take() {
            server.kill_9();
        }
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A store URL with this schema.
    #[must_use]
    pub fn url(&self, schema: &str) -> String {
        self.url_at(self.port, schema)
    }

    /// The same by way of another port of 127.0.0.1, for a relay.
    #[must_use]
    pub fn url_at(&self, port: u16, schema: &str) -> String {
        format!("postgres://daymark:{PASSWORD}@127.0.0.1:{port}/postgres?schema={schema}")
    }

    /// The password, to look for where it must not be.
    #[must_use]
    pub const fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Runs a statement and returns what it shows, unaligned and without headings.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    pub fn sql(&self, statement: &str) -> String {
        let output = Command::new(self.programs.join("psql"))
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args([
                "-U", "daymark", "-d", "postgres", "-X", "-q", "-t", "-A", "-c", statement,
            ])
            .env("PGPASSWORD", PASSWORD)
            .output()
            .expect("psql");
        assert!(output.status.success(), "{statement}: {output:?}");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

/// The programs of the newest version that is installed.
fn programs() -> Option<PathBuf> {
    let versions = fs::read_dir(VERSIONS).ok()?.filter_map(Result::ok);
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            let programs = entry.path().join("bin");
            programs.join("initdb").is_file().then_some((version, programs))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, programs)| programs)
}

/// Whom to run as, where the test is root.
fn other_user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let id = |what| {
        let ran = run_tool(Path::new("id"), &[what, USER]);
        ran.stdout
            .trim()
            .parse()
            .expect("the user postgres of the package")
    };
    Some((id("-u"), id("-g")))
}

/// The arguments of `setpriv` before those of a program: it ends with the test, and is not root.
fn lowered() -> Vec<String> {
    let mut arguments = vec!["--pdeathsig=INT".to_owned()];
    if let Some((uid, gid)) = other_user() {
        arguments.extend([
            format!("--reuid={uid}"),
            format!("--regid={gid}"),
            "--clear-groups".to_owned(),
        ]);
    }
    arguments
}
