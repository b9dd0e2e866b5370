//! Producers and consumers on Apache Qpid JMS: the program `daymark.interop.Soak` of `tests/interop/java`.
//!
//! JMS has no duplicate ids of its own: the program sets the property that brokers take for one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use daymark_test_support::Process;
use daymark_test_support::java::Java;

use super::checker::Seen;
use super::clients::Ends;
use super::relay::Relay;

/// What a JMS client does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Send,
    SendTransacted,
    Receive,
    ReceiveTransacted,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Send => "send",
            Self::SendTransacted => "send-transacted",
            Self::Receive => "receive",
            Self::ReceiveTransacted => "receive-transacted",
        }
    }
}

/// The compiled program; `None` after saying that JMS takes no part.
pub(super) fn program() -> Option<Java> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/interop/java");
    Java::project("interop-jms", &directory)
}

/// The running program.
pub(super) struct Jms {
    /// Tells how many clients ended in order, when the program has ended.
    ended: Receiver<Result<(), String>>,
    over: PathBuf,
}

impl Jms {
    /// Starts these clients. Each stream that one of them sends to or receives from is among `streams`.
    pub(super) fn start(
        java: &Java,
        directory: &Path,
        brokers: &[Relay; 2],
        pace: Duration,
        clients: &[(Kind, Arc<Ends>)],
    ) -> Self {
        let over = directory.join("jms-over");
        let [one, two] = brokers.each_ref().map(|relay| relay.address);
        let uri = format!(
            "failover:(amqp://{one}?amqp.idleTimeout=2000,amqp://{two}?amqp.idleTimeout=2000)\
             ?failover.maxReconnectAttempts=-1&failover.initialReconnectDelay=5&failover.reconnectDelay=20\
             &failover.maxReconnectDelay=500"
        );
        let named: Vec<String> = clients
            .iter()
            .map(|(kind, ends)| format!("{}:{}", kind.as_str(), ends.name))
            .collect();
        let (over_text, pace) = (over.display().to_string(), pace.as_millis().to_string());
        let mut arguments = vec![uri.as_str(), &over_text, &pace];
        arguments.extend(named.iter().map(String::as_str));
        let arguments = java.arguments("daymark.interop.Soak", &arguments);
        let process = Process::start(java.executable(), &arguments, directory, &[]);
        let streams: Vec<Arc<Ends>> = clients.iter().map(|(_, ends)| Arc::clone(ends)).collect();
        let (tell, ended) = mpsc::channel();
        let count = clients.len();
        std::thread::spawn(move || {
            // Nobody listens any more only when the soak has failed.
            let _ = tell.send(follow(process, &streams, count));
        });
        Self { ended, over }
    }

    /// Producers send the end mark now.
    pub(super) fn end(&self) {
        std::fs::write(&self.over, "").expect("a file that says so");
    }

    /// Waits until every client has ended.
    pub(super) fn ended(&self, limit: Duration) -> Result<(), String> {
        self.ended
            .recv_timeout(limit)
            .unwrap_or_else(|_| Err("JMS clients have not finished".to_owned()))
    }
}

/// Between two lines while somebody still sends or receives. No fault lasts that long.
const SILENCE: Duration = Duration::from_secs(300);

/// Counts what the program says until it has ended.
fn follow(mut process: Process, streams: &[Arc<Ends>], count: usize) -> Result<(), String> {
    let mut done = 0;
    while done < count {
        let Some(line) = process.line(SILENCE) else {
            return Err(format!(
                "{done} of {count} JMS clients ended, then:\n{}",
                process.log()
            ));
        };
        if line.starts_with("ended ") {
            done += 1;
        } else if !note(&line, streams) {
            eprintln!("jms: {line}");
        }
    }
    let until = Instant::now() + SILENCE;
    while process.is_running() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Whether the line says what became of a message.
fn note(line: &str, streams: &[Arc<Ends>]) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let (what, term, text) = match words[..] {
        [what, name, number] => (what, 0, (name, number)),
        [what, term, name, number] => match term.parse() {
            Ok(term) => (what, term, (name, number)),
            Err(_) => return false,
        },
        _ => return false,
    };
    let (name, number) = text;
    let (Some(ends), Ok(number)) = (streams.iter().find(|ends| ends.name == name), number.parse()) else {
        return false;
    };
    let mut stream = ends.stream();
    match what {
        "sending" => assert_eq!(stream.send(), number, "numbers are sent in their order"),
        "acknowledged" => stream.acknowledged(number),
        "delivered" | "redelivered" => {
            let text = format!("{name} {number}");
            let again = what == "redelivered";
            stream.delivered(Seen {
                text: &text,
                again,
                term,
            });
        }
        "consumed" => stream.consumed(number),
        "settled" => stream.settled(number, term),
        "perhaps" => stream.perhaps_consumed(number),
        "returned" => stream.returned(number),
        _ => return false,
    }
    true
}
