//! Two hosts on one network, as network namespaces joined by a cable: nothing leaves them.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::process::Process;
use crate::program::Ran;
use crate::run_tool;
use crate::tools::{skipped, tool};

/// How long the cable may take to carry its first packet.
const READY: Duration = Duration::from_secs(20);

/// Two namespaces, each with one interface. They go when this is dropped.
#[derive(Debug)]
pub struct Hosts {
    ip: PathBuf,
    names: [String; 2],
    cable: Option<Cable>,
}

/// A cable that loses and delays packets: a program in a namespace of its own that passes on the rest.
#[derive(Debug)]
struct Cable {
    namespace: String,
    process: Option<Process>,
    directory: TempDir,
    python: PathBuf,
    /// Percent that are lost, and the longest delay in milliseconds.
    quality: Cell<(u32, u128)>,
}

/// The addresses of the two hosts. No other namespace sees them.
pub const ADDRESSES: [&str; 2] = ["10.230.30.1", "10.230.30.2"];

impl Hosts {
    /// Makes the two hosts. `None` after saying that the test is skipped, where that takes rights this
    /// process does not have.
    ///
    /// # Panics
    /// When that cannot be done and `CI=true`, or when the namespaces cannot be joined.
    #[must_use]
    pub fn new() -> Option<Self> {
        let hosts = Self::apart()?;
        let [a, b] = &hosts.names;
        hosts.done(&[
            "link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b,
        ]);
        hosts.configure();
        Some(hosts)
    }

    /// The same with a cable that can be told to lose and to delay packets. It does neither at first.
    ///
    /// # Panics
    /// As `new`, and when the cable cannot be started.
    #[must_use]
    pub fn with_poor_cable() -> Option<Self> {
        let python = tool("python3")?;
        let mut hosts = Self::apart()?;
        let namespace = format!("{}c", hosts.names[0]);
        hosts.done(&["netns", "add", &namespace]);
        let mut cable = Cable {
            namespace,
            process: None,
            directory: TempDir::with_prefix("daymark-cable-").expect("a temporary directory"),
            python,
            quality: Cell::default(),
        };
        for (name, end) in hosts.names.iter().zip(ENDS) {
            let middle = &cable.namespace;
            hosts.done(&[
                "link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", end, "netns", middle,
            ]);
            hosts.done(&["-n", middle, "link", "set", end, "up"]);
        }
        hosts.configure();
        for host in [0, 1] {
            let ran = hosts.run(host, &cable.python, &[&script("plain_frames.py"), "eth0"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
        cable.start(&hosts.ip);
        hosts.cable = Some(cable);
        Some(hosts)
    }

    /// From now on this share of all packets is lost, in both directions.
    ///
    /// # Panics
    /// Without a cable that loses packets.
    pub fn lose(&self, percent: u32) {
        let cable = self.cable.as_ref().expect("a poor cable");
        cable.be((percent, cable.quality.get().1));
    }

    /// From now on every packet is late by a time of its own, so long at most, in both directions.
    ///
    /// # Panics
    /// Without a cable that delays packets.
    pub fn delay(&self, longest: Duration) {
        let cable = self.cable.as_ref().expect("a poor cable");
        cable.be((cable.quality.get().0, longest.as_millis()));
    }

    /// How many packets were lost, counted in tens, since this was asked last.
    ///
    /// # Panics
    /// Without a cable that loses packets.
    pub fn lost(&mut self) -> usize {
        let cable = self.cable.as_mut().expect("a poor cable");
        let process = cable.process.as_mut().expect("a cable that was started");
        std::iter::from_fn(|| process.line(Duration::ZERO)).count() * 10
    }

    /// Two namespaces without anything between them.
    fn apart() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let ip = tool("ip")?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let names = ["a", "b"].map(|host| format!("dm{}n{number}{host}", std::process::id()));
        let hosts = Self {
            ip,
            names,
            cable: None,
        };
        for name in &hosts.names {
            let made = hosts.ip(&["netns", "add", name]);
            if made.code != Some(0) {
                skipped(&format!("network namespaces need root: {}", made.stderr.trim()));
                return None;
            }
        }
        Some(hosts)
    }

    fn configure(&self) {
        for (name, address) in self.names.iter().zip(ADDRESSES) {
            let network = format!("{address}/24");
            self.done(&["-n", name, "link", "set", "lo", "up"]);
            self.done(&["-n", name, "addr", "add", &network, "dev", "eth0"]);
            self.done(&["-n", name, "link", "set", "eth0", "up"]);
            self.done(&["-n", name, "route", "add", "224.0.0.0/4", "dev", "eth0"]);
        }
    }

    fn ip(&self, arguments: &[&str]) -> Ran {
        run_tool(&self.ip, arguments)
    }

    fn done(&self, arguments: &[&str]) {
        let ran = self.ip(arguments);
        assert_eq!(ran.code, Some(0), "ip {arguments:?}: {ran:?}");
    }

    /// The program and arguments that run `exe arguments...` on a host.
    #[must_use]
    pub fn on(&self, host: usize, exe: &Path, arguments: &[String]) -> (PathBuf, Vec<String>) {
        let mut all: Vec<String> = ["netns", "exec", &self.names[host]].map(str::to_owned).to_vec();
        all.push(exe.display().to_string());
        all.extend_from_slice(arguments);
        (self.ip.clone(), all)
    }

    /// Runs a command on a host to its end.
    #[must_use]
    pub fn run(&self, host: usize, exe: &Path, arguments: &[&str]) -> Ran {
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (exe, arguments) = self.on(host, exe, &arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run_tool(&exe, &arguments)
    }

    /// Takes this thread to a host, for good: its sockets, and the processes it starts, are there.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn enter(&self, host: usize) {
        let path = Path::new("/run/netns").join(&self.names[host]);
        let namespace =
            std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let moved = move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network));
        moved.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// From now on nothing of `host` reaches the other one; what the other one sends still arrives.
    pub fn mute(&self, host: usize) {
        let to = format!("{}/32", ADDRESSES[1 - host]);
        self.done(&["-n", &self.names[host], "route", "add", "blackhole", &to]);
    }

    /// What `host` sends arrives again.
    pub fn unmute(&self, host: usize) {
        let to = format!("{}/32", ADDRESSES[1 - host]);
        self.done(&["-n", &self.names[host], "route", "del", "blackhole", &to]);
    }
}

/// The ends of a cable in its own namespace.
const ENDS: [&str; 2] = ["left", "right"];

fn script(name: &str) -> String {
    format!("{}/hosts/{name}", env!("CARGO_MANIFEST_DIR"))
}

impl Cable {
    fn start(&mut self, ip: &Path) {
        self.be(self.quality.get());
        let quality = self.quality_file().display().to_string();
        let python = self.python.display().to_string();
        let script = script("poor_cable.py");
        let [left, right] = ENDS;
        let arguments = [
            "netns",
            "exec",
            &self.namespace,
            &python,
            &script,
            left,
            right,
            "1",
            &quality,
        ];
        let mut process = Process::start(ip, &arguments.map(str::to_owned), self.directory.path(), &[]);
        let ready = process.line(READY);
        assert_eq!(ready.as_deref(), Some("ready"), "{}", process.log());
        self.process = Some(process);
    }

    fn quality_file(&self) -> PathBuf {
        self.directory.path().join("quality")
    }

    fn be(&self, quality: (u32, u128)) {
        self.quality.set(quality);
        // Renamed into place, so that the cable never reads half of it.
        let new = self.directory.path().join("new");
        let written = std::fs::write(&new, format!("{} {}", quality.0, quality.1));
        let placed = written.and_then(|()| std::fs::rename(&new, self.quality_file()));
        placed.expect("a file that can be written");
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        let cable = self.cable.take().map(|cable| cable.namespace.clone());
        for name in self.names.iter().chain(&cable) {
            // One that was never made cannot be removed.
            let _ = self.ip(&["netns", "del", name]);
        }
    }
}
