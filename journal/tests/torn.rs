//! Tails that were being written when the lights went out, and damage that is no torn tail.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Owned, await_prepared, batch, files, growing, numbered, open, small, try_open};
use daymark_journal::{OpenError, Options, Recovery};

const FRAME_HEADER: u64 = 28;
const RECORD_PREFIX: u64 = 5;
const SEGMENT_HEADER: u64 = 64;

/// A closed journal whose last segment holds `FRAMES` frames of known lengths, and that segment's name.
struct Sample {
    dir: tempfile::TempDir,
    segment: PathBuf,
    /// Where each frame starts, and the end of the last.
    starts: Vec<u64>,
}

/// Bodies of each batch: one frame each, because every append is waited for.
fn bodies() -> Vec<Vec<Vec<u8>>> {
    let one = |number, length| vec![numbered(number, length)];
    vec![
        one(1, 40),
        vec![numbered(2, 20), numbered(3, 30)],
        one(4, 9),
        vec![numbered(5, 25), numbered(6, 8)],
    ]
}

fn sample(options: &Options) -> Sample {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (journal, ..) = open(dir.path(), options.clone());
    if options.preallocate {
        await_prepared(&journal, options);
    }
    let mut starts = vec![SEGMENT_HEADER];
    for frame in bodies() {
        let slices: Vec<&[u8]> = frame.iter().map(Vec::as_slice).collect();
        journal.append_and_wait(batch(&slices)).unwrap();
        let records: u64 = frame.iter().map(|body| RECORD_PREFIX + body.len() as u64).sum();
        starts.push(starts[starts.len() - 1] + FRAME_HEADER + records);
    }
    let info = journal.segments().pop().unwrap();
    assert_eq!(info.bytes, starts[starts.len() - 1]);
    let name = format!("seg-{:016x}-{:016x}", info.id, info.epoch);
    drop(journal);
    Sample {
        segment: PathBuf::from(name),
        dir,
        starts,
    }
}

/// Opens a copy of the sample whose last segment was changed.
fn reopened(
    sample: &Sample,
    options: &Options,
    change: impl FnOnce(&mut Vec<u8>),
) -> Result<(Recovery, Vec<Owned>), OpenError> {
    let copy = tempfile::tempdir().unwrap();
    copy_tree(sample.dir.path(), copy.path());
    let segment = copy.path().join(&sample.segment);
    let mut bytes = fs::read(&segment).unwrap();
    change(&mut bytes);
    fs::write(&segment, bytes).unwrap();
    let (journal, recovery, records) = try_open(copy.path(), options.clone())?;
    // What was cut stays cut, and the numbers go on from there.
    let next = journal.append_and_wait(batch(&[b"next"])).unwrap().first;
    assert_eq!(next, recovery.next_seq);
    drop(journal);
    let (_, again, after) = try_open(copy.path(), options.clone())?;
    assert_eq!(after[..records.len()], records[..]);
    assert_eq!((after.len(), again.torn_bytes), (records.len() + 1, 0));
    Ok((recovery, records))
}

fn copy_tree(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).unwrap();
        }
    }
}

/// Records of the first `frames` frames.
fn expected(frames: usize) -> Vec<Vec<u8>> {
    bodies().into_iter().take(frames).flatten().collect()
}

fn assert_frames(records: &[Owned], frames: usize, at: u64) {
    let seen: Vec<Vec<u8>> = records.iter().map(|record| record.body.clone()).collect();
    assert_eq!(seen, expected(frames), "changed at {at}");
}

fn both() -> [Options; 2] {
    [small(), growing()]
}

#[test]
fn a_tail_cut_off_at_any_byte_leaves_whole_batches() {
    for options in both() {
        let sample = sample(&options);
        for cut in sample.starts[1]..sample.starts[4] {
            let (_, records) = reopened(&sample, &options, |bytes| bytes.truncate(cut as usize)).unwrap();
            let whole = sample.starts[1..].iter().filter(|end| **end <= cut).count();
            assert_frames(&records, whole, cut);
        }
    }
}

#[test]
fn a_tail_that_reads_as_zeros_from_any_byte_leaves_whole_batches() {
    let options = small();
    let sample = sample(&options);
    for cut in sample.starts[1]..sample.starts[4] {
        let zero = |bytes: &mut Vec<u8>| bytes[cut as usize..].fill(0);
        let (_, records) = reopened(&sample, &options, zero).unwrap();
        // A frame that ends in a zero byte is whole without it.
        let intact = sample.starts[1..].iter().filter(|end| **end <= cut).count();
        assert!(records.len() >= expected(intact).len(), "cut at {cut}");
        assert!(expected(4).starts_with(&records.iter().map(|r| r.body.clone()).collect::<Vec<_>>()));
        assert!(
            (0..=4).any(|frames| expected(frames).len() == records.len()),
            "half a batch at {cut}"
        );
    }
}

#[test]
fn any_byte_changed_in_the_last_frame_cuts_exactly_that_frame() {
    for options in both() {
        let sample = sample(&options);
        for at in sample.starts[3]..sample.starts[4] {
            let flip = |bytes: &mut Vec<u8>| bytes[at as usize] ^= 0x40;
            let (recovery, records) = reopened(&sample, &options, flip).unwrap();
            assert_frames(&records, 3, at);
            assert!(recovery.torn_bytes > 0);
            let torn = recovery.torn_file.unwrap();
            assert_eq!(torn.file_name(), sample.segment.file_name());
        }
    }
}

#[test]
fn a_frame_whose_first_page_never_reached_the_disk_is_torn_and_not_damage() {
    let options = small();
    let sample = sample(&options);
    let lose_start = |bytes: &mut Vec<u8>| {
        let start = sample.starts[3] as usize;
        bytes[start..start + 30].fill(0);
    };
    let (_, records) = reopened(&sample, &options, lose_start).unwrap();
    assert_frames(&records, 3, sample.starts[3]);
}

#[test]
fn any_byte_changed_before_the_last_frame_is_reported_with_file_and_offset() {
    for options in both() {
        let sample = sample(&options);
        for at in sample.starts[0]..sample.starts[3] {
            let result = reopened(&sample, &options, |bytes| bytes[at as usize] ^= 0x40);
            let Err(OpenError::Corrupt { file, offset, why }) = result else {
                panic!("byte {at}: {result:?}");
            };
            assert_eq!(file.file_name(), sample.segment.file_name());
            let start = sample.starts.iter().rev().find(|start| **start <= at).unwrap();
            assert_eq!(offset, *start, "byte {at}: {why}");
        }
    }
}

#[test]
fn a_frame_lost_in_the_middle_is_reported_and_not_taken_for_the_end() {
    let options = small();
    let sample = sample(&options);
    for lost in 0..3 {
        let (from, to) = (sample.starts[lost] as usize, sample.starts[lost + 1] as usize);
        let result = reopened(&sample, &options, |bytes| bytes[from..to].fill(0));
        let Err(OpenError::Corrupt { offset, .. }) = result else {
            panic!("frame {lost}: {result:?}")
        };
        assert_eq!(offset, from as u64);
    }
}

#[test]
fn any_byte_changed_in_a_segment_header_is_reported() {
    let options = small();
    let sample = sample(&options);
    for at in 0..SEGMENT_HEADER {
        let result = reopened(&sample, &options, |bytes| bytes[at as usize] ^= 0x40);
        let Err(OpenError::Corrupt { file, offset: 0, .. }) = result else {
            panic!("byte {at}: {result:?}")
        };
        assert_eq!(file.file_name(), sample.segment.file_name());
    }
}

#[test]
fn damage_in_a_sealed_segment_is_reported_even_in_its_last_frame() {
    let sample = sample(&small());
    drop(open(sample.dir.path(), small()));
    let sealed = files(sample.dir.path(), "seg-").remove(0);
    let bytes = fs::read(&sealed).unwrap();
    for at in sample.starts[3]..sample.starts[4] {
        let mut damaged = bytes.clone();
        damaged[at as usize] ^= 1;
        fs::write(&sealed, &damaged).unwrap();
        let result = try_open(sample.dir.path(), small());
        let Err(OpenError::Corrupt { offset, .. }) = result else {
            panic!("byte {at}: {result:?}")
        };
        assert_eq!(offset, sample.starts[3]);
    }
}

#[test]
fn random_garbage_behind_the_last_frame_is_cut() {
    let options = small();
    let sample = sample(&options);
    let mut random = fastrand::Rng::with_seed(7);
    for round in 0..20 {
        let garbage = |bytes: &mut Vec<u8>| random.fill(&mut bytes[sample.starts[4] as usize..]);
        let (_, records) = reopened(&sample, &options, garbage).unwrap();
        assert_frames(&records, 4, round);
    }
}

#[test]
fn a_lost_first_page_of_the_longest_frame_is_damage_and_not_the_end() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (journal, ..) = open(dir.path(), Options::default());
    journal.append_and_wait(batch(&[b"before"])).unwrap();
    let start = journal.segments().pop().unwrap().bytes;
    let records = (4 << 20) - RECORD_PREFIX as usize;
    journal.append_and_wait(batch(&[&vec![0xa5; records]])).unwrap();
    journal.append_and_wait(batch(&[b"behind"])).unwrap();
    let info = journal.segments().pop().unwrap();
    drop(journal);
    let segment = dir
        .path()
        .join(format!("seg-{:016x}-{:016x}", info.id, info.epoch));
    let mut bytes = fs::read(&segment).unwrap();
    let start = usize::try_from(start).unwrap();
    bytes[start..start + 4096].fill(0);
    fs::write(&segment, bytes).unwrap();
    let refused = try_open(dir.path(), Options::default())
        .map(drop)
        .expect_err("damage");
    assert!(matches!(refused, OpenError::Corrupt { .. }), "{refused}");
}
