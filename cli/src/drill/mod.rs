//! The drill: one failover of a running group, under a small load of its own, and what its clients saw.
//!
//! It decides nothing about who becomes active: it only gives the cause. Invariant: what it began it ends, also
//! when it fails or is interrupted: a broker it froze goes on, and the messages it sent are taken away.

mod confirm;
mod load;
mod report;
mod signals;
mod target;

use std::future::Future;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use daymark_client::proto::{Epoch, FailoverReport, GroupView, MemberName};
use daymark_client::{ConnectionFactory, Naming};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::admin;
use crate::args::DrillArgs;
use crate::failure::{Failure, exit};
use crate::output::Output;
use crate::provider;
use crate::servers::stop_signal;
use load::{Gap, Load};
use report::{Old, Report};
use signals::{Frozen, Process};
use target::Target;

/// The cause of the failover.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum How {
    /// SIGKILL to the active broker's process.
    Kill,
    /// The handover of `daymark switchover`.
    Switchover,
    /// SIGSTOP to the active broker's process, and SIGCONT once another one is active.
    Freeze,
}

impl How {
    /// What was asked for: at most one flag is set, and without any it is the gentlest.
    const fn of(args: &DrillArgs) -> Self {
        if args.kill {
            Self::Kill
        } else if args.freeze {
            Self::Freeze
        } else {
            Self::Switchover
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Switchover => "switchover",
            Self::Freeze => "freeze",
        }
    }
}

/// Messages acknowledged before the cause is given: the load flows.
const BEFORE: u64 = 100;
/// Messages acknowledged after the new active broker's first: it goes on flowing.
const AFTER: u64 = 100;
/// How long the end of a broken-off drill may take.
const CLEAN_UP: Duration = Duration::from_secs(5);
/// How long the timeline may take to be told.
const TIMELINE: Duration = Duration::from_secs(5);
/// How long the old active broker may take to become the standby.
const SETTLE: Duration = Duration::from_secs(20);
/// How often something is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(10);

/// `daymark drill`.
///
/// # Errors
/// Why there was no drill, or no report of it.
pub(crate) async fn command(args: DrillArgs) -> Result<ExitCode, Failure> {
    let how = How::of(&args);
    let naming = provider::naming(&args.asking)?;
    let target = target::find(&naming, &args.group, how, args.asking.timeout).await?;
    confirm::confirm(how, &target, args.yes)?;
    let stop = stopped()?;
    let drill = Drill {
        how,
        target,
        naming,
        load: Load::new(args.deadline),
        timeout: args.asking.timeout,
    };
    let report = drill.run(args.deadline, stop).await?;
    Output::new(args.asking.json).show(&report, Report::to_text)?;
    Ok(if report.is_kept() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Resolves when an operator, or the end of the terminal, ends the drill.
fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    let stop = stop_signal()?;
    let mut hangup = signal(SignalKind::hangup())?;
    Ok(async move {
        tokio::select! {
            () = stop => {}
            _ = hangup.recv() => {}
        }
    })
}

struct Drill {
    how: How,
    target: Target,
    naming: Naming,
    load: Load,
    /// How long one question may take.
    timeout: Duration,
}

/// What is known when the new active broker serves.
struct Changed {
    gap: Gap,
    to: MemberName,
    epoch: Epoch,
    old: Old,
}

impl Drill {
    async fn run(self, deadline: Duration, stop: impl Future<Output = ()>) -> Result<Report, Failure> {
        let factory = target::factory(&self.naming, &self.target.group).await?;
        // Whichever way the story ends, dropping it lets a frozen broker go on.
        let outcome = tokio::select! {
            outcome = tokio::time::timeout(deadline, self.story(&factory)) => outcome.unwrap_or_else(|_| {
                Err(Failure::new("Deadline", format!("the drill was not done after {deadline:?}"))
                    .exiting(exit::UNAVAILABLE)
                    .hint(format!("`daymark groups {}` shows who is active", self.target.group.name)))
            }),
            () = stop => Err(Failure::new("Interrupted", "interrupted; a frozen broker goes on")),
        };
        if outcome.is_err() {
            // Messages that stay are seen by no other drill, and expire.
            let _ = tokio::time::timeout(CLEAN_UP, self.load.empty(&factory)).await;
        }
        outcome
    }

    async fn story(&self, factory: &ConnectionFactory) -> Result<Report, Failure> {
        say("sending and receiving at daymark.drill");
        let ((), (), changed) = tokio::try_join!(
            self.load.consume(factory),
            self.load.produce(factory),
            self.change()
        )?;
        let told = self.timeline(changed.epoch).await;
        let same_clock = self.shares_clock_with(&changed.to).await;
        Ok(Report::new(self, changed, told.as_ref(), same_clock))
    }

    /// Gives the cause, waits until another broker serves, and ends the load.
    async fn change(&self) -> Result<Changed, Failure> {
        self.load.acknowledged(BEFORE).await;
        self.load.watch_gap();
        let frozen = self.cause().await?;
        let gap = self.load.gap_until_after(self.target.group.epoch).await;
        let group = self.served_by_another().await?;
        let to = group.active.unwrap_or_else(|| self.target.active.clone());
        say(&format!("{to} acknowledges, after {:.1} ms", gap.ms()));
        let old = self.old(frozen, &to, gap.epoch).await;
        self.load
            .acknowledged(self.load.count_acknowledged() + AFTER)
            .await;
        self.load.end();
        Ok(Changed {
            gap,
            to,
            epoch: gap.epoch,
            old,
        })
    }

    async fn cause(&self) -> Result<Option<Frozen>, Failure> {
        let active = &self.target.active;
        match (self.how, &self.target.process) {
            (How::Kill, Some(process)) => {
                process.kill()?;
                say(&format!("{active} was killed"));
                Ok(None)
            }
            (How::Freeze, Some(process)) => {
                let frozen = process.freeze()?;
                say(&format!(
                    "{active} is frozen; it is followed when its lease has ended, or by `daymark promote {} \
                     MEMBER --force`",
                    self.target.group.name
                ));
                Ok(Some(frozen))
            }
            (How::Switchover, _) | (How::Kill | How::Freeze, None) => {
                let asked = admin::post(&self.target.admin, "/v1/switchover", json!({}), self.timeout);
                asked.await?;
                Ok(None)
            }
        }
    }

    /// The group once another member serves it under a newer epoch.
    async fn served_by_another(&self) -> Result<GroupView, Failure> {
        loop {
            // Naming may be slow in a failover; the deadline of the drill ends the wait.
            if let Ok(group) = self.naming.group(&self.target.group.name).await
                && group.epoch > self.target.group.epoch
                && target::is_served(&group)
            {
                return Ok(group);
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// What became of the broker that was active.
    async fn old(&self, frozen: Option<Frozen>, to: &MemberName, epoch: Epoch) -> Old {
        drop(frozen); // SIGCONT.
        if self.how == How::Kill {
            return Old::Killed;
        }
        let until = Instant::now() + SETTLE;
        while Instant::now() < until {
            if self.target.process.as_ref().is_some_and(Process::has_ended) {
                return Old::Ended;
            }
            if let Some(old) = self.old_as_it_says(to, epoch).await {
                return old;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Old::Unknown
    }

    /// What the old active broker is, once it has noticed.
    async fn old_as_it_says(&self, to: &MemberName, epoch: Epoch) -> Option<Old> {
        let status = admin::read(&self.target.admin, "/v1/status", self.timeout)
            .await
            .ok()?;
        let is = |key: &str, value: &str| status.get(key).and_then(Value::as_str) == Some(value);
        if is("phase", "standby") && is("watching", to.as_str()) {
            return Some(Old::Standby);
        }
        let is_later = status.get("epoch").and_then(Value::as_u64) > Some(epoch.0);
        (is("state", "active") && is_later).then_some(Old::Active)
    }

    /// What the new active broker told of its way into office; what it has not told by then is left out.
    async fn timeline(&self, epoch: Epoch) -> Option<FailoverReport> {
        let until = Instant::now() + TIMELINE;
        loop {
            let timeline = self.naming.timeline(&self.target.group.name).await.ok();
            let found = timeline.and_then(|timeline| {
                let mut failovers = timeline.failovers.into_iter();
                failovers.find(|failover| failover.epoch == epoch)
            });
            let report = found.map(|failover| failover.report);
            let is_whole = report.as_ref().is_some_and(|report| {
                let mut steps = report.steps.iter();
                steps.any(|step| step.step.as_str() == report::FIRST_CLIENT)
            });
            if is_whole || Instant::now() >= until {
                return report;
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    /// Whether the times a member tells are comparable with those measured here.
    async fn shares_clock_with(&self, member: &MemberName) -> bool {
        match target::status_of(&self.target.group, member, self.timeout).await {
            Ok(status) => target::home_of(&status).is_some_and(|home| home.runs_beside(&target::here())),
            Err(_) => false,
        }
    }
}

/// Progress, on standard error. There is nobody left to tell when that is gone.
fn say(what: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{what}");
}
