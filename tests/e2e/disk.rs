//! A disk that is full, or hangs, under the active broker.

use std::path::PathBuf;

use daymark_client::Message;
use daymark_test_support::{Process, Program, Ran, eventually, free_port, http_get, run_tool, tool};

use crate::failover::{alone, producer, receive};
use crate::stage::{SOON, Stage, program, wait};

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
        eventually(SOON, "it is active", || process.log().contains(active));
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

/// A C library whose syncs never return while a file exists.
const HANGING: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>
static void hang(void) {
    const char *path = getenv("HANG_SYNC");
    while (path && access(path, F_OK) == 0) usleep(10000);
}
int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    hang();
    return real(fd);
}
int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    hang();
    return real(fd);
}
"#;

#[test]
fn a_disk_that_hangs_ends_the_process_whose_lock_is_free_then_and_the_standby_serves_what_was_acknowledged() {
    let Some(cc) = tool("cc") else {
        return;
    };
    let stage = Stage::new();
    let path = |name: &str| stage.program.path(name).display().to_string();
    let source = stage.program.file("hanging.c", HANGING).display().to_string();
    let (library, hangs) = (path("hanging.so"), path("hangs"));
    let compiled = run_tool(&cc, &["-shared", "-fPIC", "-o", &library, &source, "-ldl"]);
    assert_eq!(compiled.code, Some(0), "{compiled:?}");
    let config = stage
        .program
        .file("broker.toml", "[failover]\ncommit_timeout_ms = 1000\n");
    let mut one = stage.broker("one", "primary");
    one.config = Some(config);
    let environment = [("LD_PRELOAD", library.as_str()), ("HANG_SYNC", hangs.as_str())];
    let (mut process, _) = stage.program.broker_with(&one, &environment);
    stage.group_served_by("one", 1);
    let two = stage.broker("two", "backup");
    let (_two, admin) = stage.program.broker(&two);
    eventually(SOON, "two watches one", || {
        http_get(&admin, "/v1/status").is_some_and(|answer| answer.body["watching"] == "one")
    });
    let send = |port: u16, body: &'static str| {
        wait(async move {
            let connection = alone(port).await;
            let sent = producer(&connection).await.send(Message::text(body)).await;
            sent.is_ok()
        })
    };
    assert!(send(one.port, "before"));
    stage.program.file("hangs", "");
    assert!(!send(one.port, "meanwhile"), "nothing is acknowledged");
    assert_eq!(process.ended(SOON).code(), Some(11), "{}", process.whole_log());
    stage.group_served_by("two", 2);
    let received = wait(async { receive(&alone(two.port).await, 1).await });
    assert_eq!(received, ["before"]);
}
