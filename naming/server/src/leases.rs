//! The deadlines of memberships, on this server's monotonic clock.
//!
//! It decides when a membership was not renewed in time. It never ends one itself: it proposes the end, and
//! the directory decides. Invariant: once the end of a membership was proposed, no renewal succeeds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use daymark_naming_core::Directory;
use daymark_naming_proto::{GroupName, LeaseId, MemberName, Write};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::Notify;

use crate::replica::Replica;

/// The pause before the end of a membership is proposed again, when it could not be stored.
const RETRY: Duration = Duration::from_millis(500);

/// How late this server may notice a deadline before it counts as having been asleep.
const LATE: Duration = Duration::from_millis(100);

/// Every membership's deadline.
#[derive(Default)]
pub(crate) struct Leases {
    armed: Mutex<BTreeMap<(GroupName, MemberName), Armed>>,
    changed: Notify,
}

struct Armed {
    lease: LeaseId,
    ttl: Duration,
    /// When its end is to be proposed; `None` while that is under way.
    deadline: Option<Instant>,
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
                deadline: Some(now + ttl),
                ending: false,
            });
            armed.insert(key, entry);
        }
        drop(armed);
        self.changed.notify_one();
    }

    /// Gives every membership whose end was not proposed one full term from `now`: nobody could renew before,
    /// because this server had not started, or slept.
    pub(crate) fn restart(&self, now: Instant) {
        for armed in self.armed().values_mut().filter(|armed| !armed.ending) {
            armed.deadline = Some(now + armed.ttl);
        }
        self.changed.notify_one();
    }

    /// Extends a membership. False where it is not this one any more, or its end is on the way.
    pub(crate) fn renew(&self, group: &GroupName, member: &MemberName, lease: LeaseId, now: Instant) -> bool {
        let key = (group.clone(), member.clone());
        match self.armed().get_mut(&key) {
            Some(armed) if armed.lease == lease && !armed.ending => {
                armed.deadline = Some(now + armed.ttl);
                true
            }
            Some(_) | None => false,
        }
    }

    /// How many milliseconds a membership goes on without a renewal; `None` where its end is on the way.
    pub(crate) fn left(&self, group: &GroupName, member: &MemberName, now: Instant) -> Option<u64> {
        let key = (group.clone(), member.clone());
        let deadline = self.armed().get(&key).filter(|armed| !armed.ending)?.deadline?;
        u64::try_from(deadline.saturating_duration_since(now).as_millis()).ok()
    }

    /// Marks and returns those whose time is over, and says when the next one's is.
    fn take_due(&self, now: Instant) -> (Vec<Due>, Option<Instant>) {
        let mut due = Vec::new();
        let mut next = None;
        for ((group, member), armed) in self.armed().iter_mut() {
            let Some(deadline) = armed.deadline else {
                continue;
            };
            if deadline <= now {
                armed.ending = true;
                armed.deadline = None;
                due.push(Due {
                    group: group.clone(),
                    member: member.clone(),
                    lease: armed.lease,
                });
            } else {
                next = Some(next.map_or(deadline, |at: Instant| at.min(deadline)));
            }
        }
        (due, next)
    }

    /// The end of a membership could not be stored: it is due again at `at`.
    fn retry(&self, due: &Due, at: Instant) {
        let key = (due.group.clone(), due.member.clone());
        if let Some(armed) = self.armed().get_mut(&key)
            && armed.lease == due.lease
        {
            armed.deadline = Some(at);
        }
    }
}

/// Proposes the end of every membership whose time is over. A log that is slow to take one delays no other.
/// Runs until it is dropped.
pub(crate) async fn keep(leases: Arc<Leases>, replica: Replica) {
    let mut expected = None;
    let mut ends = FuturesUnordered::new();
    loop {
        let changed = leases.changed.notified();
        let now = Instant::now();
        if let Some(slept) = expected.and_then(|at| overslept(at, now)) {
            tracing::warn!(?slept, "this server slept: every membership gets a new term");
            leases.restart(now);
        }
        let (due, next) = leases.take_due(now);
        expected = next;
        ends.extend(due.into_iter().map(|due| end(&replica, &leases, due)));
        tokio::select! {
            () = until(next) => {}
            () = changed => {}
            Some(()) = ends.next() => {}
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// How long a deadline at `at` was slept through, where it was.
fn overslept(at: Instant, now: Instant) -> Option<Duration> {
    now.checked_duration_since(at).filter(|late| *late > LATE)
}

async fn end(replica: &Replica, leases: &Leases, due: Due) {
    let Due { group, member, lease } = &due;
    tracing::info!(%group, %member, %lease, "membership was not renewed in time");
    let write = Write::EndLease {
        group: group.clone(),
        member: member.clone(),
        lease: *lease,
    };
    if let Err(error) = replica.write(crate::identity::new_op(), write).await {
        tracing::warn!(%group, %member, %lease, %error, "the end of a membership could not be stored");
        leases.retry(&due, Instant::now() + RETRY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use daymark_naming_core::Command;
    use daymark_naming_proto::{Endpoint, JoinRequest, OpId, Role};

    const TTL: Duration = Duration::from_millis(1_000);

    fn label<T: std::str::FromStr>(text: &str) -> T {
        match text.parse() {
            Ok(label) => label,
            Err(_) => panic!("{text:?} is no label"),
        }
    }

    fn apply(directory: &mut Directory, op: u128, write: Write) {
        let command = Command {
            op: OpId(op),
            at_unix_ms: 0,
            write,
        };
        directory.apply(&command).expect("accepted");
    }

    fn join(directory: &mut Directory, op: u128) -> LeaseId {
        let write = Write::Join {
            group: label("g"),
            member: label("m"),
            join: JoinRequest {
                role: Role::Primary,
                endpoint: Endpoint {
                    host: "h".into(),
                    port: 1,
                },
                admin: None,
                peer: None,
                lease_ms: 1_000,
                shadow: vec![],
            },
        };
        apply(directory, op, write);
        directory.leases().next().expect("a membership").lease
    }

    fn directory_with_leases() -> (Directory, Leases, Instant) {
        let directory = Directory::new(daymark_naming_core::Limits::default());
        (directory, Leases::default(), Instant::now())
    }

    fn due(leases: &Leases, now: Instant) -> usize {
        leases.take_due(now).0.len()
    }

    #[test]
    fn a_membership_is_due_one_term_after_its_last_renewal() {
        let (mut directory, leases, start) = directory_with_leases();
        let lease = join(&mut directory, 1);
        leases.follow(&directory, start);
        assert_eq!(due(&leases, start + TTL / 2), 0);
        assert!(leases.renew(&label("g"), &label("m"), lease, start + TTL / 2));
        assert_eq!(due(&leases, start + TTL), 0);
        assert_eq!(due(&leases, start + TTL * 3 / 2), 1);
    }

    #[test]
    fn no_renewal_succeeds_once_the_end_is_on_its_way() {
        let (mut directory, leases, start) = directory_with_leases();
        let lease = join(&mut directory, 1);
        leases.follow(&directory, start);
        let (due_now, next) = leases.take_due(start + TTL);
        assert_eq!(due_now.len(), 1);
        assert!(!leases.renew(&label("g"), &label("m"), lease, start + TTL));
        assert_eq!(next, None, "while its end is under way nothing is expected");
        assert_eq!(due(&leases, start + TTL * 10), 0);
        leases.retry(&due_now[0], start + TTL + RETRY);
        assert!(!leases.renew(&label("g"), &label("m"), lease, start + TTL));
        leases.restart(start + TTL);
        assert_eq!(
            due(&leases, start + TTL + RETRY),
            1,
            "what could not be stored is proposed again, whoever slept meanwhile"
        );
    }

    #[test]
    fn a_member_that_joins_again_has_a_new_lease_and_the_old_one_cannot_be_renewed() {
        let (mut directory, leases, start) = directory_with_leases();
        let old = join(&mut directory, 1);
        leases.follow(&directory, start);
        let new = join(&mut directory, 2);
        leases.follow(&directory, start + TTL / 2);
        assert!(!leases.renew(&label("g"), &label("m"), old, start + TTL / 2));
        assert_eq!(due(&leases, start + TTL), 0, "the new one has a full term");
        assert!(leases.renew(&label("g"), &label("m"), new, start + TTL));
    }

    #[test]
    fn a_server_that_slept_through_a_deadline_gives_every_membership_a_new_term() {
        let (mut directory, leases, start) = directory_with_leases();
        let lease = join(&mut directory, 1);
        leases.follow(&directory, start);
        let woke = start + TTL + Duration::from_secs(5);
        assert!(overslept(start + TTL, woke).is_some());
        assert_eq!(overslept(start + TTL, start + TTL + LATE), None);
        leases.restart(woke);
        assert_eq!(due(&leases, woke), 0);
        assert!(leases.renew(&label("g"), &label("m"), lease, woke));
        assert_eq!(due(&leases, woke + TTL), 1);
    }
}
