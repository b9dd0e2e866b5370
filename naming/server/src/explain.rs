//! How a lookup goes, told step by step: what tools show when somebody asks why a name is found, or is not.

use daymark_naming_core::Directory;
use daymark_naming_proto::{
    Binding, GroupName, GroupView, LeaseId, MemberName, Name, NamingError, Object, ObjectKind, Revision,
};
use serde::Serialize;
use std::sync::Arc;

/// How a lookup of a name goes.
#[derive(Serialize)]
pub(crate) struct Explanation {
    /// The name asked for, as it is printed.
    name: Name,
    /// The revision that was read.
    revision: Revision,
    /// What stands on the way, from the root downwards; links are followed in the answer, not here.
    steps: Vec<Step>,
    /// What a lookup answers, where it finds something.
    found: Option<Arc<Binding>>,
    /// What it answers, where it finds nothing.
    refused: Option<NamingError>,
    /// The group that exports the name.
    group: Option<GroupView>,
    /// Members that would export the name if they were active.
    shadows: Vec<Shadow>,
}

/// One part of the name.
#[derive(Serialize)]
struct Step {
    name: Name,
    #[serde(rename = "type")]
    kind: Option<ObjectKind>,
    /// Where a link leads.
    target: Option<Name>,
    revision: Option<Revision>,
    /// Why nothing is found there.
    refused: Option<NamingError>,
}

#[derive(Serialize)]
struct Shadow {
    group: GroupName,
    member: MemberName,
}

/// A membership with the time it has left.
#[derive(Serialize)]
pub(crate) struct LeaseLeft {
    pub(crate) group: GroupName,
    pub(crate) member: MemberName,
    pub(crate) lease: LeaseId,
    pub(crate) lease_ms: u64,
    /// How long it goes on without a renewal; `None` while its end is on the way.
    pub(crate) left_ms: Option<u64>,
}

/// Every membership.
#[derive(Serialize)]
pub(crate) struct Leases {
    pub(crate) revision: Revision,
    pub(crate) leases: Vec<LeaseLeft>,
}

/// One server of the directory.
#[derive(Serialize)]
pub(crate) struct Server {
    pub(crate) node: u64,
    /// `leader` or `follower`.
    pub(crate) role: &'static str,
    pub(crate) term: u64,
    pub(crate) revision: Revision,
    /// Why it takes no writes.
    pub(crate) impaired: Option<String>,
}

/// The servers of the directory.
#[derive(Serialize)]
pub(crate) struct Members {
    pub(crate) cluster_id: String,
    pub(crate) members: Vec<Server>,
}

/// The limits in force, by the names they have in the configuration.
#[derive(Serialize)]
pub(crate) struct Limits<'a> {
    pub(crate) limits: &'a crate::options::Limits,
    pub(crate) directory: &'a daymark_naming_core::Limits,
}

impl Explanation {
    /// Explains a lookup.
    pub(crate) fn of(directory: &Directory, name: &Name) -> Self {
        let (found, refused) = match directory.lookup(name) {
            Ok(binding) => (Some(binding), None),
            Err(error) => (None, Some(error)),
        };
        let owner = match (&found, &refused) {
            (Some(binding), _) => binding.owner.as_ref().map(|owner| owner.group.clone()),
            (None, Some(NamingError::NameUnavailable { group, .. })) => Some(group.clone()),
            (None, _) => None,
        };
        Self {
            name: name.clone(),
            revision: directory.revision(),
            steps: steps(directory, name),
            group: owner.and_then(|group| directory.group(&group).ok()),
            shadows: shadows(directory, name),
            found,
            refused,
        }
    }
}

/// Every part of the name, up to the first one that is not found.
fn steps(directory: &Directory, name: &Name) -> Vec<Step> {
    let mut steps = Vec::new();
    for count in 1..=name.components().len() {
        let at = name.prefix(count);
        let step = match directory.lookup_link(&at) {
            Ok(binding) => Step {
                name: at,
                kind: Some(binding.object.kind()),
                target: target(&binding.object),
                revision: Some(binding.revision),
                refused: None,
            },
            Err(error) => Step {
                name: at,
                kind: None,
                target: None,
                revision: None,
                refused: Some(error),
            },
        };
        let is_last = step.refused.is_some();
        steps.push(step);
        if is_last {
            break;
        }
    }
    steps
}

fn target(object: &Object) -> Option<Name> {
    match object {
        Object::Link { target } => Some(target.clone()),
        Object::Context
        | Object::ConnectionFactory(_)
        | Object::Queue { .. }
        | Object::Topic { .. }
        | Object::Reference(_)
        | Object::Value { .. } => None,
    }
}

fn shadows(directory: &Directory, name: &Name) -> Vec<Shadow> {
    let mut shadows = Vec::new();
    for group in directory.groups().groups {
        let would = group.members.iter().filter(|member| {
            let mut exports = member.joined.shadow.iter();
            exports.any(|export| export.name == *name)
        });
        shadows.extend(would.map(|member| Shadow {
            group: group.name.clone(),
            member: member.name.clone(),
        }));
    }
    shadows
}
