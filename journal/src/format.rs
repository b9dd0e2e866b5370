//! Bytes on the disk.
//!
//! A segment is a header of 64 bytes and then frames, one for each group commit:
//! ```text
//! segment  "DMJOURNL" version:u32 length:u32 id:u64 epoch:u64 salt:u64 zeros crc:u32
//! frame    length:u32 crc:u32 first_seq:u64 released:u64 count:u32  record*
//! record   length:u32 kind:u8 body
//! ```
//! Numbers are little-endian. A frame's length counts what follows its checksum, so it is at least 20; a
//! length of zero ends the segment, and is written behind every frame. The checksum (CRC-32C) covers all of
//! the frame but itself and starts from a seed made of the segment's id, epoch and random salt, so neither
//! frames that stayed in a recycled file nor frames hidden in the body of a record are ever valid.
//! `released` is the mark below which owners need nothing.
//!
//! The frame, not the record, carries the checksum because the frame is what one sync made durable:
//! frame *n + 1* is written only after frame *n* is on the disk. Therefore an invalid frame with nothing
//! valid behind it was never acknowledged, whatever order the disk wrote its pages in, and an invalid frame
//! with a later valid one behind it is damage.

use std::hash::{BuildHasher, Hasher, RandomState};

/// Bytes of a segment header.
pub(crate) const SEGMENT_HEADER: usize = 64;
/// Bytes of a frame header.
pub(crate) const FRAME_HEADER: usize = 28;
/// What a frame's length counts besides its records.
pub(crate) const FRAME_REST: usize = FRAME_HEADER - 8;
/// Zero bytes written behind every frame.
pub(crate) const TERMINATOR: usize = 4;
/// Most bytes gathered into one frame, unless a single batch is longer.
pub(crate) const MAX_FRAME_RECORDS: usize = 4 << 20;
/// The version written into, and required of, every segment and manifest.
pub(crate) const VERSION: u32 = 1;

const MAGIC: &[u8; 8] = b"DMJOURNL";

/// What a segment header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: u64,
    /// The epoch that created the segment, whatever its file is called now.
    pub(crate) epoch: u64,
    /// Random, so that nobody can prepare bytes that pass for a frame of this segment.
    pub(crate) salt: u64,
}

/// Why bytes are no segment header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadHeader {
    Version(u32),
    Damaged(&'static str),
}

impl SegmentHeader {
    /// A header with a salt of its own.
    pub(crate) fn new(id: u64, epoch: u64) -> Self {
        Self {
            id,
            epoch,
            salt: RandomState::new().build_hasher().finish(),
        }
    }

    pub(crate) fn encode(self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&(SEGMENT_HEADER as u32).to_le_bytes());
        bytes[16..24].copy_from_slice(&self.id.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.epoch.to_le_bytes());
        bytes[32..40].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER]) -> Result<Self, BadHeader> {
        if &bytes[..8] != MAGIC {
            return Err(BadHeader::Damaged("this is not a segment header"));
        }
        if u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err(BadHeader::Damaged("the checksum of the segment header is wrong"));
        }
        match u32_at(bytes, 8) {
            VERSION => Ok(Self {
                id: u64_at(bytes, 16),
                epoch: u64_at(bytes, 24),
                salt: u64_at(bytes, 32),
            }),
            version => Err(BadHeader::Version(version)),
        }
    }

    /// Where the checksums of this segment's frames start from.
    pub(crate) fn seed(self) -> u32 {
        let named = crc32c::crc32c_append(crc32c::crc32c(&self.id.to_le_bytes()), &self.epoch.to_le_bytes());
        crc32c::crc32c_append(named, &self.salt.to_le_bytes())
    }
}

/// What a frame header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) first_seq: u64,
    pub(crate) released: u64,
    pub(crate) count: u32,
}

impl FrameHeader {
    /// Completes a frame whose records already lie behind `FRAME_HEADER` bytes of room.
    pub(crate) fn seal(self, seed: u32, frame: &mut [u8]) {
        let length = (frame.len() - 8) as u32; // Frames are at most 1 GiB and a header.
        frame[..4].copy_from_slice(&length.to_le_bytes());
        frame[8..16].copy_from_slice(&self.first_seq.to_le_bytes());
        frame[16..24].copy_from_slice(&self.released.to_le_bytes());
        frame[24..28].copy_from_slice(&self.count.to_le_bytes());
        let crc = checksum(seed, frame);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads the header of a frame whose checksum has been, or will be, verified.
    pub(crate) fn decode(frame: &[u8]) -> Self {
        Self {
            first_seq: u64_at(frame, 8),
            released: u64_at(frame, 16),
            count: u32_at(frame, 24),
        }
    }
}

/// Length of the whole frame that starts with these four bytes, as it claims; 0 for a terminator.
pub(crate) fn frame_length(start: &[u8]) -> u64 {
    match u32_at(start, 0) {
        0 => 0,
        length => u64::from(length) + 8,
    }
}

/// Whether a complete frame is what was written.
pub(crate) fn is_intact(seed: u32, frame: &[u8]) -> bool {
    frame.len() >= FRAME_HEADER && u32_at(frame, 4) == checksum(seed, frame)
}

fn checksum(seed: u32, frame: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &frame[..4]), &frame[8..])
}

/// Takes the first record off `records`: its kind and body.
pub(crate) fn split_record<'a>(records: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (prefix, rest) = records.split_at_checked(crate::batch::RECORD_PREFIX)?;
    let length = usize::try_from(u32_at(prefix, 0)).ok()?;
    let (body, rest) = rest.split_at_checked(length)?;
    *records = rest;
    Some((prefix[4], body))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
