//! File names in a journal directory. Whatever does not parse here is not ours and is never touched.

/// What a name in the directory means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FileName {
    /// `manifest-EPOCH`: what the owner of that epoch found and sealed.
    Manifest { epoch: u64 },
    /// `manifest-EPOCH.tmp`: a manifest being written.
    ManifestDraft { epoch: u64 },
    /// `seg-ID-EPOCH`: a segment in the care of the owner of that epoch.
    Segment { id: u64, epoch: u64 },
    /// `spare-EPOCH-N`: a file being prepared, or waiting to be used again.
    Spare { epoch: u64, number: u64 },
    /// `lock-….tmp`: the remains of a forced acquisition.
    LockDraft,
}

impl FileName {
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if let Some(rest) = name.strip_prefix("manifest-") {
            return match rest.strip_suffix(".tmp") {
                Some(epoch) => Some(Self::ManifestDraft {
                    epoch: parse_hex(epoch)?,
                }),
                None => Some(Self::Manifest {
                    epoch: parse_hex(rest)?,
                }),
            };
        }
        if let Some(rest) = name.strip_prefix("seg-") {
            let (id, epoch) = rest.split_once('-')?;
            return Some(Self::Segment {
                id: parse_hex(id)?,
                epoch: parse_hex(epoch)?,
            });
        }
        if let Some(rest) = name.strip_prefix("spare-") {
            let (epoch, number) = rest.split_once('-')?;
            return Some(Self::Spare {
                epoch: parse_hex(epoch)?,
                number: parse_hex(number)?,
            });
        }
        (name.starts_with("lock-") && name.ends_with(".tmp")).then_some(Self::LockDraft)
    }

    /// The epoch in the name, if it carries one.
    pub(crate) fn epoch(self) -> Option<u64> {
        match self {
            Self::Manifest { epoch }
            | Self::ManifestDraft { epoch }
            | Self::Segment { epoch, .. }
            | Self::Spare { epoch, .. } => Some(epoch),
            Self::LockDraft => None,
        }
    }
}

pub(crate) fn manifest(epoch: u64) -> String {
    format!("manifest-{epoch:016x}")
}

pub(crate) fn manifest_draft(epoch: u64) -> String {
    format!("manifest-{epoch:016x}.tmp")
}

pub(crate) fn segment(id: u64, epoch: u64) -> String {
    format!("seg-{id:016x}-{epoch:016x}")
}

pub(crate) fn spare(epoch: u64, number: u64) -> String {
    format!("spare-{epoch:016x}-{number:016x}")
}

/// Exactly sixteen lower-case hexadecimal digits, so that one number has one name.
pub(crate) fn parse_hex(text: &str) -> Option<u64> {
    let canonical = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if canonical {
        u64::from_str_radix(text, 16).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_it_was_made_from() {
        assert_eq!(
            FileName::parse(&manifest(7)),
            Some(FileName::Manifest { epoch: 7 })
        );
        assert_eq!(
            FileName::parse(&manifest_draft(7)),
            Some(FileName::ManifestDraft { epoch: 7 })
        );
        assert_eq!(
            FileName::parse(&segment(3, u64::MAX)),
            Some(FileName::Segment {
                id: 3,
                epoch: u64::MAX
            })
        );
        assert_eq!(
            FileName::parse(&spare(7, 1)),
            Some(FileName::Spare { epoch: 7, number: 1 })
        );
    }

    #[test]
    fn foreign_names_are_not_ours() {
        for name in [
            "",
            "seg-",
            "seg-1-2",
            "seg-000000000000000A-0000000000000001",
            "seg-+00000000000000a-0000000000000001",
            "manifest-",
            "notes.txt",
            "lost+found",
        ] {
            assert_eq!(FileName::parse(name), None, "{name}");
        }
    }
}
