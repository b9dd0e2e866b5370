//! A disk that is full under the active broker.

use std::path::PathBuf;

use daymark_client::Message;
use daymark_test_support::{Process, Program, Ran, free_port, run_tool, tool};

use crate::failover::{alone, producer, receive};
use crate::stage::{SOON, program, wait};

/// A small file system in a mount namespace of its own. It goes with the process that stands for it.
struct Disk {
    holder: Process,
    nsenter: PathBuf,
    directory: PathBuf,
}

impl Disk {
    /// `None` after saying why, where the test is skipped.
    fn new(program: &Program, size: &str) -> Option<Self> {
        let (unshare, nsenter) = (tool("unshare")?, tool("nsenter")?);
        let directory = program.path("disk");
        std::fs::create_dir(&directory).expect("a directory");
        let path = directory.display().to_string();
        let mounted = format!("mount -t tmpfs -o size={size} tmpfs {path} && echo mounted && exec cat");
        let arguments = ["--mount", "--propagation", "private", "sh", "-c", &mounted];
        let mut holder = Process::start(&unshare, &arguments.map(str::to_owned), &program.path(""), &[]);
        if holder.line(SOON).as_deref() != Some("mounted") {
            daymark_test_support::skipped(&format!("a mount namespace needs root: {}", holder.log()));
            return None;
        }
        Some(Self {
            holder,
            nsenter,
            directory,
        })
    }

    fn inside(&self, arguments: &[String]) -> Vec<String> {
        let target = self.holder.id().to_string();
        let enter = ["--mount", "--target", &target].map(str::to_owned);
        enter.into_iter().chain(arguments.iter().cloned()).collect()
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        let arguments: Vec<String> = arguments.iter().map(|text| (*text).to_owned()).collect();
        let arguments = self.inside(&arguments);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run_tool(&self.nsenter, &arguments)
    }

    /// An active broker whose store is on this disk.
    fn broker(&self, program: &Program, port: u16) -> Process {
        let store = format!("journal:{}", self.directory.join("store").display());
        let config = program.file("broker.toml", "[journal]\nsegment_bytes = 1048576\n");
        let (listen, config) = (format!("127.0.0.1:{port}"), config.display().to_string());
        let nobody = format!("127.0.0.1:{}", free_port());
        let arguments = [
            env!("CARGO_BIN_EXE_daymark"),
            "broker",
            "--name",
            "one",
            "--role",
            "primary",
            "--group",
            "orders",
            "--naming",
            &nobody,
            "--store",
            &store,
            "--listen",
            &listen,
            "--config",
            &config,
            "--exit-with-parent",
        ];
        let arguments = self.inside(&arguments.map(str::to_owned));
        let environment = [("NO_COLOR", "1")];
        let mut process = Process::start(&self.nsenter, &arguments, &program.path(""), &environment);
        let _ = process.announced("admin", SOON);
        let active = "code=\"active\"";
        daymark_test_support::eventually(SOON, "it is active", || process.log().contains(active));
        process
    }
}

#[test]
fn a_full_disk_ends_the_broker_and_loses_nothing_that_was_acknowledged() {
    let program = program();
    let Some(disk) = Disk::new(&program, "8m") else {
        return;
    };
    let port = free_port();
    let mut broker = disk.broker(&program, port);
    let padding = "x".repeat(100_000);
    let acknowledged = wait(async {
        let connection = alone(port).await;
        let producer = producer(&connection).await;
        let mut acknowledged = Vec::new();
        for number in 0..200 {
            let body = format!("{number} {padding}");
            match producer.send(Message::text(body.as_str())).await {
                Ok(_) => acknowledged.push(body),
                Err(_) => return acknowledged,
            }
        }
        panic!("20 MB were acknowledged on a disk of 8 MB");
    });
    assert!(
        acknowledged.len() >= 10,
        "{} were acknowledged",
        acknowledged.len()
    );
    assert_eq!(broker.ended(SOON).code(), Some(11), "{}", broker.whole_log());
    let log = broker.whole_log();
    assert!(log.contains("code=\"store-failed\""), "{log}");
    // An operator makes room.
    let disk_path = disk.directory.display().to_string();
    let grown = disk.run(&["mount", "-o", "remount,size=64m", &disk_path]);
    assert_eq!(grown.code, Some(0), "{grown:?}");
    let _broker = disk.broker(&program, port);
    wait(async {
        let connection = alone(port).await;
        // What was under way last may be there too: its outcome is unknown.
        let bodies = receive(&connection, acknowledged.len()).await;
        assert!(bodies == acknowledged, "{} came back", bodies.len());
    });
}
