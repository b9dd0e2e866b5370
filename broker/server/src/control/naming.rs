//! This broker's questions to naming, each with an end, and what their answers mean to the rules.

use std::time::{Duration, Instant};

use daymark_broker_core::failover::{GroupSeen, NamingEvent, Refusal, StepEvent};
use daymark_client::proto::{
    Epoch, Evidence, Export, FailoverReport, GroupName, GroupView, JoinRequest, LeaseId, Member, MemberName,
    NamingError, UnavailableReason, WithdrawReason, Write,
};
use daymark_client::{LookupError, Naming, Providers};

use super::outage::Outage;
use super::ways::Ways;

/// How long a withdrawal or a departure may hold up the end of a broker.
const FAREWELL: Duration = Duration::from_millis(500);
/// How long a publication may take before the broker serves without it.
const PUBLISH: Duration = Duration::from_secs(1);

/// How long an answer may take before it is asked whether any naming server is there at all.
const DOUBT: Duration = Duration::from_millis(10);

/// A broker as naming knows it.
#[derive(Clone)]
pub(super) struct Registrar {
    pub(super) naming: Naming,
    /// How it renews.
    pub(super) ways: Ways,
    pub(super) group: GroupName,
    pub(super) member: MemberName,
    /// How long a join or a renewal may take.
    pub(super) patience: Duration,
    /// How long a claim may take.
    pub(super) claim_timeout: Duration,
    /// Whether naming was silent when it was asked last.
    pub(super) outage: Outage,
}

/// What a join or a renewal brought.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) event: NamingEvent,
    /// The membership, where a join made one.
    pub(super) lease: Option<LeaseId>,
    /// Everybody in the group, where it could be read.
    pub(super) members: Vec<Member>,
}

/// A call that brought nothing.
enum Failed {
    /// Naming answered that it shall not be.
    Refused(NamingError),
    /// Nobody answered, or the one who did cannot now.
    Silent(String),
    /// It would not help to ask again.
    Hopeless(String),
}

impl Registrar {
    pub(super) async fn join(self, request: JoinRequest) -> Answer {
        let joining = self.naming.join(&self.group, &self.member, request);
        let joined = match self.bounded(self.patience, joining).await {
            Ok(joined) => joined,
            Err(failed) => return Answer::failed(failed),
        };
        let view = self.group_view().await;
        let group = GroupSeen {
            epoch: joined.epoch,
            active: joined.active,
            lease_expired: false,
        };
        Answer {
            event: NamingEvent::Joined {
                group: view.as_ref().map_or(group, seen),
            },
            lease: Some(joined.lease),
            members: view.map(|view| view.members).unwrap_or_default(),
        }
    }

    pub(super) async fn renew(self, lease: LeaseId) -> Answer {
        let renewing = self.ways.renew(&self.group, &self.member, lease);
        // The next renewal must not wait for the view.
        let viewing = tokio::time::timeout(self.patience / 3, self.group_view());
        let (renewed, view) = tokio::join!(self.bounded(self.patience, renewing), viewing);
        let view = view.ok().flatten();
        match renewed {
            Ok(renewed) => {
                let group = GroupSeen {
                    epoch: renewed.epoch,
                    active: renewed.active,
                    lease_expired: view.as_ref().is_some_and(lease_expired),
                };
                Answer {
                    event: NamingEvent::Renewed { group },
                    lease: None,
                    members: view.map(|view| view.members).unwrap_or_default(),
                }
            }
            Err(failed) => Answer::failed(failed),
        }
    }

    async fn group_view(&self) -> Option<GroupView> {
        self.bounded(self.patience, self.naming.group(&self.group))
            .await
            .ok()
    }

    pub(super) async fn claim(self, store_epoch: Epoch, evidence: Evidence) -> StepEvent {
        let claiming = self
            .naming
            .claim(&self.group, &self.member, store_epoch, evidence);
        match self.bounded(self.claim_timeout, claiming).await {
            Ok(epoch) => StepEvent::Claimed { epoch },
            Err(Failed::Refused(error)) => StepEvent::ClaimRefused(refusal(error)),
            Err(Failed::Hopeless(why)) => StepEvent::ClaimRefused(Refusal::Other(why)),
            Err(Failed::Silent(why)) => {
                tracing::debug!(why, "naming did not answer the claim");
                StepEvent::ClaimUnanswered
            }
        }
    }

    pub(super) async fn publish(self, epoch: Epoch, exports: Vec<Export>) -> StepEvent {
        let publishing = self.naming.publish(&self.group, &self.member, epoch, exports);
        match self.bounded(PUBLISH, publishing).await {
            Ok(_) => StepEvent::Published,
            Err(Failed::Refused(error)) => StepEvent::PublishRefused(refusal(error)),
            Err(Failed::Hopeless(why)) => StepEvent::PublishRefused(Refusal::Other(why)),
            Err(Failed::Silent(why)) => {
                tracing::debug!(why, "naming did not answer the publication");
                StepEvent::PublishUnanswered
            }
        }
    }

    /// Tells naming how this broker came into office. Returns whether it need not be told again.
    pub(super) async fn record(self, epoch: Epoch, report: FailoverReport) -> bool {
        let write = Write::RecordFailover {
            group: self.group.clone(),
            member: self.member.clone(),
            epoch,
            report,
        };
        match self.bounded(PUBLISH, self.naming.write(write)).await {
            Ok(_) => true,
            Err(Failed::Refused(error)) => {
                tracing::info!(%error, "naming does not take the timeline of this term");
                true
            }
            Err(Failed::Silent(why) | Failed::Hopeless(why)) => {
                tracing::debug!(why, "the timeline is told again when naming answers");
                false
            }
        }
    }

    pub(super) async fn withdraw(&self, epoch: Epoch, reason: WithdrawReason) {
        let withdrawing = self.naming.withdraw(&self.group, epoch, reason, None);
        if let Err(failed) = self.bounded(FAREWELL, withdrawing).await {
            let why = failed.into_text();
            tracing::warn!(
                why,
                "the exports were not withdrawn: they are when the lease ends"
            );
        }
    }

    pub(super) async fn leave(&self, lease: LeaseId) {
        let leaving = self.naming.leave(&self.group, &self.member, lease);
        match self.bounded(FAREWELL, leaving).await {
            Ok(_)
            | Err(Failed::Refused(
                NamingError::MemberNotFound { .. }
                | NamingError::LeaseEnded { .. }
                | NamingError::GroupNotFound { .. },
            )) => {} // It is over, which is what was wanted.
            Err(failed) => {
                let why = failed.into_text();
                tracing::warn!(why, "the membership was not given up: it is when the lease ends");
            }
        }
    }
}

impl Answer {
    /// The answer to a renewal of a membership that there is not.
    pub(super) fn not_joined() -> Self {
        Self {
            event: NamingEvent::LeaseEnded,
            lease: None,
            members: Vec::new(),
        }
    }

    fn failed(failed: Failed) -> Self {
        let event = match failed {
            Failed::Refused(NamingError::LeaseEnded { .. } | NamingError::MemberNotFound { .. }) => {
                NamingEvent::LeaseEnded
            }
            Failed::Refused(NamingError::GroupNotFound { .. }) => NamingEvent::LeaseEnded,
            Failed::Refused(error) => NamingEvent::Refused {
                why: error.to_string(),
            },
            Failed::Hopeless(why) => NamingEvent::Refused { why },
            Failed::Silent(_) => NamingEvent::Silent,
        };
        Self {
            event,
            lease: None,
            members: Vec::new(),
        }
    }
}

impl Failed {
    fn into_text(self) -> String {
        match self {
            Self::Refused(error) => error.to_string(),
            Self::Silent(why) | Self::Hopeless(why) => why,
        }
    }
}

impl Registrar {
    /// Asks, and waits no longer than `patience`. A silence is told when it begins and when it ends.
    async fn bounded<T>(
        &self,
        patience: Duration,
        call: impl Future<Output = Result<T, LookupError>>,
    ) -> Result<T, Failed> {
        let answer = self.answer(patience, call).await;
        match &answer {
            Ok(_) | Err(Failed::Refused(_) | Failed::Hopeless(_)) => {
                if let Some(silence) = self.outage.is_over(Instant::now()) {
                    tracing::info!(?silence, "naming answers again");
                }
            }
            Err(Failed::Silent(why)) => {
                if self.outage.is_silent(Instant::now()) {
                    tracing::warn!(why, "naming does not answer, it is asked again and again");
                }
            }
        }
        answer
    }

    /// Waits no longer than `patience`; only for a moment where every naming server refuses connections,
    /// because no process is there that could answer.
    async fn answer<T>(
        &self,
        patience: Duration,
        call: impl Future<Output = Result<T, LookupError>>,
    ) -> Result<T, Failed> {
        tokio::select! {
            biased;
            answer = tokio::time::timeout(patience, call) => match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(failed(error)),
                Err(_) => Err(Failed::Silent(format!("no answer within {patience:?}"))),
            },
            () = nobody_listens(self.naming.providers()) => {
                Err(Failed::Silent("every naming server refuses connections".to_owned()))
            }
        }
    }
}

/// Ends only if every server of the list refuses a connection now. A server that accepts, or is silent, may
/// still answer, so it is waited for.
async fn nobody_listens(providers: &Providers) {
    tokio::time::sleep(DOUBT).await;
    for server in providers.endpoints() {
        match tokio::net::TcpStream::connect((server.host.as_str(), server.port)).await {
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Ok(_) | Err(_) => std::future::pending().await,
        }
    }
}

fn failed(error: LookupError) -> Failed {
    match error {
        LookupError::Refused(
            NamingError::ServiceUnavailable { .. }
            | NamingError::TimedOut { .. }
            | NamingError::Lagging { .. },
        ) => Failed::Silent(error.to_string()),
        LookupError::Refused(error) => Failed::Refused(error),
        LookupError::Unreachable { .. }
        | LookupError::OutcomeUnknown { .. }
        | LookupError::NotBoundInTime { .. } => Failed::Silent(error.to_string()),
        LookupError::AuthenticationFailed { .. } | LookupError::WrongKind { .. } => {
            Failed::Hopeless(error.to_string())
        }
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other answer would be the same again"
)]
fn refusal(error: NamingError) -> Refusal {
    match error {
        NamingError::MemberNotFound { .. }
        | NamingError::LeaseEnded { .. }
        | NamingError::GroupNotFound { .. } => Refusal::NotMember,
        NamingError::ActiveExists { active, epoch, .. } => Refusal::ActiveExists { active, epoch },
        NamingError::StaleEpoch { current, .. } => Refusal::StaleEpoch { current },
        NamingError::NameConflict { ref name, .. }
        | NamingError::NotContext { ref name, .. }
        | NamingError::NameAlreadyBound { ref name }
        | NamingError::ContextNotEmpty { ref name } => Refusal::Name {
            name: name.clone(),
            why: error.to_string(),
        },
        other => Refusal::Other(other.to_string()),
    }
}

fn seen(view: &GroupView) -> GroupSeen {
    GroupSeen {
        epoch: view.epoch,
        active: view.active.clone(),
        lease_expired: lease_expired(view),
    }
}

fn lease_expired(view: &GroupView) -> bool {
    view.active.is_none()
        && view
            .withheld
            .as_ref()
            .is_some_and(|withheld| withheld.reason == UnavailableReason::LeaseExpired)
}
