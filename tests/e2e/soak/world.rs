//! The processes of a soak: a naming server and two brokers, on a disk of their own, behind relays.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use daymark_test_support::{
    Broker, Process, Program, free_port, http_get, http_post, run_tool, skipped, tool,
};
use serde_json::{Value, json};

use super::relay::{Line, Relay};
use crate::stage::program;

/// How long the group may take to be whole again once a fault has ended: two members, one of them active, the
/// other ready.
const WHOLE: Duration = Duration::from_secs(90);
/// How big the disk is.
const DISK: &str = "size=256m";

/// In this order they end: the processes, the disk they write to, the directory that it is mounted in.
pub(super) struct World {
    naming: Option<Process>,
    naming_address: String,
    pub(super) seats: [Seat; 2],
    /// Between clients and each broker, and between everybody and naming.
    pub(super) to_brokers: [Relay; 2],
    pub(super) to_naming: Relay,
    /// What happened besides the faults.
    pub(super) notes: Vec<String>,
    disk: Option<Disk>,
    program: Program,
}

/// A broker, running or not.
pub(super) struct Seat {
    broker: Broker,
    process: Option<Process>,
    admin: String,
}

impl World {
    pub(super) async fn new(config: &str) -> Self {
        let program = program();
        let (naming, naming_address) = program.naming("naming");
        let to_naming = Relay::start(naming_address.parse().expect("its address")).await;
        let disk = Disk::mount(&program.path("disk"));
        let config = program.file("broker.toml", config);
        let seat = |name: &str, role: &str| Seat {
            broker: Broker {
                name: name.to_owned(),
                role: role.to_owned(),
                group: "soak".to_owned(),
                store: program.path("disk/store"),
                naming: to_naming.address.to_string(),
                port: free_port(),
                config: Some(config.clone()),
            },
            process: None,
            admin: String::new(),
        };
        let mut seats = [seat("one", "primary"), seat("two", "backup")];
        let relay = |seat: &Seat| Relay::start(([127, 0, 0, 1], seat.broker.port).into());
        let to_brokers = [relay(&seats[0]).await, relay(&seats[1]).await];
        for seat in &mut seats {
            seat.start(&program);
        }
        Self {
            naming: Some(naming),
            naming_address,
            seats,
            to_brokers,
            to_naming,
            notes: Vec::new(),
            disk,
            program,
        }
    }

    /// Where clients may write, and nothing that is full.
    pub(super) fn directory(&self) -> PathBuf {
        self.program.path("")
    }

    /// The provider list of clients.
    pub(super) fn providers(&self) -> String {
        self.to_naming.address.to_string()
    }

    /// The seat of the active broker, or the first one where nobody is.
    pub(super) fn active(&self) -> usize {
        usize::from(self.seats[1].is("state", &json!("active")))
    }

    pub(super) fn kill_naming(&mut self) {
        if let Some(mut naming) = self.naming.take() {
            naming.kill_9();
        }
    }

    pub(super) fn stop_naming(&mut self) {
        if let Some(mut naming) = self.naming.take() {
            naming.terminate();
            naming.ended(WHOLE);
        }
    }

    pub(super) fn start_naming(&mut self) {
        if self.naming.is_none() {
            let (naming, _) = self.program.naming_at(&self.naming_address, "naming");
            self.naming = Some(naming);
        }
    }

    pub(super) fn naming(&self) -> Option<&Process> {
        self.naming.as_ref()
    }

    /// Fills the disk; false where there is none of its own.
    pub(super) fn fill_disk(&self) -> bool {
        self.disk.as_ref().is_some_and(Disk::fill)
    }

    pub(super) fn free_disk(&self) {
        if let Some(disk) = &self.disk {
            disk.free();
        }
    }

    /// Asks the active broker for a switchover. That it refuses is no fault: it may be busy with another.
    pub(super) fn switch_over(&self) {
        let _ = http_post(&self.seats[self.active()].admin, "/v1/switchover", &json!({}));
    }

    /// Ends what faults began, and starts what has ended.
    pub(super) fn heal(&mut self) {
        self.free_disk();
        for relay in self.to_brokers.iter().chain([&self.to_naming]) {
            relay.set(Line::Whole);
        }
        if let Some(naming) = &self.naming {
            naming.thaw();
        }
        self.start_naming();
        for seat in &mut self.seats {
            if let Some(process) = &seat.process {
                process.thaw();
            }
            self.notes.extend(seat.bury());
            seat.start(&self.program);
        }
    }

    /// Waits until the group is whole. Brokers that end meanwhile, as one does whose disk was full, are started
    /// again.
    pub(super) fn become_whole(&mut self) -> Result<(), String> {
        let until = Instant::now() + WHOLE;
        loop {
            self.heal();
            let [one, two] = &self.seats;
            let pairs = [(one, two), (two, one)];
            if pairs.iter().any(|(active, standby)| {
                active.is("state", &json!("active"))
                    && active.is("phase", &json!("active"))
                    && standby.is("ready", &json!(true))
                    && standby.is("watching", &json!(active.broker.name))
            }) {
                return Ok(());
            }
            if Instant::now() > until {
                let statuses: Vec<Option<Value>> = self.seats.iter().map(Seat::status).collect();
                return Err(format!("the group is not whole after {WHOLE:?}: {statuses:?}"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The end of every log.
    pub(super) fn logs(&self) -> String {
        let process = |name: &str, process: Option<&Process>| {
            let log = process.map(Process::log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            format!("--- {name}\n{tail}\n")
        };
        let seats = self
            .seats
            .iter()
            .map(|seat| process(&seat.broker.name, seat.process.as_ref()));
        seats.chain([process("naming", self.naming.as_ref())]).collect()
    }
}

impl Seat {
    pub(super) fn name(&self) -> &str {
        &self.broker.name
    }

    fn start(&mut self, program: &Program) {
        if self.process.is_none() {
            let (process, admin) = program.broker(&self.broker);
            (self.process, self.admin) = (Some(process), admin);
        }
    }

    pub(super) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill_9();
        }
    }

    pub(super) fn freeze(&self) {
        if let Some(process) = &self.process {
            process.freeze();
        }
    }

    /// Stops it in order; says so where that failed.
    pub(super) fn stop(&mut self) -> Option<String> {
        let mut process = self.process.take()?;
        process.terminate();
        let status = process.ended(WHOLE);
        (status.code() != Some(0)).then(|| {
            let log = process.whole_log();
            format!(
                "BROKEN: {} was stopped in order and ended with {status}:\n{log}",
                self.name()
            )
        })
    }

    /// Says how it ended, if it did by itself.
    fn bury(&mut self) -> Option<String> {
        let process = self.process.as_mut()?;
        if process.is_running() {
            return None;
        }
        let mut process = self.process.take()?;
        let code = process.ended(WHOLE).code();
        let name = self.name();
        // Its store failed, or a step of a promotion did: that is how a broker ends by itself.
        if code == Some(10) || code == Some(11) {
            return Some(format!("{name} ended by itself with code {code:?}"));
        }
        let log = process.whole_log();
        Some(format!(
            "BROKEN: {name} ended by itself with code {code:?}:\n{log}"
        ))
    }

    fn status(&self) -> Option<Value> {
        let mut status = http_get(&self.admin, "/v1/status")?.body;
        // What is told elsewhere, at length.
        for long in ["events", "timeline", "messaging"] {
            status.as_object_mut()?.remove(long);
        }
        Some(status)
    }

    fn is(&self, key: &str, value: &Value) -> bool {
        self.status().is_some_and(|status| status[key] == *value)
    }
}

/// A small file system in memory.
struct Disk {
    at: PathBuf,
    umount: PathBuf,
}

impl Disk {
    /// Mounts it; `None` after saying so where that takes rights this process does not have. The directory is
    /// there either way.
    fn mount(at: &Path) -> Option<Self> {
        std::fs::create_dir_all(at).expect("a directory");
        let (mount, umount) = (tool("mount")?, tool("umount")?);
        let place = at.display().to_string();
        let ran = run_tool(&mount, &["-t", "tmpfs", "-o", DISK, "daymark-soak", &place]);
        if ran.code != Some(0) {
            skipped(&format!(
                "a disk that can be filled needs root: {}",
                ran.stderr.trim()
            ));
            return None;
        }
        Some(Self {
            at: at.to_owned(),
            umount,
        })
    }

    fn filler(&self) -> PathBuf {
        self.at.join("filler")
    }

    fn fill(&self) -> bool {
        use std::io::Write;
        let Ok(mut filler) = std::fs::File::create(self.filler()) else {
            return true; // There is no room even for that.
        };
        let block = vec![0; 64 * 1024];
        while filler.write_all(&block).is_ok() {}
        true
    }

    fn free(&self) {
        // It is there only while the disk is full.
        let _ = std::fs::remove_file(self.filler());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that ends at this moment may still hold a file.
        let _ = run_tool(&self.umount, &["-l", &self.at.display().to_string()]);
    }
}
