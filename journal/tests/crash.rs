//! Real processes that are killed or frozen in the middle of their work.
//!
//! Each test starts this binary again, running only itself, with the directory in an environment variable;
//! in that role it appends as fast as it can and prints what was acknowledged.

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Owned, batch, eventually, force, growing, numbered, open, small, try_open};
use daymark_journal::{Journal, JournalError, OpenError};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit};

const CHILD_DIR: &str = "DAYMARK_JOURNAL_TEST_DIR";
const ROUNDS: &str = "DAYMARK_JOURNAL_TEST_KILLS";

/// The writer of this test, in a process of its own. Killed and reaped when dropped.
struct Writer {
    child: Child,
    output: BufReader<ChildStdout>,
    acknowledged: BTreeMap<u64, u64>,
    ended: Vec<String>,
}

impl Writer {
    fn start(test: &str, dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this binary has a path"))
            .args(["--exact", test, "--nocapture", "--test-threads=1"])
            .env(CHILD_DIR, dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("this binary can be started again");
        let output = BufReader::new(child.stdout.take().expect("its output is piped"));
        let mut writer = Self {
            child,
            output,
            acknowledged: BTreeMap::new(),
            ended: Vec::new(),
        };
        writer.read_until(|line, _| line == "open");
        writer
    }

    /// Reads lines until `enough`; the end of the output is enough as well.
    fn read_until(&mut self, enough: impl Fn(&str, usize) -> bool) {
        let mut line = String::new();
        while self.output.read_line(&mut line).expect("the pipe can be read") > 0 {
            // A killed process may leave half a line, which then was not acknowledged to anybody.
            if let Some(text) = line.strip_suffix('\n') {
                self.on_line(text);
                if enough(text, self.acknowledged.len()) {
                    return;
                }
            }
            line.clear();
        }
    }

    fn on_line(&mut self, text: &str) {
        let words: Vec<&str> = text.split(' ').collect();
        match words[..] {
            ["ack", seq, number] => {
                self.acknowledged
                    .insert(seq.parse().unwrap(), number.parse().unwrap());
            }
            ["failed", ..] => self.ended.push(text.to_owned()),
            _ => {}
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process id is positive");
        kill_process(pid, signal).expect("our own child can be signalled");
    }

    /// Waits until every thread of the child is stopped.
    fn freeze(&self) {
        self.signal(Signal::STOP);
        let path = format!("/proc/{}/stat", self.child.id());
        eventually("the child stops", || {
            let stat = std::fs::read_to_string(&path).unwrap();
            stat.rsplit(") ").next().unwrap().starts_with('T').then_some(())
        });
    }

    fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("the child ends");
        self.read_until(|_, _| false);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The directory to write to, if this process was started as a writer.
fn role() -> Option<PathBuf> {
    std::env::var_os(CHILD_DIR).map(PathBuf::from)
}

/// Appends until killed, or until the journal fails; then says why and ends.
fn write_for_ever(dir: &Path, release: bool) {
    let (journal, recovery, _) = open(dir, small());
    println!("\nopen");
    let (failed, failure) = std::sync::mpsc::channel();
    journal.on_failure(move |error| failed.send(error).expect("the main thread waits"));
    let mut number = recovery.next_seq;
    loop {
        if submit(&journal, number).is_err() {
            let error = failure.recv().expect("the journal says why");
            let JournalError::Superseded { epoch } = error else {
                println!("failed {error:?}");
                return;
            };
            println!("failed superseded {epoch}");
            return;
        }
        number += 1;
        if release && number % 500 == 0 {
            journal.release_before(number.saturating_sub(1000));
        }
        while journal.stats().pending_bytes > 100_000 {
            std::thread::yield_now();
        }
    }
}

fn submit(journal: &Journal, number: u64) -> Result<(), JournalError> {
    let body = numbered(number, 20 + (number * 7919 % 400) as usize);
    let acknowledge = move |done: Result<daymark_journal::Appended, _>| {
        if let Ok(appended) = done {
            let mut out = std::io::stdout().lock();
            writeln!(out, "ack {} {number}", appended.seqs.first).expect("the parent listens");
            out.flush().expect("the parent listens");
        }
    };
    journal.submit(batch(&[&body]), acknowledge).map(|_| ())
}

fn assert_holds(records: &[Owned], acknowledged: &BTreeMap<u64, u64>, released: u64) {
    let first = records.first().map_or(1, |record| record.seq);
    assert!(
        records
            .iter()
            .map(|record| record.seq)
            .eq(first..first + records.len() as u64)
    );
    for (seq, number) in acknowledged.range(released.max(1)..) {
        let record = seq
            .checked_sub(first)
            .and_then(|index| records.get(index as usize));
        let record = record.unwrap_or_else(|| panic!("record {seq} was acknowledged and is lost"));
        assert_eq!(record.body[..8], number.to_le_bytes());
        assert_eq!(
            record.body,
            numbered(*number, 20 + (*number * 7919 % 400) as usize)
        );
    }
}

fn kill_again_and_again(test: &str, release: bool, seed: u64) {
    let rounds: u64 = std::env::var(ROUNDS)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut acknowledged = BTreeMap::new();
    for round in 0..rounds {
        let mut writer = Writer::start(test, dir.path());
        let enough = random.usize(1..1500);
        writer.read_until(|_, count| count >= enough);
        writer.kill();
        assert_eq!(writer.ended, Vec::<String>::new(), "round {round}");
        assert!(writer.acknowledged.len() >= enough, "round {round}");
        acknowledged.append(&mut writer.acknowledged);
        let (journal, recovery, records) = open(dir.path(), small());
        let released = recovery.released_before;
        assert!(release || released == 0);
        assert!(released <= acknowledged.keys().last().copied().unwrap_or(0).saturating_add(1));
        assert_holds(&records, &acknowledged, released);
        if release {
            acknowledged = acknowledged.split_off(&released);
        }
        drop(journal);
    }
}

#[test]
fn every_acknowledged_record_survives_kill_9() {
    match role() {
        Some(dir) => write_for_ever(&dir, false),
        None => kill_again_and_again("every_acknowledged_record_survives_kill_9", false, 1),
    }
}

#[test]
fn releasing_and_recycling_survive_kill_9() {
    match role() {
        Some(dir) => write_for_ever(&dir, true),
        None => kill_again_and_again("releasing_and_recycling_survive_kill_9", true, 2),
    }
}

#[test]
fn the_lock_of_a_killed_process_is_free() {
    if let Some(dir) = role() {
        return write_for_ever(&dir, false);
    }
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::start("the_lock_of_a_killed_process_is_free", dir.path());
    let refused = try_open(dir.path(), small());
    let Err(OpenError::LockedBy {
        holder: Some(holder), ..
    }) = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(holder.pid, writer.child.id());
    writer.kill();
    let started = Instant::now();
    open(dir.path(), small());
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_frozen_process_that_was_overtaken_acknowledges_nothing_when_it_wakes() {
    let test = "a_frozen_process_that_was_overtaken_acknowledges_nothing_when_it_wakes";
    if let Some(dir) = role() {
        return write_for_ever(&dir, true);
    }
    for round in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = Writer::start(test, dir.path());
        writer.read_until(|_, count| count >= 300 + 211 * round);
        writer.freeze();
        assert!(matches!(
            try_open(dir.path(), small()),
            Err(OpenError::LockedBy { .. })
        ));
        let (successor, recovery, records) = force(dir.path(), small());
        let next = successor.append_and_wait(batch(&[&numbered(1, 50)])).unwrap();
        assert_eq!(next.first, recovery.next_seq);
        writer.signal(Signal::CONT);
        writer.read_until(|line, _| line.starts_with("failed"));
        assert_eq!(writer.ended, ["failed superseded 2"]);
        // Whatever it said, before or after it slept, the successor had read.
        assert_holds(&records, &writer.acknowledged, recovery.released_before);
        let after: Vec<_> = (2..=50)
            .map(|n| {
                successor
                    .append_and_wait(batch(&[&numbered(n, 50)]))
                    .unwrap()
                    .first
            })
            .collect();
        drop(successor);
        let (_, _, again) = open(dir.path(), small());
        let tail: Vec<_> = again[again.len() - 50..]
            .iter()
            .map(|record| record.body.clone())
            .collect();
        assert_eq!(tail, (1..=50).map(|n| numbered(n, 50)).collect::<Vec<_>>());
        assert_eq!(again.last().unwrap().seq, *after.last().unwrap());
        assert_holds(&again, &writer.acknowledged, recovery.released_before);
    }
}

#[test]
fn more_segments_than_file_descriptors_are_recovered() {
    if let Some(dir) = role() {
        let few = Rlimit {
            current: Some(40),
            maximum: Some(40),
        };
        setrlimit(Resource::Nofile, few).expect("a limit can be lowered");
        return write_for_ever(&dir, false);
    }
    let dir = tempfile::tempdir().unwrap();
    let (journal, ..) = open(dir.path(), growing());
    for _ in 0..60 {
        journal.append_and_wait(batch(&[&[1; 60_000]])).unwrap();
    }
    assert_eq!(journal.segments().len(), 60);
    drop(journal);
    // Once as they were left, and once sealed.
    for _ in 0..2 {
        let mut writer = Writer::start("more_segments_than_file_descriptors_are_recovered", dir.path());
        writer.read_until(|_, count| count >= 10);
        writer.kill();
        assert!(writer.acknowledged.len() >= 10);
    }
}
