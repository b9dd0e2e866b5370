//! `promote`: an operator asks a standby to become the active one.
//!
//! The directory only says where the member's admin endpoint is. Whether the promotion is safe is decided by
//! the member, which holds or breaks the store's lock, and by the epoch.

use daymark_client::proto::{Endpoint, GroupView, MemberName};
use serde_json::{Value, json};

use crate::admin;
use crate::args::PromoteArgs;
use crate::failure::{Failure, exit};
use crate::output::Output;
use crate::provider;

/// The code of a broker that will not be promoted now.
const REFUSED: &str = "PromotionRefused";

/// `daymark promote GROUP MEMBER [--force]`.
///
/// # Errors
/// That there is no such member or it has no admin endpoint, or what the member answered.
pub(crate) async fn promote(args: PromoteArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let group = naming.group(&args.group).await?;
    let endpoint = admin_endpoint(&group, &args.member)?;
    let body = json!({ "force": args.force });
    let timeout = args.asking.timeout;
    let answer = admin::post(&endpoint, "/v1/promote", body, timeout).await;
    let answer = answer.map_err(|failure| {
        if failure.is(REFUSED) && !args.force {
            failure.hint("if you know that whoever holds the store is frozen or gone, --force takes it over")
        } else {
            failure
        }
    })?;
    Output::new(args.asking.json).show(&answer, |answer| {
        let epoch = answer.get("epoch").and_then(Value::as_u64);
        let epoch = epoch.map(|epoch| format!(", epoch {epoch}")).unwrap_or_default();
        format!("{} of group {} is active{epoch}", args.member, args.group)
    })
}

/// Where the admin endpoint of the active member listens.
///
/// # Errors
/// That nobody is active, or that the active member told none.
pub(crate) fn active_admin(group: &GroupView) -> Result<Endpoint, Failure> {
    let Some(active) = &group.active else {
        let message = format!("group {} has no active member", group.name);
        return Err(Failure::new("NoActive", message)
            .exiting(exit::UNAVAILABLE)
            .hint(format!(
                "`daymark promote {} MEMBER` makes a standby the active one",
                group.name
            )));
    };
    admin_endpoint(group, active)
}

/// Where a member's admin endpoint listens, as it told naming.
///
/// # Errors
/// That the group has no such member, or that it told none.
pub(crate) fn admin_endpoint(group: &GroupView, name: &MemberName) -> Result<Endpoint, Failure> {
    let found = group.members.iter().find(|member| member.name == *name);
    let Some(member) = found else {
        let present: Vec<&str> = group.members.iter().map(|member| member.name.as_str()).collect();
        let message = format!("group {} has no member {name}", group.name);
        return Err(Failure::new("MemberNotFound", message)
            .exiting(exit::NOT_FOUND)
            .hint(format!("its members are: {}", present.join(", "))));
    };
    member.joined.admin.clone().ok_or_else(|| {
        Failure::new(
            "NoAdminEndpoint",
            format!("member {name} of group {} told no admin endpoint", group.name),
        )
    })
}
