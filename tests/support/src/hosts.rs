//! Two hosts on one network, as network namespaces joined by a cable: nothing leaves them.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::program::Ran;
use crate::run_tool;
use crate::tools::{skipped, tool};

/// Two namespaces, each with one interface. They go when this is dropped.
#[derive(Debug)]
pub struct Hosts {
    ip: PathBuf,
    names: [String; 2],
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
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let ip = tool("ip")?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let names = ["a", "b"].map(|host| format!("dm{}n{number}{host}", std::process::id()));
        let hosts = Self { ip, names };
        for name in &hosts.names {
            let made = hosts.ip(&["netns", "add", name]);
            if made.code != Some(0) {
                skipped(&format!("network namespaces need root: {}", made.stderr.trim()));
                return None;
            }
        }
        hosts.join();
        Some(hosts)
    }

    fn join(&self) {
        let [a, b] = &self.names;
        self.done(&[
            "link", "add", "eth0", "netns", a, "type", "veth", "peer", "name", "eth0", "netns", b,
        ]);
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

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in &self.names {
            // One that was never made cannot be removed.
            let _ = self.ip(&["netns", "del", name]);
        }
    }
}
