//! Who may open a directory, what happens to the one before, and what a late riser can break: nothing.

mod common;

use std::fs;
use std::path::Path;
use std::sync::mpsc;

use common::{Owned, batch, collect, eventually, fence, files, force, numbered, open, small, try_open};
use daymark_journal::{Holder, Journal, JournalError, Locked, OpenError, Options};

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn append(journal: &Journal, numbers: std::ops::RangeInclusive<u64>) {
    for number in numbers {
        journal
            .append_and_wait(batch(&[&numbered(number, 1000)]))
            .expect("the journal is ours");
    }
}

/// Asserts that exactly the records 1 to `last` are there.
fn assert_numbers(records: &[Owned], last: u64) {
    let seen: Vec<u64> = records.iter().map(|record| record.seq).collect();
    assert_eq!(seen, (1..=last).collect::<Vec<_>>());
    for record in records {
        assert_eq!(record.body, numbered(record.seq, 1000));
    }
}

fn corrupt(result: Result<(Journal, daymark_journal::Recovery, Vec<Owned>), OpenError>) -> (String, String) {
    match result {
        Err(OpenError::Corrupt { file, why, .. }) => {
            (file.file_name().unwrap().to_string_lossy().into_owned(), why)
        }
        other => panic!("expected corruption, found {other:?}"),
    }
}

#[test]
fn a_second_opener_is_refused_and_told_by_whom() {
    let dir = temp();
    let holder = Holder::here("orders-a");
    let _held = Locked::acquire(dir.path(), &holder, Options::default()).unwrap();
    let refused = Locked::acquire(dir.path(), &Holder::here("orders-b"), Options::default());
    let Err(OpenError::LockedBy { holder: Some(by), .. }) = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!(by, &holder);
    let text = refused.unwrap_err().to_string();
    assert!(
        text.contains("orders-a") && text.contains(&std::process::id().to_string()),
        "{text}"
    );
}

#[test]
fn the_lock_is_free_after_every_step_that_was_given_up() {
    let dir = temp();
    drop(Locked::acquire(dir.path(), &Holder::here("a"), Options::default()).unwrap());
    drop(fence(dir.path(), Options::default()).unwrap());
    let refused = fence(dir.path(), Options::default())
        .unwrap()
        .recover(|_| Ok::<(), String>(()));
    drop(refused.unwrap());
    let (journal, ..) = open(dir.path(), Options::default());
    assert_eq!(journal.epoch(), 3);
}

#[test]
fn an_epoch_that_is_not_newer_is_refused() {
    let dir = temp();
    let lock = || Locked::acquire(dir.path(), &Holder::here("a"), Options::default()).unwrap();
    assert_eq!(lock().epoch(), 0);
    assert!(matches!(
        lock().begin(0),
        Err(OpenError::StaleEpoch { asked: 0, current: 0 })
    ));
    drop(lock().begin(7).unwrap());
    assert_eq!(lock().epoch(), 7);
    for asked in [6, 7] {
        assert!(matches!(
            lock().begin(asked),
            Err(OpenError::StaleEpoch { current: 7, .. })
        ));
    }
    drop(lock().begin(u64::MAX).unwrap());
    assert_eq!(lock().epoch(), u64::MAX);
}

#[test]
fn deleted_markers_do_not_bring_an_old_epoch_back() {
    let dir = temp();
    drop(open(dir.path(), small()));
    drop(open(dir.path(), small()));
    fs::remove_dir_all(dir.path().join("epochs")).unwrap();
    assert_eq!(
        Locked::acquire(dir.path(), &Holder::here("a"), small())
            .unwrap()
            .epoch(),
        2
    );
}

#[test]
fn the_place_has_to_be_a_writable_directory() {
    let dir = temp();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let lock = |path: &Path| Locked::acquire(path, &Holder::here("a"), Options::default());
    assert!(matches!(lock(&file), Err(OpenError::NotADirectory { .. })));
    assert!(matches!(
        lock(&file.join("below")),
        Err(OpenError::NotADirectory { .. })
    ));
    assert!(matches!(
        lock(&dir.path().join("a/b")),
        Err(OpenError::ParentMissing { .. })
    ));
    let refused = lock(Path::new("/sys/journal"));
    assert!(
        matches!(refused, Err(OpenError::NotWritable { .. })),
        "{refused:?}"
    );
    lock(&dir.path().join("created")).unwrap();
}

#[test]
fn a_holder_that_was_overtaken_acknowledges_nothing_more() {
    let dir = temp();
    let (old, ..) = open(dir.path(), small());
    append(&old, 1..=150);
    let (new, _, records) = force(dir.path(), small());
    assert_numbers(&records, 150);
    append(&new, 151..=160);
    // The old holder wakes. Its record reaches its own file, but is never acknowledged.
    let late = old.append_and_wait(batch(&[b"late"]));
    assert!(
        matches!(late, Err(JournalError::Superseded { epoch: 2 })),
        "{late:?}"
    );
    assert!(matches!(
        old.submit(batch(&[b"later"]), |_| {}),
        Err(JournalError::Superseded { .. })
    ));
    assert!(matches!(
        old.failed(),
        Some(JournalError::Superseded { epoch: 2 })
    ));
    append(&new, 161..=200);
    drop(new);
    let (_, recovery, records) = open(dir.path(), small());
    assert_numbers(&records, 200);
    assert_eq!(recovery.torn_bytes, 0);
    drop(old);
}

#[test]
fn an_idle_holder_finds_out_by_itself() {
    let dir = temp();
    let (old, ..) = open(dir.path(), small());
    let (sender, failure) = mpsc::channel();
    old.on_failure(move |error| sender.send(error).unwrap());
    let (_new, ..) = force(dir.path(), small());
    let error = failure.recv_timeout(std::time::Duration::from_secs(10)).unwrap();
    // It may look between the lock and the epoch.
    assert!(
        matches!(
            error,
            JournalError::Superseded { .. } | JournalError::LockLost { .. }
        ),
        "{error:?}"
    );
}

#[test]
fn a_holder_whose_lock_file_was_replaced_stops() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    fs::rename(dir.path().join("lock"), dir.path().join("elsewhere")).unwrap();
    let refused = journal.append_and_wait(batch(&[b"x"]));
    assert!(
        matches!(refused, Err(JournalError::LockLost { .. })),
        "{refused:?}"
    );
}

#[test]
fn a_holder_whose_epochs_cannot_be_read_stops() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    fs::rename(dir.path().join("epochs"), dir.path().join("elsewhere")).unwrap();
    let refused = journal.append_and_wait(batch(&[b"x"]));
    assert!(
        matches!(refused, Err(JournalError::EpochUnreadable { .. })),
        "{refused:?}"
    );
    assert!(journal.failed().is_some_and(|error| error.is_fatal()));
}

#[test]
fn a_claimant_that_was_overtaken_between_two_steps_gives_up() {
    let dir = temp();
    drop(open(dir.path(), small()));
    let locked = Locked::acquire(dir.path(), &Holder::here("slow"), small()).unwrap();
    let slow = locked.begin(5).unwrap();
    let (new, ..) = force(dir.path(), small());
    assert_eq!(new.epoch(), 6);
    let refused = collect(slow);
    assert!(
        matches!(refused, Err(OpenError::Superseded { epoch: 6 })),
        "{refused:?}"
    );
    append(&new, 1..=3);
}

#[test]
fn a_claimant_whose_lock_was_taken_cannot_begin() {
    let dir = temp();
    let slow = Locked::acquire(dir.path(), &Holder::here("slow"), small()).unwrap();
    let fast = Locked::acquire_forced(dir.path(), &Holder::here("fast"), small()).unwrap();
    assert!(matches!(slow.begin(1), Err(OpenError::LockLost { .. })));
    drop(fast.begin(1).unwrap());
}

#[test]
fn a_visitor_that_refuses_a_record_stops_the_recovery() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    append(&journal, 1..=3);
    drop(journal);
    let refused = fence(dir.path(), small())
        .unwrap()
        .recover(|record| match record.seq {
            2 => Err("not this one"),
            _ => Ok(()),
        });
    let Err(OpenError::Visitor { seq: 2, source }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(source.to_string(), "not this one");
    assert_numbers(&open(dir.path(), small()).2, 3);
}

// A takeover that died half-way. Each test makes the directory look as it does after one of its steps.

/// A directory with `count` records in several segments of epoch 1, closed.
fn prepared(count: u64) -> tempfile::TempDir {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    append(&journal, 1..=count);
    drop(journal);
    dir
}

fn renamed(path: &Path, epoch: u64) -> std::path::PathBuf {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    path.with_file_name(format!("{}{epoch:016x}", &name[..name.len() - 16]))
}

#[test]
fn a_takeover_that_died_after_its_epoch_changes_nothing() {
    let dir = prepared(200);
    drop(fence(dir.path(), small()).unwrap());
    assert_numbers(&open(dir.path(), small()).2, 200);
}

#[test]
fn a_takeover_that_died_between_any_two_renames_loses_nothing() {
    let count = files(prepared(300).path(), "seg-").len();
    assert!(count >= 4, "{count} segments");
    for done in 0..=count {
        let dir = prepared(300);
        drop(fence(dir.path(), small()).unwrap());
        for segment in files(dir.path(), "seg-").iter().take(done) {
            fs::rename(segment, renamed(segment, 2)).unwrap();
        }
        fs::write(dir.path().join(format!("manifest-{:016x}.tmp", 2)), "{").unwrap();
        let (journal, _, records) = open(dir.path(), small());
        assert_eq!(journal.epoch(), 3);
        assert_numbers(&records, 300);
        append(&journal, 301..=400);
        drop(journal);
        assert_numbers(&open(dir.path(), small()).2, 400);
    }
}

#[test]
fn a_takeover_that_died_after_its_manifest_is_complete() {
    let dir = prepared(200);
    let (journal, ..) = open(dir.path(), small());
    let active = journal.segments().last().unwrap().id;
    drop(journal);
    for segment in files(dir.path(), "seg-") {
        if segment.to_string_lossy().contains(&format!("seg-{active:016x}")) {
            fs::remove_file(segment).unwrap();
        }
    }
    assert_numbers(&open(dir.path(), small()).2, 200);
}

// What a process that slept through a takeover may still do.

#[test]
fn what_a_late_riser_appends_creates_or_deletes_is_not_seen() {
    let dir = temp();
    let (old, ..) = open(dir.path(), small());
    append(&old, 1..=150);
    let old_names = files(dir.path(), "seg-");
    let old_manifest = files(dir.path(), "manifest-");
    let manifest_text = fs::read(&old_manifest[0]).unwrap();
    let (new, ..) = force(dir.path(), small());
    append(&new, 151..=160);
    // It is in the middle of removing, creating and sealing, under the names it knows.
    for name in &old_names {
        assert!(fs::remove_file(name).is_err() || !name.exists());
    }
    fs::write(&old_manifest[0], &manifest_text).unwrap();
    let stolen = files(dir.path(), "seg-")[0].clone();
    for id in [1, 2, 40] {
        fs::copy(&stolen, dir.path().join(format!("seg-{id:016x}-{:016x}", 1))).unwrap();
    }
    fs::write(dir.path().join(format!("spare-{:016x}-{:016x}", 1, 9)), "zeros").unwrap();
    append(&new, 161..=170);
    drop(new);
    let (third, recovery, records) = open(dir.path(), small());
    assert_numbers(&records, 170);
    assert!(recovery.leftovers >= 5, "{recovery:?}");
    append(&third, 171..=180);
    eventually("leftovers are deleted", || {
        let names = files(dir.path(), "");
        let stale = names
            .iter()
            .filter(|name| name.to_string_lossy().ends_with("-0000000000000001"));
        (stale.count() == 0).then_some(())
    });
    drop((third, old));
    assert_numbers(&open(dir.path(), small()).2, 180);
}

#[test]
fn a_late_riser_keeps_appending_to_a_sealed_segment_in_vain() {
    let dir = prepared(100);
    // The tail is found, and sealed.
    drop(open(dir.path(), small()));
    for segment in files(dir.path(), "seg-") {
        let mut bytes = fs::read(&segment).unwrap();
        bytes.extend_from_slice(&[0xAB; 4096]);
        fs::write(&segment, bytes).unwrap();
    }
    let (_, recovery, records) = open(dir.path(), small());
    assert_numbers(&records, 100);
    assert_eq!(recovery.torn_bytes, 0);
}

// What must not be there is an error, never a silent loss.

#[test]
fn a_missing_manifest_is_corruption() {
    let dir = prepared(10);
    fs::remove_file(&files(dir.path(), "manifest-")[0]).unwrap();
    let (_, why) = corrupt(try_open(dir.path(), small()));
    assert!(why.contains("manifest is missing"), "{why}");
}

#[test]
fn a_damaged_manifest_is_corruption() {
    let dir = prepared(10);
    let path = files(dir.path(), "manifest-")[0].clone();
    let mut text = fs::read(&path).unwrap();
    text[20] ^= 1;
    fs::write(&path, text).unwrap();
    let (file, _) = corrupt(try_open(dir.path(), small()));
    assert_eq!(file, path.file_name().unwrap().to_string_lossy());
}

#[test]
fn a_segment_missing_anywhere_before_the_last_is_corruption() {
    for sealed in [false, true] {
        for gone in 0.. {
            let dir = temp();
            let (journal, ..) = open(dir.path(), small());
            append(&journal, 1..=300);
            // Behind the one with the newest records lie empty ones, as many as were prepared by now.
            let newest = journal.segments().pop().unwrap().id;
            drop(journal);
            let name = files(dir.path(), "seg-")[gone].clone();
            if name.file_name().unwrap().to_string_lossy()[..20] == format!("seg-{newest:016x}") {
                assert!(gone > 1);
                break;
            }
            if sealed {
                drop(open(dir.path(), small()));
            }
            let gone = files(dir.path(), "seg-")[gone].clone();
            fs::remove_file(&gone).unwrap();
            let (_, why) = corrupt(try_open(dir.path(), small()));
            assert!(why.contains("missing") || why.contains("should follow"), "{why}");
        }
    }
}

#[test]
fn a_sealed_segment_that_was_shortened_is_corruption() {
    let dir = prepared(300);
    drop(open(dir.path(), small()));
    for segment in files(dir.path(), "seg-").into_iter().take(4) {
        let bytes = fs::read(&segment).unwrap();
        fs::write(&segment, &bytes[..bytes.len() / 2]).unwrap();
        let (file, _) = corrupt(try_open(dir.path(), small()));
        assert_eq!(file[..20], segment.file_name().unwrap().to_string_lossy()[..20]);
        fs::write(&segment, &bytes).unwrap();
    }
    assert_numbers(&open(dir.path(), small()).2, 300);
}

#[test]
fn a_file_of_another_format_version_is_named() {
    let dir = prepared(10);
    let path = files(dir.path(), "seg-")[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let refused = try_open(dir.path(), small());
    assert!(
        matches!(
            refused,
            Err(OpenError::UnknownVersion {
                version: 9,
                supported: 1,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn an_owner_that_died_before_its_names_were_durable_is_followed() {
    let dir = temp();
    let (journal, ..) = open(dir.path(), small());
    append(&journal, 1..=3);
    journal.close();
    let [old] = files(dir.path(), "manifest-").try_into().expect("one manifest");
    let text = fs::read(&old).unwrap();
    let (journal, _, records) = open(dir.path(), small());
    assert_numbers(&records, 3);
    journal.close();
    // The segments of the second owner itself are lost, and then its manifest too.
    let segments = files(dir.path(), "seg-");
    segments[1..].iter().for_each(|own| fs::remove_file(own).unwrap());
    let [new] = files(dir.path(), "manifest-0000000000000002")
        .try_into()
        .expect("one manifest");
    fs::write(&old, &text).unwrap();
    let follows = |without: Option<&Path>| {
        let copy = temp();
        fs::create_dir(copy.path().join("epochs")).unwrap();
        for path in files(dir.path(), "")
            .iter()
            .filter(|path| path.is_file() && without != Some(path))
        {
            fs::copy(path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let (journal, _, records) = open(copy.path(), small());
        assert_numbers(&records, 3);
        append(&journal, 4..=4);
        journal.close();
        assert_numbers(&open(copy.path(), small()).2, 4);
    };
    follows(None);
    follows(Some(&new));
}
