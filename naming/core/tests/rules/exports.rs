//! Publishing and withdrawing, one story for each rule.

use daymark_naming_core::Directory;
use daymark_naming_proto::{
    Epoch, Evidence, Export, NamingError, Object, Owner, Revision, UnavailableReason, WatchMessage,
    WithdrawReason, Write,
};

use crate::support::{Story, changed, export, granted, group, link, member, name, queue, refused, unchanged};

fn publish(story: &mut Story, epoch: u64, exports: Vec<Export>) -> crate::support::Answer {
    story.write(Write::Publish {
        group: group("orders"),
        member: member("active"),
        epoch: Epoch(epoch),
        exports,
    })
}

#[test]
fn a_whole_export_set_appears_in_one_revision_with_its_owner() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    assert_eq!(story.last_events(), ["A bound", "B bound"]);
    let binding = story.lookup("B").expect("a binding");
    let owner = Owner {
        group: group("orders"),
        epoch: Epoch(epoch),
    };
    assert_eq!(binding.owner.as_deref(), Some(&owner));
    assert_eq!(binding.revision, story.directory.revision());
    let view = story.view("orders");
    assert_eq!(view.exports, [name("A"), name("B")]);
    assert_eq!((view.exports_epoch, view.withheld), (Epoch(epoch), None));
}

#[test]
fn publishing_replaces_the_set_names_no_longer_exported_are_unbound() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    changed(story.publish("orders", "active", epoch, &[("B", "b"), ("C", "c")]));
    assert_eq!(story.last_events(), ["A unbound", "C bound"]);
    assert_eq!(story.lookup("A").expect_err("unbound").code(), "NameNotFound");
    assert_eq!(
        story.lookup("B").expect("kept").created,
        story.lookup("B").expect("kept").revision
    );
}

#[test]
fn publishing_the_same_set_again_makes_no_revision() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    unchanged(story.publish("orders", "active", epoch, &[("B", "b"), ("A", "a")]));
}

#[test]
fn contexts_on_the_way_are_made_and_stay_when_the_export_goes() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    changed(story.publish("orders", "active", epoch, &[("shop/eu/A", "a")]));
    let expected = [
        "A unbound",
        "B unbound",
        "shop bound",
        "shop/eu bound",
        "shop/eu/A bound",
    ];
    assert_eq!(story.last_events(), expected);
    changed(story.publish("orders", "active", epoch, &[]));
    assert_eq!(story.last_events(), ["shop/eu/A unbound"]);
    assert_eq!(story.object("shop/eu"), Object::Context);
    changed(story.destroy("shop/eu"));
}

#[test]
fn an_export_that_becomes_the_context_of_another_is_one_change() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    changed(story.publish("orders", "active", epoch, &[("A/x", "x")]));
    assert_eq!(story.last_events(), ["A rebound", "A/x bound", "B unbound"]);
}

#[test]
fn a_lower_epoch_is_stale_and_changes_nothing() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    let next = granted(story.claim("orders", "standby", epoch, Evidence::StoreLock));
    changed(story.publish("orders", "standby", next, &[("A", "new")]));
    let stale = NamingError::StaleEpoch {
        group: group("orders"),
        given: Epoch(epoch),
        current: Epoch(next),
    };
    assert_eq!(
        story.publish("orders", "active", epoch, &[("A", "old")]),
        Err(stale.clone())
    );
    assert_eq!(
        story.withdraw("orders", epoch, WithdrawReason::Failed),
        Err(stale)
    );
    assert_eq!(story.object("A"), queue("new"));
}

#[test]
fn an_epoch_that_was_never_granted_is_refused() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    assert_eq!(
        refused(story.publish("orders", "active", epoch + 1, &[])),
        "InvalidRequest"
    );
    assert_eq!(
        refused(story.withdraw("orders", epoch + 1, WithdrawReason::Planned)),
        "InvalidRequest"
    );
}

#[test]
fn only_the_active_member_publishes() {
    let mut story = Story::new();
    let (epoch, active, _) = story.serving();
    assert_eq!(
        refused(story.publish("orders", "standby", epoch, &[])),
        "StaleEpoch"
    );
    assert_eq!(
        refused(story.publish("orders", "nobody", epoch, &[])),
        "MemberNotFound"
    );
    changed(story.end_lease("orders", "active", active));
    assert_eq!(
        refused(story.publish("orders", "active", epoch, &[])),
        "MemberNotFound"
    );
    assert_eq!(
        refused(story.withdraw("orders", epoch, WithdrawReason::Planned)),
        "StaleEpoch"
    );
}

#[test]
fn a_name_bound_by_hand_is_not_taken_and_the_conflict_names_both() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    changed(story.bind("C", queue("hand")));
    changed(story.create("ctx"));
    for taken in ["C", "ctx"] {
        assert_eq!(
            story.publish("orders", "active", epoch, &[("B", "b2"), (taken, "c")]),
            Err(NamingError::NameConflict {
                name: name(taken),
                owner: "hand".to_owned(),
                claimant: Some(group("orders")),
            })
        );
    }
    assert_eq!(story.object("B"), queue("b"));
}

#[test]
fn a_name_of_another_group_is_not_taken_even_while_it_is_withheld() {
    let mut story = Story::new();
    let (_, active, _) = story.serving();
    story.joined("billing", "x");
    let epoch = story.claimed("billing", "x");
    let conflict = NamingError::NameConflict {
        name: name("A"),
        owner: "orders".to_owned(),
        claimant: Some(group("billing")),
    };
    let exports = [("C", "c"), ("A", "a")];
    assert_eq!(
        story.publish("billing", "x", epoch, &exports),
        Err(conflict.clone())
    );
    changed(story.end_lease("orders", "active", active));
    assert_eq!(story.publish("billing", "x", epoch, &exports), Err(conflict));
    assert_eq!(
        story.lookup("C").expect_err("not published").code(),
        "NameNotFound"
    );
}

#[test]
fn nobody_changes_an_export_by_hand_withheld_or_not() {
    let mut story = Story::new();
    let (_, active, _) = story.serving();
    for is_withheld in [false, true] {
        if is_withheld {
            changed(story.end_lease("orders", "active", active));
        }
        let conflict = Err(NamingError::NameConflict {
            name: name("A"),
            owner: "orders".to_owned(),
            claimant: None,
        });
        assert_eq!(story.bind("A", queue("x")), conflict);
        assert_eq!(story.rebind("A", queue("x")), conflict);
        assert_eq!(story.unbind("A"), conflict);
        assert_eq!(story.create("A"), conflict);
        assert_eq!(refused(story.destroy("A")), "NotContext");
        assert_eq!(refused(story.bind("A/x", queue("x"))), "NotContext");
    }
}

#[test]
fn a_set_that_cannot_be_is_refused_whole() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    let twice = vec![export("C", "1"), export("C", "2")];
    assert_eq!(refused(publish(&mut story, epoch, twice)), "InvalidRequest");
    let root = vec![export("C", "1"), export("", "2")];
    assert_eq!(refused(publish(&mut story, epoch, root)), "InvalidRequest");
    let mut context = export("C", "1");
    context.object = Object::Context;
    assert_eq!(
        refused(publish(&mut story, epoch, vec![context])),
        "InvalidRequest"
    );
    for nested in [["C", "C/d"], ["C/d", "C"]] {
        let exports = nested.map(|text| export(text, "1")).to_vec();
        let code = refused(publish(&mut story, epoch, exports));
        assert!(matches!(code, "NotContext" | "NameConflict"), "{code}");
    }
    changed(story.bind("l", link("A")));
    assert_eq!(
        refused(publish(&mut story, epoch, vec![export("l/x", "1")])),
        "NotContext"
    );
}

#[test]
fn withdrawn_exports_are_known_with_their_reason_and_time() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    let since = changed(story.write(Write::Withdraw {
        group: group("orders"),
        epoch: Epoch(epoch),
        reason: WithdrawReason::Planned,
        eta_ms: Some(30_000),
    }));
    assert_eq!(
        story.last_events(),
        ["A withheld withdrawn", "B withheld withdrawn"]
    );
    assert_eq!(
        story.directory.lookup_link(&name("A")),
        Err(NamingError::NameUnavailable {
            name: name("A"),
            resolved: name("A"),
            remaining: name(""),
            reason: UnavailableReason::Withdrawn,
            group: group("orders"),
            epoch: Epoch(epoch),
            since: Revision(since),
            since_unix_ms: story.now_unix_ms,
            eta_ms: Some(30_000),
        })
    );
    let listing = story.directory.list(&name(""), false).expect("a listing");
    assert!(listing.entries.is_empty());
    assert_eq!(story.view("orders").exports.len(), 2);
}

#[test]
fn a_link_to_a_withheld_name_is_unavailable_under_the_name_asked_for() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    changed(story.bind("l", link("A")));
    changed(story.withdraw("orders", epoch, WithdrawReason::Planned));
    let refusal = story.lookup("l").expect_err("withheld");
    assert!(matches!(&refusal, NamingError::NameUnavailable { name, .. } if name.as_str() == "l"));
}

#[test]
fn a_planned_withdrawal_leaves_the_member_active_and_a_second_one_changes_nothing() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    changed(story.withdraw("orders", epoch, WithdrawReason::Planned));
    unchanged(story.withdraw("orders", epoch, WithdrawReason::Planned));
    assert_eq!(
        refused(story.claim("orders", "standby", 0, Evidence::None)),
        "ActiveExists"
    );
    changed(story.publish("orders", "active", epoch, &[("A", "a"), ("B", "b")]));
    assert_eq!(story.last_events(), ["A rebound", "B rebound"]);
}

#[test]
fn after_a_handover_or_a_failure_the_claim_of_another_member_is_granted() {
    for reason in [WithdrawReason::Handover, WithdrawReason::Failed] {
        let mut story = Story::new();
        let (epoch, ..) = story.serving();
        changed(story.withdraw("orders", epoch, WithdrawReason::Planned));
        changed(story.withdraw("orders", epoch, reason));
        assert_eq!(story.unavailable("A"), UnavailableReason::Withdrawn);
        assert_eq!(refused(story.withdraw("orders", epoch, reason)), "StaleEpoch");
        assert_eq!(story.claimed("orders", "standby"), epoch + 1);
    }
}

#[test]
fn a_watch_begins_with_withheld_names_as_withheld() {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    changed(story.withdraw("orders", epoch, WithdrawReason::Planned));
    let messages = story
        .directory
        .watch_state(&name("A"), daymark_naming_proto::Scope::Object);
    let json = serde_json::to_value(&messages[0]).expect("JSON");
    assert_eq!(
        (&json["kind"], &json["event"]),
        (&"state".into(), &"withheld".into())
    );
    for message in messages {
        let json = serde_json::to_string(&message).expect("JSON");
        assert_eq!(
            serde_json::from_str::<WatchMessage>(&json).expect("a message"),
            message
        );
    }
}

#[test]
fn names_announced_by_a_group_that_promotes_for_the_first_time_are_promoting_until_it_publishes() {
    let mut story = Story::new();
    let lease = story.joined("orders", "kkam");
    let standby = refused_lookup(&story, "A");
    assert_eq!(
        standby, "NameNotFound",
        "a standby announces, it promises nothing"
    );
    let epoch = story.claimed("orders", "kkam");
    assert_eq!(story.unavailable("A"), UnavailableReason::Promoting);
    assert_eq!(story.unavailable("A/below"), UnavailableReason::Promoting);
    assert_eq!(refused_lookup(&story, "B"), "NameNotFound");
    let restored = Directory::from_snapshot(&story.directory.to_snapshot()).expect("a snapshot");
    assert_eq!(restored.lookup(&name("A")), story.lookup("A"));
    changed(story.publish("orders", "kkam", epoch, &[("B", "1")]));
    assert_eq!(refused_lookup(&story, "A"), "NameNotFound");
    assert_eq!(story.object("B"), queue("1"));
    changed(story.end_lease("orders", "kkam", lease));
    assert_eq!(refused_lookup(&story, "A"), "NameNotFound");
}

#[test]
fn a_promotion_that_ends_without_exports_promises_nothing_any_more() {
    let mut story = Story::new();
    let lease = story.joined("orders", "kkam");
    story.claimed("orders", "kkam");
    changed(story.end_lease("orders", "kkam", lease));
    assert_eq!(refused_lookup(&story, "A"), "NameNotFound");
}

#[test]
fn an_announced_name_that_somebody_bound_by_hand_is_found() {
    let mut story = Story::new();
    story.joined("orders", "kkam");
    story.claimed("orders", "kkam");
    changed(story.bind("A", queue("by hand")));
    assert_eq!(story.object("A"), queue("by hand"));
}

fn refused_lookup(story: &Story, text: &str) -> &'static str {
    story.lookup(text).expect_err("nothing there").code()
}
