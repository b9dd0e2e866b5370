//! A bare segment: one file filled with zeros beforehand and used round and round, one checksum and one sync for what
//! waits together. It has no lock, no epoch, nothing that says what is still needed: the floor.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::{Kind, Log};
use crate::{Outcome, other};

/// See [`Kind`].
pub const KIND: Kind = Kind {
    name: "bare segment",
    create,
    recover,
};

/// Room for a million records; after that it begins anew.
const FILE_BYTES: u64 = 256 << 20;
/// Bytes that become durable together, at most.
pub(super) const GROUP_BYTES: usize = 4 << 20;
/// Length and checksum.
const HEADER: usize = 8;
/// Length and number.
const PREFIX: usize = 12;

/// What waits to become durable.
pub(super) struct Item {
    pub(super) number: u64,
    pub(super) record: Box<[u8]>,
    pub(super) ends: Option<u64>,
    done: oneshot::Sender<()>,
}

/// A log with one thread that commits what it finds waiting.
pub(super) struct Committed {
    queue: Option<mpsc::Sender<Item>>,
    thread: Option<JoinHandle<()>>,
}

impl Committed {
    /// `commit` makes all of them durable.
    pub(super) fn start(mut commit: impl FnMut(&[Item]) -> Outcome<()> + Send + 'static) -> Box<dyn Log> {
        let (queue, waiting) = mpsc::channel::<Item>();
        let thread = std::thread::spawn(move || {
            let mut group = Vec::new();
            while let Ok(first) = waiting.recv() {
                let mut bytes = first.record.len();
                group.push(first);
                while bytes < GROUP_BYTES
                    && let Ok(next) = waiting.try_recv()
                {
                    bytes += next.record.len();
                    group.push(next);
                }
                if let Err(error) = commit(&group) {
                    eprintln!("nothing is durable any more: {error}");
                    return;
                }
                for item in group.drain(..) {
                    // A producer that went away needs no answer.
                    let _ = item.done.send(());
                }
            }
        });
        Box::new(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }
}

impl Log for Committed {
    fn append(
        &self,
        number: u64,
        record: &[u8],
        ends: Option<u64>,
        done: oneshot::Sender<()>,
    ) -> Outcome<()> {
        let item = Item {
            number,
            record: record.into(),
            ends,
            done,
        };
        let queue = self.queue.as_ref().ok_or_else(|| other("closed"))?;
        queue.send(item).map_err(|_| other("the committer ended").into())
    }
}

impl Drop for Committed {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // It said what happened.
            let _ = thread.join();
        }
    }
}

fn create(dir: &Path) -> Outcome<Box<dyn Log>> {
    std::fs::create_dir_all(dir)?;
    let file = File::create(dir.join("segment"))?;
    let zeros = vec![0; 1 << 20];
    for at in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at)?;
    }
    file.sync_all()?;
    let mut at = 0;
    let mut frame = Vec::new();
    Ok(Committed::start(move |group| {
        frame.clear();
        frame.resize(HEADER, 0);
        for item in group {
            frame.extend_from_slice(&(item.record.len() as u32).to_le_bytes());
            frame.extend_from_slice(&item.number.to_le_bytes());
            frame.extend_from_slice(&item.record);
            if let Some(ended) = item.ends {
                frame.extend_from_slice(&ended.to_le_bytes());
            }
        }
        let length = (frame.len() - HEADER) as u32;
        let crc = crc32c::crc32c(&frame[HEADER..]);
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        if at + frame.len() as u64 > FILE_BYTES {
            at = 0;
        }
        file.write_all_at(&frame, at)?;
        file.sync_data()?;
        at += frame.len() as u64;
        Ok(())
    }))
}

/// Reads a segment into which nothing but records was written, once.
fn recover(dir: &Path) -> Outcome<u64> {
    let bytes = std::fs::read(dir.join("segment"))?;
    let number = |at: usize| -> Option<usize> {
        let four = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(four)).ok()
    };
    let (mut at, mut records) = (0, 0);
    while let (Some(length @ 1..), Some(crc)) = (number(at), number(at + 4)) {
        let end = at + HEADER + length;
        let frame = bytes
            .get(at + HEADER..end)
            .ok_or_else(|| other("a frame is cut off"))?;
        if crc32c::crc32c(frame) as usize != crc {
            return Err(other(format!("the checksum of the frame at {at} is wrong")).into());
        }
        at += HEADER;
        while at < end {
            at += PREFIX + number(at).ok_or_else(|| other("a record is cut off"))?;
            records += 1;
        }
    }
    Ok(records)
}
