//! The deadlines of memberships, on this server's monotonic clock.
//!
//! It decides when a membership was not renewed in time. It never ends one itself: it proposes the end, and
//! the directory decides. Invariant: once the end of a membership was proposed, no renewal succeeds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use daymark_naming_core::Directory;
use daymark_naming_proto::{GroupName, LeaseId, MemberName, Write};
use tokio::sync::Notify;

use crate::replica::Replica;

/// The pause before the end of a membership is proposed again, when it could not be stored.
const RETRY: Duration = Duration::from_millis(500);

/// Every membership's deadline.
#[derive(Default)]
pub(crate) struct Leases {
    armed: Mutex<BTreeMap<(GroupName, MemberName), Armed>>,
    changed: Notify,
}

struct Armed {
    lease: LeaseId,
    ttl: Duration,
    deadline: Instant,
    /// Its end was proposed.
    ending: bool,
}

/// A membership whose time is over.
struct Due {
    group: GroupName,
    member: MemberName,
    lease: LeaseId,
}

impl Leases {
    fn armed(&self) -> MutexGuard<'_, BTreeMap<(GroupName, MemberName), Armed>> {
        // No change is ever half done when something panics.
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the memberships of `directory`: new ones get one full term from `now`, ended ones go.
    pub(crate) fn follow(&self, directory: &Directory, now: Instant) {
        let mut armed = self.armed();
        let mut before = std::mem::take(&mut *armed);
        for lease in directory.leases() {
            let key = (lease.group.clone(), lease.member.clone());
            let ttl = Duration::from_millis(lease.lease_ms);
            let kept = before.remove(&key).filter(|known| known.lease == lease.lease);
            let entry = kept.unwrap_or(Armed {
                lease: lease.lease,
                ttl,
                deadline: now + ttl,
                ending: false,
            });
            armed.insert(key, entry);
        }
        drop(armed);
        self.changed.notify_one();
    }

    /// Gives every membership one full term from `now`: after a start nobody could renew before.
    pub(crate) fn restart(&self, now: Instant) {
        for armed in self.armed().values_mut() {
            armed.deadline = now + armed.ttl;
        }
        self.changed.notify_one();
    }

    /// Extends a membership. False where it is not this one any more, or its end is on the way.
    pub(crate) fn renew(&self, group: &GroupName, member: &MemberName, lease: LeaseId, now: Instant) -> bool {
        let key = (group.clone(), member.clone());
        match self.armed().get_mut(&key) {
            Some(armed) if armed.lease == lease && !armed.ending => {
                armed.deadline = now + armed.ttl;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Marks and returns those whose time is over, and says when the next one's is.
    fn take_due(&self, now: Instant) -> (Vec<Due>, Option<Instant>) {
        let mut due = Vec::new();
        let mut next = None;
        for ((group, member), armed) in self.armed().iter_mut() {
            if armed.deadline <= now {
                armed.ending = true;
                armed.deadline = now + RETRY;
                due.push(Due {
                    group: group.clone(),
                    member: member.clone(),
                    lease: armed.lease,
                });
            }
            next = Some(next.map_or(armed.deadline, |at: Instant| at.min(armed.deadline)));
        }
        (due, next)
    }
}

/// Proposes the end of every membership whose time is over. Runs until it is dropped.
pub(crate) async fn keep(leases: Arc<Leases>, replica: Replica) {
    loop {
        let changed = leases.changed.notified();
        let (due, next) = leases.take_due(Instant::now());
        for due in due {
            end(&replica, due).await;
        }
        match next {
            Some(at) => {
                tokio::select! {
                    () = tokio::time::sleep_until(at.into()) => {}
                    () = changed => {}
                }
            }
            None => changed.await,
        }
    }
}

async fn end(replica: &Replica, due: Due) {
    let Due { group, member, lease } = due;
    tracing::info!(%group, %member, %lease, "membership was not renewed in time");
    let write = Write::EndLease {
        group: group.clone(),
        member: member.clone(),
        lease,
    };
    if let Err(error) = replica.write(crate::identity::new_op(), write).await {
        tracing::warn!(%group, %member, %lease, %error, "the end of a membership could not be stored");
    }
}
