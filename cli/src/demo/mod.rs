//! The demo: kill the active broker under load, and count.
//!
//! It starts real processes, sends and receives through names with the client library as any program would,
//! and reports. It trusts nobody's counts but its own: every message has a number in its body.

mod children;
mod cluster;
mod ports;
mod progress;
mod report;
mod schedule;
mod stream;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use crate::ledger::Counts;
pub use children::Launch;
pub use progress::Progress;
pub use report::{FIRST_ACKNOWLEDGED, Failover, Report, STEPS, Step};

use crate::args::DemoArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::servers::stop_signal;
use cluster::{Cluster, is_served};
use daymark_client::Naming;
use daymark_client::proto::GroupView;
use schedule::Schedule;
use serde_json::Value;
use stream::Stream;

/// The last step of a broker's way into office, by its own log.
const LAST_STEP: &str = "active";
/// The group of the demo's brokers.
const GROUP: &str = "demo";

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many messages to send.
    pub messages: u64,
    /// How many times to kill the active broker.
    pub kills: u32,
    /// How many messages may be on their way at once.
    pub window: u32,
    /// When to give up.
    pub deadline: Duration,
    /// How to run `daymark`.
    pub launch: Launch,
    /// Where to work; without it in a temporary directory that is removed.
    pub keep: Option<PathBuf>,
}

/// Why a demo came to no report.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A process did not start.
    #[error("{what} did not start: {why}\n{log}")]
    Start {
        /// Which.
        what: String,
        /// Why.
        why: String,
        /// The end of its log.
        log: String,
    },
    /// A process ended that nobody killed.
    #[error("{what} ended by itself: {status}")]
    Ended {
        /// Which.
        what: String,
        /// How.
        status: String,
    },
    /// Something took too long.
    #[error("no {what} after {waited:?}")]
    Stalled {
        /// What was waited for.
        what: &'static str,
        /// How long.
        waited: Duration,
    },
    /// The kills would follow each other too closely.
    #[error(
        "too few messages for that many kills: {} for each kill and {} after the last are the least",
        Schedule::SHARE_MIN,
        Schedule::SHARE_MIN
    )]
    TooFewMessages,
    /// The whole demo took too long.
    #[error("not done after {deadline:?}: {counts:?}")]
    Deadline {
        /// How long it was allowed to take.
        deadline: Duration,
        /// How far it came; nothing where it did not begin to send.
        counts: Option<Counts>,
    },
    /// The client library refused or gave up.
    #[error("{doing}: {why}")]
    Client {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        why: String,
    },
    /// A message came that was never sent.
    #[error("a message with the body {body:?} was received and never sent")]
    Foreign {
        /// Its body.
        body: String,
    },
    /// The group has an active member the demo did not start.
    #[error("the active broker is {name}, which this demo did not start")]
    UnknownMember {
        /// Its name.
        name: String,
    },
    /// The directory to work in is not empty.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A file, a process or a port.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// Ctrl-C or SIGTERM.
    #[error("interrupted")]
    Interrupted,
}

impl DemoError {
    fn client(doing: &'static str, why: impl Display) -> Self {
        Self::Client {
            doing,
            why: why.to_string(),
        }
    }
}

/// A demo that came to no report, and what its processes said last.
#[derive(Debug, thiserror::Error)]
#[error("{error}{}", logs.iter().map(|(what, log)| format!("\n--- {what} said last:\n{log}")).collect::<String>())]
pub struct DemoFailure {
    /// Why.
    pub error: DemoError,
    /// The end of the log of every process that ran, with its name.
    pub logs: Vec<(String, String)>,
}

/// `daymark demo`.
///
/// # Errors
/// Why there is no report.
pub(crate) async fn command(args: DemoArgs) -> Result<ExitCode, Failure> {
    let launch = Launch::current().map_err(|error| Failure::new("DemoFailed", error))?;
    let plan = Plan {
        messages: args.messages,
        kills: args.kills,
        window: args.window,
        deadline: args.deadline,
        launch,
        keep: args.keep,
    };
    let stop = stop_signal()?;
    let progress = Progress::on_stderr(args.messages);
    let outcome = run(plan, &progress, stop).await;
    progress.finish();
    let report = outcome.map_err(failed)?;
    Output::new(args.json).show(&report, Report::to_text)?;
    Ok(if report.is_kept() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn failed(failure: DemoFailure) -> Failure {
    match failure.error {
        DemoError::TooFewMessages | DemoError::NotEmpty { .. } => Failure::usage("InvalidPlan", failure),
        DemoError::Start { .. }
        | DemoError::Ended { .. }
        | DemoError::Stalled { .. }
        | DemoError::Deadline { .. }
        | DemoError::Client { .. }
        | DemoError::Foreign { .. }
        | DemoError::UnknownMember { .. }
        | DemoError::System(_) => Failure::new("DemoFailed", failure),
        DemoError::Interrupted => Failure::new("Interrupted", "interrupted; every process was ended"),
    }
}

/// Runs the demo to its report. Every process is gone when it returns, and when it is dropped.
///
/// # Errors
/// Why there is no report.
pub async fn run(
    plan: Plan,
    progress: &Progress,
    stop: impl Future<Output = ()>,
) -> Result<Report, DemoFailure> {
    let alone = |error: DemoError| DemoFailure {
        error,
        logs: Vec::new(),
    };
    if Schedule::new(plan.messages, plan.kills).is_none() {
        return Err(alone(DemoError::TooFewMessages));
    }
    let workplace = Workplace::new(plan.keep.as_deref()).map_err(alone)?;
    let directory = workplace.path().to_owned();
    let mut cluster = Cluster::new(plan.launch.clone(), directory).map_err(|error| alone(error.into()))?;
    let stream = Arc::new(Stream::new(&plan));
    let outcome = tokio::select! {
        outcome = tokio::time::timeout(plan.deadline, story(&plan, &mut cluster, &stream, progress)) => {
            outcome.unwrap_or_else(|_| Err(DemoError::Deadline {
                deadline: plan.deadline,
                counts: Some(stream.counts()),
            }))
        }
        () = stop => Err(DemoError::Interrupted),
    };
    cluster.end().await;
    outcome.map_err(|error| DemoFailure {
        error,
        logs: cluster.tails(),
    })
}

async fn story(
    plan: &Plan,
    cluster: &mut Cluster,
    stream: &Stream,
    progress: &Progress,
) -> Result<Report, DemoError> {
    progress.doing("starting naming, an active and a standby broker");
    let naming = cluster.start().await?;
    progress.event("naming, an active and a standby broker are up");
    progress.doing("streaming");
    let began = Instant::now();
    let ((), (), (failovers, elapsed)) = tokio::try_join!(
        stream.produce(&naming, progress),
        stream.consume(&naming),
        async {
            let failovers = kill_all(plan, cluster, &naming, stream, progress).await?;
            cluster.while_alive(stream.finished()).await?;
            Ok((failovers, began.elapsed()))
        },
    )?;
    let left_in_queue = left_in_queue(cluster, &naming).await?;
    Ok(Report {
        counts: stream.counts(),
        left_in_queue,
        elapsed_ms: elapsed.as_secs_f64() * 1000.0,
        failovers,
    })
}

async fn kill_all(
    plan: &Plan,
    cluster: &mut Cluster,
    naming: &Naming,
    stream: &Stream,
    progress: &Progress,
) -> Result<Vec<Failover>, DemoError> {
    let schedule = Schedule::new(plan.messages, plan.kills).ok_or(DemoError::TooFewMessages)?;
    let mut failovers = Vec::new();
    for kill in 0..plan.kills {
        stream.may_send(schedule.may_send_before(kill));
        cluster
            .while_alive(stream.acknowledged(schedule.kill_at(kill)))
            .await?;
        let go_on = || stream.may_send(schedule.may_send_after(kill));
        failovers.push(kill_one(cluster, naming, stream, progress, go_on).await?);
    }
    stream.may_send(schedule.may_send_before(plan.kills));
    Ok(failovers)
}

/// Kills the active broker, waits for the first message the next one acknowledges, and restarts the victim.
async fn kill_one(
    cluster: &mut Cluster,
    naming: &Naming,
    stream: &Stream,
    progress: &Progress,
    go_on: impl FnOnce(),
) -> Result<Failover, DemoError> {
    let before = cluster.wait_for_standby(naming).await?;
    let victim = before.active.map(|name| name.to_string()).unwrap_or_default();
    progress.doing(&format!("killing {victim}"));
    let killed_at_unix_us = unix_us(cluster.kill(&victim).await?);
    go_on();
    let first_ack = cluster
        .while_alive(stream.first_acknowledged_after(before.epoch))
        .await?;
    let is_next = |group: &GroupView| group.epoch > before.epoch && is_served(group);
    let after = cluster.wait_for(naming, "active broker", is_next).await?;
    let active = after.active.map(|name| name.to_string()).unwrap_or_default();
    let is_whole = |status: &Value| {
        report::steps_of(status, 0)
            .iter()
            .any(|step| step.step == LAST_STEP)
    };
    let status = cluster.status_when(&active, "broker in office", is_whole).await?;
    let mut steps = report::steps_of(&status, killed_at_unix_us);
    let after_kill_ms = report::milliseconds_between(killed_at_unix_us, unix_us(first_ack));
    steps.push(Step {
        step: FIRST_ACKNOWLEDGED.to_owned(),
        after_kill_ms,
    });
    progress.event(&format!(
        "killed {victim}: {active} acknowledged after {after_kill_ms:.1} ms"
    ));
    progress.doing(&format!("restarting {victim} as the standby"));
    cluster.start_broker(&victim).await?;
    cluster.wait_for_standby(naming).await?;
    progress.doing("streaming");
    Ok(Failover {
        killed: victim,
        active,
        epoch: after.epoch.0,
        killed_at_unix_us,
        steps,
    })
}

/// How many messages the active broker still has.
async fn left_in_queue(cluster: &mut Cluster, naming: &Naming) -> Result<Option<u64>, DemoError> {
    let group = cluster.wait_for(naming, "active broker", is_served).await?;
    let active = group.active.map(|name| name.to_string()).unwrap_or_default();
    let status = cluster.status_when(&active, "status", |_| true).await?;
    Ok(status.pointer("/messaging/messages").and_then(Value::as_u64))
}

fn unix_us(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Where the demo's files are.
enum Workplace {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Workplace {
    fn new(keep: Option<&Path>) -> Result<Self, DemoError> {
        let Some(path) = keep else {
            return Ok(Self::Temporary(
                tempfile::Builder::new().prefix("daymark-demo-").tempdir()?,
            ));
        };
        std::fs::create_dir_all(path)?;
        if std::fs::read_dir(path)?.next().is_some() {
            return Err(DemoError::NotEmpty {
                path: path.to_owned(),
            });
        }
        Ok(Self::Kept(path.to_owned()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(directory) => directory.path(),
            Self::Kept(path) => path,
        }
    }
}
