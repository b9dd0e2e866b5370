//! Reading one segment in large sequential reads, and taking it apart into frames.
//!
//! It decides whether bytes are a valid frame. It never decides what an invalid one means.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::batch::RECORD_PREFIX;
use crate::format::{self, FRAME_HEADER, FRAME_REST, FrameHeader, SEGMENT_HEADER, SegmentHeader};

/// Bytes asked of the system at a time: enough for a disk, and little enough to stay in a processor's cache.
const CHUNK: usize = 512 << 10;

/// A segment that is being read from its first frame on.
#[derive(Debug)]
pub(crate) struct Reader {
    source: Source,
    buffer: Vec<u8>,
    /// File offset of `buffer[0]`.
    base: u64,
    /// Valid bytes in `buffer`.
    filled: usize,
    /// Where in `buffer` the next frame starts. What lies before it are whole frames with the right checksums.
    at: usize,
}

/// The file of a segment.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) file: File,
    pub(crate) header: SegmentHeader,
    /// No byte at or behind this offset counts.
    pub(crate) limit: u64,
}

/// Why a reader stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The next frame needs the room of those that were read, which have to be [taken](Reader::take) first.
    Full,
    /// Behind the frames that were read comes something else.
    End(End),
}

/// What comes behind the last valid frame of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// A terminator, or the limit: nothing was written from here on.
    Clean,
    /// Something was written here that is no valid frame. It claims this many bytes.
    Invalid { why: &'static str, claims: u64 },
}

/// Whole frames with the right checksums, one behind the other.
#[derive(Debug)]
pub(crate) struct Stretch {
    buffer: Vec<u8>,
    /// File offset of `buffer[0]`.
    base: u64,
    /// Bytes of `buffer` that are frames.
    end: usize,
}

/// A frame whose checksum is right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'b> {
    pub(crate) offset: u64,
    pub(crate) header: FrameHeader,
    pub(crate) records: &'b [u8],
}

impl Stretch {
    pub(crate) fn frames(&self) -> impl Iterator<Item = Frame<'_>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let rest = self.buffer.get(at..self.end).filter(|rest| !rest.is_empty())?;
            let frame = rest.get(..format::frame_length(rest) as usize)?;
            let offset = self.base + at as u64;
            at += frame.len();
            Some(Frame {
                offset,
                header: FrameHeader::decode(frame),
                records: &frame[FRAME_HEADER..],
            })
        })
    }

    /// Bytes of the frames.
    pub(crate) fn len(&self) -> usize {
        self.end
    }

    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }
}

impl Reader {
    pub(crate) fn new(source: Source, buffer: Vec<u8>) -> Self {
        Self {
            source,
            buffer,
            base: SEGMENT_HEADER as u64,
            filled: 0,
            at: 0,
        }
    }

    /// Where the next frame starts, or would start.
    pub(crate) fn offset(&self) -> u64 {
        self.base + self.at as u64
    }

    /// Reads as many frames as there is room for.
    pub(crate) fn advance(&mut self) -> io::Result<Stop> {
        loop {
            let left = self.source.limit.saturating_sub(self.offset());
            match self.need(4)? {
                Need::Met => {}
                Need::Room => return Ok(Stop::Full),
                Need::Gone => return Ok(Stop::End(self.short_end(left))),
            }
            let length = format::frame_length(&self.buffer[self.at..]);
            if length == 0 {
                return Ok(Stop::End(End::Clean));
            }
            if length < FRAME_HEADER as u64 || length > left {
                return Ok(invalid("a frame has an impossible length", left));
            }
            let next = length as usize; // At most the length of a file that was just read.
            match self.need(next)? {
                Need::Met => {}
                Need::Room => return Ok(Stop::Full),
                Need::Gone => return Ok(invalid("the file ends within a frame", length)),
            }
            let frame = &self.buffer[self.at..self.at + next];
            if !format::is_intact(self.source.header.seed(), frame) {
                return Ok(invalid("the checksum of a frame is wrong", length));
            }
            self.at += next;
        }
    }

    /// Whether there are frames to be taken.
    pub(crate) fn has_frames(&self) -> bool {
        self.at > 0
    }

    /// Takes the frames that were read. `buffer` goes on in place of theirs.
    pub(crate) fn take(&mut self, mut buffer: Vec<u8>) -> Stretch {
        let rest = &self.buffer[self.at..self.filled];
        if buffer.len() < rest.len() {
            buffer.resize(rest.len().max(CHUNK), 0);
        }
        buffer[..rest.len()].copy_from_slice(rest);
        let stretch = Stretch {
            buffer: std::mem::replace(&mut self.buffer, buffer),
            base: self.base,
            end: self.at,
        };
        self.base += self.at as u64;
        self.filled -= self.at;
        self.at = 0;
        stretch
    }

    /// The file, and the buffer for the next one.
    pub(crate) fn into_parts(self) -> (Source, Vec<u8>) {
        (self.source, self.buffer)
    }

    /// Fewer than four bytes are left: the end, if they are zeros.
    fn short_end(&self, left: u64) -> End {
        let rest = &self.buffer[self.at..self.filled];
        if (rest.len() as u64) < left && left >= 4 {
            return End::Invalid {
                why: "the file is shorter than it was",
                claims: left,
            };
        }
        if rest.iter().all(|byte| *byte == 0) {
            return End::Clean;
        }
        End::Invalid {
            why: "the file ends within a frame",
            claims: left,
        }
    }

    /// Makes `bytes` available behind `at`.
    fn need(&mut self, bytes: usize) -> io::Result<Need> {
        if self.filled - self.at >= bytes {
            return Ok(Need::Met);
        }
        if self.at > 0 {
            return Ok(Need::Room);
        }
        if self.buffer.len() < bytes.max(CHUNK) {
            self.buffer.resize(bytes.max(CHUNK), 0);
        }
        while self.filled < bytes {
            let from = self.base + self.filled as u64;
            let left = self.source.limit.saturating_sub(from);
            let room = &mut self.buffer[self.filled..];
            let wanted = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match self.source.file.read_at(&mut room[..wanted], from) {
                Ok(0) => return Ok(Need::Gone),
                Ok(read) => self.filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Need::Met)
    }
}

/// Whether bytes are there.
enum Need {
    Met,
    /// They will be, once the frames before them were taken.
    Room,
    /// The file or the limit comes first.
    Gone,
}

fn invalid(why: &'static str, claims: u64) -> Stop {
    Stop::End(End::Invalid { why, claims })
}

impl Source {
    /// Looks behind `offset`, at most `window` bytes far, for a valid frame whose first record is `seq` or
    /// later. Such a frame proves that everything before it was durable once.
    pub(crate) fn later_frame(&self, offset: u64, seq: u64, window: u64) -> io::Result<Option<u64>> {
        let mut from = offset + 1;
        let end = from.saturating_add(window).min(self.limit);
        let size = usize::try_from(end.saturating_sub(from)).map_or(CHUNK, |size| size.min(CHUNK));
        let mut chunk = vec![0; size + FRAME_HEADER];
        while from < end {
            let wanted = chunk.len().min((self.limit - from) as usize);
            let read = read_up_to(&self.file, &mut chunk[..wanted], from)?;
            if read < FRAME_HEADER {
                break;
            }
            if let Some(found) = self.search(&chunk[..read], from, seq)? {
                return Ok(Some(found));
            }
            from += (read - FRAME_HEADER + 1) as u64;
        }
        Ok(None)
    }

    fn search(&self, chunk: &[u8], base: u64, seq: u64) -> io::Result<Option<u64>> {
        let mut at = 0;
        while at + FRAME_HEADER <= chunk.len() {
            if chunk[at..at + 16] == [0; 16] {
                at += zeros(&chunk[at..]) - 3; // A length that is not zero starts with three zeros at most.
                continue;
            }
            let offset = base + at as u64;
            if self.is_plausible(&chunk[at..at + FRAME_HEADER], offset, seq) && self.verify(offset)? {
                return Ok(Some(offset));
            }
            at += 1;
        }
        Ok(None)
    }

    /// Cheap checks, so that a checksum is computed only for what is almost certainly a frame.
    fn is_plausible(&self, start: &[u8], offset: u64, seq: u64) -> bool {
        let length = format::frame_length(start);
        let header = FrameHeader::decode(start);
        let most_records = self.limit / RECORD_PREFIX as u64;
        length >= FRAME_HEADER as u64
            && length <= self.limit - offset
            && header.first_seq >= seq
            && header.first_seq - seq <= most_records
            && header.released <= header.first_seq
            && u64::from(header.count) * (RECORD_PREFIX as u64) + FRAME_REST as u64 + 8 <= length
    }

    fn verify(&self, offset: u64) -> io::Result<bool> {
        let mut start = [0; 4];
        self.file.read_exact_at(&mut start, offset)?;
        let mut frame = vec![0; format::frame_length(&start).min(self.limit - offset) as usize];
        let read = read_up_to(&self.file, &mut frame, offset)?;
        Ok(read == frame.len() && format::is_intact(self.header.seed(), &frame))
    }
}

/// How many zeros `bytes` begin with. Most of what is searched is a segment that was not used yet.
fn zeros(bytes: &[u8]) -> usize {
    const BLOCK: usize = 1024;
    let blocks = bytes.chunks_exact(BLOCK);
    let skipped = blocks.take_while(|block| **block == [0; BLOCK]).count() * BLOCK;
    let rest = bytes[skipped..].iter();
    skipped + rest.take_while(|byte| **byte == 0).count()
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}
