//! Snapshots: what they carry, how they are cut, and what becomes of garbage.

use daymark_naming_core::{Directory, SnapshotError, SnapshotReader};
use daymark_naming_proto::{
    Attributes, Evidence, NamingError, Object, OpId, Revision, WithdrawReason, Write,
};
use proptest::prelude::*;

use crate::support::{Story, changed, granted, link, name, queue};

/// A directory with something of everything.
fn furnished() -> Story {
    let mut story = Story::new();
    let (epoch, ..) = story.serving();
    changed(story.create("a"));
    changed(story.bind("a/q", queue("1")));
    changed(story.bind("l", link("a")));
    changed(
        story.write(Write::Bind {
            name: name("v"),
            object: Object::Value {
                json: r#"{"x":[1,2]}"#.into(),
            },
            attributes: [("Region".to_owned(), vec!["eu".to_owned()])]
                .into_iter()
                .collect(),
        }),
    );
    story.joined("billing", "x");
    changed(story.withdraw("orders", epoch, WithdrawReason::Planned));
    story
}

#[test]
fn a_restored_directory_answers_as_the_one_that_was_written() {
    let story = furnished();
    let restored = Directory::from_snapshot(&story.directory.to_snapshot()).expect("a snapshot");
    assert_eq!(restored.revision(), story.directory.revision());
    assert_eq!(restored.groups(), story.directory.groups());
    assert_eq!(restored.limits(), story.directory.limits());
    for text in ["", "a", "a/q", "l", "v", "A", "nothing"] {
        assert_eq!(restored.lookup(&name(text)), story.lookup(text), "{text}");
    }
    assert_eq!(
        restored.leases().collect::<Vec<_>>(),
        story.directory.leases().collect::<Vec<_>>()
    );
    assert!(restored.to_snapshot() == story.directory.to_snapshot());
}

#[test]
fn a_restored_directory_goes_on_where_the_other_stopped() {
    let mut story = furnished();
    story.directory = Directory::from_snapshot(&story.directory.to_snapshot()).expect("a snapshot");
    let epoch = granted(story.claim("orders", "standby", 0, Evidence::StoreLock));
    changed(story.publish("orders", "standby", epoch, &[("A", "a"), ("C", "c")]));
    assert_eq!(story.last_events(), ["A rebound", "B unbound", "C bound"]);
}

#[test]
fn a_restored_directory_remembers_the_answers_given() {
    let mut story = furnished();
    let write = Write::Bind {
        name: name("again"),
        object: queue("1"),
        attributes: Attributes::new(),
    };
    let first = story.write_as(OpId(u128::MAX), write.clone());
    story.directory = Directory::from_snapshot(&story.directory.to_snapshot()).expect("a snapshot");
    assert_eq!(story.write_as(OpId(u128::MAX), write), first);
}

#[test]
fn history_begins_anew_at_the_revision_of_the_snapshot() {
    let story = furnished();
    let revision = story.directory.revision();
    let restored = Directory::from_snapshot(&story.directory.to_snapshot()).expect("a snapshot");
    assert_eq!(restored.oldest_resumable(), revision);
    assert_eq!(restored.changes_after(revision).expect("resumable").count(), 0);
    let expected = NamingError::Compacted {
        from: Revision(revision.0 - 1),
        oldest: revision,
    };
    assert_eq!(
        restored.changes_after(Revision(revision.0 - 1)).err(),
        Some(expected)
    );
    assert!(restored.last_change().is_none());
}

#[test]
fn a_large_directory_is_written_in_several_pieces_and_read_in_any() {
    let mut directory = Directory::new(daymark_naming_core::Limits::default());
    for n in 0..2_000_u32 {
        let written = directory.apply(&daymark_naming_core::Command {
            op: OpId(u128::from(n)),
            at_unix_ms: 0,
            write: Write::Bind {
                name: name(&format!("q{n:05}")),
                object: queue(&"x".repeat(500)),
                attributes: Attributes::new(),
            },
        });
        changed(written);
    }
    let chunks: Vec<Vec<u8>> = directory.snapshot_chunks().collect();
    assert!(chunks.len() > 5, "{}", chunks.len());
    assert!(chunks.iter().all(|chunk| chunk.len() < 512 * 1024));
    let bytes = chunks.concat();
    for size in [1_000, 65_537, bytes.len()] {
        let mut reader = SnapshotReader::new();
        for piece in bytes.chunks(size) {
            reader.push(piece).expect("a piece");
        }
        let restored = reader.finish().expect("a directory");
        assert_eq!(restored.names(), 2_000);
        assert!(restored.to_snapshot() == bytes);
    }
}

#[test]
fn a_snapshot_that_was_cut_anywhere_is_refused() {
    let bytes = furnished().directory.to_snapshot();
    for end in 0..bytes.len() {
        let refusal = Directory::from_snapshot(&bytes[..end]).err();
        assert!(
            matches!(refusal, Some(SnapshotError::Truncated { .. })),
            "{end}: {refusal:?}"
        );
    }
    let mut longer = bytes;
    longer.push(0);
    assert!(matches!(
        Directory::from_snapshot(&longer),
        Err(SnapshotError::Inconsistent { .. })
    ));
}

#[test]
fn what_is_no_snapshot_or_from_the_future_says_so() {
    let refusal = |bytes: &[u8]| Directory::from_snapshot(bytes).err();
    assert_eq!(refusal(b"REDIS0011"), Some(SnapshotError::NotASnapshot));
    let mut bytes = furnished().directory.to_snapshot();
    bytes[8] = 9;
    assert_eq!(refusal(&bytes), Some(SnapshotError::UnknownVersion { found: 9 }));
}

#[test]
fn a_reader_that_refused_once_refuses_for_good() {
    let mut reader = SnapshotReader::new();
    assert_eq!(reader.push(b"X"), Err(SnapshotError::NotASnapshot));
    assert_eq!(reader.push(b""), Err(SnapshotError::NotASnapshot));
    assert_eq!(reader.finish().err(), Some(SnapshotError::NotASnapshot));
}

#[test]
fn a_name_without_its_context_is_not_believed() {
    let mut story = Story::new();
    changed(story.create("aaaa"));
    changed(story.bind("aaaa/q", queue("1")));
    let bytes = story.directory.to_snapshot();
    // The context's own entry gets another name of the same length.
    let at = bytes.windows(4).position(|w| w == b"aaaa").expect("the context");
    let mut forged = bytes;
    forged[at] = b'0';
    assert!(matches!(
        Directory::from_snapshot(&forged),
        Err(SnapshotError::Inconsistent { .. })
    ));
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Directory::from_snapshot(&bytes).map(|d| d.to_snapshot());
        let mut headed = b"DAYMARKD\x01\x00".to_vec();
        headed.extend(&bytes);
        prop_assert!(Directory::from_snapshot(&headed).is_err());
    }

    /// Damage that still decodes to a consistent state is for the checksum of whoever stores the bytes; what is
    /// read must then be a directory like any other.
    #[test]
    fn a_damaged_snapshot_is_an_error_or_a_consistent_directory(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = furnished().directory.to_snapshot();
        let at = at.index(bytes.len());
        bytes[at] = to;
        if let Ok(directory) = Directory::from_snapshot(&bytes) {
            let again = Directory::from_snapshot(&directory.to_snapshot()).expect("a consistent state");
            prop_assert!(again.to_snapshot() == directory.to_snapshot());
        }
    }
}
