//! Every limit, reached and passed by one.

use daymark_naming_core::Limits;
use daymark_naming_proto::{Attributes, NamingError, Write};

use crate::support::{Answer, Story, changed, description, export, group, member, name, queue, unchanged};

fn tight() -> Limits {
    Limits {
        names_max: 3,
        groups_max: 1,
        members_per_group_max: 2,
        exports_per_group_max: 2,
        object_bytes_max: 8,
        attributes_per_binding_max: 1,
        attribute_bytes_max: 16,
        ..Limits::default()
    }
}

#[track_caller]
fn exceeded(answer: Answer, what: &str, limit: u64) {
    let expected = NamingError::LimitExceeded {
        what: what.to_owned(),
        limit,
    };
    assert_eq!(answer, Err(expected));
}

fn bind_with(story: &mut Story, attributes: Attributes) -> Answer {
    story.write(Write::Bind {
        name: name("attributed"),
        object: queue("1"),
        attributes,
    })
}

#[test]
fn names_are_limited_by_hand_and_by_export() {
    let mut story = Story::within(tight());
    for text in ["a", "b"] {
        changed(story.bind(text, queue("1")));
    }
    story.joined("orders", "kkam");
    let epoch = story.claimed("orders", "kkam");
    exceeded(
        story.publish("orders", "kkam", epoch, &[("x/y", "1")]),
        "bound names",
        3,
    );
    changed(story.rebind("c", queue("1")));
    exceeded(story.bind("d", queue("1")), "bound names", 3);
    exceeded(story.rebind("d", queue("1")), "bound names", 3);
    exceeded(story.create("d"), "bound names", 3);
    changed(story.rebind("c", queue("2")));
}

#[test]
fn groups_and_members_are_limited_and_replacing_a_member_is_not() {
    let mut story = Story::within(tight());
    story.joined("orders", "a");
    story.joined("orders", "b");
    exceeded(story.join("orders", "c"), "members of a group", 2);
    exceeded(story.join("billing", "a"), "groups", 1);
    story.joined("orders", "b");
}

#[test]
fn exports_and_shadow_exports_are_limited() {
    let mut story = Story::within(tight());
    story.joined("orders", "a");
    let epoch = story.claimed("orders", "a");
    let three = [("x", "1"), ("y", "1"), ("z", "1")];
    exceeded(
        story.publish("orders", "a", epoch, &three),
        "exports of a group",
        2,
    );
    let mut join = description();
    join.shadow = three.map(|(name, address)| export(name, address)).to_vec();
    let answer = story.write(Write::Join {
        group: group("orders"),
        member: member("b"),
        join,
    });
    exceeded(answer, "exports of a group", 2);
}

#[test]
fn an_object_is_limited_wherever_it_comes_from() {
    let mut story = Story::within(tight());
    changed(story.bind("q", queue("12345678")));
    exceeded(story.bind("r", queue("123456789")), "bytes of the object", 8);
    exceeded(story.rebind("q", queue("123456789")), "bytes of the object", 8);
    story.joined("orders", "a");
    let epoch = story.claimed("orders", "a");
    let answer = story.publish("orders", "a", epoch, &[("x", "123456789")]);
    exceeded(answer, "bytes of the object", 8);
}

#[test]
fn a_name_is_limited_wherever_it_is_bound_and_nowhere_else() {
    let mut story = Story::within(Limits {
        name_bytes_max: 10,
        component_bytes_max: 6,
        components_max: 2,
        ..Limits::default()
    });
    changed(story.create("ctx"));
    changed(story.bind("ctx/123456", queue("1")));
    exceeded(story.bind("ctx/1234567", queue("1")), "bytes of a name", 10);
    exceeded(story.rebind("1234567", queue("1")), "bytes of a component", 6);
    exceeded(story.create("1234567"), "bytes of a component", 6);
    changed(story.create("ctx/sub"));
    exceeded(story.bind("ctx/sub/q", queue("1")), "components of a name", 2);
    changed(story.bind("ctx/sub1", queue("1")));
    let renamed = story.write(Write::Rename {
        name: name("ctx"),
        target: name("longer"),
        expected: None,
    });
    exceeded(renamed, "bytes of a name", 10);
    story.joined("orders", "a");
    let epoch = story.claimed("orders", "a");
    let answer = story.publish("orders", "a", epoch, &[("a/b/c", "1")]);
    exceeded(answer, "components of a name", 2);
    unchanged(story.unbind("1234567890"));
}

#[test]
fn one_rename_moves_a_limited_number_of_names() {
    let mut story = Story::within(Limits {
        names_per_rename_max: 2,
        ..Limits::default()
    });
    changed(story.create("a"));
    for text in ["a/1", "a/2"] {
        changed(story.bind(text, queue("1")));
    }
    let rename = |from: &str, to: &str| Write::Rename {
        name: name(from),
        target: name(to),
        expected: None,
    };
    exceeded(story.write(rename("a", "b")), "names that one rename moves", 2);
    changed(story.unbind("a/2"));
    changed(story.write(rename("a", "b")));
}

#[test]
fn attributes_are_limited_by_count_and_by_bytes() {
    let mut story = Story::within(tight());
    let mut attributes = Attributes::new();
    attributes.set("a", vec!["x".repeat(15)]);
    exceeded(
        bind_with(&mut story, attributes.clone()),
        "bytes of a binding's attributes",
        16,
    );
    attributes.set("a", vec!["x".repeat(14)]);
    let full = attributes.clone();
    attributes.set("b", vec![]);
    exceeded(bind_with(&mut story, attributes), "attributes of a binding", 1);
    changed(bind_with(&mut story, full));
}

#[test]
fn other_limits_put_in_force_keep_what_is_there() {
    let mut story = Story::new();
    for text in ["a", "b", "c", "d"] {
        changed(story.bind(text, queue("1")));
    }
    story.directory.set_limits(Limits {
        operations_kept: 1,
        changes_kept: 1,
        ..tight()
    });
    assert_eq!(story.directory.limits().names_max, 3);
    assert_eq!(story.object("d"), queue("1"));
    assert_eq!(story.directory.oldest_resumable().0, 3);
    exceeded(story.bind("e", queue("1")), "bound names", 3);
}
