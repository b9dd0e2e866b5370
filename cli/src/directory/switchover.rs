//! `switchover`: an operator wants another member of a group to be active.
//!
//! The directory only says who is active and where its admin endpoint is. The active broker decides whether
//! it can be, does it, and answers when the other one is active.

use daymark_client::proto::GroupView;
use serde_json::{Value, json};

use super::promote::{active_admin, admin_endpoint};
use crate::admin;
use crate::args::SwitchoverArgs;
use crate::failure::{Failure, exit};
use crate::output::Output;
use crate::provider;

/// `daymark switchover GROUP [--to MEMBER]`.
///
/// # Errors
/// That nobody is active, that there is no such member, or what the active broker answered.
pub(crate) async fn switchover(args: SwitchoverArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let group = naming.group(&args.group).await?;
    if let Some(to) = &args.to {
        admin_endpoint(&group, to)?; // Who is no member is told so before anything is asked.
    }
    let endpoint = active_admin(&group)?;
    let body = json!({ "to": args.to });
    let answer = admin::post(&endpoint, "/v1/switchover", body, args.asking.timeout).await;
    let answer = answer.map_err(|failure| explained(failure, &group))?;
    Output::new(args.asking.json).show(&answer, |answer| {
        let text = |key| answer.get(key).and_then(Value::as_str).unwrap_or("?").to_owned();
        let number = |key| answer.get(key).and_then(Value::as_u64).unwrap_or_default();
        format!(
            "{} of group {} is active, epoch {}, {} us after {} stopped serving; {} is its standby",
            text("to"),
            args.group,
            number("epoch"),
            number("took_us"),
            text("from"),
            text("from"),
        )
    })
}

fn explained(failure: Failure, group: &GroupView) -> Failure {
    let look = format!("`daymark groups {}` shows who is active", group.name);
    for unknown in ["AdminUnreachable", "TimedOut", "Ending"] {
        if failure.is(unknown) {
            return failure.hint(look);
        }
    }
    if failure.is("NotReady") || failure.is("NobodyReady") || failure.is("MemberNotHeard") {
        let why = "a ready standby is heard by the active broker, watches it, and is a member in naming";
        return failure.exiting(exit::UNAVAILABLE).hint(why);
    }
    failure
}
