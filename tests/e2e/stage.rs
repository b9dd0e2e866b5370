//! What the stories share: a program with a naming server, and brokers around it.

use std::path::PathBuf;
use std::time::Duration;

use daymark_client::{Naming, NamingConfig};
use daymark_test_support::{Broker, Process, Program, Ran, eventually, eventually_some, free_port, http_get};
use serde_json::Value;

/// How long anything may take that should take milliseconds: the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(60);

/// The program under test.
pub(crate) fn program() -> Program {
    Program::new(env!("CARGO_BIN_EXE_daymark"))
}

/// A naming server with its data in a fresh directory, and commands that ask it.
pub(crate) struct Stage {
    pub(crate) program: Program,
    pub(crate) naming: Process,
    pub(crate) address: String,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let program = program();
        let (naming, address) = program.naming("naming");
        Self {
            program,
            naming,
            address,
        }
    }

    /// Runs a command against the naming server.
    #[track_caller]
    pub(crate) fn ask(&self, arguments: &[&str]) -> Ran {
        self.program
            .run(&[arguments, &["--provider", &self.address]].concat())
    }

    /// The same, if it succeeds, with its one JSON document.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        self.ask(&[arguments, &["--json"]].concat()).ok().json()
    }

    /// Runs a command, and returns what it says to people.
    #[track_caller]
    pub(crate) fn told(&self, words: &[&str]) -> String {
        self.ask(words).ok().stdout.clone()
    }

    /// Runs a command that is refused with this exit code and text.
    #[track_caller]
    pub(crate) fn refused(&self, words: &[&str], code: i32, says: &str) {
        let ran = self.ask(words);
        assert!(ran.code == Some(code) && ran.stderr.contains(says), "{ran:?}");
    }

    /// The client library, asking the naming server.
    pub(crate) fn client(&self) -> Naming {
        let providers = self.address.parse().expect("a provider list");
        Naming::new(providers, NamingConfig::default())
    }

    /// How to start a broker of group `orders`; brokers of one stage share one store.
    pub(crate) fn broker(&self, name: &str, role: &str) -> Broker {
        Broker {
            name: name.to_owned(),
            role: role.to_owned(),
            group: "orders".to_owned(),
            store: self.program.path("store"),
            naming: self.address.clone(),
            port: free_port(),
            config: None,
        }
    }

    /// Asks for a switchover until the active broker has heard that the other one is ready, and returns the
    /// answer.
    #[track_caller]
    pub(crate) fn switch_over(&self, to: &str) -> Value {
        eventually_some(SOON, "a ready standby", || {
            let ran = self.ask(&["switchover", "orders", "--to", to, "--json"]);
            let is_early = ran.stderr.contains("NotReady") || ran.stderr.contains("MemberNotHeard");
            assert!(ran.code == Some(0) || is_early, "{ran:?}");
            (ran.code == Some(0)).then(|| ran.json())
        })
    }

    /// Waits until the timeline of group `orders` has this step of this epoch's switchover to this member.
    #[track_caller]
    pub(crate) fn timeline_with(&self, epoch: u64, to: &str, step: &str) {
        eventually(SOON, &format!("{step} of epoch {epoch} in the timeline"), || {
            let timeline = self.json(&["timeline", "orders"]);
            let failovers = timeline["failovers"].as_array().expect("failovers");
            failovers.iter().any(|failover| {
                let steps = failover["report"]["steps"].as_array().expect("steps");
                failover["epoch"] == epoch
                    && failover["member"] == to
                    && failover["report"]["kind"] == "switchover"
                    && [
                        "handing-over",
                        "released",
                        "taking-over",
                        "recovered",
                        "published",
                        step,
                    ]
                    .iter()
                    .all(|wanted| steps.iter().any(|step| step["step"] == *wanted))
            })
        });
    }

    /// Waits until group `orders` has this active member, with its exports published under this epoch.
    #[track_caller]
    pub(crate) fn group_served_by(&self, name: &str, epoch: u64) -> Value {
        self.group_when(&format!("{name} serves under epoch {epoch}"), |group| {
            group["active"] == name && group["exports_epoch"] == epoch && group["withheld"].is_null()
        })
    }

    /// Waits until group `orders` is as it should be, and returns it.
    #[track_caller]
    pub(crate) fn group_when(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        eventually_some(SOON, what, || {
            let ran = self.ask(&["groups", "orders", "--json"]);
            (ran.code == Some(0)).then(|| ran.json()).filter(&is_so)
        })
    }
}

/// A running broker with what was needed to start it.
pub(crate) struct Member {
    pub(crate) process: Process,
    pub(crate) admin: String,
    pub(crate) broker: Broker,
}

/// An active and a standby broker on a stage.
pub(crate) struct Pair {
    pub(crate) stage: Stage,
    pub(crate) one: Member,
    pub(crate) two: Member,
}

impl Pair {
    /// `one` is active, `two` its standby. `config` is the text of both brokers' configuration file.
    #[track_caller]
    pub(crate) fn new(config: &str) -> Self {
        let stage = Stage::new();
        let file = (!config.is_empty()).then(|| stage.program.file("broker.toml", config));
        let one = start(&stage, "one", "primary", file.clone());
        stage.group_served_by("one", 1);
        let two = start(&stage, "two", "backup", file);
        eventually(SOON, "two watches one", || {
            http_get(&two.admin, "/v1/status").is_some_and(|answer| answer.body["watching"] == "one")
        });
        Self { stage, one, two }
    }
}

fn start(stage: &Stage, name: &str, role: &str, config: Option<PathBuf>) -> Member {
    let broker = Broker {
        config,
        ..stage.broker(name, role)
    };
    let (process, admin) = stage.program.broker(&broker);
    Member {
        process,
        admin,
        broker,
    }
}

impl Member {
    /// Waits until it is a standby that watches this member.
    #[track_caller]
    pub(crate) fn watches(&self, active: &str) {
        eventually(SOON, &format!("{} watches {active}", self.broker.name), || {
            http_get(&self.admin, "/v1/status")
                .is_some_and(|answer| answer.body["phase"] == "standby" && answer.body["watching"] == active)
        });
    }

    /// Starts it again after it ended.
    #[track_caller]
    pub(crate) fn restart(&mut self, stage: &Stage) {
        (self.process, self.admin) = stage.program.broker(&self.broker);
    }
}

/// Runs a future to its end: the stories are told one step after another.
pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(future)
}
