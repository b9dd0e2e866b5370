//! Random interleavings of every write, with restarts, against the model and the invariants.

use std::collections::BTreeMap;

use daymark_naming_core::{Command, Directory, Limits, SnapshotReader};
use daymark_naming_proto::{
    Attributes, Change, ChangeKind, Epoch, Evidence, Export, GroupName, LeaseId, MemberName, Name,
    NamingError, Object, OpId, Revision, Scope, TransactWrite, WatchMessage, WithdrawReason, Write,
    WriteDetail, Written,
};
use proptest::prelude::*;

use crate::model::Model;
use crate::support::{description, group, member, name, queue};

const NAMES: [&str; 7] = ["a", "a/b", "a/b/c", "q", "q/r", "s", "s/t/u"];
const GROUPS: [&str; 2] = ["orders", "billing"];
const MEMBERS: [&str; 3] = ["kkam", "kkam-PC", "spare"];

/// One step, with numbers that are relative to the state they meet.
#[derive(Clone, Debug)]
enum Act {
    Write(Shape),
    /// Says again, under its id, what was said so many writes ago.
    Repeat(prop::sample::Index),
    /// Goes on from a snapshot that was read in pieces of this size.
    Restart(usize),
}

#[derive(Clone, Debug)]
enum Shape {
    Bind(usize, u8),
    Rebind(usize, u8, Option<bool>),
    Unbind(usize, Option<bool>),
    Create(usize),
    Destroy(usize),
    Join(usize, usize),
    /// With the current lease, or the one before it.
    Leave(usize, usize, bool),
    EndLease(usize, usize, bool),
    Claim(usize, usize, u64, Evidence),
    /// The epoch is the group's plus 1, minus 1 or as it is; the exports are the names of the bits set.
    Publish(usize, Option<usize>, i8, u8, u8),
    Withdraw(usize, i8, WithdrawReason),
    Rename(usize, usize, Option<bool>),
    /// Some of the other shapes, as one.
    Transact(Vec<Self>),
    /// That a name is at its revision, or at the one after it. In transactions only.
    Check(usize, bool),
}

fn shapes() -> impl Strategy<Value = Shape> {
    let name = || 0..NAMES.len();
    let group = || 0..GROUPS.len();
    let member = || 0..MEMBERS.len();
    let set = prop_oneof![2 => Just(0b011_u8), 2 => Just(0b101), 1 => Just(0), 2 => 0..=127_u8];
    let epoch = || prop_oneof![6 => Just(0_i8), 2 => Just(-1), 1 => Just(1)];
    let evidence = prop_oneof![
        Just(Evidence::None),
        Just(Evidence::StoreLock),
        Just(Evidence::Operator)
    ];
    let reason = prop_oneof![
        Just(WithdrawReason::Planned),
        Just(WithdrawReason::Handover),
        Just(WithdrawReason::Failed)
    ];
    prop_oneof![
        2 => (name(), 0..3_u8).prop_map(|(n, v)| Shape::Bind(n, v)),
        2 => (name(), 0..3_u8, any::<Option<bool>>()).prop_map(|(n, v, e)| Shape::Rebind(n, v, e)),
        2 => (name(), any::<Option<bool>>()).prop_map(|(n, e)| Shape::Unbind(n, e)),
        2 => name().prop_map(Shape::Create),
        2 => name().prop_map(Shape::Destroy),
        3 => (group(), member()).prop_map(|(g, m)| Shape::Join(g, m)),
        1 => (group(), member(), any::<bool>()).prop_map(|(g, m, c)| Shape::Leave(g, m, c)),
        2 => (group(), member(), any::<bool>()).prop_map(|(g, m, c)| Shape::EndLease(g, m, c)),
        4 => (group(), member(), 0..6_u64, evidence).prop_map(|(g, m, s, e)| Shape::Claim(g, m, s, e)),
        6 => (group(), prop::option::weighted(0.2, member()), epoch(), set, 0..2_u8)
            .prop_map(|(g, m, e, set, v)| Shape::Publish(g, m, e, set, v)),
        2 => (group(), epoch(), reason).prop_map(|(g, e, r)| Shape::Withdraw(g, e, r)),
        3 => renames(),
        3 => prop::collection::vec(parts(), 0..5).prop_map(Shape::Transact),
    ]
}

fn renames() -> impl Strategy<Value = Shape> {
    let name = || 0..NAMES.len();
    (name(), name(), prop::option::weighted(0.3, any::<bool>())).prop_map(|(n, t, e)| Shape::Rename(n, t, e))
}

/// What may stand in a transaction.
fn parts() -> impl Strategy<Value = Shape> {
    let name = || 0..NAMES.len();
    prop_oneof![
        2 => (name(), 0..3_u8).prop_map(|(n, v)| Shape::Bind(n, v)),
        3 => (name(), 0..3_u8).prop_map(|(n, v)| Shape::Rebind(n, v, None)),
        3 => name().prop_map(|n| Shape::Unbind(n, None)),
        2 => name().prop_map(Shape::Create),
        2 => renames(),
        1 => (name(), prop::bool::weighted(0.8)).prop_map(|(n, is_right)| Shape::Check(n, is_right)),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        20 => shapes().prop_map(Act::Write),
        2 => any::<prop::sample::Index>().prop_map(Act::Repeat),
        1 => (1..5_000_usize).prop_map(Act::Restart),
    ];
    prop::collection::vec(act, 1..120)
}

/// The write that a shape means in this state.
fn write_of(shape: &Shape, model: &Model) -> Write {
    let known = |g: usize| model.groups.get(&group(GROUPS[g]));
    let epoch = |g: usize, offset: i8| {
        let epoch = known(g).map_or(0, |known| known.epoch);
        Epoch(epoch.saturating_add_signed(i64::from(offset)))
    };
    let lease = |g: usize, m: usize, is_current: bool| {
        let lease = known(g).and_then(|known| known.members.get(&member(MEMBERS[m])));
        LeaseId(
            lease
                .map_or(1, |lease| lease.0)
                .saturating_sub(u64::from(!is_current)),
        )
    };
    let expected = |n: usize, is_right: bool| {
        let revision = model.names.get(&name(NAMES[n])).map_or(0, |entry| entry.revision);
        Revision(revision + u64::from(!is_right))
    };
    match *shape {
        Shape::Rename(n, target, is_right) => Write::Rename {
            name: name(NAMES[n]),
            target: name(NAMES[target]),
            expected: is_right.map(|is_right| expected(n, is_right)),
        },
        Shape::Transact(ref parts) => Write::Transact {
            writes: parts.iter().map(|part| part_of(part, model)).collect(),
        },
        Shape::Check(..) => panic!("a check stands in a transaction"),
        Shape::Bind(n, value) => Write::Bind {
            name: name(NAMES[n]),
            object: queue(&value.to_string()),
            attributes: Attributes::new(),
        },
        Shape::Rebind(n, value, is_right) => Write::Rebind {
            name: name(NAMES[n]),
            object: if value == 2 {
                Object::Context
            } else {
                queue(&value.to_string())
            },
            attributes: None,
            expected: is_right.map(|is_right| expected(n, is_right)),
        },
        Shape::Unbind(n, is_right) => Write::Unbind {
            name: name(NAMES[n]),
            expected: is_right.map(|is_right| expected(n, is_right)),
        },
        Shape::Create(n) => Write::CreateSubcontext {
            name: name(NAMES[n]),
            attributes: Attributes::new(),
        },
        Shape::Destroy(n) => Write::DestroySubcontext { name: name(NAMES[n]) },
        Shape::Join(g, m) => Write::Join {
            group: group(GROUPS[g]),
            member: member(MEMBERS[m]),
            join: description(),
        },
        Shape::Leave(g, m, is_current) => Write::Leave {
            group: group(GROUPS[g]),
            member: member(MEMBERS[m]),
            lease: lease(g, m, is_current),
        },
        Shape::EndLease(g, m, is_current) => Write::EndLease {
            group: group(GROUPS[g]),
            member: member(MEMBERS[m]),
            lease: lease(g, m, is_current),
        },
        Shape::Claim(g, m, store_epoch, evidence) => Write::Claim {
            group: group(GROUPS[g]),
            member: member(MEMBERS[m]),
            store_epoch: Epoch(store_epoch),
            evidence,
        },
        Shape::Publish(g, m, offset, set, value) => {
            let active = known(g).and_then(|known| known.active.clone());
            let other = m.map(|m| member(MEMBERS[m]));
            Write::Publish {
                group: group(GROUPS[g]),
                member: other.or(active).unwrap_or_else(|| member(MEMBERS[0])),
                epoch: epoch(g, offset),
                exports: export_set(g, set, value),
            }
        }
        Shape::Withdraw(g, offset, reason) => Write::Withdraw {
            group: group(GROUPS[g]),
            epoch: epoch(g, offset),
            reason,
            eta_ms: None,
        },
    }
}

/// The part of a transaction that a shape means.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only these shapes are drawn for transactions"
)]
fn part_of(shape: &Shape, model: &Model) -> TransactWrite {
    if let Shape::Check(n, is_right) = *shape {
        let entry = model.names.get(&name(NAMES[n]));
        let revision = entry.map_or(0, |entry| entry.revision);
        return TransactWrite::Check {
            name: name(NAMES[n]),
            expected: Revision(revision + u64::from(!is_right)),
        };
    }
    match write_of(shape, model) {
        Write::Bind {
            name,
            object,
            attributes,
        } => TransactWrite::Bind {
            name,
            object,
            attributes,
        },
        Write::Rebind {
            name,
            object,
            attributes,
            expected,
        } => TransactWrite::Rebind {
            name,
            object,
            attributes,
            expected,
        },
        Write::Unbind { name, expected } => TransactWrite::Unbind { name, expected },
        Write::CreateSubcontext { name, attributes } => TransactWrite::CreateSubcontext { name, attributes },
        Write::Rename {
            name,
            target,
            expected,
        } => TransactWrite::Rename {
            name,
            target,
            expected,
        },
        other => panic!("{other:?} is no part of a transaction"),
    }
}

/// Some of the names that people bind by hand too, and some that each group has for itself.
fn export_set(g: usize, set: u8, value: u8) -> Vec<Export> {
    let own = ["x", "x/y", "z"].map(|text| format!("{}-{text}", GROUPS[g]));
    let shared = NAMES[3..].iter().map(|text| (*text).to_owned());
    let all = own.into_iter().chain(shared);
    let picked = all.enumerate().filter(|(bit, _)| set & (1 << bit) != 0);
    // Mostly the own names: a set that collides is refused whole.
    let picked = picked.filter(|(bit, _)| *bit < 3 || set & 0b111 == 0);
    picked
        .map(|(_, text)| Export {
            name: name(&text),
            object: queue(&value.to_string()),
            attributes: Attributes::new(),
        })
        .collect()
}

/// A run: the directory, the model beside it, a watcher, and all that was ever said and granted.
struct Run {
    directory: Directory,
    model: Model,
    watched: BTreeMap<Name, Change>,
    said: Vec<(Command, Result<Written, NamingError>)>,
    granted: BTreeMap<(GroupName, Epoch), MemberName>,
}

impl Run {
    fn new() -> Self {
        let directory = Directory::new(Limits::default());
        let watched = state(&directory);
        Self {
            directory,
            model: Model::default(),
            watched,
            said: Vec::new(),
            granted: BTreeMap::new(),
        }
    }

    fn step(&mut self, act: &Act) {
        match act {
            Act::Write(shape) => self.write(write_of(shape, &self.model)),
            Act::Repeat(index) if !self.said.is_empty() => self.repeat(index.index(self.said.len())),
            Act::Repeat(_) => {}
            Act::Restart(piece) => self.restart(*piece),
        }
        self.check_exports_move_together();
    }

    fn write(&mut self, write: Write) {
        let command = Command {
            op: OpId(1 + self.said.len() as u128),
            at_unix_ms: 1_000 * self.said.len() as u64,
            write,
        };
        let before = self.directory.clone();
        let answer = self.directory.apply(&command);
        let verdict = self.model.apply(&command.write);
        let code = answer
            .as_ref()
            .map(|written| written.changed)
            .map_err(NamingError::code);
        assert_eq!(code, verdict, "{command:?}");
        match &answer {
            Err(_) => assert!(
                self.directory.to_snapshot() == before.to_snapshot(),
                "refused, and changed"
            ),
            Ok(written) if written.changed => self.check_change(&before, written),
            Ok(written) => {
                assert_eq!(written.revision, before.revision());
                assert_eq!(self.directory.groups(), before.groups());
                assert_eq!(state(&self.directory), state(&before));
            }
        }
        self.check_epochs(&before, &command.write, &answer);
        self.check_model();
        self.said.push((command, answer));
    }

    /// A change is one revision, and a watcher who applies it sees what a new watcher sees.
    fn check_change(&mut self, before: &Directory, written: &Written) {
        assert_eq!(written.revision, before.revision().next());
        assert_eq!(self.directory.revision(), written.revision);
        let sets = self.directory.changes_after(before.revision()).expect("kept");
        let sets: Vec<_> = sets.collect();
        assert_eq!(sets.len(), 1);
        assert_eq!(sets[0].revision, written.revision);
        assert!(
            sets[0].changes.is_sorted_by(|a, b| a.name < b.name),
            "{:?}",
            sets[0]
        );
        for change in &sets[0].changes {
            apply_change(&mut self.watched, change);
        }
        assert_eq!(self.watched, state(&self.directory));
    }

    /// Epochs only grow, only by claims, and each has one member for ever.
    fn check_epochs(&mut self, before: &Directory, write: &Write, answer: &Result<Written, NamingError>) {
        for view in self.directory.groups().groups {
            let earlier = before.group(&view.name).map_or(Epoch(0), |view| view.epoch);
            if let Some(active) = view.active {
                let holder = self
                    .granted
                    .entry((view.name, view.epoch))
                    .or_insert_with(|| active.clone());
                assert_eq!(*holder, active, "two members were active at epoch {}", view.epoch);
            }
            assert!(view.epoch >= earlier);
            if view.epoch > earlier {
                let detail = answer.as_ref().expect("a granted claim").detail.clone();
                assert_eq!(detail, WriteDetail::Claimed { epoch: view.epoch });
                assert!(matches!(write, Write::Claim { store_epoch, .. } if view.epoch > *store_epoch));
            }
        }
    }

    /// All exports of a group are available under one epoch, or all are withheld for one reason.
    fn check_exports_move_together(&self) {
        for view in self.directory.groups().groups {
            for export in &view.exports {
                match (&self.watched[export].kind, &view.withheld) {
                    (ChangeKind::Bound { binding }, None) => {
                        let epoch = binding.owner.as_ref().map(|owner| owner.epoch);
                        assert_eq!((epoch, view.exports_epoch), (Some(view.epoch), view.epoch));
                    }
                    (ChangeKind::Withheld { epoch, withheld, .. }, Some(expected)) => {
                        assert_eq!((*epoch, withheld), (view.exports_epoch, expected));
                        let refusal = self.directory.lookup(export).expect_err("withheld");
                        assert_eq!(refusal.code(), "NameUnavailable");
                    }
                    other => panic!("{export} does not move with its group: {other:?}"),
                }
            }
            assert!(view.active.is_some() || view.withheld.is_some() || view.exports.is_empty());
        }
    }

    /// Names, owners, revisions and groups are the model's.
    fn check_model(&self) {
        assert_eq!(self.directory.revision().0, self.model.revision);
        assert_eq!(self.directory.names(), self.model.names.len());
        for (name, entry) in &self.model.names {
            let withheld = entry
                .owner
                .as_ref()
                .and_then(|(owner, _)| self.model.groups[owner].withheld);
            match (self.directory.lookup(name), withheld) {
                (Ok(binding), None) => {
                    let owner = binding
                        .owner
                        .as_deref()
                        .map(|owner| (owner.group.clone(), owner.epoch));
                    assert_eq!((&binding.object, &owner), (&entry.object, &entry.owner));
                    assert_eq!(binding.revision.0, entry.revision);
                }
                (Err(NamingError::NameUnavailable { reason, .. }), Some(expected)) => {
                    assert_eq!(reason, expected)
                }
                (other, _) => panic!("{name}: {other:?}, not {entry:?}"),
            }
        }
        let views = self.directory.groups().groups;
        assert_eq!(views.len(), self.model.groups.len());
        for view in views {
            let known = &self.model.groups[&view.name];
            let members: BTreeMap<_, _> = view.members.iter().map(|m| (m.name.clone(), m.lease)).collect();
            assert_eq!(
                (view.epoch.0, view.active, members),
                (known.epoch, known.active.clone(), known.members.clone())
            );
            assert_eq!(view.withheld.map(|withheld| withheld.reason), known.withheld);
        }
    }

    /// The first answer comes again and nothing moves. What was refused is no answer and may succeed now, so it is
    /// not repeated here.
    fn repeat(&mut self, at: usize) {
        let (command, answer) = &self.said[at];
        if answer.is_ok() {
            let before = self.directory.to_snapshot();
            assert_eq!(self.directory.apply(command), *answer);
            assert!(self.directory.to_snapshot() == before);
        }
    }

    fn restart(&mut self, piece: usize) {
        let bytes = self.directory.to_snapshot();
        let mut reader = SnapshotReader::new();
        for piece in bytes.chunks(piece) {
            reader.push(piece).expect("a piece of a snapshot");
        }
        let restored = reader.finish().expect("a directory");
        assert!(restored.to_snapshot() == bytes);
        assert_eq!(restored.groups(), self.directory.groups());
        assert_eq!(state(&restored), state(&self.directory));
        self.directory = restored;
    }

    /// The same commands make the same bytes, whatever restarts and repetitions lay between them, and every
    /// change since the beginning leads a watcher to the same state.
    fn check_replay(&self) {
        let mut replica = Directory::new(Limits::default());
        for (command, answer) in &self.said {
            assert_eq!(replica.apply(command), *answer);
        }
        assert!(replica.to_snapshot() == self.directory.to_snapshot());
        let mut watched = state(&Directory::new(Limits::default()));
        for set in replica.changes_after(Revision(0)).expect("all kept") {
            set.changes
                .iter()
                .for_each(|change| apply_change(&mut watched, change));
        }
        assert_eq!(watched, state(&replica));
    }
}

/// How every name stands, as a new watcher of everything sees it.
fn state(directory: &Directory) -> BTreeMap<Name, Change> {
    let messages = directory.watch_state(&Name::root(), Scope::Subtree);
    let mut watched = BTreeMap::new();
    for message in messages {
        match message {
            WatchMessage::State { change } => assert!(watched.insert(change.name.clone(), change).is_none()),
            WatchMessage::Bookmark { revision } => assert_eq!(revision, directory.revision()),
            other @ (WatchMessage::Changed { .. } | WatchMessage::Compacted { .. }) => panic!("{other:?}"),
        }
    }
    watched
}

/// What a watcher does with a change. An event that does not fit what it knows is a gap or a repetition.
fn apply_change(watched: &mut BTreeMap<Name, Change>, change: &Change) {
    let name = change.name.clone();
    let was_known = watched.contains_key(&name);
    match &change.kind {
        ChangeKind::Bound { .. } => assert!(!was_known, "{change:?}"),
        ChangeKind::Rebound { .. } | ChangeKind::Unbound | ChangeKind::Withheld { .. } => {
            assert!(was_known, "{change:?}");
        }
    }
    match &change.kind {
        ChangeKind::Unbound => {
            watched.remove(&name);
        }
        ChangeKind::Bound { binding } | ChangeKind::Rebound { binding } => {
            let kind = ChangeKind::Bound {
                binding: binding.clone(),
            };
            watched.insert(name.clone(), Change { name, kind });
        }
        ChangeKind::Withheld { .. } => {
            watched.insert(name, change.clone());
        }
    }
}

proptest! {
    #[test]
    fn every_interleaving_keeps_every_promise(acts in acts()) {
        let mut run = Run::new();
        for act in &acts {
            run.step(act);
        }
        run.check_replay();
    }
}
