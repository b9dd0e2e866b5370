//! `timeline`: the last failovers of a group, as the members that took over told naming.

use daymark_client::proto::{Failover, FailoverStep, Timeline};

use crate::args::TimelineArgs;
use crate::failure::Failure;
use crate::output::{Output, facts, table};
use crate::provider;

/// `daymark timeline GROUP`.
///
/// # Errors
/// What the directory answered, or that nobody answered.
pub(crate) async fn timeline(args: TimelineArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let timeline = naming.timeline(&args.group).await?;
    Output::new(args.asking.json).show(&timeline, all)
}

fn all(timeline: &Timeline) -> String {
    if timeline.failovers.is_empty() {
        return format!("group {} has no failover on record", timeline.group);
    }
    let told: Vec<String> = timeline.failovers.iter().map(one).collect();
    told.join("\n\n")
}

fn one(failover: &Failover) -> String {
    let report = &failover.report;
    let about = facts([
        ("epoch", Some(failover.epoch.to_string())),
        ("kind", Some(report.kind.as_str().to_owned())),
        ("from", report.from.as_ref().map(ToString::to_string)),
        ("to", Some(failover.member.to_string())),
        (
            "began",
            Some(format!("{} ms since 1970 UTC", report.began_unix_ms)),
        ),
    ]);
    let steps = table(&["step", "after ms", "took ms", "note"], rows(&report.steps));
    format!("{about}\n{steps}")
}

fn rows(steps: &[FailoverStep]) -> impl Iterator<Item = [String; 4]> {
    let before = std::iter::once(0).chain(steps.iter().map(|step| step.at_us));
    steps.iter().zip(before).map(|(step, before)| {
        [
            step.step.to_string(),
            ms(step.at_us),
            ms(step.at_us.saturating_sub(before)),
            step.note.clone(),
        ]
    })
}

fn ms(us: u64) -> String {
    format!("{}.{:03}", us / 1000, us % 1000)
}
