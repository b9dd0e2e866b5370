//! Reading one segment, frame by frame, in large sequential reads.
//!
//! It decides whether bytes are a valid frame. It never decides what an invalid one means.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::batch::RECORD_PREFIX;
use crate::format::{self, FRAME_HEADER, FRAME_REST, FrameHeader, SEGMENT_HEADER, SegmentHeader};

/// Bytes asked of the system at a time: enough for a disk, and little enough to stay in a processor's cache.
const CHUNK: usize = 256 << 10;

/// A segment being read from its first frame on.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    file: &'a File,
    header: SegmentHeader,
    /// No byte at or behind this offset counts.
    limit: u64,
    buffer: Vec<u8>,
    /// File offset of `buffer[0]`.
    base: u64,
    /// Valid bytes in `buffer`.
    filled: usize,
    /// Where in `buffer` the next frame starts.
    at: usize,
}

/// What comes next in a segment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step<'b> {
    Frame(Frame<'b>),
    /// A terminator, or the limit: nothing was written from here on.
    End,
    /// Something was written here that is no valid frame. It claims this many bytes.
    Invalid {
        why: &'static str,
        claims: u64,
    },
}

/// A frame whose checksum is right.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'b> {
    pub(crate) offset: u64,
    pub(crate) header: FrameHeader,
    pub(crate) records: &'b [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(file: &'a File, header: SegmentHeader, limit: u64, buffer: Vec<u8>) -> Self {
        Self {
            file,
            header,
            limit,
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

    /// Gives the buffer back for the next segment.
    pub(crate) fn into_buffer(self) -> Vec<u8> {
        self.buffer
    }

    /// Takes the next frame. Anything but a frame stays where it is.
    pub(crate) fn step(&mut self) -> io::Result<Step<'_>> {
        let offset = self.offset();
        let left = self.limit.saturating_sub(offset);
        if !self.need(4)? {
            return Ok(self.short_end(left));
        }
        let length = format::frame_length(&self.buffer[self.at..]);
        if length == 0 {
            return Ok(Step::End);
        }
        if length < FRAME_HEADER as u64 || length > left {
            return Ok(Step::Invalid {
                why: "a frame has an impossible length",
                claims: left,
            });
        }
        let length = length as usize; // At most the length of a file that was just read.
        if !self.need(length)? {
            return Ok(Step::Invalid {
                why: "the file ends within a frame",
                claims: length as u64,
            });
        }
        let frame = &self.buffer[self.at..self.at + length];
        if !format::is_intact(self.header.seed(), frame) {
            return Ok(Step::Invalid {
                why: "the checksum of a frame is wrong",
                claims: length as u64,
            });
        }
        self.at += length;
        let header = FrameHeader::decode(frame);
        Ok(Step::Frame(Frame {
            offset,
            header,
            records: &frame[FRAME_HEADER..],
        }))
    }

    /// Fewer than four bytes are left: the end, if they are zeros.
    fn short_end(&self, left: u64) -> Step<'static> {
        let rest = &self.buffer[self.at..self.filled];
        if (rest.len() as u64) < left && left >= 4 {
            return Step::Invalid {
                why: "the file is shorter than it was",
                claims: left,
            };
        }
        if rest.iter().all(|byte| *byte == 0) {
            return Step::End;
        }
        Step::Invalid {
            why: "the file ends within a frame",
            claims: left,
        }
    }

    /// Makes `bytes` available behind `at`; `false` if the file or the limit comes first.
    fn need(&mut self, bytes: usize) -> io::Result<bool> {
        if self.filled - self.at >= bytes {
            return Ok(true);
        }
        self.buffer.copy_within(self.at..self.filled, 0);
        self.base += self.at as u64;
        self.filled -= self.at;
        self.at = 0;
        if self.buffer.len() < bytes.max(CHUNK) {
            self.buffer.resize(bytes.max(CHUNK), 0);
        }
        while self.filled < bytes {
            let from = self.base + self.filled as u64;
            let room = (self.buffer.len() - self.filled) as u64;
            let wanted = room.min(self.limit.saturating_sub(from)) as usize;
            match self
                .file
                .read_at(&mut self.buffer[self.filled..self.filled + wanted], from)
            {
                Ok(0) => return Ok(false),
                Ok(read) => self.filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Looks behind the current offset, at most `window` bytes far, for a valid frame whose first record
    /// is `seq` or later. Such a frame proves that everything before it was durable once.
    pub(crate) fn later_frame(&self, seq: u64, window: u64) -> io::Result<Option<u64>> {
        let mut from = self.offset() + 1;
        let end = from.saturating_add(window).min(self.limit);
        let size = usize::try_from(end.saturating_sub(from)).map_or(CHUNK, |size| size.min(CHUNK));
        let mut chunk = vec![0; size + FRAME_HEADER];
        while from < end {
            let wanted = chunk.len().min((self.limit - from) as usize);
            let read = read_up_to(self.file, &mut chunk[..wanted], from)?;
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
                at += 13; // No length starts in the first thirteen of sixteen zeros.
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
        let read = read_up_to(self.file, &mut frame, offset)?;
        Ok(read == frame.len() && format::is_intact(self.header.seed(), &frame))
    }
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
