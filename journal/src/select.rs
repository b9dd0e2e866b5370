//! Which files of a directory count, given the newest manifest. A function of names alone.
//!
//! Live are the segments the manifest sealed, and the segments with later ids whose name carries the
//! manifest's epoch or a newer one. Everything else is what a dead or frozen owner left behind. A takeover
//! renames live segments to its own epoch before its manifest is written, so after a crash in the middle
//! names of both epochs are live.

use std::collections::BTreeMap;

use crate::manifest::Manifest;
use crate::names::FileName;

/// What a directory holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) names: Vec<FileName>,
}

/// A file that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) id: u64,
    /// The epoch in the file's name.
    pub(crate) named: u64,
}

/// Why no choice is possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Undecided {
    /// Two files claim to be the same live segment.
    Twice { id: u64, named: u64 },
    /// There are segments and no manifest.
    NoManifest { id: u64, named: u64 },
}

impl Listing {
    /// The newest manifest there is.
    pub(crate) fn newest_manifest(&self) -> Option<u64> {
        let epochs = self.names.iter().filter_map(|name| match name {
            FileName::Manifest { epoch } => Some(*epoch),
            FileName::ManifestDraft { .. }
            | FileName::Segment { .. }
            | FileName::Spare { .. }
            | FileName::LockDraft => None,
        });
        epochs.max()
    }

    /// The newest epoch any name carries.
    pub(crate) fn newest_epoch(&self) -> u64 {
        self.names
            .iter()
            .filter_map(|name| name.epoch())
            .max()
            .unwrap_or(0)
    }

    fn segments(&self) -> impl Iterator<Item = Chosen> + '_ {
        self.names.iter().filter_map(|name| match name {
            FileName::Segment { id, epoch } => Some(Chosen {
                id: *id,
                named: *epoch,
            }),
            FileName::Manifest { .. }
            | FileName::ManifestDraft { .. }
            | FileName::Spare { .. }
            | FileName::LockDraft => None,
        })
    }

    /// An id no segment has ever had, as far as can be seen.
    pub(crate) fn next_id(&self, manifest: &Manifest) -> u64 {
        self.segments()
            .map(|segment| segment.id + 1)
            .max()
            .unwrap_or(1)
            .max(manifest.next_id)
    }

    /// The live segments by id.
    pub(crate) fn select(&self, manifest: &Manifest) -> Result<BTreeMap<u64, Chosen>, Undecided> {
        let mut live = BTreeMap::new();
        for segment in self.segments() {
            let Chosen { id, named } = segment;
            if manifest.epoch == 0 {
                return Err(Undecided::NoManifest { id, named });
            }
            let sealed = manifest
                .sealed
                .binary_search_by_key(&id, |sealed| sealed.id)
                .is_ok();
            let counts = named >= manifest.epoch && (sealed || id >= manifest.next_id);
            if counts && live.insert(id, segment).is_some() {
                return Err(Undecided::Twice { id, named });
            }
        }
        Ok(live)
    }

    /// Names that are ours to delete once `own` is the epoch of the newest manifest and `live` were
    /// renamed to it.
    pub(crate) fn leftovers(&self, own: u64) -> Vec<FileName> {
        let mut leftovers = self.names.clone();
        leftovers.retain(|name| name.epoch().is_none_or(|epoch| epoch < own));
        leftovers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Sealed;

    fn manifest(epoch: u64, sealed: &[u64], next_id: u64) -> Manifest {
        let sealed = sealed.iter().map(|id| Sealed {
            id: *id,
            epoch: 1,
            first_seq: 1,
            last_seq: 1,
            bytes: 100,
        });
        Manifest {
            version: 1,
            epoch,
            next_id,
            next_seq: 1,
            released: 0,
            sealed: sealed.collect(),
        }
    }

    fn listing(segments: &[(u64, u64)]) -> Listing {
        Listing {
            names: segments
                .iter()
                .map(|(id, epoch)| FileName::Segment {
                    id: *id,
                    epoch: *epoch,
                })
                .collect(),
        }
    }

    fn live(segments: &[(u64, u64)], manifest: &Manifest) -> Vec<(u64, u64)> {
        let live = listing(segments).select(manifest).unwrap();
        live.values().map(|chosen| (chosen.id, chosen.named)).collect()
    }

    #[test]
    fn sealed_segments_and_later_ones_of_the_same_owner_are_live() {
        let found = live(&[(1, 5), (2, 5), (3, 5)], &manifest(5, &[1, 2], 3));
        assert_eq!(found, [(1, 5), (2, 5), (3, 5)]);
    }

    #[test]
    fn what_an_earlier_owner_creates_after_the_manifest_is_dead() {
        assert_eq!(
            live(&[(1, 5), (2, 4), (3, 5), (3, 4)], &manifest(5, &[1], 2)),
            [(1, 5), (3, 5)]
        );
    }

    #[test]
    fn names_of_a_takeover_that_crashed_before_its_manifest_are_live() {
        assert_eq!(
            live(&[(1, 6), (2, 5), (3, 6)], &manifest(5, &[1], 2)),
            [(1, 6), (2, 5), (3, 6)]
        );
    }

    #[test]
    fn a_segment_the_manifest_left_out_is_dead() {
        assert_eq!(
            live(&[(1, 5), (2, 5), (3, 5)], &manifest(5, &[2], 3)),
            [(2, 5), (3, 5)]
        );
    }

    #[test]
    fn two_live_files_for_one_segment_are_refused() {
        let twice = listing(&[(2, 5), (2, 6)]).select(&manifest(5, &[], 2));
        assert_eq!(twice, Err(Undecided::Twice { id: 2, named: 6 }));
    }

    #[test]
    fn segments_without_a_manifest_are_refused() {
        let none = listing(&[(2, 5)]).select(&Manifest::initial());
        assert_eq!(none, Err(Undecided::NoManifest { id: 2, named: 5 }));
    }
}
