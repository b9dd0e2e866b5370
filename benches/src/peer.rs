//! The processes of a bench: peers and our own, each ended when it is dropped or the bench ends, and what they cost.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Outcome, other};

const START: Duration = Duration::from_secs(60);

/// A running peer.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    /// Where it answers.
    pub address: String,
}

impl Drop for Peer {
    /// Asks it to end, because some have processes of their own to end first; insists after a while.
    fn drop(&mut self) {
        const POLITE: Duration = Duration::from_secs(5);
        if self.is_running() {
            self.signal(Signal::TERM);
        }
        let end = Instant::now() + POLITE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Peer {
    /// Starts a program and waits until its port is open.
    ///
    /// # Errors
    /// That it is not installed, ends, or does not listen within a minute.
    pub fn start(command: Command, port: u16) -> Outcome<Self> {
        Self::start_at(command, &format!("127.0.0.1:{port}"))
    }

    /// The same with a port on any address.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_at(command: Command, address: &str) -> Outcome<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let mut peer = Self::spawn(&command, address)?;
        let end = Instant::now() + START;
        while std::net::TcpStream::connect(&peer.address).is_err() {
            if let Some(status) = peer.child.try_wait()? {
                let why = match status.code() {
                    Some(127) => "is not installed".to_owned(),
                    Some(_) | None => format!("ended: {status}"),
                };
                return Err(other(format!("{name} {why}")).into());
            }
            if Instant::now() > end {
                return Err(other(format!("{name} does not listen")).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(peer)
    }

    /// Starts a program that will answer at this address some day.
    ///
    /// # Errors
    /// That the system cannot start it.
    pub fn spawn(command: &Command, address: &str) -> Outcome<Self> {
        let child = ending_with_us(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            child,
            address: address.to_owned(),
        })
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends it a signal. One that is gone needs none.
    pub fn signal(&self, signal: Signal) {
        let _ = kill_process(Pid::from_child(&self.child), signal);
    }

    /// Waits until it has ended.
    pub fn wait(&mut self) {
        let _ = self.child.wait();
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its port, as text.
    #[must_use]
    pub fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap_or_default()
    }
}

/// One of our own processes, which says `listening ADDRESS`: `daymark naming`, or a floor.
///
/// # Errors
/// That it does not say so.
pub fn own(arguments: &[&str]) -> Outcome<Peer> {
    use std::io::BufRead;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    let mut child = ending_with_us(&command)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let stdout = child.stdout.take().ok_or_else(|| other("no standard output"))?;
    let mut peer = Peer {
        child,
        address: String::new(),
    };
    let mut lines = std::io::BufReader::new(stdout);
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        if let Some(address) = line.trim_end().strip_prefix("listening ") {
            address.clone_into(&mut peer.address);
            std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
            return Ok(peer);
        }
        line.clear();
    }
    Err(other(format!("{arguments:?} ended without listening")).into())
}

/// The same command, killed by the system when the thread that started it ends, in whatever way and in whatever state it
/// is: a frozen process, or one whose parent was killed, ends too. Streams are the caller's to set.
#[must_use]
pub fn ending_with_us(command: &Command) -> Command {
    let mut ours = Command::new("setpriv");
    ours.args(["--pdeathsig", "KILL"])
        .arg(command.get_program())
        .args(command.get_args());
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => ours.env(key, value),
            None => ours.env_remove(key),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        ours.current_dir(directory);
    }
    ours
}

/// What a process holds in memory, in bytes.
///
/// # Errors
/// That there is no such process.
pub fn resident(id: u32) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: u64 = line
        .and_then(|line| line.trim().strip_suffix(" kB"))
        .and_then(|kib| kib.trim().parse().ok())
        .ok_or_else(|| other("no VmRSS"))?;
    Ok(kib * 1024)
}

/// The processor time that a process has taken, in seconds: its own, in user and kernel mode.
///
/// # Errors
/// That there is no such process.
pub fn processor_time(id: u32) -> Outcome<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name of the program, in brackets, may contain anything; what is counted comes behind it.
    let behind = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = behind
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(str::parse::<u64>)
        .sum::<Result<_, _>>()?;
    Ok(ticks as f64 / rustix::param::clock_ticks_per_second() as f64)
}
