//! `groups`: who is active, at which epoch, with which exports.

use daymark_client::proto::{GroupView, Member};

use super::show;
use crate::args::GroupsArgs;
use crate::failure::Failure;
use crate::output::{Output, facts, table};
use crate::provider;

/// `daymark groups [GROUP]`.
///
/// # Errors
/// What the directory answered, or that nobody answered.
pub(crate) async fn groups(args: GroupsArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let output = Output::new(args.asking.json);
    match args.group {
        Some(group) => output.show(&naming.group(&group).await?, one),
        None => output.show(&naming.groups().await?, |groups| {
            table(
                &["group", "epoch", "active", "standby", "exports"],
                groups.groups.iter().map(row),
            )
        }),
    }
}

fn row(group: &GroupView) -> [String; 5] {
    let standby: Vec<&str> = group
        .members
        .iter()
        .filter(|member| Some(&member.name) != group.active.as_ref())
        .map(|member| member.name.as_str())
        .collect();
    [
        group.name.to_string(),
        group.epoch.to_string(),
        active(group),
        standby.join(", "),
        exports(group),
    ]
}

fn active(group: &GroupView) -> String {
    group
        .active
        .as_ref()
        .map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn exports(group: &GroupView) -> String {
    let count = group.exports.len();
    match &group.withheld {
        Some(withheld) => format!("{count}, {}", show::withheld(withheld)),
        None => format!("{count}"),
    }
}

fn one(group: &GroupView) -> String {
    let exports: Vec<&str> = group.exports.iter().map(|name| name.as_str()).collect();
    let about = facts([
        ("group", Some(group.name.to_string())),
        ("epoch", Some(group.epoch.to_string())),
        ("active", Some(active(group))),
        ("exports", Some(exports.join(", "))),
        ("withheld", group.withheld.as_ref().map(show::withheld)),
        ("revision", Some(group.revision.to_string())),
    ]);
    let members = table(
        &["member", "state", "role", "endpoint", "admin", "lease"],
        group.members.iter().map(member),
    );
    format!("{about}\n\n{members}")
}

fn member(member: &Member) -> [String; 6] {
    let joined = &member.joined;
    [
        member.name.to_string(),
        member.state.as_str().to_owned(),
        joined.role.as_str().to_owned(),
        joined.endpoint.to_string(),
        joined
            .admin
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string),
        format!("{} ms", joined.lease_ms),
    ]
}
