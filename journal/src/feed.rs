//! Live segments, read and checked on a thread of their own, ahead of whoever takes their records in.
//!
//! It decides how far ahead that is. It never decides what an invalid frame means, and what goes wrong is told in its
//! place behind the frames, as if nothing had been read ahead.
//! Invariant: no more than [`BUFFERS`] buffers are in use, and one of them at most holds a frame longer than those
//! that are gathered from several batches.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvError, Sender, channel};

use crate::error::{OpenError, open_io};
use crate::format::{FRAME_HEADER, MAX_FRAME_RECORDS};
use crate::reader::{End, Reader, Source, Stop, Stretch};
use crate::recover::Live;

/// One is filled, one is taken in, and the others wait, so that neither side waits for a short delay of the other.
const BUFFERS: usize = 4;
/// Longest frame that is gathered from several batches.
const GATHERED: usize = FRAME_HEADER + MAX_FRAME_RECORDS;

/// What comes next.
pub(crate) enum Fed {
    /// Frames of the segment.
    Frames(Stretch),
    /// It has no more; the next segment follows.
    Ended(Ended),
}

/// How the frames of a segment end.
pub(crate) struct Ended {
    pub(crate) end: End,
    /// Behind the last frame.
    pub(crate) offset: u64,
    pub(crate) source: Source,
}

/// The side that takes in what is read.
pub(crate) struct Feed<'a> {
    dir: &'a Path,
    fed: Receiver<Result<Fed, OpenError>>,
    free: Sender<Vec<u8>>,
}

/// The side that reads.
struct Feeder<'a> {
    dir: &'a Path,
    fed: Sender<Result<Fed, OpenError>>,
    free: Receiver<Vec<u8>>,
    /// Buffers that are not in use.
    spare: Vec<Vec<u8>>,
}

/// Why a feeder ends early.
enum Halt {
    Failed(OpenError),
    /// Nobody takes anything in any more.
    Abandoned,
}

/// Runs `take` beside a thread that reads `live`, one segment after the other.
pub(crate) fn fed<T>(
    dir: &Path,
    live: &[Live],
    take: impl FnOnce(&Feed<'_>) -> Result<T, OpenError>,
) -> Result<T, OpenError> {
    let (to, fed) = channel();
    let (back, free) = channel();
    let feed = Feed { dir, fed, free: back };
    let feeder = Feeder {
        dir,
        fed: to,
        free,
        spare: vec![Vec::new(); BUFFERS],
    };
    std::thread::scope(|scope| {
        // Dropped here, or the thread would wait for buffers after `take` has failed.
        let feed = feed;
        std::thread::Builder::new()
            .name("journal-read".to_owned())
            .spawn_scoped(scope, || feeder.read_all(live))
            .map_err(|e| open_io("start the threads of", dir, e))?;
        take(&feed)
    })
}

impl Feed<'_> {
    /// Waits for what comes next.
    pub(crate) fn next(&self) -> Result<Fed, OpenError> {
        self.fed.recv().unwrap_or_else(|RecvError| {
            let ended = io::Error::other("the thread that reads has ended");
            Err(open_io("read", self.dir, ended))
        })
    }

    /// These frames were taken in.
    pub(crate) fn give_back(&self, stretch: Stretch) {
        let mut buffer = stretch.into_buffer();
        if buffer.len() > GATHERED {
            buffer = Vec::new();
        }
        // A thread that has read everything is gone and needs none.
        let _ = self.free.send(buffer);
    }
}

impl From<OpenError> for Halt {
    fn from(error: OpenError) -> Self {
        Self::Failed(error)
    }
}

impl Feeder<'_> {
    fn read_all(mut self, live: &[Live]) {
        let read = live.iter().try_for_each(|live| self.read(live));
        if let Err(Halt::Failed(error)) = read {
            // Whoever went away does not ask.
            let _ = self.fed.send(Err(error));
        }
    }

    fn read(&mut self, live: &Live) -> Result<(), Halt> {
        let source = Source {
            file: live.open(self.dir)?,
            header: live.header,
            limit: live.sealed.as_ref().map_or(live.size, |sealed| sealed.bytes),
        };
        let mut reader = Reader::new(source, self.buffer()?);
        loop {
            let stop = reader.advance().map_err(|e| open_io("read", &live.path, e))?;
            if reader.has_frames() {
                let stretch = reader.take(self.buffer()?);
                self.feed_frames(stretch)?;
            }
            if let Stop::End(end) = stop {
                let offset = reader.offset();
                let (source, buffer) = reader.into_parts();
                self.spare.push(buffer);
                return self.feed(Fed::Ended(Ended { end, offset, source }));
            }
        }
    }

    fn feed_frames(&mut self, stretch: Stretch) -> Result<(), Halt> {
        let is_long = stretch.len() > GATHERED;
        self.feed(Fed::Frames(stretch))?;
        // The reader has one.
        while is_long && self.spare.len() < BUFFERS - 1 {
            self.await_buffer()?;
        }
        Ok(())
    }

    fn feed(&self, fed: Fed) -> Result<(), Halt> {
        self.fed.send(Ok(fed)).map_err(|_| Halt::Abandoned)
    }

    fn buffer(&mut self) -> Result<Vec<u8>, Halt> {
        loop {
            match self.spare.pop() {
                Some(buffer) => return Ok(buffer),
                None => self.await_buffer()?,
            }
        }
    }

    fn await_buffer(&mut self) -> Result<(), Halt> {
        let buffer = self.free.recv().map_err(|RecvError| Halt::Abandoned)?;
        self.spare.push(buffer);
        Ok(())
    }
}
