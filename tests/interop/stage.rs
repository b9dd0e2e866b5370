//! What the clients share: two brokers, and the lines that a run of cases prints.

use std::path::Path;
use std::time::Duration;

use daymark_test_support::{Broker, Process, Program, eventually, free_port};

/// How long all the cases of one client may take together, on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(300);

/// Makes queues and topics on first use. What it exports differs from what the other broker does.
const WILLING: &str = r#"
[messaging]
auto_create = true
queues = []
[[factories]]
export = "WillingConnectionFactory"
"#;

/// Ends a connection it has heard nothing from for so long, and tells clients half of it.
const STRICT: &str = "[messaging]\nidle_timeout_ms = 5000\n";

/// Two brokers, each active in a group of its own.
pub(crate) struct Brokers {
    program: Program,
    /// Makes queues and topics on first use: `HOST:PORT`.
    pub(crate) willing: String,
    /// Knows only the queue `examples`, and wants a sign of life every 2.5 seconds: `HOST:PORT`.
    pub(crate) strict: String,
    _processes: Vec<Process>,
}

impl Brokers {
    #[track_caller]
    pub(crate) fn new() -> Self {
        let program = Program::new(env!("CARGO_BIN_EXE_daymark"));
        let (naming, address) = program.naming("naming");
        let mut processes = vec![naming];
        let [willing, strict] = [("willing", WILLING), ("strict", STRICT)].map(|(name, config)| {
            let broker = Broker {
                name: name.to_owned(),
                role: "primary".to_owned(),
                group: name.to_owned(),
                store: program.path(name),
                naming: address.clone(),
                port: free_port(),
                config: Some(program.file(&format!("{name}.toml"), config)),
            };
            processes.push(program.broker(&broker).0);
            eventually(Duration::from_secs(60), &format!("{name} serves"), || {
                let ran = program.run(&["groups", name, "--json", "--provider", &address]);
                ran.code == Some(0) && ran.json()["exports_epoch"] == 1
            });
            format!("127.0.0.1:{}", broker.port)
        });
        Self {
            program,
            willing,
            strict,
            _processes: processes,
        }
    }

    /// Runs a client that prints one line for each case, and finds every one of `cases` done.
    #[track_caller]
    pub(crate) fn pass(&self, client: &Path, arguments: &[String], cases: &[&str]) {
        let mut process = Process::start(client, arguments, &self.program.path("."), &[]);
        let mut lines = Vec::new();
        while let Some(line) = process.line(PATIENCE) {
            println!("{line}");
            lines.push(line);
        }
        let status = process.ended(PATIENCE);
        let done = |case: &&str| lines.iter().any(|line| line.starts_with(&format!("ok {case} (")));
        let missing: Vec<_> = cases.iter().filter(|case| !done(case)).collect();
        assert!(
            missing.is_empty() && status.success(),
            "{status}; not done: {missing:?}\n{}\n{}",
            lines.join("\n"),
            process.whole_log()
        );
    }
}
