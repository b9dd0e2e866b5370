//! What survives when the process, the disk or the room on it ends: the server runs as a process of its own.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use daymark_naming_proto::Endpoint;
use daymark_naming_proto::resp::{Frame, Limits, parse_frame, write_command};
use daymark_naming_server::{NamingOptions, Server};
use serde_json::Value;
use tempfile::TempDir;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Names the data directory of a server that runs in a process of its own.
const DATA: &str = "DAYMARK_NAMING_TEST_DATA";
/// How many milliseconds that server waits for a write; the default where it is not set.
const WRITE_MS: &str = "DAYMARK_NAMING_TEST_WRITE_MS";
/// How often the server is killed under load; 5 where it is not set.
const KILLS: &str = "DAYMARK_NAMING_TEST_KILLS";

/// The server itself: the tests below start this program again with the name of this test.
#[test]
fn serve() {
    let Ok(data) = std::env::var(DATA) else {
        return;
    };
    let (told, mut end) = tokio::sync::mpsc::channel(1);
    // Whoever started this has gone when standard input ends.
    std::thread::spawn(move || {
        for word in io::stdin().lines().map_while(Result::ok) {
            // The one word that counts is the first one.
            let _ = told.blocking_send(word);
        }
        std::process::exit(1);
    });
    let mut options = NamingOptions::new(data);
    options.listen = Endpoint {
        host: "127.0.0.1".to_owned(),
        port: 0,
    };
    options.storage.segment_bytes = 256 << 10;
    options.storage.snapshot_writes = 300;
    options.limits.stop_timeout = Duration::from_millis(500);
    if let Ok(ms) = std::env::var(WRITE_MS) {
        options.limits.write_timeout = Duration::from_millis(ms.parse().expect("milliseconds"));
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        match Server::start(options).await {
            Ok(server) => {
                println!("listening {}", server.local_addr());
                match end.recv().await.as_deref() {
                    Some("stop") => server.stop().await,
                    Some(_) | None => drop(server),
                }
                println!("ended");
            }
            Err(error) => println!("refused {error}"),
        }
    });
    runtime.shutdown_background();
}

/// A server in a process of its own. Dropping it kills it.
struct Served {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Served {
    /// Runs `command`, which leads to this program, over `data`.
    fn start(mut command: Command, data: &Path) -> Self {
        let mut child = command
            .env(DATA, data)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .expect("a process");
        let stdout = child.stdout.take().expect("its output");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    fn here(data: &Path) -> Self {
        let mut command = Command::new(exe());
        command.args(ARGUMENTS);
        Self::start(command, data)
    }

    /// Where it listens.
    fn addr(&self) -> SocketAddr {
        let line = self.line("listening ");
        line.parse().expect("an address")
    }

    /// What follows `word` in the next line that begins with it.
    fn line(&self, word: &str) -> String {
        loop {
            let line = self.lines.recv_timeout(PATIENCE).expect("a line");
            assert!(!line.starts_with("refused"), "{line}");
            // The test harness writes the name of the test before its first line.
            if let Some((_, rest)) = line.split_once(word) {
                return rest.to_owned();
            }
        }
    }

    fn tell(&mut self, word: &str) {
        let stdin = self.child.stdin.as_mut().expect("its input");
        writeln!(stdin, "{word}").expect("told");
    }

    fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("its end");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const ARGUMENTS: [&str; 3] = ["--exact", "serve", "--nocapture"];

fn exe() -> PathBuf {
    std::env::current_exe().expect("this program")
}

/// A RESP connection that blocks.
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Client {
    fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self {
            stream,
            input: Vec::new(),
        }
    }

    fn send(&mut self, words: &[&str]) -> io::Result<()> {
        let mut command = Vec::new();
        write_command(words, &mut command);
        self.stream.write_all(&command)
    }

    fn ask(&mut self, words: &[&str]) -> io::Result<Frame> {
        self.send(words)?;
        self.receive()
    }

    fn receive(&mut self) -> io::Result<Frame> {
        loop {
            if let Some((frame, used)) =
                parse_frame(&self.input, &Limits::default()).map_err(io::Error::other)?
            {
                self.input.drain(..used);
                return Ok(frame);
            }
            let mut piece = [0; 16 << 10];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&piece[..count]),
            }
        }
    }

    /// The value that is bound; 0 where nothing is.
    fn value(&mut self, name: &str) -> u64 {
        let answer = self.ask(&["LOOKUP", name]).expect("an answer");
        if matches!(&answer, Frame::Error(error) if error.starts_with("NAMENOTFOUND")) {
            return 0;
        }
        let Frame::Bulk(json) = answer else {
            panic!("{name}: {answer:?}");
        };
        let binding: Value = serde_json::from_slice(&json).expect("JSON");
        binding["object"]["value"].as_u64().expect("a number")
    }
}

/// Both halves of one write.
fn pair(writer: usize, value: u64) -> String {
    let half = |half: &str| {
        format!(r#"{{"rebind":{{"name":"{half}{writer}","object":{{"type":"value","value":{value}}}}}}}"#)
    };
    format!("[{},{}]", half("left"), half("right"))
}

const WRITERS: usize = 4;

/// Writes until the server is gone. Returns the last value that was acknowledged.
fn write_until_it_ends(addr: SocketAddr, writer: usize, from: u64, told: &mpsc::Sender<()>) -> u64 {
    let mut client = Client::connect(addr);
    let mut acknowledged = from;
    loop {
        match client.ask(&["TRANSACT", &pair(writer, acknowledged + 1)]) {
            Ok(Frame::Bulk(_)) => {
                acknowledged += 1;
                // Whoever counted them has counted enough.
                let _ = told.send(());
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => return acknowledged,
        }
    }
}

#[test]
fn what_was_acknowledged_survives_kills_under_load_and_nothing_is_half_there() {
    let kills: u64 = std::env::var(KILLS).map_or(5, |text| text.parse().expect("a number"));
    let data = TempDir::new().expect("a directory");
    let mut acknowledged = BTreeMap::new();
    for kill in 0..kills {
        let served = Served::here(data.path());
        let addr = served.addr();
        check(addr, &mut acknowledged);
        let (told, acks) = mpsc::channel();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (from, told) = (acknowledged.get(&writer).copied().unwrap_or(0), told.clone());
                std::thread::spawn(move || write_until_it_ends(addr, writer, from, &told))
            })
            .collect();
        // Kills come at any distance from snapshots, which come every 300 writes.
        for _ in 0..100 + (kill * 7_919) % 701 {
            acks.recv_timeout(PATIENCE).expect("an acknowledged write");
        }
        served.kill();
        for (writer, thread) in writers.into_iter().enumerate() {
            acknowledged.insert(writer, thread.join().expect("a writer"));
        }
    }
    let served = Served::here(data.path());
    check(served.addr(), &mut acknowledged);
}

/// Compares what is there with what was acknowledged. The one write of each writer that was under way may be there.
fn check(addr: SocketAddr, acknowledged: &mut BTreeMap<usize, u64>) {
    let mut client = Client::connect(addr);
    for (writer, acknowledged) in acknowledged {
        let found = client.value(&format!("left{writer}"));
        assert!(
            found == *acknowledged || found == *acknowledged + 1,
            "writer {writer} has {found}, {acknowledged} was acknowledged"
        );
        assert_eq!(
            client.value(&format!("right{writer}")),
            found,
            "half a write of writer {writer}"
        );
        *acknowledged = found;
    }
}

/// Says why a test cannot run here, and fails where everything must run.
fn skipped(why: &str) {
    println!("SKIPPED: {why}");
    assert!(
        std::env::var_os("CI").is_none(),
        "SKIPPED where everything must run: {why}"
    );
}

/// Rebinds until a write is refused. Returns how many were acknowledged and the refusal.
fn write_until_refused(client: &mut Client) -> (u64, String) {
    let padding = "x".repeat(10_000);
    let began = Instant::now();
    for count in 0.. {
        assert!(began.elapsed() < PATIENCE, "nothing was refused");
        let object = format!(r#"{{"type":"queue","address":"{count}-{padding}"}}"#);
        let bound = client.ask(&["BIND", &format!("n{count}"), &object]);
        if let Frame::Error(error) = bound.expect("an answer") {
            return (count, error);
        }
    }
    unreachable!("counting does not end")
}

/// Lookups go on, writes are refused, and everything acknowledged is found.
fn check_impaired(addr: SocketAddr, client: &mut Client, bound: u64) {
    let refused = client.ask(&["UNBIND", "n0"]).expect("an answer");
    assert!(
        matches!(&refused, Frame::Error(error) if error.starts_with("SERVICEUNAVAILABLE")),
        "{refused:?}"
    );
    check_bound(client, bound);
    let mut stream = TcpStream::connect(addr).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let ready = b"GET /readyz HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n";
    stream.write_all(ready).expect("sent");
    let mut said = String::new();
    stream.read_to_string(&mut said).expect("an answer");
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
}

fn check_bound(client: &mut Client, bound: u64) {
    for n in 0..bound {
        let found = client.ask(&["LOOKUP", &format!("n{n}")]).expect("an answer");
        assert!(
            matches!(&found, Frame::Bulk(json) if json.windows(24).any(|w| w.starts_with(format!("\"{n}-x").as_bytes()))),
            "n{n}: {found:?}"
        );
    }
}

#[test]
fn a_full_disk_ends_writes_loudly_and_loses_nothing() {
    let data = TempDir::new().expect("a directory");
    let script = r#"mount -t tmpfs -o size=6m tmpfs "$1" || { echo "no mount"; exit 0; }
        echo mounted
        head -c 1500000 /dev/zero > "$1/ballast"
        export DAYMARK_NAMING_TEST_DATA="$1/data"
        mkfifo "$1/silence" && exec 3<>"$1/silence"
        "$2" --exact serve --nocapture <&3 &
        server=$!
        read line
        kill -9 $server; wait $server
        rm "$1/ballast"
        exec "$2" --exact serve --nocapture"#;
    let mut command = Command::new("unshare");
    command.args([
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--map-root-user",
        "bash",
        "-c",
        script,
        "bash",
    ]);
    command.arg(data.path()).arg(exe());
    let mut served = Served::start(command, data.path());
    match served.lines.recv_timeout(PATIENCE).as_deref() {
        Ok("mounted") => {}
        other => return skipped(&format!("no file system of one's own here: {other:?}")),
    }
    let addr = served.addr();
    let mut client = Client::connect(addr);
    let (bound, refusal) = write_until_refused(&mut client);
    assert!(refusal.starts_with("SERVICEUNAVAILABLE"), "{refusal}");
    assert!(bound > 10, "{bound}");
    check_impaired(addr, &mut client, bound);
    served.tell("again");
    let mut client = Client::connect(served.addr());
    check_bound(&mut client, bound);
    let written = client
        .ask(&["REBIND", "after", r#"{"type":"value","value":1}"#])
        .expect("an answer");
    assert!(matches!(written, Frame::Bulk(_)), "{written:?}");
}

/// A shim whose syncs fail while one file exists, and hang while another one does.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
static int there(const char *name) { const char *path = getenv(name); return path && access(path, F_OK) == 0; }
static int sync_with(const char *call, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, call);
    while (there("HANG_SYNC")) usleep(10000);
    if (there("BREAK_SYNC")) { errno = EIO; return -1; }
    return real(fd);
}
int fdatasync(int fd) { return sync_with("fdatasync", fd); }
int fsync(int fd) { return sync_with("fsync", fd); }
"#;

/// The compiled shim; `None` where there is no C compiler.
fn shim(directory: &Path) -> Option<PathBuf> {
    let (source, shim) = (directory.join("shim.c"), directory.join("shim.so"));
    std::fs::write(&source, SHIM).expect("written");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([&shim, &source])
        .arg("-ldl")
        .status();
    compiled.is_ok_and(|status| status.success()).then_some(shim)
}

#[test]
fn a_sync_that_fails_ends_writes_loudly_and_loses_nothing() {
    let directory = TempDir::new().expect("a directory");
    let Some(shim) = shim(directory.path()) else {
        return skipped("no C compiler");
    };
    let (data, broken) = (directory.path().join("data"), directory.path().join("broken"));
    let mut command = Command::new(exe());
    command
        .args(ARGUMENTS)
        .env("LD_PRELOAD", &shim)
        .env("BREAK_SYNC", &broken);
    let served = Served::start(command, &data);
    let addr = served.addr();
    let mut client = Client::connect(addr);
    let padding = "x".repeat(100);
    for n in 0..50 {
        let object = format!(r#"{{"type":"queue","address":"{n}-{padding}"}}"#);
        let bound = client
            .ask(&["BIND", &format!("n{n}"), &object])
            .expect("an answer");
        assert!(matches!(bound, Frame::Bulk(_)), "{bound:?}");
    }
    std::fs::write(&broken, "").expect("a file");
    let refused = client
        .ask(&["BIND", "late", r#"{"type":"value","value":1}"#])
        .expect("an answer");
    assert!(
        matches!(&refused, Frame::Error(error) if error.starts_with("SERVICEUNAVAILABLE")),
        "{refused:?}"
    );
    check_impaired(addr, &mut client, 50);
    std::fs::remove_file(&broken).expect("removed");
    let refused = client
        .ask(&["BIND", "later", r#"{"type":"value","value":1}"#])
        .expect("an answer");
    assert!(
        matches!(refused, Frame::Error(_)),
        "a sync that failed is never tried again: {refused:?}"
    );
    served.kill();
    let served = Served::here(&data);
    check_bound(&mut Client::connect(served.addr()), 50);
}

#[test]
fn a_server_over_a_disk_that_hangs_ends_in_time() {
    let directory = TempDir::new().expect("a directory");
    let Some(shim) = shim(directory.path()) else {
        return skipped("no C compiler");
    };
    let (data, hanging) = (directory.path().join("data"), directory.path().join("hanging"));
    for (value, word) in [(1, "stop"), (2, "drop")] {
        let mut command = Command::new(exe());
        command
            .args(ARGUMENTS)
            .env("LD_PRELOAD", &shim)
            .env("HANG_SYNC", &hanging);
        let mut served = Served::start(command, &data);
        let mut client = Client::connect(served.addr());
        let object = format!(r#"{{"type":"value","value":{value}}}"#);
        let bound = client.ask(&["REBIND", "kept", &object]).expect("an answer");
        assert!(matches!(bound, Frame::Bulk(_)), "{bound:?}");
        std::fs::write(&hanging, "").expect("a file");
        client.send(&["REBIND", "late", &object]).expect("sent");
        let began = Instant::now();
        served.tell(word);
        served.line("ended");
        let took = began.elapsed();
        assert!(took < PATIENCE / 2, "{word} took {took:?}");
        served.kill();
        std::fs::remove_file(&hanging).expect("removed");
        let served = Served::here(&data);
        assert_eq!(Client::connect(served.addr()).value("kept"), value);
    }
}

#[test]
fn a_write_that_is_not_durable_in_time_has_an_unknown_outcome_and_may_be_there_later() {
    let directory = TempDir::new().expect("a directory");
    let Some(shim) = shim(directory.path()) else {
        return skipped("no C compiler");
    };
    let hanging = directory.path().join("hanging");
    let mut command = Command::new(exe());
    command
        .args(ARGUMENTS)
        .env("LD_PRELOAD", &shim)
        .env("HANG_SYNC", &hanging)
        .env(WRITE_MS, "500");
    let served = Served::start(command, &directory.path().join("data"));
    let mut client = Client::connect(served.addr());
    std::fs::write(&hanging, "").expect("a file");
    let object = r#"{"type":"value","value":7}"#;
    // The second one is taken although the first one waits, and both are answered in order.
    client.send(&["REBIND", "late", object]).expect("sent");
    client.send(&["REBIND", "later", object]).expect("sent");
    for name in ["late", "later"] {
        let answered = client.receive().expect("an answer");
        let Frame::Error(text) = answered else {
            panic!("{name}: {answered:?}");
        };
        assert!(
            text.starts_with("TIMEDOUT ") && text.contains("outcome is unknown"),
            "{name}: {text}"
        );
    }
    std::fs::remove_file(&hanging).expect("removed");
    let found = client
        .ask(&["LOOKUP", "later", "WAIT", "20000"])
        .expect("an answer");
    assert!(matches!(found, Frame::Bulk(_)), "{found:?}");
    assert_eq!(client.value("late"), 7);
}

#[test]
fn a_peer_that_says_no_more_hears_what_became_of_its_write() {
    let directory = TempDir::new().expect("a directory");
    let served = Served::here(&directory.path().join("data"));
    let mut client = Client::connect(served.addr());
    client
        .send(&["REBIND", "last", r#"{"type":"value","value":1}"#])
        .expect("sent");
    client
        .stream
        .shutdown(std::net::Shutdown::Write)
        .expect("half closed");
    let answered = client.receive().expect("an answer");
    assert!(matches!(answered, Frame::Bulk(_)), "{answered:?}");
}
