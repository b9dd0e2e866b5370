//! A directory with short spellings for writes, which checks on the way that refused writes change nothing.

use std::sync::Arc;

use daymark_naming_core::{Command, Directory, Limits};
use daymark_naming_proto::{
    Attributes, Binding, ChangeKind, ChangeSet, Endpoint, Epoch, Evidence, Export, GroupName, GroupView,
    JoinRequest, LeaseId, MemberName, Name, NamingError, Object, OpId, Revision, Role, UnavailableReason,
    WithdrawReason, Write, WriteDetail, Written,
};

pub(crate) type Answer = Result<Written, NamingError>;

/// A directory, a clock that moves by a second with each write, and a supply of operation ids.
pub(crate) struct Story {
    pub(crate) directory: Directory,
    pub(crate) now_unix_ms: u64,
    next_op: u128,
}

impl Story {
    pub(crate) fn new() -> Self {
        Self::within(Limits::default())
    }

    pub(crate) fn within(limits: Limits) -> Self {
        Self {
            directory: Directory::new(limits),
            now_unix_ms: 1_000_000,
            next_op: 1,
        }
    }

    /// Writes, and checks that revision, state and history stay as they were where the write is refused.
    pub(crate) fn write(&mut self, write: Write) -> Answer {
        self.next_op += 1;
        self.write_as(OpId(self.next_op), write)
    }

    pub(crate) fn write_as(&mut self, op: OpId, write: Write) -> Answer {
        self.now_unix_ms += 1_000;
        let before = (self.directory.to_snapshot(), self.directory.last_change());
        let answer = self.directory.apply(&Command {
            op,
            at_unix_ms: self.now_unix_ms,
            write,
        });
        if answer.is_err() {
            let after = (self.directory.to_snapshot(), self.directory.last_change());
            assert!(before == after, "a refused write changed something: {answer:?}");
        }
        answer
    }

    pub(crate) fn bind(&mut self, text: &str, object: Object) -> Answer {
        self.write(Write::Bind {
            name: name(text),
            object,
            attributes: Attributes::new(),
        })
    }

    pub(crate) fn rebind(&mut self, text: &str, object: Object) -> Answer {
        self.rebind_if(text, object, None)
    }

    pub(crate) fn rebind_if(&mut self, text: &str, object: Object, expected: Option<u64>) -> Answer {
        self.write(Write::Rebind {
            name: name(text),
            object,
            attributes: None,
            expected: expected.map(Revision),
        })
    }

    pub(crate) fn unbind(&mut self, text: &str) -> Answer {
        self.unbind_if(text, None)
    }

    pub(crate) fn unbind_if(&mut self, text: &str, expected: Option<u64>) -> Answer {
        self.write(Write::Unbind {
            name: name(text),
            expected: expected.map(Revision),
        })
    }

    pub(crate) fn create(&mut self, text: &str) -> Answer {
        self.write(Write::CreateSubcontext {
            name: name(text),
            attributes: Attributes::new(),
        })
    }

    pub(crate) fn destroy(&mut self, text: &str) -> Answer {
        self.write(Write::DestroySubcontext { name: name(text) })
    }

    pub(crate) fn join(&mut self, group: &str, member: &str) -> Answer {
        self.write(Write::Join {
            group: self::group(group),
            member: self::member(member),
            join: description(),
        })
    }

    /// Joins and returns the membership.
    pub(crate) fn joined(&mut self, group: &str, member: &str) -> LeaseId {
        match self.join(group, member).expect("a join").detail {
            WriteDetail::Joined { lease, .. } => lease,
            other @ (WriteDetail::None | WriteDetail::Claimed { .. }) => panic!("{other:?}"),
        }
    }

    pub(crate) fn leave(&mut self, group: &str, member: &str, lease: LeaseId) -> Answer {
        self.write(Write::Leave {
            group: self::group(group),
            member: self::member(member),
            lease,
        })
    }

    pub(crate) fn end_lease(&mut self, group: &str, member: &str, lease: LeaseId) -> Answer {
        self.write(Write::EndLease {
            group: self::group(group),
            member: self::member(member),
            lease,
        })
    }

    pub(crate) fn claim(
        &mut self,
        group: &str,
        member: &str,
        store_epoch: u64,
        evidence: Evidence,
    ) -> Answer {
        self.write(Write::Claim {
            group: self::group(group),
            member: self::member(member),
            store_epoch: Epoch(store_epoch),
            evidence,
        })
    }

    /// Claims without evidence, for a store of epoch 0, and returns the epoch.
    pub(crate) fn claimed(&mut self, group: &str, member: &str) -> u64 {
        granted(self.claim(group, member, 0, Evidence::None))
    }

    pub(crate) fn publish(
        &mut self,
        group: &str,
        member: &str,
        epoch: u64,
        exports: &[(&str, &str)],
    ) -> Answer {
        self.write(Write::Publish {
            group: self::group(group),
            member: self::member(member),
            epoch: Epoch(epoch),
            exports: exports
                .iter()
                .map(|(name, address)| export(name, address))
                .collect(),
        })
    }

    pub(crate) fn withdraw(&mut self, group: &str, epoch: u64, reason: WithdrawReason) -> Answer {
        self.write(Write::Withdraw {
            group: self::group(group),
            epoch: Epoch(epoch),
            reason,
            eta_ms: None,
        })
    }

    /// The group `orders` with `active` serving and `standby` waiting, two queues published. Returns the
    /// epoch and both memberships.
    pub(crate) fn serving(&mut self) -> (u64, LeaseId, LeaseId) {
        let active = self.joined("orders", "active");
        let standby = self.joined("orders", "standby");
        let epoch = self.claimed("orders", "active");
        changed(self.publish("orders", "active", epoch, &[("A", "a"), ("B", "b")]));
        (epoch, active, standby)
    }

    pub(crate) fn lookup(&self, text: &str) -> Result<Arc<Binding>, NamingError> {
        self.directory.lookup(&name(text))
    }

    /// What is bound there.
    pub(crate) fn object(&self, text: &str) -> Object {
        self.lookup(text).expect("a binding").object.clone()
    }

    /// Why the name is withheld.
    pub(crate) fn unavailable(&self, text: &str) -> UnavailableReason {
        match self.lookup(text) {
            Err(NamingError::NameUnavailable { reason, .. }) => reason,
            other => panic!("{text} is not withheld: {other:?}"),
        }
    }

    pub(crate) fn view(&self, group: &str) -> GroupView {
        self.directory.group(&self::group(group)).expect("a group")
    }

    /// The changes of the last revision, each as `name event`.
    pub(crate) fn last_events(&self) -> Vec<String> {
        events(&self.directory.last_change().expect("a change"))
    }
}

pub(crate) fn events(set: &ChangeSet) -> Vec<String> {
    let event = |kind: &ChangeKind| match kind {
        ChangeKind::Bound { .. } => "bound".to_owned(),
        ChangeKind::Rebound { .. } => "rebound".to_owned(),
        ChangeKind::Unbound => "unbound".to_owned(),
        ChangeKind::Withheld { withheld, .. } => format!("withheld {}", withheld.reason),
    };
    let changes = set.changes.iter();
    changes
        .map(|change| format!("{} {}", change.name, event(&change.kind)))
        .collect()
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

pub(crate) fn group(text: &str) -> GroupName {
    text.parse().expect("a group name")
}

pub(crate) fn member(text: &str) -> MemberName {
    text.parse().expect("a member name")
}

pub(crate) fn queue(address: &str) -> Object {
    Object::Queue {
        address: address.into(),
    }
}

pub(crate) fn link(target: &str) -> Object {
    Object::Link { target: name(target) }
}

pub(crate) fn export(text: &str, address: &str) -> Export {
    Export {
        name: name(text),
        object: queue(address),
        attributes: Attributes::new(),
    }
}

pub(crate) fn description() -> JoinRequest {
    JoinRequest {
        role: Role::Primary,
        endpoint: Endpoint {
            host: "kkam".to_owned(),
            port: 9741,
        },
        admin: None,
        peer: None,
        lease_ms: 2_000,
        shadow: vec![export("A", "a")],
    }
}

/// The revision of a write that must have changed something.
pub(crate) fn changed(answer: Answer) -> u64 {
    let written = answer.expect("an accepted write");
    assert!(written.changed, "{written:?}");
    written.revision.0
}

/// A write that must have been accepted without changing anything.
pub(crate) fn unchanged(answer: Answer) {
    let written = answer.expect("an accepted write");
    assert!(!written.changed, "{written:?}");
}

/// The epoch of a claim that must have been granted.
pub(crate) fn granted(answer: Answer) -> u64 {
    match answer.expect("a granted claim").detail {
        WriteDetail::Claimed { epoch } => epoch.0,
        other @ (WriteDetail::None | WriteDetail::Joined { .. }) => panic!("{other:?}"),
    }
}

/// The code of a write that must have been refused.
pub(crate) fn refused(answer: Answer) -> &'static str {
    answer.expect_err("a refusal").code()
}
