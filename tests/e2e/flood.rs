//! Connections that ask for nothing, or never finish asking: what they cost, and that nobody else feels them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use daymark_test_support::{Process, Program, eventually, http_get};

use crate::stage::program;

/// How long anything may take: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections of each kind.
const EACH: usize = 50;
/// What `docs/directory.md` says that one connection costs at most, beside what the room for requests that are not whole
/// permits.
const CONNECTION_BYTES: u64 = 48 << 10;
const INPUT_BYTES_MAX: u64 = 8 << 20;
/// What the writes of the served client leave in the directory meanwhile (its history, the answers by operation id),
/// and what the allocator has not given back yet.
const ELSE_BYTES: u64 = 8 << 20;
const CONFIG: &str = "[limits]\nheader_timeout = \"2s\"\nidle_timeout = \"2s\"\ninput_bytes_max = 8388608\n";

/// What connections say that never finish asking, each kind with its name.
fn kinds() -> Vec<(&'static str, Vec<u8>)> {
    const PIECE: usize = 12 << 10;
    let filler = "x".repeat(PIECE);
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let noise: Vec<u8> = (0..PIECE).map(|n| (n * 7 % 251) as u8).collect();
    let text = |text: String| text.into_bytes();
    vec![
        ("silent", Vec::new()),
        ("one letter", b"G".to_vec()),
        (
            "a lookup whose head does not end",
            text(format!("GET /v1/names/q HTTP/1.1\r\nX: {filler}")),
        ),
        (
            "a write whose head does not end",
            text(format!("PUT /v1/names/q HTTP/1.1\r\nX: {filler}")),
        ),
        (
            "a write whose body does not end",
            text(format!(
                "PUT /v1/names/q HTTP/1.1\r\nHost: t\r\nContent-Length: 100000\r\n\r\n{filler}"
            )),
        ),
        ("half a preface of HTTP/2", preface[..20].to_vec()),
        ("HTTP/2 without a request", [&preface[..], &settings].concat()),
        (
            "a command that does not end",
            text(format!("*3\r\n$4\r\nBIND\r\n$1\r\nq\r\n$900000\r\n{filler}")),
        ),
        ("a line that does not end", text(format!("BIND q {filler}"))),
        ("noise", noise),
        (
            "noise that looks like TLS",
            [&[0x16, 3, 1][..], filler.as_bytes()].concat(),
        ),
    ]
}

/// The memory that a process holds, in bytes.
fn resident(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).expect("a process");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("VmRSS");
    let kib = line
        .trim()
        .trim_end_matches(" kB")
        .parse::<u64>()
        .expect("a number");
    kib << 10
}

/// Opens connections that say this, and keeps those that are not refused at once.
fn opened(address: &str, count: usize, says: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.set_nonblocking(true).expect("a socket");
        // Whoever is cut off while it still sends is reset.
        let _ = stream.write(says);
        stream
    };
    (0..count).map(open).collect()
}

/// A client that looks a name up and rebinds it until it is told to end, each answer awaited.
struct Served {
    ends: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: JoinHandle<Duration>,
}

impl Served {
    fn start(address: &str) -> Self {
        let (ends, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (ended, answered) = (ends.clone(), answers.clone());
        let thread = std::thread::spawn(move || work(stream, &ended, &answered));
        Self {
            ends,
            answers,
            thread,
        }
    }

    /// Waits until as many more answers have come.
    fn goes_on(&self, more: u64) {
        let before = self.answers.load(Ordering::Relaxed);
        eventually(PATIENCE, "answers to a client that asks properly", || {
            self.answers.load(Ordering::Relaxed) >= before + more
        });
    }

    /// Ends it, and says how long it waited for the slowest answer.
    fn end(self) -> Duration {
        self.ends.store(true, Ordering::Relaxed);
        self.thread.join().expect("every answer came")
    }
}

fn work(mut stream: TcpStream, ends: &AtomicBool, answers: &AtomicU64) -> Duration {
    let mut slowest = Duration::ZERO;
    let mut round = 0_u64;
    while !ends.load(Ordering::Relaxed) {
        round += 1;
        let rebind = format!("REBIND served '{{\"type\":\"queue\",\"address\":\"q{round}\"}}'\r\n");
        for (command, wanted) in [
            (rebind.as_str(), "\"changed\":true"),
            ("LOOKUP served\r\n", "\"queue\""),
        ] {
            let began = Instant::now();
            stream.write_all(command.as_bytes()).expect("sent");
            let mut answer = [0; 1024];
            let read = stream.read(&mut answer).expect("an answer in time");
            let answer = String::from_utf8_lossy(&answer[..read]);
            assert!(
                answer.starts_with('$') && answer.contains(wanted),
                "{command}: {answer}"
            );
            slowest = slowest.max(began.elapsed());
            answers.fetch_add(1, Ordering::Relaxed);
        }
    }
    slowest
}

/// A naming server with the limits of `CONFIG`, and its address.
fn started(program: &Program) -> (Process, String) {
    let config = program.file("naming.toml", CONFIG).display().to_string();
    let data = program.path("naming").display().to_string();
    let listen = ["--listen", "127.0.0.1:0", "--data", &data, "--exit-with-parent"];
    let mut naming = program.start(&[&["naming", "--config", &config], &listen[..]].concat());
    let address = naming.announced("listening", PATIENCE);
    (naming, address)
}

#[test]
fn connections_that_never_finish_asking_cost_what_is_documented_and_disturb_nobody() {
    let program = program();
    let (mut naming, address) = started(&program);
    let served = Served::start(&address);
    served.goes_on(200);
    let before = resident(&naming);
    let mut most = before;
    for wave in 0..2 {
        let mut connections = Vec::new();
        for (_, says) in kinds() {
            connections.extend(opened(&address, EACH, &says));
            most = most.max(resident(&naming));
        }
        served.goes_on(100);
        most = most.max(resident(&naming));
        let budget = connections.len() as u64 * CONNECTION_BYTES + INPUT_BYTES_MAX + ELSE_BYTES;
        println!(
            "wave {wave}: {} connections, {} KiB more of at most {}",
            connections.len(),
            (most - before) >> 10,
            budget >> 10
        );
        assert!(
            most - before <= budget,
            "{} KiB, at most {}",
            (most - before) >> 10,
            budget >> 10
        );
        // Each is let go without having asked anything.
        for mut connection in connections {
            connection.set_nonblocking(false).expect("a socket");
            connection.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let last = connection.read_to_end(&mut Vec::new());
            let is_waiting = last.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
            assert!(!is_waiting, "a connection that asked nothing is still there");
        }
    }
    served.goes_on(100);
    println!("slowest answer meanwhile: {:?}", served.end());
    assert!(naming.is_running());
}

#[test]
fn large_requests_that_never_end_share_one_room() {
    let program = program();
    let (mut naming, address) = started(&program);
    let served = Served::start(&address);
    served.goes_on(200);
    let before = resident(&naming);
    let filler = "x".repeat(900_000);
    let kinds = [
        format!("*3\r\n$4\r\nBIND\r\n$1\r\nq\r\n$1000000\r\n{filler}"),
        format!("PUT /v1/names/q HTTP/1.1\r\nHost: t\r\nContent-Length: 1000000\r\n\r\n{filler}"),
    ];
    let mut connections = Vec::new();
    for says in kinds.iter().cycle().take(60) {
        let mut stream = TcpStream::connect(&address).expect("a connection");
        stream
            .set_write_timeout(Some(Duration::from_secs(1)))
            .expect("a timeout");
        // Whoever is refused while it still sends is reset.
        let _ = stream.write_all(says.as_bytes());
        connections.push(stream);
    }
    served.goes_on(100);
    let more = resident(&naming).saturating_sub(before);
    let budget = connections.len() as u64 * CONNECTION_BYTES + 2 * INPUT_BYTES_MAX + ELSE_BYTES;
    println!(
        "{} MiB were sent: {} KiB more of at most {}",
        (60 * filler.len()) >> 20,
        more >> 10,
        budget >> 10
    );
    assert!(more <= budget, "{} KiB, at most {}", more >> 10, budget >> 10);
    println!("slowest answer meanwhile: {:?}", served.end());
    assert_eq!(
        http_get(&address, "/livez").map(|answer| answer.status),
        Some(200)
    );
    assert!(naming.is_running());
}
