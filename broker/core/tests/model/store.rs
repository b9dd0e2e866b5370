//! The store and the directory of the model: what outlives every process.

use std::collections::{BTreeMap, BTreeSet};

/// A process: the member's index and the number of its run.
pub(crate) type Process = (usize, u64);

/// One store, with a lock that may be broken by force.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) lock: Option<Process>,
    pub(crate) epoch: u64,
    /// Records that the next recovery finds. One that lands under an epoch that is over is not among them.
    live: BTreeSet<u64>,
    /// The names that an administrator gave to destinations.
    pub(crate) names: BTreeSet<u8>,
}

impl Store {
    pub(crate) fn append(&mut self, epoch: u64, record: u64) {
        if epoch == self.epoch {
            self.live.insert(record);
        }
    }

    pub(crate) fn has(&self, record: u64) -> bool {
        self.live.contains(&record)
    }

    pub(crate) fn unlock(&mut self, process: Process) {
        if self.lock == Some(process) {
            self.lock = None;
        }
    }
}

/// The directory's record of the group. It loses nothing in an outage, and lengthens the leases by it.
#[derive(Debug, Default)]
pub(crate) struct Group {
    pub(crate) is_down: bool,
    pub(crate) epoch: u64,
    pub(crate) active: Option<usize>,
    pub(crate) lease_expired: bool,
    /// Who is published under which epoch, if the names are available.
    pub(crate) exports: Option<(usize, u64)>,
    /// What the group exports beside the configured names, available or not.
    pub(crate) names: BTreeSet<u8>,
    /// What somebody bound by hand.
    pub(crate) by_hand: BTreeSet<u8>,
    /// Each member's lease: its number and its end in microseconds.
    leases: BTreeMap<usize, (u64, u64)>,
    made: u64,
}

/// Why a write was refused.
#[derive(Clone, Copy, Debug)]
pub(crate) enum No {
    Member,
    Active(usize, u64),
    Stale(u64),
    Name(u8),
}

impl Group {
    pub(crate) fn join(&mut self, member: usize, until: u64) -> u64 {
        if self.active == Some(member) {
            self.end_term();
        }
        self.made += 1;
        self.leases.insert(member, (self.made, until));
        self.made
    }

    pub(crate) fn renew(&mut self, member: usize, lease: u64, until: u64) -> bool {
        match self.leases.get_mut(&member) {
            Some((number, end)) if *number == lease => {
                *end = until;
                true
            }
            Some(_) | None => false,
        }
    }

    pub(crate) fn leave(&mut self, member: usize, lease: u64) {
        if self
            .leases
            .get(&member)
            .is_some_and(|(number, _)| *number == lease)
        {
            self.leases.remove(&member);
            if self.active == Some(member) {
                self.active = None;
                self.exports = None;
            }
        }
    }

    pub(crate) fn end_leases(&mut self, now: u64) {
        let ended = self.leases.iter().find(|(_, (_, end))| *end <= now);
        if let Some(member) = ended.map(|(member, _)| *member) {
            self.leases.remove(&member);
            if self.active == Some(member) {
                self.end_term();
            }
        }
    }

    pub(crate) fn come_back(&mut self, until: u64) {
        self.is_down = false;
        for (_, end) in self.leases.values_mut() {
            *end = until;
        }
    }

    fn end_term(&mut self) {
        self.active = None;
        self.lease_expired = true;
        self.exports = None;
    }

    pub(crate) fn claim(&mut self, member: usize, store_epoch: u64, has_evidence: bool) -> Result<u64, No> {
        if !self.leases.contains_key(&member) {
            return Err(No::Member);
        }
        match self.active {
            Some(active) if active != member && !has_evidence => Err(No::Active(active, self.epoch)),
            Some(_) | None => {
                self.epoch = self.epoch.max(store_epoch) + 1;
                self.active = Some(member);
                self.lease_expired = false;
                self.exports = None;
                Ok(self.epoch)
            }
        }
    }

    pub(crate) fn publish(&mut self, member: usize, epoch: u64, names: BTreeSet<u8>) -> Result<(), No> {
        if epoch != self.epoch || self.active != Some(member) {
            return Err(No::Stale(self.epoch));
        }
        if let Some(name) = names.intersection(&self.by_hand).next() {
            return Err(No::Name(*name));
        }
        self.exports = Some((member, epoch));
        self.names = names;
        Ok(())
    }

    /// Somebody binds a name by hand, if the group does not have it.
    pub(crate) fn bind(&mut self, name: u8) {
        if !self.is_down && !self.names.contains(&name) {
            self.by_hand.insert(name);
        }
    }

    /// For a handover the group has no active member afterwards.
    pub(crate) fn withdraw(&mut self, epoch: u64, hands_over: bool) {
        if epoch == self.epoch {
            self.exports = None;
            if hands_over {
                self.active = None;
            }
        }
    }
}
