//! The naming server and the two brokers of the demo, in one directory.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use daymark_client::proto::{Endpoint, GroupName, GroupView};
use daymark_client::{Naming, Providers};
use serde_json::Value;

use super::children::{Child, Launch};
use super::ports::free_port;
use super::{DemoError, GROUP};
use crate::{admin, provider};

/// The processes. Empty until `start`.
pub(super) struct Cluster {
    launch: Launch,
    directory: PathBuf,
    naming: Option<Child>,
    brokers: Vec<Broker>,
}

/// One broker, running or just killed.
struct Broker {
    name: &'static str,
    role: &'static str,
    port: u16,
    child: Option<Child>,
}

/// What comes before the first kill, or between two, must not take longer than this.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often the directory is asked whether it is so far.
const ASK_AGAIN: Duration = Duration::from_millis(5);

impl Cluster {
    /// No process yet.
    pub(super) fn new(launch: Launch, directory: PathBuf) -> io::Result<Self> {
        let broker = |name, role| {
            Ok::<_, io::Error>(Broker {
                name,
                role,
                port: free_port()?,
                child: None,
            })
        };
        let brokers = vec![broker("one", "primary")?, broker("two", "backup")?];
        Ok(Self {
            launch,
            directory,
            naming: None,
            brokers,
        })
    }

    /// Starts the naming server, then an active broker, then a standby.
    pub(super) async fn start(&mut self) -> Result<Naming, DemoError> {
        let arguments = words(&["naming", "--listen", "127.0.0.1:0", "--data"])
            .chain([self.directory.join("naming").into_os_string()])
            .collect();
        let log = self.directory.join("naming.log");
        let child = Child::start(&self.launch, "naming".into(), arguments, "listening", log).await?;
        let providers: Providers = child.address.parse().map_err(|error| DemoError::Start {
            what: "naming".into(),
            why: format!("it listens at {}: {error}", child.address),
            log: String::new(),
        })?;
        self.naming = Some(child);
        let naming = Naming::new(providers, provider::config(Duration::from_secs(10)));
        let settings = "[failover]\nauto_switchover = false\n";
        std::fs::write(self.config(), settings).map_err(|error| DemoError::Start {
            what: "brokers".into(),
            why: format!("{} cannot be written: {error}", self.config().display()),
            log: String::new(),
        })?;
        self.start_broker("one").await?;
        self.wait_for(&naming, "active broker", is_served).await?;
        self.start_broker("two").await?;
        self.wait_for_standby(&naming).await?;
        Ok(naming)
    }

    /// A victim that is back stays the standby, so that each kill is one failover.
    fn config(&self) -> PathBuf {
        self.directory.join("broker.toml")
    }

    /// Starts a broker that is not running.
    pub(super) async fn start_broker(&mut self, name: &str) -> Result<(), DemoError> {
        let naming = self
            .naming
            .as_ref()
            .map(|child| child.address.clone())
            .unwrap_or_default();
        let log = self.directory.join(format!("{name}.log"));
        let mut store = OsString::from("journal:");
        store.push(self.directory.join("store"));
        let broker = self.broker(name)?;
        let listen = format!("127.0.0.1:{}", broker.port);
        let arguments = words(&[
            "broker",
            "--group",
            GROUP,
            "--name",
            broker.name,
            "--role",
            broker.role,
        ])
        .chain(words(&[
            "--naming",
            &naming,
            "--listen",
            &listen,
            "--admin",
            "127.0.0.1:0",
        ]))
        .chain([OsString::from("--store"), store])
        .chain([OsString::from("--config"), self.config().into_os_string()])
        .collect();
        let what = format!("broker {name}");
        let child = Child::start(&self.launch, what, arguments, "admin", log).await?;
        self.broker(name)?.child = Some(child);
        Ok(())
    }

    /// Waits until one broker is active and the other one watches it.
    pub(super) async fn wait_for_standby(&mut self, naming: &Naming) -> Result<GroupView, DemoError> {
        let everybody = self.brokers.len();
        let group = self
            .wait_for(naming, "standby", |group| {
                is_served(group) && group.members.len() == everybody
            })
            .await?;
        let active = group.active.as_ref().map(ToString::to_string).unwrap_or_default();
        let standbys = group
            .members
            .iter()
            .filter(|member| Some(&member.name) != group.active.as_ref());
        for standby in standbys {
            let watches = |status: &Value| status.get("watching").and_then(Value::as_str) == Some(&active);
            self.status_when(standby.name.as_str(), "standby that watches", watches)
                .await?;
        }
        Ok(group)
    }

    /// Waits until the group is as it should be, as long as every process lives.
    pub(super) async fn wait_for(
        &mut self,
        naming: &Naming,
        what: &'static str,
        is_so: impl Fn(&GroupView) -> bool,
    ) -> Result<GroupView, DemoError> {
        let asking = async {
            let group: GroupName = GROUP
                .parse()
                .map_err(|error| DemoError::client("naming the group", error))?;
            loop {
                // Until the first broker has joined, there is no such group.
                if let Ok(view) = naming.group(&group).await
                    && is_so(&view)
                {
                    return Ok(view);
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        self.patiently(what, asking).await
    }

    async fn patiently<T>(
        &mut self,
        what: &'static str,
        asking: impl Future<Output = Result<T, DemoError>>,
    ) -> Result<T, DemoError> {
        let patient = tokio::time::timeout(PATIENCE, asking);
        self.while_alive(patient)
            .await?
            .unwrap_or(Err(DemoError::Stalled {
                what,
                waited: PATIENCE,
            }))
    }

    /// Performs something as long as every process lives.
    pub(super) async fn while_alive<T>(&mut self, what: impl Future<Output = T>) -> Result<T, DemoError> {
        tokio::select! {
            done = what => Ok(done),
            error = self.any_ended() => Err(error),
        }
    }

    /// Resolves when a process ended by itself.
    async fn any_ended(&mut self) -> DemoError {
        let Self { naming, brokers, .. } = self;
        let [one, two] = brokers.as_mut_slice() else {
            return std::future::pending().await;
        };
        tokio::select! {
            error = ended(naming.as_mut()) => error,
            error = ended(one.child.as_mut()) => error,
            error = ended(two.child.as_mut()) => error,
        }
    }

    /// Kills a broker with SIGKILL. Returns when the signal was sent.
    pub(super) async fn kill(&mut self, name: &str) -> Result<SystemTime, DemoError> {
        match self.broker(name)?.child.take() {
            Some(mut child) => Ok(child.kill().await?),
            None => Err(DemoError::UnknownMember {
                name: name.to_owned(),
            }),
        }
    }

    /// The status document of a broker, once it is as it should be.
    pub(super) async fn status_when(
        &mut self,
        name: &str,
        what: &'static str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Result<Value, DemoError> {
        let address = self
            .broker(name)?
            .child
            .as_ref()
            .map(|child| child.address.clone());
        let endpoint: Result<Endpoint, _> = address.unwrap_or_default().parse();
        let endpoint = endpoint.map_err(|error| DemoError::client("reading an admin address", error))?;
        let asking = async {
            loop {
                let status = admin::read(&endpoint, "/v1/status", PATIENCE).await;
                let status =
                    status.map_err(|failure| DemoError::client("reading a broker's status", failure))?;
                if is_so(&status) {
                    return Ok(status);
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        self.patiently(what, asking).await
    }

    /// Ends every process and waits until it is gone.
    pub(super) async fn end(&mut self) {
        for child in self.children() {
            // One that is gone already is what is wanted.
            let _ = child.kill().await;
        }
    }

    /// The end of every log, with what wrote it.
    pub(super) fn tails(&mut self) -> Vec<(String, String)> {
        self.children()
            .map(|child| (child.what.clone(), child.tail()))
            .collect()
    }

    fn children(&mut self) -> impl Iterator<Item = &mut Child> {
        let brokers = self.brokers.iter_mut().filter_map(|broker| broker.child.as_mut());
        brokers.chain(self.naming.as_mut())
    }

    fn broker(&mut self, name: &str) -> Result<&mut Broker, DemoError> {
        self.brokers
            .iter_mut()
            .find(|broker| broker.name == name)
            .ok_or_else(|| DemoError::UnknownMember {
                name: name.to_owned(),
            })
    }
}

/// Whether the group's active broker has published its exports.
pub(super) fn is_served(group: &GroupView) -> bool {
    group.active.is_some() && group.withheld.is_none() && group.exports_epoch == group.epoch
}

async fn ended(child: Option<&mut Child>) -> DemoError {
    let Some(child) = child else {
        return std::future::pending().await;
    };
    match child.ended().await {
        Ok(status) => DemoError::Ended {
            what: child.what.clone(),
            status: status.to_string(),
        },
        Err(error) => error.into(),
    }
}

fn words<'a>(words: &'a [&str]) -> impl Iterator<Item = OsString> + use<'a> {
    words.iter().map(|word| OsString::from(*word))
}
