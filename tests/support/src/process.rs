//! One process of the program under test: what it announced, what it logs, and the signals it gets.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::deadline::{eventually, eventually_some};

/// A running process. It ends when this is dropped, and also when the whole test is killed: its standard input
/// ends then.
#[derive(Debug)]
pub struct Process {
    child: Child,
    lines: Receiver<String>,
    log: Arc<Mutex<String>>,
    collector: Option<JoinHandle<()>>,
    _stdin: Option<ChildStdin>,
}

/// How long a busy machine may take to stop a process.
const FREEZES_WITHIN: Duration = Duration::from_secs(30);

/// How much of a log is kept.
const LOG_BYTES_MAX: usize = 1 << 20;

impl Process {
    /// Starts `exe arguments...` in `directory`, which also takes its temporary files, with these environment
    /// variables.
    ///
    /// # Panics
    /// When the system cannot start it.
    #[must_use]
    pub fn start(exe: &Path, arguments: &[String], directory: &Path, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(exe)
            .args(arguments)
            .env_remove("DAYMARK_PROVIDER_URL")
            .env_remove("DAYMARK_LOG")
            .env("TMPDIR", directory)
            .envs(environment.iter().copied())
            .current_dir(directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", exe.display()));
        let stdin = child.stdin.take();
        let lines = lines_of(child.stdout.take().expect("standard output"));
        let (log, collector) = collect(child.stderr.take().expect("standard error"));
        Self {
            child,
            lines,
            log,
            collector: Some(collector),
            _stdin: stdin,
        }
    }

    /// The next line on standard output that begins with this word, without the word.
    ///
    /// # Panics
    /// With its log, when there is no such line within `limit`.
    #[track_caller]
    pub fn announced(&mut self, word: &str, limit: Duration) -> String {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!(
                    "no line `{word} ...` within {limit:?}; it logged:\n{}",
                    self.log()
                );
            };
            if let Some(rest) = line.strip_prefix(word).and_then(|rest| rest.strip_prefix(' ')) {
                return rest.to_owned();
            }
        }
    }

    /// The next line on standard output; `None` when there is none within `limit`.
    pub fn line(&mut self, limit: Duration) -> Option<String> {
        self.lines.recv_timeout(limit).ok()
    }

    /// Everything it wrote to standard error so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything it ever wrote to standard error: waits until it has closed it.
    #[must_use]
    pub fn whole_log(&mut self) -> String {
        if let Some(collector) = self.collector.take() {
            let _ = collector.join();
        }
        self.log()
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill_9(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// SIGSTOP: it is frozen when this returns. The signal alone leaves its threads some time to answer whom they
    /// serve.
    ///
    /// # Panics
    /// When a thread of it runs for another 30 s.
    #[track_caller]
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let id = self.child.id();
        eventually(FREEZES_WITHIN, "every thread is stopped", || is_stopped(id));
    }

    /// SIGCONT: it goes on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM: it is asked to stop.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// SIGINT, as from Ctrl-C.
    pub fn interrupt(&self) {
        self.signal(Signal::INT);
    }

    /// Whether it runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it runs longer than `limit`.
    #[track_caller]
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        let child = &mut self.child;
        let what = "the process has ended";
        eventually_some(limit, what, || {
            child.try_wait().expect("a child that can be waited for")
        })
    }

    /// A process that is gone already needs no signal.
    fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            self.kill_9();
        }
    }
}

/// Whether none of the threads of a process runs.
fn is_stopped(process: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{process}/task"));
    let mut threads = threads.into_iter().flatten().flatten();
    threads.all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat"));
        // The state follows the name, which stands in parentheses and may hold some. A thread that is gone has none.
        stat.map_or(true, |stat| {
            let (_, state) = stat.rsplit_once(") ").unwrap_or_default();
            state.starts_with(['T', 't', 'Z', 'X'])
        })
    })
}

fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

fn collect(output: impl Read + Send + 'static) -> (Arc<Mutex<String>>, JoinHandle<()>) {
    let log = Arc::new(Mutex::new(String::new()));
    let kept = Arc::clone(&log);
    let collector = std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let mut log = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if log.len() < LOG_BYTES_MAX {
                log.push_str(&line);
                log.push('\n');
            }
        }
    });
    (log, collector)
}
