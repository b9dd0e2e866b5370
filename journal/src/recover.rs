//! Taking over the files: reading everything live, then sealing it under the new epoch.
//!
//! The order is what makes it safe to crash, and to be overtaken, at any point:
//! 1. The newest manifest and the names decide which files are live ([`select`](crate::select)).
//! 2. The headers of all of them are read, then the records in sequence order. Beside that is done what would be
//!    waited for later: see [`ahead`].
//! 3. They are synced: what was read may have been in memory only.
//! 4. They are renamed to this epoch, so that an earlier owner that wakes cannot remove them by their old
//!    names. Until step 5 the old manifest holds, and it accepts both names.
//! 5. The manifest is written. From here on only the sealed lengths count.
//! 6. The epoch and the lock are looked at once more, and the threads are started. Before the committer acknowledges
//!    anything it makes the header of the segment for appending and the name of the manifest durable, and then the name
//!    of that segment.
//!
//! Nothing live is changed before everything was read and found good.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::committer::{Active, Committer};
use crate::error::{OpenError, open_io};
use crate::format::{BadHeader, SEGMENT_HEADER, SegmentHeader, VERSION};
use crate::housekeeper::Housekeeper;
use crate::journal::{Journal, Segment, Shared};
use crate::manifest::{Manifest, Sealed};
use crate::names::{self, FileName};
use crate::open::Base;
use crate::scan::Scan;
use crate::segment::{SegmentFile, Spare};
use crate::select::{Chosen, Listing, Undecided};
use crate::types::{Record, Recovery, SegmentInfo};

/// How often the directory is listed again if files change their names while they are being opened.
const OPEN_TRIES: u32 = 20;
/// Pause between two of these.
const OPEN_PAUSE: Duration = Duration::from_millis(2);

/// A live segment. It is not kept open, because there may be more segments than file descriptors; its inode
/// tells it from any other file, whatever its name is by now.
pub(crate) struct Live {
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
    /// What the manifest says about it, if it was sealed.
    pub(crate) sealed: Option<Sealed>,
    /// Size of the file when it was found.
    pub(crate) size: u64,
    identity: (u64, u64),
}

/// What there is to read.
pub(crate) struct Found {
    pub(crate) manifest: Manifest,
    pub(crate) live: Vec<Live>,
    /// Sealed segments that are not there. They have to turn out to be released.
    pub(crate) missing: Vec<Sealed>,
    listing: Listing,
}

pub(crate) fn run<E>(
    base: Base,
    epoch: u64,
    visit: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<(Journal, Recovery), OpenError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let started = Instant::now();
    base.check_owner(epoch)?;
    let found = find(&base.dir, epoch)?;
    let first = SegmentHeader::new(found.listing.next_id(&found.manifest), epoch);
    let (manifest, mut recovery, spare) = take_over(&base, &found, first, visit)?;
    base.check_owner(epoch)?;
    let leftovers = leftovers(&base.dir, epoch, &found.listing);
    recovery.leftovers = leftovers.len() as u64;
    let first = spare.into_segment(&base.dir, first);
    let journal = start(
        base,
        &manifest,
        first,
        inherited(&manifest, &found.live),
        leftovers,
    )?;
    recovery.elapsed = started.elapsed();
    Ok((journal, recovery))
}

/// Shows every record to `visit` and seals what was found, while another thread works [`ahead`].
fn take_over<E>(
    base: &Base,
    found: &Found,
    first: SegmentHeader,
    visit: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<(Manifest, Recovery, Spare), OpenError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    std::thread::scope(|scope| {
        let ahead = std::thread::Builder::new()
            .name("journal-ahead".to_owned())
            .spawn_scoped(scope, || ahead(base, found, first))
            .map_err(|e| open_io("start the threads of", &base.dir, e))?;
        let sealed = read_and_seal(base, found, first, visit);
        let spare = match ahead.join() {
            Ok(spare) => spare,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        if let (Err(_), Ok(spare)) = (&sealed, &spare) {
            // Where it stays, the next owner removes it.
            let _ = fs::remove_file(&spare.path);
        }
        let (manifest, recovery) = sealed?;
        Ok((manifest, recovery, spare?))
    })
}

fn read_and_seal<E>(
    base: &Base,
    found: &Found,
    first: SegmentHeader,
    visit: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<(Manifest, Recovery), OpenError>
where
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut scan = Scan::new(&base.dir, found);
    scan.read(found, visit)?;
    let Scan { recovery, kept, .. } = scan;
    let manifest = seal(base, found, first, &kept, &recovery)?;
    Ok((manifest, recovery))
}

/// What can be done before everything was read: the first segment of this owner is created, still without a name that
/// counts, and what the owner before wrote last is synced. That is done again when it was read, because somebody
/// frozen may have woken in between, and then finds nothing left to do.
fn ahead(base: &Base, found: &Found, first: SegmentHeader) -> Result<Spare, OpenError> {
    let path = base.dir.join(names::spare(first.epoch, 0));
    let create = || {
        let spare = Spare::create(&base.dir, first.epoch, 0)?;
        spare.begin(&base.disk, first)?;
        Ok(spare)
    };
    let spare = create().map_err(|e| open_io("create", &path, e))?;
    for live in found.live.iter().filter(|live| live.sealed.is_none()) {
        live.sync(base)?;
    }
    Ok(spare)
}

/// Lists and opens, again and again while names change: a frozen claimant may be in the middle of its renames.
fn find(dir: &Path, epoch: u64) -> Result<Found, OpenError> {
    let mut tries = 0;
    loop {
        tries += 1;
        match try_find(dir, epoch) {
            Err(OpenError::Vanished { .. }) if tries < OPEN_TRIES => std::thread::sleep(OPEN_PAUSE),
            other => return other,
        }
    }
}

fn try_find(dir: &Path, epoch: u64) -> Result<Found, OpenError> {
    let listing = list(dir)?;
    if listing.newest_epoch() > epoch {
        return Err(OpenError::Superseded {
            epoch: listing.newest_epoch(),
        });
    }
    let manifest = match listing.newest_manifest() {
        None => Manifest::initial(),
        Some(newest) => match Manifest::read(dir, newest) {
            Ok(manifest) => manifest?,
            Err(e) => return Err(gone_or(e, "read", &dir.join(names::manifest(newest)))),
        },
    };
    let mut chosen = listing
        .select(&manifest)
        .map_err(|undecided| refuse(dir, undecided))?;
    let mut live = Vec::new();
    let mut missing = Vec::new();
    for sealed in &manifest.sealed {
        match chosen.remove(&sealed.id) {
            Some(file) => live.push(inspect(dir, file, Some(sealed), &manifest)?),
            None => missing.push(sealed.clone()),
        }
    }
    for file in chosen.into_values() {
        live.push(inspect(dir, file, None, &manifest)?);
    }
    Ok(Found {
        manifest,
        live,
        missing,
        listing,
    })
}

fn list(dir: &Path) -> Result<Listing, OpenError> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(dir).map_err(|e| open_io("list", dir, e))? {
        let name = entry.map_err(|e| open_io("list", dir, e))?.file_name();
        listing.names.extend(name.to_str().and_then(FileName::parse));
    }
    Ok(listing)
}

fn refuse(dir: &Path, undecided: Undecided) -> OpenError {
    let (id, named, why) = match undecided {
        Undecided::Twice { id, named } => (id, named, "two files claim to be this segment"),
        Undecided::NoManifest { id, named } => (id, named, "there are segments, but the manifest is missing"),
    };
    OpenError::Corrupt {
        file: dir.join(names::segment(id, named)),
        offset: 0,
        why: why.to_owned(),
    }
}

fn gone_or(error: io::Error, op: &'static str, path: &Path) -> OpenError {
    if error.kind() == io::ErrorKind::NotFound {
        return OpenError::Vanished {
            file: path.to_owned(),
        };
    }
    open_io(op, path, error)
}

fn inspect(dir: &Path, chosen: Chosen, sealed: Option<&Sealed>, base: &Manifest) -> Result<Live, OpenError> {
    let path = dir.join(names::segment(chosen.id, chosen.named));
    let corrupt = |why: &str| OpenError::Corrupt {
        file: path.clone(),
        offset: 0,
        why: why.to_owned(),
    };
    let file = File::open(&path).map_err(|e| gone_or(e, "open", &path))?;
    let metadata = file.metadata().map_err(|e| open_io("stat", &path, e))?;
    let mut bytes = [0; SEGMENT_HEADER];
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            return Err(corrupt("the file is too short for its header"));
        }
        Err(e) => return Err(open_io("read", &path, e)),
    }
    let header = match SegmentHeader::decode(&bytes) {
        Ok(header) => header,
        Err(BadHeader::Damaged(why)) => return Err(corrupt(why)),
        Err(BadHeader::Version(version)) => {
            return Err(OpenError::UnknownVersion {
                file: path,
                version,
                supported: VERSION,
            });
        }
    };
    if header.id != chosen.id || sealed.is_some_and(|sealed| sealed.epoch != header.epoch) {
        return Err(corrupt("the header belongs to another segment"));
    }
    if header.epoch > base.epoch {
        return Err(corrupt(
            "the manifest of the epoch that wrote this segment is missing",
        ));
    }
    let (size, identity) = (metadata.len(), (metadata.dev(), metadata.ino()));
    Ok(Live {
        path,
        header,
        sealed: sealed.cloned(),
        size,
        identity,
    })
}

impl Live {
    /// Opens the file, wherever it is now.
    pub(crate) fn open(&self, dir: &Path) -> Result<File, OpenError> {
        let mut path = self.path.clone();
        for _ in 0..OPEN_TRIES {
            match File::open(&path) {
                Ok(file) => return Ok(file),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(open_io("open", &path, e)),
            }
            match current_name(dir, self)? {
                Some(found) => path = found,
                None => break,
            }
        }
        Err(OpenError::Vanished {
            file: self.path.clone(),
        })
    }

    fn sync(&self, base: &Base) -> Result<(), OpenError> {
        let file = self.open(&base.dir)?;
        base.disk.sync(&file).map_err(|e| open_io("sync", &self.path, e))
    }
}

/// Makes what was read durable and ours. Returns the manifest that says so.
fn seal(
    base: &Base,
    found: &Found,
    first: SegmentHeader,
    kept: &[Sealed],
    recovery: &Recovery,
) -> Result<Manifest, OpenError> {
    let is_kept = |live: &&Live| {
        kept.binary_search_by_key(&live.header.id, |sealed| sealed.id)
            .is_ok()
    };
    for live in found.live.iter().filter(is_kept) {
        if live.sealed.is_none() {
            live.sync(base)?;
        }
        adopt(&base.dir, first.epoch, live)?;
    }
    let manifest = Manifest {
        version: VERSION,
        epoch: first.epoch,
        next_id: first.id,
        next_seq: recovery.next_seq,
        released: recovery.released_before,
        sealed: kept.to_vec(),
    };
    manifest.write(&base.dir)?;
    Ok(manifest)
}

/// Renames a segment to this epoch, wherever it is now.
fn adopt(dir: &Path, epoch: u64, live: &Live) -> Result<(), OpenError> {
    let to = dir.join(names::segment(live.header.id, epoch));
    let mut from = live.path.clone();
    for _ in 0..OPEN_TRIES {
        match fs::rename(&from, &to) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(open_io("rename", &from, e)),
        }
        match current_name(dir, live)? {
            Some(path) if path == to => return Ok(()),
            Some(path) => from = path,
            None => break,
        }
    }
    Err(OpenError::Vanished {
        file: live.path.clone(),
    })
}

/// Finds the file under another name.
fn current_name(dir: &Path, live: &Live) -> Result<Option<PathBuf>, OpenError> {
    for name in list(dir)?.names {
        let FileName::Segment { id, epoch } = name else {
            continue;
        };
        let path = dir.join(names::segment(id, epoch));
        let same = fs::metadata(&path).is_ok_and(|other| (other.dev(), other.ino()) == live.identity);
        if same {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn leftovers(dir: &Path, epoch: u64, listing: &Listing) -> Vec<PathBuf> {
    let paths = listing
        .leftovers(epoch)
        .into_iter()
        .filter_map(|name| match name {
            FileName::Manifest { epoch } => Some(dir.join(names::manifest(epoch))),
            FileName::ManifestDraft { epoch } => Some(dir.join(names::manifest_draft(epoch))),
            FileName::Segment { id, epoch } => Some(dir.join(names::segment(id, epoch))),
            FileName::Spare { epoch, number } => Some(dir.join(names::spare(epoch, number))),
            FileName::LockDraft => None,
        });
    // Names that were adopted are gone already.
    paths.filter(|path| path.exists()).collect()
}

/// Starts the threads.
fn start(
    base: Base,
    manifest: &Manifest,
    first: SegmentFile,
    mut segments: Vec<Segment>,
    leftovers: Vec<PathBuf>,
) -> Result<Journal, OpenError> {
    let epoch = manifest.epoch;
    // Old markers only help whoever reads the directory by eye.
    let _ = base.epochs.prune(epoch);
    let active = Active::new(first);
    segments.push(active.as_segment(manifest.next_seq));
    let shared = Arc::new(Shared::new(
        epoch,
        base.options.clone(),
        manifest.next_seq,
        segments,
    ));
    let spawn = |e| open_io("start the threads of", &base.dir, e);
    let (dir, epochs, disk) = (base.dir.clone(), base.epochs.clone(), base.disk.clone());
    let housekeeper =
        Housekeeper::start(Arc::clone(&shared), dir, epochs, disk, manifest.next_id + 1).map_err(spawn)?;
    let dir = base.dir.clone();
    let committer = Committer {
        shared: Arc::clone(&shared),
        base,
        housekeeper,
        active,
        next_seq: manifest.next_seq,
        released: manifest.released,
        release_seen: 0,
    };
    let builder = std::thread::Builder::new().name("journal-commit".to_owned());
    let thread = builder
        .spawn(move || committer.run(leftovers))
        .map_err(|e| open_io("start the threads of", &dir, e))?;
    Ok(Journal::new(shared, thread))
}

/// The sealed segments as the owner will see them.
fn inherited(manifest: &Manifest, live: &[Live]) -> Vec<Segment> {
    let found = |id| live.binary_search_by_key(&id, |live| live.header.id).ok();
    let size = |id| found(id).map_or(0, |at| live[at].size);
    let segment = |sealed: &Sealed| Segment {
        info: SegmentInfo {
            id: sealed.id,
            epoch: sealed.epoch,
            first_seq: sealed.first_seq,
            last_seq: sealed.last_seq,
            bytes: sealed.bytes,
            disk_bytes: size(sealed.id),
            active: false,
        },
        own: false,
        filled: false,
    };
    manifest.sealed.iter().map(segment).collect()
}
