//! Repeated operation ids.

use daymark_naming_core::{Command, Directory, Limits};
use daymark_naming_proto::{Attributes, Epoch, Evidence, LeaseId, OpId, Revision, WithdrawReason, Write};

use crate::support::{
    Story, changed, description, export, group, link, member, name, queue, refused, unchanged,
};

fn bind(text: &str) -> Write {
    Write::Bind {
        name: name(text),
        object: queue("1"),
        attributes: Attributes::new(),
    }
}

#[test]
fn a_repeated_write_is_answered_as_the_first_time() {
    let mut story = Story::new();
    let op = OpId(u128::MAX);
    let first = story.write_as(op, bind("q"));
    changed(story.unbind("q"));
    assert_eq!(story.write_as(op, bind("q")), first);
    assert_eq!(story.write_as(op, bind("something-else")), first);
    assert_eq!(story.lookup("q").expect_err("unbound").code(), "NameNotFound");
}

#[test]
fn a_repeated_claim_grants_no_second_epoch() {
    let mut story = Story::new();
    story.joined("orders", "kkam");
    let claim = Write::Claim {
        group: group("orders"),
        member: member("kkam"),
        store_epoch: Epoch(0),
        evidence: Evidence::StoreLock,
    };
    let first = story.write_as(OpId(u128::MAX), claim.clone());
    assert_eq!(story.write_as(OpId(u128::MAX), claim), first);
    assert_eq!(story.view("orders").epoch.0, 1);
}

#[test]
fn a_refused_write_is_not_remembered() {
    let mut story = Story::new();
    let op = OpId(u128::MAX);
    assert_eq!(refused(story.write_as(op, bind("a/q"))), "NameNotFound");
    changed(story.create("a"));
    changed(story.write_as(op, bind("a/q")));
}

#[test]
fn a_write_that_changed_nothing_is_remembered_all_the_same() {
    let mut story = Story::new();
    let op = OpId(u128::MAX);
    let unbind = Write::Unbind {
        name: name("q"),
        expected: None,
    };
    unchanged(story.write_as(op, unbind.clone()));
    changed(story.bind("q", queue("1")));
    unchanged(story.write_as(op, unbind));
    assert_eq!(story.object("q"), queue("1"));
}

#[test]
fn only_the_newest_answers_are_remembered() {
    let mut story = Story::within(Limits {
        operations_kept: 2,
        ..Limits::default()
    });
    for id in 1..=3 {
        changed(story.write_as(OpId(1_000 + id), bind(&format!("q{id}"))));
    }
    changed_again(&mut story, 1_003);
    changed_again(&mut story, 1_002);
    assert_eq!(
        refused(story.write_as(OpId(1_001), bind("q1"))),
        "NameAlreadyBound"
    );
}

#[test]
fn an_answer_is_forgotten_when_its_time_is_over() {
    let mut story = Story::within(Limits {
        operations_kept_ms: 10_000,
        ..Limits::default()
    });
    changed(story.write_as(OpId(1_001), bind("q1")));
    story.now_unix_ms += 8_000;
    changed(story.write_as(OpId(1_002), bind("q2")));
    changed_again(&mut story, 1_001);
    changed(story.write_as(OpId(1_003), bind("q3")));
    assert_eq!(
        refused(story.write_as(OpId(1_001), bind("q1"))),
        "NameAlreadyBound"
    );
    changed_again(&mut story, 1_002);
}

#[test]
fn a_clock_that_was_wrong_once_does_no_lasting_harm() {
    let mut story = Story::new();
    story.now_unix_ms = u64::MAX - 5_000;
    changed(story.write_as(OpId(1_001), bind("q1")));
    story.now_unix_ms = 1_000_000;
    changed(story.write_as(OpId(1_002), bind("q2")));
    changed(story.write_as(OpId(1_003), bind("q3")));
    for op in [1_001, 1_002, 1_003] {
        changed_again(&mut story, op);
    }
    let restored = Directory::from_snapshot(&story.directory.to_snapshot()).expect("a snapshot");
    assert!(restored.to_snapshot() == story.directory.to_snapshot());
}

/// The answer that something changed is given again although nothing does now.
fn changed_again(story: &mut Story, op: u128) {
    let before = story.directory.revision();
    changed(story.write_as(OpId(op), bind("q1")));
    assert_eq!(story.directory.revision(), before);
}

/// The log keeps commands in a form without field names.
#[test]
fn every_command_survives_the_log() {
    let (group, member, lease) = (group("orders"), member("kkam"), LeaseId(7));
    let writes = [
        bind("q"),
        Write::Rebind {
            name: name("a/l"),
            object: link("q"),
            attributes: Some([("Id".to_owned(), vec!["1".to_owned()])].into_iter().collect()),
            expected: Some(Revision(0)),
        },
        Write::Unbind {
            name: name("q"),
            expected: None,
        },
        Write::CreateSubcontext {
            name: name("a"),
            attributes: Attributes::new(),
        },
        Write::DestroySubcontext { name: name("a") },
        Write::Join {
            group: group.clone(),
            member: member.clone(),
            join: description(),
        },
        Write::Leave {
            group: group.clone(),
            member: member.clone(),
            lease,
        },
        Write::Claim {
            group: group.clone(),
            member: member.clone(),
            store_epoch: Epoch(3),
            evidence: Evidence::StoreLock,
        },
        Write::Publish {
            group: group.clone(),
            member: member.clone(),
            epoch: Epoch(4),
            exports: vec![export("A", "a")],
        },
        Write::Withdraw {
            group: group.clone(),
            epoch: Epoch(4),
            reason: WithdrawReason::Handover,
            eta_ms: Some(5),
        },
        Write::EndLease { group, member, lease },
    ];
    for write in writes {
        let command = Command {
            op: OpId(u128::MAX),
            at_unix_ms: u64::MAX,
            write,
        };
        let bytes = postcard::to_stdvec(&command).expect("bytes");
        assert_eq!(postcard::from_bytes::<Command>(&bytes), Ok(command));
    }
}
