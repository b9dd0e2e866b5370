//! Reading the live segments in order and judging what is not a valid frame.
//!
//! A frame is written only after the one before it is durable. So an invalid frame with no valid one behind
//! it was never acknowledged and is cut; every other irregularity is damage, reported with file and offset.

use std::path::{Path, PathBuf};

use crate::error::{OpenError, open_io};
use crate::feed::{Ended, Fed, Feed, fed};
use crate::format::{FRAME_HEADER, MAX_FRAME_RECORDS, SEGMENT_HEADER, TERMINATOR, split_record};
use crate::manifest::Sealed;
use crate::names;
use crate::reader::{End, Frame};
use crate::recover::{Found, Live};
use crate::types::{Record, Recovery};

/// How far behind a regular end later frames are looked for. A regular end is a zero length, which is also
/// what a lost page looks like; behind a lost page the next frame begins no later than the longest frame that
/// is gathered from several batches reaches.
const WINDOW_BEHIND_END: u64 = (FRAME_HEADER + MAX_FRAME_RECORDS + TERMINATOR) as u64;

/// The state of one pass over a directory.
pub(crate) struct Scan {
    dir: PathBuf,
    /// What was found so far. `next_seq` is the record expected next.
    pub(crate) recovery: Recovery,
    /// Segments with records that are still needed.
    pub(crate) kept: Vec<Sealed>,
    /// Whether a frame was seen.
    started: bool,
    /// Records below this number are missing at the front; the file is the first that is gone.
    missing_before: Option<(u64, PathBuf)>,
    /// Where the tail was cut.
    torn: Option<(PathBuf, u64)>,
}

/// What one segment held.
struct Contents {
    first_seq: Option<u64>,
    bytes: u64,
}

impl Scan {
    pub(crate) fn new(dir: &Path, found: &Found) -> Self {
        let next_seq = found.manifest.first_seq();
        let released_before = found.manifest.released;
        let recovery = Recovery {
            next_seq,
            first_seq: next_seq,
            released_before,
            ..Recovery::default()
        };
        let dir = dir.to_owned();
        Self {
            dir,
            recovery,
            kept: Vec::new(),
            started: false,
            missing_before: None,
            torn: None,
        }
    }

    /// Shows every record to `visit`.
    pub(crate) fn read<E>(
        &mut self,
        found: &Found,
        mut visit: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), OpenError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.skip_missing(found)?;
        let dir = self.dir.clone();
        fed(&dir, &found.live, |feed| {
            found.live.iter().try_for_each(|live| {
                let contents = self.segment(live, feed, &mut visit)?;
                self.keep(live, &contents);
                Ok(())
            })
        })?;
        if self.recovery.records == 0 {
            self.recovery.first_seq = self.recovery.next_seq;
        }
        let released = self.recovery.released_before;
        self.kept.retain(|sealed| sealed.last_seq >= released);
        self.check_missing()
    }

    /// Sealed segments may be missing at the front only: that is how they are released.
    fn skip_missing(&mut self, found: &Found) -> Result<(), OpenError> {
        let first_live = found
            .live
            .iter()
            .filter_map(|live| live.sealed.as_ref())
            .map(|s| s.id)
            .min();
        for sealed in &found.missing {
            let path = self.dir.join(names::segment(sealed.id, found.manifest.epoch));
            if first_live.is_some_and(|id| id < sealed.id) {
                return Err(corrupt(&path, 0, "a sealed segment is missing".to_owned()));
            }
            self.recovery.next_seq = sealed.last_seq + 1;
            self.missing_before = Some((sealed.last_seq + 1, path));
        }
        Ok(())
    }

    fn check_missing(&self) -> Result<(), OpenError> {
        let released = self.recovery.released_before;
        match &self.missing_before {
            Some((before, path)) if *before > released => {
                let why = format!(
                    "segments are missing: records up to {} were not released",
                    before - 1
                );
                Err(corrupt(path, 0, why))
            }
            _ => Ok(()),
        }
    }

    fn segment<E>(
        &mut self,
        live: &Live,
        feed: &Feed,
        visit: &mut impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<Contents, OpenError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut first_seq = None;
        loop {
            match feed.next()? {
                Fed::Frames(stretch) => {
                    for frame in stretch.frames() {
                        self.check_order(live, &frame)?;
                        if frame.header.count > 0 {
                            first_seq.get_or_insert(frame.header.first_seq);
                        }
                        self.records(live, &frame, visit)?;
                    }
                    feed.give_back(stretch);
                }
                Fed::Ended(ended) => {
                    match ended.end {
                        End::Clean => self.on_end(live, &ended)?,
                        End::Invalid { why, claims } => self.on_invalid(live, &ended, why, claims)?,
                    }
                    let bytes = ended.offset;
                    return Ok(Contents { first_seq, bytes });
                }
            }
        }
    }

    fn check_order(&mut self, live: &Live, frame: &Frame<'_>) -> Result<(), OpenError> {
        if let Some((file, offset)) = &self.torn {
            let behind = format!(
                "an invalid frame is followed by a valid one in {}",
                live.path.display()
            );
            return Err(corrupt(file, *offset, behind));
        }
        let (expected, first) = (self.recovery.next_seq, frame.header.first_seq);
        if first > expected && !self.started {
            self.missing_before = Some((first, live.path.clone()));
            self.recovery.next_seq = first;
        } else if first != expected {
            let why = format!("record {expected} should follow here, not record {first}");
            return Err(corrupt(&live.path, frame.offset, why));
        }
        self.started = true;
        self.recovery.released_before = self.recovery.released_before.max(frame.header.released);
        Ok(())
    }

    fn records<E>(
        &mut self,
        live: &Live,
        frame: &Frame<'_>,
        visit: &mut impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), OpenError>
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let mut rest = frame.records;
        let epoch = live.header.epoch;
        for _ in 0..frame.header.count {
            let Some((kind, body)) = split_record(&mut rest) else {
                return Err(corrupt(
                    &live.path,
                    frame.offset,
                    "a record exceeds its frame".to_owned(),
                ));
            };
            let seq = self.recovery.next_seq;
            if self.recovery.records == 0 {
                self.recovery.first_seq = seq;
            }
            visit(Record {
                seq,
                kind,
                epoch,
                body,
            })
            .map_err(|e| OpenError::Visitor {
                seq,
                source: e.into(),
            })?;
            self.recovery.next_seq += 1;
            self.recovery.records += 1;
            self.recovery.bytes += body.len() as u64;
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(corrupt(
                &live.path,
                frame.offset,
                "a frame is longer than its records".to_owned(),
            ))
        }
    }

    fn on_end(&self, live: &Live, ended: &Ended) -> Result<(), OpenError> {
        let end = ended.offset;
        if let Some(sealed) = &live.sealed {
            let whole = end == sealed.bytes && self.recovery.next_seq == sealed.last_seq + 1;
            let why = format!("a segment sealed at {} ends here", sealed.bytes);
            return if whole {
                Ok(())
            } else {
                Err(corrupt(&live.path, end, why))
            };
        }
        self.refuse_later(live, ended, WINDOW_BEHIND_END, "a zero length")
    }

    fn on_invalid(&mut self, live: &Live, ended: &Ended, why: &str, claims: u64) -> Result<(), OpenError> {
        let offset = ended.offset;
        if live.sealed.is_some() {
            return Err(corrupt(&live.path, offset, why.to_owned()));
        }
        if let Some((file, offset)) = &self.torn {
            return Err(corrupt(
                file,
                *offset,
                "an invalid frame is followed by another segment".to_owned(),
            ));
        }
        self.refuse_later(live, ended, u64::MAX, why)?;
        self.torn = Some((live.path.clone(), offset));
        self.recovery.torn_bytes = claims;
        self.recovery.torn_file = Some(live.path.clone());
        Ok(())
    }

    fn refuse_later(&self, live: &Live, ended: &Ended, window: u64, what: &str) -> Result<(), OpenError> {
        let next_seq = self.recovery.next_seq;
        let later = ended.source.later_frame(ended.offset, next_seq, window);
        match later.map_err(|e| open_io("read", &live.path, e))? {
            None => Ok(()),
            Some(at) => {
                let why = format!("{what}, although a valid frame follows at {at}");
                Err(corrupt(&live.path, ended.offset, why))
            }
        }
    }

    fn keep(&mut self, live: &Live, contents: &Contents) {
        let Some(first_seq) = contents.first_seq else {
            return;
        };
        debug_assert!(contents.bytes > SEGMENT_HEADER as u64, "records need room");
        self.recovery.segments += 1;
        self.kept.push(Sealed {
            id: live.header.id,
            epoch: live.header.epoch,
            first_seq,
            last_seq: self.recovery.next_seq - 1,
            bytes: contents.bytes,
        });
    }
}

fn corrupt(file: &Path, offset: u64, why: String) -> OpenError {
    OpenError::Corrupt {
        file: file.to_owned(),
        offset,
        why,
    }
}
