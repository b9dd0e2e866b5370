//! What reads answer. Nothing here changes anything.

use std::sync::Arc;

use daymark_naming_proto::{
    Binding, Change, ChangeKind, ChangeSet, Epoch, GroupName, GroupView, Groups, InvalidName, LeaseId,
    ListEntry, Listing, Member, MemberName, MemberState, Name, NamingError, Object, Renewed, Revision, Scope,
    WatchMessage, Withholding,
};

use crate::LINK_HOPS_MAX;
use crate::directory::Directory;
use crate::groups::{Group, Lease, Membership};

/// What a walk does with a link at its end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LastLink {
    Follow,
    Keep,
}

/// Why a walk ended before its name did.
enum Stop {
    NotFound {
        resolved: Name,
        remaining: Name,
    },
    NotContext {
        resolved: Name,
        remaining: Name,
    },
    Withheld {
        resolved: Name,
        remaining: Name,
        group: GroupName,
        epoch: Epoch,
        withheld: Withholding,
    },
    LinkLoop {
        at: Name,
        remaining: Name,
    },
    MalformedLink {
        at: Name,
        remaining: Name,
        error: InvalidName,
    },
}

impl Directory {
    /// The revision of the last write that changed something; 0 before the first.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The binding of a name, links followed. Through a link it is the binding of the link's target.
    ///
    /// # Errors
    /// `NameNotFound`, `NotContext`, `LinkLoop`, `InvalidName` where a link leads to a name beyond the limits, or
    /// `NameUnavailable` where a group exports the name and withholds it, or has announced it and is promoting.
    pub fn lookup(&self, name: &Name) -> Result<Arc<Binding>, NamingError> {
        self.find(name, LastLink::Follow).map(Arc::clone)
    }

    /// The binding of a name, links on the way followed, the name itself not.
    ///
    /// # Errors
    /// As for `lookup`.
    pub fn lookup_link(&self, name: &Name) -> Result<Arc<Binding>, NamingError> {
        self.find(name, LastLink::Keep).map(Arc::clone)
    }

    /// What stands directly below a context, without the exports that are withheld. Links are followed to the
    /// context, and the listing names the context they lead to.
    ///
    /// # Errors
    /// As for `lookup`, and `NotContext` where the name is bound to something else.
    pub fn list(&self, name: &Name, with_bindings: bool) -> Result<Listing, NamingError> {
        let context = self.find(name, LastLink::Follow)?;
        if context.object != Object::Context {
            return Err(NamingError::NotContext {
                name: name.clone(),
                resolved: context.name.clone(),
                remaining: Name::root(),
            });
        }
        let children = self.tree.children(&context.name, None);
        let available = children.filter(|binding| self.withheld(binding).is_none());
        let entry = |binding: &Arc<Binding>| ListEntry {
            name: binding.name.clone(),
            kind: binding.object.kind(),
            binding: with_bindings.then(|| Arc::clone(binding)),
        };
        Ok(Listing {
            name: context.name.clone(),
            revision: self.revision,
            entries: available.map(entry).collect(),
        })
    }

    /// One group.
    ///
    /// # Errors
    /// `GroupNotFound`.
    pub fn group(&self, group: &GroupName) -> Result<GroupView, NamingError> {
        Ok(view(group, self.known_group(group)?))
    }

    /// Every group.
    #[must_use]
    pub fn groups(&self) -> Groups {
        Groups {
            revision: self.revision,
            groups: self
                .groups
                .iter()
                .map(|(name, group)| view(name, group))
                .collect(),
        }
    }

    /// What a renewal of a membership is answered. The deadline itself is the driver's.
    ///
    /// # Errors
    /// `GroupNotFound`, `MemberNotFound` or `LeaseEnded`: the member must join again.
    pub fn renewal(
        &self,
        group: &GroupName,
        member: &MemberName,
        lease: LeaseId,
    ) -> Result<Renewed, NamingError> {
        let known = self.membership(group, member, lease)?;
        let lease_ms = known.members.get(member).map_or(0, |m| m.joined.lease_ms);
        Ok(Renewed {
            lease_ms,
            epoch: known.epoch,
            active: known.active.clone(),
        })
    }

    /// Every membership, by group and member.
    pub fn leases(&self) -> impl Iterator<Item = Lease> {
        self.groups.iter().flat_map(|(group, known)| {
            known.members.iter().map(|(member, membership)| Lease {
                group: group.clone(),
                member: member.clone(),
                lease: membership.lease,
                lease_ms: membership.joined.lease_ms,
            })
        })
    }

    /// How many names are bound, the root not counted, withheld exports counted.
    #[must_use]
    pub fn names(&self) -> usize {
        self.tree.len()
    }

    /// The start of a watch: every name covered as it stands, sorted, and a bookmark. Links are not followed: a
    /// watch is of names.
    #[must_use]
    pub fn watch_state(&self, name: &Name, scope: Scope) -> Vec<WatchMessage> {
        let state = |binding: &Arc<Binding>| WatchMessage::State {
            change: self.standing(binding),
        };
        let mut messages: Vec<_> = match scope {
            Scope::Object => self.tree.find(name).into_iter().map(state).collect(),
            Scope::OneLevel => self.tree.children(name, None).map(state).collect(),
            Scope::Subtree => self.tree.subtree(name).map(state).collect(),
        };
        messages.push(WatchMessage::Bookmark {
            revision: self.revision,
        });
        messages
    }

    /// A part of what a watch begins with: up to `count` names as they stand, sorted, the first ones or those that
    /// follow the name `after`. Fewer than `count` are the last ones.
    #[must_use]
    pub fn watch_page(&self, name: &Name, scope: Scope, after: Option<&Name>, count: usize) -> Vec<Change> {
        let standing = |binding: &Arc<Binding>| self.standing(binding);
        match (scope, after) {
            (Scope::Object, None) => self.tree.find(name).into_iter().map(standing).collect(),
            (Scope::Object, Some(_)) => Vec::new(),
            (Scope::OneLevel, after) => self
                .tree
                .children(name, after)
                .take(count)
                .map(standing)
                .collect(),
            (Scope::Subtree, None) => self.tree.subtree(name).take(count).map(standing).collect(),
            (Scope::Subtree, Some(after)) => {
                let rest = self.tree.after(after);
                let below = rest.take_while(|binding| binding.name.starts_with(name));
                below.take(count).map(standing).collect()
            }
        }
    }

    /// The changes of every revision after `from`, in order, one set for each revision; a set is empty where
    /// the write changed a group and no name.
    ///
    /// # Errors
    /// `Compacted` when the next one is no longer kept; `Lagging` when `from` lies in the future.
    pub fn changes_after(
        &self,
        from: Revision,
    ) -> Result<impl Iterator<Item = Arc<ChangeSet>> + use<>, NamingError> {
        self.history.changes_after(from, self.revision)
    }

    /// The oldest revision that `changes_after` accepts.
    #[must_use]
    pub const fn oldest_resumable(&self) -> Revision {
        self.history.oldest()
    }

    /// The changes of the last revision; `None` before the first one since a start or restore.
    #[must_use]
    pub fn last_change(&self) -> Option<Arc<ChangeSet>> {
        self.history.last().map(Arc::clone)
    }

    /// Where a write to `name` lands: links on the way followed, the name itself not. The context above it is
    /// there.
    pub(crate) fn place_of(&self, name: &Name) -> Result<Name, NamingError> {
        let (Some(parent), Some(last)) = (name.parent(), name.last()) else {
            return Ok(name.clone());
        };
        let context = self.walk(&parent, LastLink::Follow);
        let context = context.map_err(|stop| stop.into_error(self, name, Some(last)))?;
        if context.object != Object::Context {
            return Err(NamingError::NotContext {
                name: name.clone(),
                resolved: context.name.clone(),
                remaining: name.suffix(name.components().len() - 1),
            });
        }
        if context.name == parent {
            return Ok(name.clone());
        }
        let components = context.name.components().chain([last]);
        Ok(Name::from_components(components)?)
    }

    fn find(&self, name: &Name, last_link: LastLink) -> Result<&Arc<Binding>, NamingError> {
        self.walk(name, last_link)
            .and_then(|bound| self.refuse_withheld(bound, Name::root()).map(|()| bound))
            .map_err(|stop| stop.into_error(self, name, None))
    }

    /// Walks to a name through at most `LINK_HOPS_MAX` links, none of them withheld. What stands at the end
    /// may be withheld.
    fn walk(&self, name: &Name, last_link: LastLink) -> Result<&Arc<Binding>, Stop> {
        let mut at = name.clone();
        let mut hops = 0;
        loop {
            let not_found = |depth| {
                self.promised(&at, depth).unwrap_or_else(|| Stop::NotFound {
                    resolved: at.prefix(depth),
                    remaining: at.suffix(depth),
                })
            };
            let (bound, depth) = self.tree.deepest(&at).ok_or_else(|| not_found(0))?;
            let is_whole = depth == at.components().len();
            match &bound.object {
                Object::Link { target } if !is_whole || last_link == LastLink::Follow => {
                    let remaining = at.suffix(depth);
                    self.refuse_withheld(bound, remaining.clone())?;
                    if hops == LINK_HOPS_MAX {
                        let at = bound.name.clone();
                        return Err(Stop::LinkLoop { at, remaining });
                    }
                    hops += 1;
                    at = target.join(&remaining).map_err(|error| Stop::MalformedLink {
                        at: bound.name.clone(),
                        remaining,
                        error,
                    })?;
                }
                _ if is_whole => return Ok(bound),
                Object::Context => return Err(not_found(depth)),
                Object::Link { .. }
                | Object::ConnectionFactory(_)
                | Object::Queue { .. }
                | Object::Topic { .. }
                | Object::Reference(_)
                | Object::Value { .. } => {
                    let resolved = bound.name.clone();
                    let remaining = at.suffix(depth);
                    return Err(Stop::NotContext { resolved, remaining });
                }
            }
        }
    }

    /// What stops a walk at a name that was never bound but that a promoting group has announced: it is as far from
    /// being available as an export of the term before would be. The first `depth` components of `at` are bound.
    fn promised(&self, at: &Name, depth: usize) -> Option<Stop> {
        if self.promised.is_empty() {
            return None;
        }
        (depth + 1..=at.components().len()).find_map(|depth| {
            let name = at.prefix(depth);
            let (group, _) = self.promised.iter().find(|(_, names)| names.contains(&name))?;
            let known = self.groups.get(group)?;
            Some(Stop::Withheld {
                resolved: name,
                remaining: at.suffix(depth),
                group: group.clone(),
                epoch: known.epoch,
                withheld: known.withheld.clone()?,
            })
        })
    }

    fn refuse_withheld(&self, bound: &Binding, remaining: Name) -> Result<(), Stop> {
        match self.withheld(bound) {
            Some((name, group, withheld)) => Err(Stop::Withheld {
                resolved: bound.name.clone(),
                remaining,
                group: name.clone(),
                epoch: group.epoch,
                withheld: withheld.clone(),
            }),
            None => Ok(()),
        }
    }

    /// The group that exports a binding and withholds it, and why.
    pub(crate) fn withheld(&self, bound: &Binding) -> Option<(&GroupName, &Group, &Withholding)> {
        let owner = bound.owner.as_ref()?;
        let (name, group) = self.groups.get_key_value(&owner.group)?;
        Some((name, group, group.withheld.as_ref()?))
    }

    /// How a name stands, as a watch begins with it.
    fn standing(&self, bound: &Arc<Binding>) -> Change {
        let kind = match self.withheld(bound) {
            Some((name, group, withheld)) => ChangeKind::Withheld {
                group: name.clone(),
                epoch: group.exports_epoch,
                withheld: withheld.clone(),
            },
            None => ChangeKind::Bound {
                binding: Arc::clone(bound),
            },
        };
        Change {
            name: bound.name.clone(),
            kind,
        }
    }
}

impl Stop {
    /// The error about the name that was asked for; `last` is its component that the walk left out.
    fn into_error(self, directory: &Directory, name: &Name, last: Option<&str>) -> NamingError {
        let name = name.clone();
        // The walk was given all components but the last one, which was accepted as a part of the name.
        let whole = |remaining: Name| {
            let components = remaining.components().chain(last);
            Name::from_components(components).unwrap_or(remaining)
        };
        match self {
            Self::NotFound { resolved, remaining } => NamingError::NameNotFound {
                name,
                resolved,
                remaining: whole(remaining),
                revision: directory.revision,
            },
            Self::NotContext { resolved, remaining } => NamingError::NotContext {
                name,
                resolved,
                remaining: whole(remaining),
            },
            Self::Withheld {
                resolved,
                remaining,
                group,
                epoch,
                withheld,
            } => NamingError::NameUnavailable {
                name,
                resolved,
                remaining: whole(remaining),
                reason: withheld.reason,
                group,
                epoch,
                since: withheld.since,
                since_unix_ms: withheld.since_unix_ms,
                eta_ms: withheld.eta_ms,
            },
            Self::LinkLoop { at, remaining } => NamingError::LinkLoop {
                name,
                at,
                remaining: whole(remaining),
                hops: LINK_HOPS_MAX,
            },
            Self::MalformedLink { at, remaining, error } => NamingError::MalformedLink {
                name,
                at,
                remaining: whole(remaining),
                reason: error.to_string(),
            },
        }
    }
}

fn view(name: &GroupName, group: &Group) -> GroupView {
    let member = |(member, membership): (&MemberName, &Arc<Membership>)| Member {
        name: member.clone(),
        state: if group.is_active(member) {
            MemberState::Active
        } else {
            MemberState::Standby
        },
        joined: membership.joined.clone(),
        lease: membership.lease,
    };
    GroupView {
        name: name.clone(),
        epoch: group.epoch,
        active: group.active.clone(),
        members: group.members.iter().map(member).collect(),
        exports: group.exports.iter().cloned().collect(),
        exports_epoch: group.exports_epoch,
        withheld: group.withheld.clone(),
        revision: group.revision,
    }
}
