//! The directory's rules a second time, as plainly as possible: flat maps, every question a scan.

use std::collections::BTreeMap;

use daymark_naming_proto::{
    Epoch, Evidence, Export, GroupName, LeaseId, MemberName, Name, Object, Revision, TransactWrite,
    UnavailableReason, WithdrawReason, Write,
};

/// Whether a write changes something, or the code it is refused with.
pub(crate) type Verdict = Result<bool, &'static str>;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) object: Object,
    pub(crate) owner: Option<(GroupName, Epoch)>,
    pub(crate) revision: u64,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ModelGroup {
    pub(crate) epoch: u64,
    pub(crate) active: Option<MemberName>,
    pub(crate) members: BTreeMap<MemberName, LeaseId>,
    pub(crate) withheld: Option<UnavailableReason>,
    pub(crate) exports_epoch: u64,
}

/// Names (without the root) and groups.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Model {
    pub(crate) revision: u64,
    pub(crate) names: BTreeMap<Name, Entry>,
    pub(crate) groups: BTreeMap<GroupName, ModelGroup>,
}

impl Model {
    /// Performs a write, or changes nothing.
    pub(crate) fn apply(&mut self, write: &Write) -> Verdict {
        let mut next = self.clone();
        let is_changed = next.perform(write)?;
        if is_changed {
            next.revision += 1;
            *self = next;
        }
        Ok(is_changed)
    }

    fn perform(&mut self, write: &Write) -> Verdict {
        match write {
            Write::Bind { name, object, .. } => self.bind(name, object),
            Write::Rebind {
                name,
                object,
                expected,
                ..
            } => self.rebind(name, object, expected.map(|revision| revision.0)),
            Write::Unbind { name, expected } => self.unbind(name, expected.map(|revision| revision.0)),
            Write::CreateSubcontext { name, .. } => self.bind(name, &Object::Context),
            Write::DestroySubcontext { name } => self.destroy(name),
            Write::Join { group, member, .. } => Ok(self.join(group, member)),
            Write::Leave { group, member, lease } => {
                let known = self.groups.get(group).ok_or("GroupNotFound")?;
                match known.members.get(member) {
                    None => Err("MemberNotFound"),
                    Some(current) if current != lease => Err("LeaseEnded"),
                    Some(_) => Ok(self.go(group, member, UnavailableReason::Withdrawn)),
                }
            }
            Write::EndLease { group, member, lease } => {
                let current = self.groups.get(group).and_then(|known| known.members.get(member));
                Ok(current == Some(lease) && self.go(group, member, UnavailableReason::LeaseExpired))
            }
            Write::Claim {
                group,
                member,
                store_epoch,
                evidence,
            } => self.claim(group, member, store_epoch.0, *evidence),
            Write::Publish {
                group,
                member,
                epoch,
                exports,
            } => self.publish(group, member, *epoch, exports),
            Write::Withdraw {
                group, epoch, reason, ..
            } => self.withdraw(group, epoch.0, *reason),
            Write::Rename {
                name,
                target,
                expected,
            } => self.rename(name, target, expected.map(|revision| revision.0)),
            Write::Transact { writes } => self.transact(writes),
            Write::ModifyAttributes { .. } | Write::RecordFailover { .. } => {
                panic!("the model knows neither attributes nor timelines")
            }
        }
    }

    fn context_of(&self, name: &Name) -> Result<(), &'static str> {
        let mut above = name.parent();
        let mut is_parent = true;
        while let Some(context) = above.filter(|above| !above.is_root()) {
            match self.names.get(&context) {
                Some(entry) if entry.object != Object::Context => return Err("NotContext"),
                Some(_) if is_parent => return Ok(()),
                Some(_) => return Err("NameNotFound"),
                None => {}
            }
            is_parent = false;
            above = context.parent();
        }
        if is_parent { Ok(()) } else { Err("NameNotFound") }
    }

    fn put(&mut self, name: &Name, object: &Object, owner: Option<(GroupName, Epoch)>) {
        let entry = Entry {
            object: object.clone(),
            owner,
            revision: self.revision + 1,
        };
        self.names.insert(name.clone(), entry);
    }

    fn is_used(&self, name: &Name) -> bool {
        self.names
            .keys()
            .any(|other| other != name && other.starts_with(name))
    }

    fn bind(&mut self, name: &Name, object: &Object) -> Verdict {
        self.context_of(name)?;
        match self.names.get(name) {
            Some(entry) if entry.owner.is_some() => Err("NameConflict"),
            Some(_) => Err("NameAlreadyBound"),
            None => {
                self.put(name, object, None);
                Ok(true)
            }
        }
    }

    /// What hand writes to a bound name check: `None` where it is not bound.
    fn own(&self, name: &Name, expected: Option<u64>) -> Result<Option<&Entry>, &'static str> {
        self.context_of(name)?;
        let entry = self.names.get(name);
        if entry.is_some_and(|entry| entry.owner.is_some()) {
            return Err("NameConflict");
        }
        let actual = entry.map_or(0, |entry| entry.revision);
        if expected.is_some_and(|expected| expected != actual) {
            return Err("RevisionMismatch");
        }
        Ok(entry)
    }

    fn rebind(&mut self, name: &Name, object: &Object, expected: Option<u64>) -> Verdict {
        if let Some(entry) = self.own(name, expected)? {
            if entry.object == Object::Context && *object != Object::Context && self.is_used(name) {
                return Err("ContextNotEmpty");
            }
            if entry.object == *object {
                return Ok(false);
            }
        }
        self.put(name, object, None);
        Ok(true)
    }

    fn unbind(&mut self, name: &Name, expected: Option<u64>) -> Verdict {
        if self.own(name, expected)?.is_none() {
            return Ok(false);
        }
        if self.is_used(name) {
            return Err("ContextNotEmpty");
        }
        self.names.remove(name);
        Ok(true)
    }

    fn destroy(&mut self, name: &Name) -> Verdict {
        self.context_of(name)?;
        match self.names.get(name) {
            Some(entry) if entry.object != Object::Context => Err("NotContext"),
            Some(_) => self.unbind(name, None),
            None => Ok(false),
        }
    }

    fn rename(&mut self, name: &Name, target: &Name, expected: Option<u64>) -> Verdict {
        self.context_of(name)?;
        if !self.names.contains_key(name) {
            return Err("NameNotFound");
        }
        self.own(name, expected)?;
        match self.context_of(target).map(|()| self.names.get(target)) {
            Err(code) => return Err(code),
            Ok(Some(entry)) if entry.owner.is_some() => return Err("NameConflict"),
            Ok(Some(_)) => return Err("NameAlreadyBound"),
            Ok(None) if target.starts_with(name) => return Err("InvalidRequest"),
            Ok(None) => {}
        }
        let below = self.names.keys().filter(|other| other.starts_with(name));
        for moved in below.cloned().collect::<Vec<_>>() {
            let mut entry = self.names.remove(&moved).expect("a name");
            if entry.owner.is_some() {
                return Err("NameConflict");
            }
            entry.revision = self.revision + 1;
            let rest = moved.suffix(name.components().len());
            self.names.insert(target.join(&rest).expect("a name"), entry);
        }
        Ok(true)
    }

    /// Each write in turn on a copy; the copy replaces the model only if all are accepted.
    fn transact(&mut self, writes: &[TransactWrite]) -> Verdict {
        let before = self.names.clone();
        for write in writes {
            self.transact_one(write).map_err(|_| "TransactFailed")?;
        }
        Ok(self.names != before)
    }

    fn transact_one(&mut self, write: &TransactWrite) -> Verdict {
        let number = |expected: &Option<Revision>| expected.map(|revision| revision.0);
        match write {
            TransactWrite::Bind { name, object, .. } => self.bind(name, object),
            TransactWrite::Rebind {
                name,
                object,
                expected,
                ..
            } => self.rebind(name, object, number(expected)),
            TransactWrite::Unbind { name, expected } => self.unbind(name, number(expected)),
            TransactWrite::CreateSubcontext { name, .. } => self.bind(name, &Object::Context),
            TransactWrite::Rename {
                name,
                target,
                expected,
            } => self.rename(name, target, number(expected)),
            TransactWrite::Check { name, expected } => {
                self.context_of(name)?;
                let actual = self.names.get(name).map_or(0, |entry| entry.revision);
                if actual == expected.0 {
                    Ok(false)
                } else {
                    Err("RevisionMismatch")
                }
            }
            TransactWrite::DestroySubcontext { .. } | TransactWrite::ModifyAttributes { .. } => {
                panic!("not drawn")
            }
        }
    }

    fn join(&mut self, group: &GroupName, member: &MemberName) -> bool {
        let lease = LeaseId(self.revision + 1);
        let known = self.groups.entry(group.clone()).or_default();
        if known.active.as_ref() == Some(member) {
            known.end_term(UnavailableReason::LeaseExpired);
        }
        known.members.insert(member.clone(), lease);
        true
    }

    fn go(&mut self, group: &GroupName, member: &MemberName, reason: UnavailableReason) -> bool {
        if let Some(known) = self.groups.get_mut(group) {
            known.members.remove(member);
            if known.active.as_ref() == Some(member) {
                known.end_term(reason);
            }
        }
        true
    }

    fn claim(
        &mut self,
        group: &GroupName,
        member: &MemberName,
        store_epoch: u64,
        evidence: Evidence,
    ) -> Verdict {
        let known = self.groups.get_mut(group).ok_or("GroupNotFound")?;
        if !known.members.contains_key(member) {
            return Err("MemberNotFound");
        }
        let is_other_active = known.active.as_ref().is_some_and(|active| active != member);
        if is_other_active && evidence == Evidence::None {
            return Err("ActiveExists");
        }
        known.epoch = 1 + known.epoch.max(store_epoch);
        known.active = Some(member.clone());
        known.withheld = Some(UnavailableReason::Promoting);
        Ok(true)
    }

    fn publish(
        &mut self,
        group: &GroupName,
        member: &MemberName,
        epoch: Epoch,
        exports: &[Export],
    ) -> Verdict {
        let known = self.groups.get(group).ok_or("GroupNotFound")?.clone();
        known.check_epoch(epoch.0)?;
        if !known.members.contains_key(member) {
            return Err("MemberNotFound");
        }
        if known.active.as_ref() != Some(member) {
            return Err("StaleEpoch");
        }
        let before = self.names.clone();
        let is_ours = |entry: &Entry| entry.owner.as_ref().is_some_and(|(owner, _)| owner == group);
        self.names.retain(|_, entry| !is_ours(entry));
        for export in exports {
            self.export(export, group, epoch, &before, known.withheld.is_some())?;
        }
        let known = self.groups.get_mut(group).ok_or("GroupNotFound")?;
        let is_fresh = known.withheld.is_some() || known.exports_epoch != epoch.0;
        known.withheld = None;
        known.exports_epoch = epoch.0;
        Ok(is_fresh || before != self.names)
    }

    fn export(
        &mut self,
        export: &Export,
        group: &GroupName,
        epoch: Epoch,
        before: &BTreeMap<Name, Entry>,
        was_withheld: bool,
    ) -> Result<(), &'static str> {
        if self.names.contains_key(&export.name) {
            return Err("NameConflict");
        }
        for depth in 1..export.name.components().len() {
            let above = export.name.prefix(depth);
            match self.names.get(&above) {
                Some(entry) if entry.object == Object::Context => {}
                Some(_) => return Err("NotContext"),
                None => self.put(&above, &Object::Context, None),
            }
        }
        let owner = Some((group.clone(), epoch));
        self.put(&export.name, &export.object, owner.clone());
        match before.get(&export.name) {
            Some(old) if !was_withheld && old.owner == owner && old.object == export.object => {
                self.names.insert(export.name.clone(), old.clone());
            }
            Some(_) | None => {}
        }
        Ok(())
    }

    fn withdraw(&mut self, group: &GroupName, epoch: u64, reason: WithdrawReason) -> Verdict {
        let known = self.groups.get_mut(group).ok_or("GroupNotFound")?;
        known.check_epoch(epoch)?;
        if known.active.is_none() {
            return Err("StaleEpoch");
        }
        let before = known.clone();
        known.withheld = Some(UnavailableReason::Withdrawn);
        if reason != WithdrawReason::Planned {
            known.active = None;
        }
        Ok(*known != before)
    }
}

impl ModelGroup {
    fn end_term(&mut self, reason: UnavailableReason) {
        self.active = None;
        if self.withheld != Some(UnavailableReason::Withdrawn) {
            self.withheld = Some(reason);
        }
    }

    fn check_epoch(&self, epoch: u64) -> Result<(), &'static str> {
        match epoch.cmp(&self.epoch) {
            std::cmp::Ordering::Less => Err("StaleEpoch"),
            std::cmp::Ordering::Greater => Err("InvalidRequest"),
            std::cmp::Ordering::Equal => Ok(()),
        }
    }
}
