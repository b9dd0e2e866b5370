//! Whom the drill is about, and whether it can be done: somebody serves, somebody is ready to follow, and
//! signals reach the process.

use std::time::{Duration, Instant};

use daymark_broker_server::Home;
use daymark_client::proto::{Endpoint, GroupName, GroupView, MemberName, ObjectKind};
use daymark_client::{ConnectionFactory, Naming};
use serde_json::Value;

use super::signals::Process;
use super::{ASK_AGAIN, How};
use crate::admin;
use crate::directory::admin_endpoint;
use crate::failure::{Failure, exit};

/// A group that can be drilled.
#[derive(Debug)]
pub(super) struct Target {
    /// As it was before.
    pub(super) group: GroupView,
    pub(super) active: MemberName,
    /// The active broker's admin endpoint.
    pub(super) admin: Endpoint,
    /// The standbys that could be handed the service now.
    pub(super) ready: Vec<MemberName>,
    /// The active broker's process, where the drill needs it.
    pub(super) process: Option<Process>,
}

/// A standby that has just come may take this long to be ready.
const READY: Duration = Duration::from_secs(3);

/// The target of a drill of this group.
///
/// # Errors
/// Why it cannot be done.
pub(super) async fn find(
    naming: &Naming,
    name: &GroupName,
    how: How,
    timeout: Duration,
) -> Result<Target, Failure> {
    let group = naming.group(name).await?;
    let active = group.active.clone().filter(|_| is_served(&group));
    let active = active.ok_or_else(|| {
        Failure::new("NoActive", format!("nobody serves group {name}"))
            .exiting(exit::UNAVAILABLE)
            .hint(format!("`daymark groups {name}` shows its members"))
    })?;
    let admin = admin_endpoint(&group, &active)?;
    let process = match how {
        How::Switchover => None,
        How::Kill | How::Freeze => Some(process(&admin, &active, timeout).await?),
    };
    let ready = ready(&group, &active, timeout).await?;
    Ok(Target {
        group,
        active,
        admin,
        ready,
        process,
    })
}

/// Whether the group's active broker has published its exports.
pub(super) fn is_served(group: &GroupView) -> bool {
    group.active.is_some() && group.withheld.is_none() && group.exports_epoch == group.epoch
}

/// Where this process runs.
pub(super) fn here() -> Home {
    Home::here()
}

/// Where a broker runs, by its status document.
pub(super) fn home_of(status: &Value) -> Option<Home> {
    serde_json::from_value(status.clone()).ok()
}

/// A member's status document.
///
/// # Errors
/// That it is no member, or did not answer.
pub(super) async fn status_of(
    group: &GroupView,
    member: &MemberName,
    timeout: Duration,
) -> Result<Value, Failure> {
    admin::read(&admin_endpoint(group, member)?, "/v1/status", timeout).await
}

/// The process of the active broker, if signals from here reach it.
async fn process(admin: &Endpoint, active: &MemberName, timeout: Duration) -> Result<Process, Failure> {
    let status = admin::read(admin, "/v1/status", timeout).await?;
    let Some(home) = home_of(&status).filter(|home| home.boot_id.is_some()) else {
        let message = format!("{active} does not say where its process runs");
        return Err(elsewhere(message));
    };
    if !home.shares_pids_with(&here()) {
        let host = &home.host;
        let place = if home.runs_beside(&here()) {
            format!("on this machine ({host}), and process ids mean others there, as in a container")
        } else {
            format!("on {host}, and this is {}", here().host)
        };
        return Err(
            elsewhere(format!("{active} runs {place}: no signal reaches it from here")).hint(format!(
                "run it on {host}, where {active}'s process runs; --switchover works from everywhere"
            )),
        );
    }
    let pid = |status: &Value| {
        status
            .get("pid")
            .and_then(Value::as_u64)
            .and_then(|pid| u32::try_from(pid).ok())
    };
    let id = pid(&status).ok_or_else(|| elsewhere(format!("{active} does not tell its process id")))?;
    let process = Process::open(id)?;
    // The handle was opened before this answer, so it means the process that answers.
    let again = admin::read(admin, "/v1/status", timeout).await?;
    if pid(&again) == Some(id) {
        Ok(process)
    } else {
        Err(Failure::new("Changed", format!("{active} was just started anew")).exiting(exit::UNAVAILABLE))
    }
}

fn elsewhere(message: String) -> Failure {
    Failure::new("Elsewhere", message).hint("--switchover works from everywhere")
}

/// The members that could be handed the service now; at least one.
async fn ready(
    group: &GroupView,
    active: &MemberName,
    timeout: Duration,
) -> Result<Vec<MemberName>, Failure> {
    let until = Instant::now() + READY;
    loop {
        let mut ready = Vec::new();
        for member in group.members.iter().filter(|member| member.name != *active) {
            // One that does not answer is not ready.
            let status = status_of(group, &member.name, timeout.min(READY)).await;
            if status.is_ok_and(|status| is_ready(&status, active)) {
                ready.push(member.name.clone());
            }
        }
        if !ready.is_empty() {
            return Ok(ready);
        }
        if Instant::now() >= until || group.members.len() < 2 {
            return Err(nobody_ready(group, active));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn is_ready(status: &Value, active: &MemberName) -> bool {
    let watches = status.get("watching").and_then(Value::as_str) == Some(active.as_str());
    watches && status.get("ready").and_then(Value::as_bool) == Some(true)
}

fn nobody_ready(group: &GroupView, active: &MemberName) -> Failure {
    let message = format!("no standby of group {} is ready to follow {active}", group.name);
    Failure::new("NobodyReady", message)
        .exiting(exit::UNAVAILABLE)
        .hint("a ready standby watches the active broker and is a member in naming; nothing was touched")
}

/// How clients connect to the group: by its first exported factory, which they follow, or by the addresses of
/// its members where it exports none.
///
/// # Errors
/// That naming does not answer, or that no broker has an address that can be used.
pub(super) async fn factory(naming: &Naming, group: &GroupView) -> Result<ConnectionFactory, Failure> {
    for name in &group.exports {
        let binding = naming.lookup(name).await?;
        if binding.object.kind() == ObjectKind::ConnectionFactory {
            return Ok(naming.connection_factory(name).await?);
        }
    }
    let addresses = group.members.iter().map(|member| &member.joined.endpoint);
    let builder = addresses.fold(ConnectionFactory::builder(), |builder, address| {
        builder.add_broker(address.host.clone(), address.port)
    });
    builder
        .build()
        .map_err(|error| Failure::new("NoAddress", format!("group {}: {error}", group.name)))
}
