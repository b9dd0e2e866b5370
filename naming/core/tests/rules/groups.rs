//! Joins, leaves, lease ends and claims, one story for each rule.

use daymark_naming_core::{EPOCH_MAX, Lease};
use daymark_naming_proto::{
    Epoch, Evidence, GroupView, LeaseId, MemberName, MemberState, NamingError, Renewed, Revision,
    UnavailableReason, WithdrawReason, Write, WriteDetail,
};

use crate::support::{
    Story, changed, description, export, granted, group, member, queue, refused, unchanged,
};

fn states(view: &GroupView) -> Vec<(&str, MemberState)> {
    let members = view.members.iter();
    members
        .map(|member| (member.name.as_str(), member.state))
        .collect()
}

#[test]
fn a_member_joins_as_standby_and_its_lease_is_the_revision_of_the_join() {
    let mut story = Story::new();
    changed(story.bind("q", queue("1")));
    let written = story.join("orders", "kkam").expect("a join");
    assert_eq!(
        written.detail,
        WriteDetail::Joined {
            lease: LeaseId(2),
            epoch: Epoch(0),
            active: None
        }
    );
    let view = story.view("orders");
    assert_eq!(states(&view), [("kkam", MemberState::Standby)]);
    assert_eq!(view.members[0].joined, description());
    assert_eq!(view.revision, Revision(2));
    let leases: Vec<Lease> = story.directory.leases().collect();
    let expected = Lease {
        group: group("orders"),
        member: member("kkam"),
        lease: LeaseId(2),
        lease_ms: 2_000,
    };
    assert_eq!(leases, [expected]);
}

#[test]
fn shadow_exports_are_shown_and_never_found() {
    let mut story = Story::new();
    story.joined("orders", "kkam");
    assert_eq!(story.view("orders").members[0].joined.shadow, [export("A", "a")]);
    assert_eq!(story.lookup("A").expect_err("a shadow").code(), "NameNotFound");
}

#[test]
fn a_lease_that_is_too_short_or_too_long_is_refused() {
    let mut story = Story::new();
    for lease_ms in [0, 99, 3_600_001, u64::MAX] {
        let mut join = description();
        join.lease_ms = lease_ms;
        let answer = story.write(Write::Join {
            group: group("orders"),
            member: member("kkam"),
            join,
        });
        assert_eq!(refused(answer), "InvalidRequest");
    }
    assert!(story.directory.group(&group("orders")).is_err());
}

#[test]
fn a_member_that_joins_again_is_replaced_and_its_old_lease_is_over() {
    let mut story = Story::new();
    let old = story.joined("orders", "kkam");
    let new = story.joined("orders", "kkam");
    assert!(new > old);
    assert_eq!(story.view("orders").members.len(), 1);
    assert_eq!(refused(story.leave("orders", "kkam", old)), "LeaseEnded");
    unchanged(story.end_lease("orders", "kkam", old));
    let renewal = |lease| story.directory.renewal(&group("orders"), &member("kkam"), lease);
    assert_eq!(renewal(old).expect_err("ended").code(), "LeaseEnded");
    let expected = Renewed {
        lease_ms: 2_000,
        epoch: Epoch(0),
        active: None,
    };
    assert_eq!(renewal(new), Ok(expected));
}

/// Its process restarted and serves nothing yet, whatever it was before.
#[test]
fn an_active_member_that_joins_again_is_a_standby_and_its_exports_are_withheld() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    let written = story.join("orders", "active").expect("a join");
    assert!(matches!(written.detail, WriteDetail::Joined { active: None, .. }));
    assert_eq!(
        story.last_events(),
        ["A withheld lease-expired", "B withheld lease-expired"]
    );
    let view = story.view("orders");
    assert_eq!((view.epoch, view.active), (Epoch(epoch), None));
    assert_eq!(
        refused(story.publish("orders", "active", epoch, &[("A", "a")])),
        "StaleEpoch"
    );
    assert_eq!(story.claimed("orders", "standby"), epoch + 1);
}

#[test]
fn what_was_never_joined_is_not_found() {
    let mut story = Story::new();
    assert_eq!(
        refused(story.claim("orders", "kkam", 0, Evidence::Operator)),
        "GroupNotFound"
    );
    assert_eq!(
        refused(story.leave("orders", "kkam", LeaseId(1))),
        "GroupNotFound"
    );
    assert_eq!(refused(story.publish("orders", "kkam", 1, &[])), "GroupNotFound");
    assert_eq!(
        refused(story.withdraw("orders", 1, WithdrawReason::Planned)),
        "GroupNotFound"
    );
    unchanged(story.end_lease("orders", "kkam", LeaseId(1)));
    story.joined("orders", "kkam");
    assert_eq!(
        refused(story.claim("orders", "other", 0, Evidence::Operator)),
        "MemberNotFound"
    );
    assert_eq!(
        refused(story.leave("orders", "other", LeaseId(1))),
        "MemberNotFound"
    );
    let renewal = story
        .directory
        .renewal(&group("orders"), &member("other"), LeaseId(1));
    assert_eq!(renewal.expect_err("no member").code(), "MemberNotFound");
}

#[test]
fn a_claim_without_evidence_is_granted_only_where_nobody_is_active() {
    let mut story = Story::new();
    let (epoch, active, _) = story.serving();
    assert_eq!(
        story.claim("orders", "standby", 0, Evidence::None),
        Err(NamingError::ActiveExists {
            group: group("orders"),
            active: member("active"),
            epoch: Epoch(epoch),
        })
    );
    changed(story.end_lease("orders", "active", active));
    assert_eq!(story.claimed("orders", "standby"), epoch + 1);
}

#[test]
fn the_store_lock_and_an_operator_outrank_a_lease_that_runs() {
    for evidence in [Evidence::StoreLock, Evidence::Operator] {
        let mut story = Story::new();
        let (epoch, ..) = story.serving();
        assert_eq!(
            granted(story.claim("orders", "standby", epoch, evidence)),
            epoch + 1
        );
        let view = story.view("orders");
        let expected = [("active", MemberState::Standby), ("standby", MemberState::Active)];
        assert_eq!(states(&view), expected);
    }
}

#[test]
fn the_epoch_granted_is_above_the_groups_and_the_stores() {
    let mut story = Story::new();
    story.joined("orders", "kkam");
    assert_eq!(
        granted(story.claim("orders", "kkam", 41, Evidence::StoreLock)),
        42
    );
    assert_eq!(granted(story.claim("orders", "kkam", 7, Evidence::StoreLock)), 43);
}

#[test]
fn the_active_member_that_claims_again_gets_a_new_epoch() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    assert_eq!(story.claimed("orders", "active"), epoch + 1);
    assert_eq!(
        refused(story.publish("orders", "active", epoch, &[])),
        "StaleEpoch"
    );
}

#[test]
fn a_claim_withholds_the_exports_in_the_same_revision_until_the_new_active_publishes() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    let since = changed(story.claim("orders", "standby", epoch, Evidence::StoreLock));
    assert_eq!(
        story.last_events(),
        ["A withheld promoting", "B withheld promoting"]
    );
    assert_eq!(
        story.lookup("A"),
        Err(NamingError::NameUnavailable {
            name: crate::support::name("A"),
            resolved: crate::support::name("A"),
            remaining: crate::support::name(""),
            reason: UnavailableReason::Promoting,
            group: group("orders"),
            epoch: Epoch(epoch + 1),
            since: Revision(since),
            since_unix_ms: story.now_unix_ms,
            eta_ms: None,
        })
    );
    changed(story.publish("orders", "standby", epoch + 1, &[("A", "a"), ("B", "b")]));
    assert_eq!(story.last_events(), ["A rebound", "B rebound"]);
    let owner = story.lookup("A").expect("a binding").owner.clone();
    assert_eq!(owner.map(|owner| owner.epoch), Some(Epoch(epoch + 1)));
}

#[test]
fn a_store_that_claims_an_absurd_epoch_cannot_use_the_epochs_up() {
    let mut story = Story::new();
    story.joined("orders", "kkam");
    for absurd in [u64::MAX, EPOCH_MAX] {
        let answer = story.claim("orders", "kkam", absurd, Evidence::StoreLock);
        assert_eq!(refused(answer), "InvalidRequest");
    }
    assert_eq!(granted(story.claim("orders", "kkam", 3, Evidence::StoreLock)), 4);
}

#[test]
fn when_the_active_members_lease_ends_its_exports_are_withheld_and_the_epoch_stays() {
    let mut story = Story::new();
    let (epoch, active, standby) = story.serving();
    changed(story.end_lease("orders", "active", active));
    assert_eq!(
        story.last_events(),
        ["A withheld lease-expired", "B withheld lease-expired"]
    );
    let view = story.view("orders");
    assert_eq!((view.epoch, view.active.clone()), (Epoch(epoch), None));
    assert_eq!(states(&view), [("standby", MemberState::Standby)]);
    unchanged(story.end_lease("orders", "active", active));
    changed(story.end_lease("orders", "standby", standby));
    assert!(story.last_events().is_empty());
}

#[test]
fn a_standby_that_leaves_takes_nothing_away() {
    let mut story = Story::new();
    let (.., standby) = story.serving();
    changed(story.leave("orders", "standby", standby));
    assert!(story.last_events().is_empty());
    assert_eq!(story.object("A"), queue("a"));
}

#[test]
fn an_active_member_that_leaves_withdraws_its_exports() {
    let mut story = Story::new();
    let (_, active, _) = story.serving();
    changed(story.leave("orders", "active", active));
    assert_eq!(story.unavailable("A"), UnavailableReason::Withdrawn);
    assert_eq!(story.view("orders").active, None);
}

#[test]
fn exports_that_were_withdrawn_stay_so_when_the_member_then_goes() {
    let mut story = Story::new();
    let (epoch, active, _) = story.serving();
    let since = changed(story.withdraw("orders", epoch, WithdrawReason::Planned));
    changed(story.end_lease("orders", "active", active));
    assert!(story.last_events().is_empty());
    let withheld = story.view("orders").withheld.expect("withheld");
    assert_eq!(
        (withheld.reason, withheld.since.0),
        (UnavailableReason::Withdrawn, since)
    );
}

#[test]
fn a_promotion_whose_member_vanishes_is_no_longer_promised() {
    let mut story = Story::new();
    let (epoch, _, standby) = story.serving();
    granted(story.claim("orders", "standby", epoch, Evidence::StoreLock));
    changed(story.end_lease("orders", "standby", standby));
    assert_eq!(story.unavailable("A"), UnavailableReason::LeaseExpired);
}

#[test]
fn a_group_without_members_keeps_its_epoch() {
    let mut story = Story::new();
    let (epoch, active, standby) = story.serving();
    changed(story.end_lease("orders", "active", active));
    changed(story.end_lease("orders", "standby", standby));
    story.joined("orders", "active");
    assert_eq!(story.claimed("orders", "active"), epoch + 1);
}

#[test]
fn a_member_is_shown_in_json_as_it_joined_and_reads_back() {
    let mut story = Story::new();
    story.serving();
    let view = story.view("orders");
    let json = serde_json::to_string(&view).expect("JSON");
    assert_eq!(serde_json::from_str::<GroupView>(&json).expect("a group"), view);
    let document: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(document["members"][0]["state"], "active");
    assert_eq!(document["members"][0]["lease_ms"], 2_000);
    let name: MemberName = serde_json::from_value(document["members"][0]["name"].clone()).expect("a name");
    assert_eq!(name, member("active"));
}
