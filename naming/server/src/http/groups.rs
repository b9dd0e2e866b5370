//! Broker groups over HTTP.

use daymark_naming_proto::{Request, Write};

use super::body;
use super::call::{Answered, Call};

pub(super) async fn groups(call: Call) -> Answered {
    call.ask(Request::Groups).await
}

pub(super) async fn group(call: Call) -> Answered {
    let group = call.group()?;
    call.ask(Request::Group { group }).await
}

pub(super) async fn timeline(call: Call) -> Answered {
    let group = call.group()?;
    call.ask(Request::Timeline { group }).await
}

pub(super) async fn join(mut call: Call) -> Answered {
    let group = call.group()?;
    let (body::Join { member, join }, bytes) = call.document().await?;
    call.write(Write::Join { group, member, join }, bytes).await
}

pub(super) async fn leave(mut call: Call) -> Answered {
    let group = call.group()?;
    let (body::Membership { member, lease }, bytes) = call.document().await?;
    call.write(Write::Leave { group, member, lease }, bytes).await
}

pub(super) async fn renew(mut call: Call) -> Answered {
    let group = call.group()?;
    let (body::Membership { member, lease }, _) = call.document().await?;
    call.ask(Request::Renew { group, member, lease }).await
}

pub(super) async fn claim(mut call: Call) -> Answered {
    let group = call.group()?;
    let (claim, bytes) = call.document::<body::Claim>().await?;
    let claim = Write::Claim {
        group,
        member: claim.member,
        store_epoch: claim.store_epoch,
        evidence: claim.evidence,
    };
    call.write(claim, bytes).await
}

pub(super) async fn publish(mut call: Call) -> Answered {
    let group = call.group()?;
    let (publish, bytes) = call.document::<body::Publish>().await?;
    let publish = Write::Publish {
        group,
        member: publish.member,
        epoch: publish.epoch,
        exports: publish.exports,
    };
    call.write(publish, bytes).await
}

pub(super) async fn withdraw(mut call: Call) -> Answered {
    let group = call.group()?;
    let (withdraw, bytes) = call.document::<body::Withdraw>().await?;
    let withdraw = Write::Withdraw {
        group,
        epoch: withdraw.epoch,
        reason: withdraw.reason,
        eta_ms: withdraw.eta_ms,
    };
    call.write(withdraw, bytes).await
}

pub(super) async fn record(mut call: Call) -> Answered {
    let group = call.group()?;
    let (record, bytes) = call.document::<body::Record>().await?;
    let record = Write::RecordFailover {
        group,
        member: record.member,
        epoch: record.epoch,
        report: record.report,
    };
    call.write(record, bytes).await
}
