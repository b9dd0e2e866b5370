//! Finds the active broker: every known address, staggered and raced, the first good one wins.
//!
//! It decides whether an address is a broker that takes us, and when an address is tried again. Every search
//! has an end.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use daymark_amqp::{
    CloseReason, Config, Connection as Engine, Event, Fields, OpenOptions, RemoteOpen, Sasl, SaslCode,
    Symbol, Value, condition,
};
use daymark_naming_proto::{Endpoint, Epoch, FactorySettings};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use super::abilities;
use super::error::{BrokerAttempt, BrokerFailure, ConnectError, Refusal};
use super::factory::{ConnectionFactory, Identity};
use super::wire::Wire;
use crate::naming::Follow;

/// How long an attempt runs alone before the next address is tried beside it.
const STAGGER: Duration = Duration::from_millis(200);

/// A broker that took the connection.
pub(super) struct Opened {
    pub(super) wire: Wire,
    pub(super) address: Endpoint,
    pub(super) epoch: Epoch,
}

/// Tries every known address, again and again with growing pauses, until one takes the connection, the attempts
/// per address are used up, or the time is over. A change in naming ends every pause.
pub(super) async fn search(
    factory: ConnectionFactory,
    identity: Identity,
    attempts_max: Option<u32>,
) -> Result<Opened, ConnectError> {
    let started = tokio::time::Instant::now();
    let settings = factory.settings();
    let deadline = started + Duration::from_millis(settings.reconnect_period_ms);
    let mut follow = factory.follower();
    let mut search = Search {
        factory,
        identity,
        settings,
        attempts_max,
        race: JoinSet::new(),
        places: Vec::new(),
        head_start: started,
    };
    loop {
        search.refresh();
        let next = search.next();
        if search.is_over(next.is_some(), follow.is_some()) {
            return Err(search.failure(started));
        }
        let (index, at) = next.unwrap_or((0, started));
        tokio::select! {
            biased;
            Some(done) = search.race.join_next(), if !search.race.is_empty() => {
                // An attempt that was aborted has nothing to say.
                if let Ok(outcome) = done
                    && let Some(result) = search.settle(outcome)
                {
                    return result;
                }
            }
            () = sleep_until(at), if next.is_some() => search.start(index),
            () = change(&mut follow) => search.hurry(),
            () = sleep_until(deadline) => return Err(search.failure(started)),
        }
    }
}

/// Waits for a change in naming.
pub(super) async fn change(follow: &mut Option<Follow>) {
    match follow {
        Some(follow) => drop(follow.changed().await),
        None => std::future::pending().await,
    }
}

/// The addresses and how they fare.
struct Search {
    factory: ConnectionFactory,
    identity: Identity,
    settings: FactorySettings,
    /// Per address; `None` for as many as the time allows.
    attempts_max: Option<u32>,
    race: JoinSet<Result<Opened, BrokerAttempt>>,
    places: Vec<Place>,
    /// Until then the attempts that run have the field to themselves.
    head_start: tokio::time::Instant,
}

struct Place {
    address: Endpoint,
    busy: bool,
    failures: u32,
    pause: Duration,
    next_at: tokio::time::Instant,
    why: Option<BrokerFailure>,
}

impl Search {
    /// Takes over the addresses as they are known now; what is known of each stays.
    fn refresh(&mut self) {
        let now = tokio::time::Instant::now();
        let addresses = self.factory.addresses();
        self.places
            .retain(|place| place.busy || addresses.contains(&place.address));
        for address in addresses {
            if !self.places.iter().any(|place| place.address == address) {
                self.places.push(Place {
                    address,
                    busy: false,
                    failures: 0,
                    pause: Duration::from_millis(self.settings.reconnect_interval_ms),
                    next_at: now,
                    why: None,
                });
            }
        }
    }

    /// The address to try next, and when. One that was never tried waits for the head start of those that run.
    fn next(&self) -> Option<(usize, tokio::time::Instant)> {
        let allowed = |place: &Place| self.attempts_max.is_none_or(|max| place.failures < max);
        let free = self
            .places
            .iter()
            .enumerate()
            .filter(|(_, place)| !place.busy && allowed(place));
        let when = free.map(|(index, place)| {
            let raced = place.failures == 0 && !self.race.is_empty();
            let at = if raced {
                place.next_at.max(self.head_start)
            } else {
                place.next_at
            };
            (index, at)
        });
        when.min_by_key(|&(index, at)| (at, index))
    }

    /// Nothing runs, nothing is left to try, and naming cannot bring anything new.
    fn is_over(&self, has_next: bool, follows: bool) -> bool {
        self.race.is_empty() && !has_next && (!follows || !self.places.is_empty())
    }

    fn start(&mut self, index: usize) {
        let place = &mut self.places[index];
        place.busy = true;
        self.head_start = tokio::time::Instant::now() + STAGGER;
        self.race.spawn(attempt(
            place.address.clone(),
            self.factory.clone(),
            self.identity.clone(),
            self.settings.clone(),
        ));
    }

    /// What an attempt means; a result ends the search.
    fn settle(&mut self, outcome: Result<Opened, BrokerAttempt>) -> Option<Result<Opened, ConnectError>> {
        let BrokerAttempt { address, why } = match outcome {
            Ok(opened) => return Some(Ok(opened)),
            Err(attempt) => attempt,
        };
        tracing::debug!(%address, %why, "broker did not take the connection");
        if let BrokerFailure::Denied { reason } = why {
            return Some(Err(ConnectError::AuthenticationFailed { address, reason }));
        }
        let growth = self.settings.reconnect_interval_multiplier;
        let growth = if growth.is_nan() {
            1.0
        } else {
            growth.clamp(1.0, 100.0)
        };
        let longest = Duration::from_millis(self.settings.max_reconnect_interval_ms.max(1));
        if let Some(place) = self.places.iter_mut().find(|place| place.address == address) {
            place.busy = false;
            place.failures += 1;
            place.next_at = tokio::time::Instant::now() + place.pause.min(longest);
            place.pause = place
                .pause
                .mul_f64(growth)
                .clamp(Duration::from_millis(1), longest);
            place.why = Some(why);
        }
        self.head_start = tokio::time::Instant::now();
        None
    }

    /// Something changed in naming: nobody pauses.
    fn hurry(&mut self) {
        let now = tokio::time::Instant::now();
        for place in &mut self.places {
            place.next_at = now;
            place.pause = Duration::from_millis(self.settings.reconnect_interval_ms);
        }
    }

    fn failure(&self, started: tokio::time::Instant) -> ConnectError {
        if self.places.is_empty() {
            return ConnectError::NoAddress;
        }
        let attempt = |place: &Place| BrokerAttempt {
            address: place.address.clone(),
            why: place.why.clone().unwrap_or(BrokerFailure::NotTried),
        };
        ConnectError::Unreachable {
            attempts_each: self.places.iter().map(|place| place.failures).max().unwrap_or(0),
            waited_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            attempts: self.places.iter().map(attempt).collect(),
        }
    }
}

async fn attempt(
    address: Endpoint,
    factory: ConnectionFactory,
    identity: Identity,
    settings: FactorySettings,
) -> Result<Opened, BrokerAttempt> {
    let patience = Duration::from_millis(settings.connect_timeout_ms);
    let outcome = timeout(patience, open(&address, &factory, &identity, &settings)).await;
    match outcome {
        Ok(Ok((wire, epoch))) => Ok(Opened { wire, address, epoch }),
        Ok(Err(why)) => Err(BrokerAttempt { address, why }),
        Err(_) => Err(BrokerAttempt {
            address,
            why: BrokerFailure::NoAnswer {
                waited_ms: settings.connect_timeout_ms,
            },
        }),
    }
}

async fn open(
    address: &Endpoint,
    factory: &ConnectionFactory,
    identity: &Identity,
    settings: &FactorySettings,
) -> Result<(Wire, Epoch), BrokerFailure> {
    let stream = dial(address).await?;
    let mut engine = Engine::client(config(identity, settings), Instant::now());
    let open = OpenOptions {
        hostname: Some(address.host.clone()),
        // It does not ask to be the only one of its name: what is left of a lost connection must not keep the
        // next one out. The properties say which connections it follows.
        desired_capabilities: abilities::desired(),
        properties: properties(identity),
        ..OpenOptions::new(identity.container_id.clone())
    };
    // A fresh engine always takes it; were it not so, the handshake timeout ends the attempt.
    let _ = engine.open(open);
    let mut wire = Wire::new(stream, engine);
    wire.flush();
    let remote = handshake(&mut wire).await?;
    match factory.admit(&remote) {
        Ok(epoch) => Ok((wire, epoch)),
        Err(why) => {
            wire.engine.close(None);
            wire.flush();
            Err(why)
        }
    }
}

fn config(identity: &Identity, settings: &FactorySettings) -> Config {
    Config {
        idle_timeout: Some(Duration::from_millis(
            settings.client_failure_check_period_ms.max(100),
        )),
        handshake_timeout: Duration::from_millis(settings.connect_timeout_ms),
        close_timeout: Duration::from_secs(1),
        sasl: match &identity.credentials {
            Some(credentials) => Sasl::Plain {
                user: credentials.user.clone(),
                password: credentials.password.clone(),
            },
            None => Sasl::Anonymous,
        },
        ..Config::default()
    }
}

fn properties(identity: &Identity) -> Fields {
    Fields::new()
        .with(Symbol::from_static("product"), "daymark-client")
        .with(Symbol::from_static("version"), env!("CARGO_PKG_VERSION"))
        .with(
            Symbol::from_static("daymark:instance"),
            identity.instance.as_str(),
        )
}

/// Resolves afresh and connects to the first of its addresses that accepts.
async fn dial(address: &Endpoint) -> Result<TcpStream, BrokerFailure> {
    let resolved = tokio::net::lookup_host((address.host.as_str(), address.port));
    let resolved: Vec<SocketAddr> = resolved
        .await
        .map_err(|error| BrokerFailure::Resolve {
            reason: error.to_string(),
        })?
        .collect();
    let mut why = BrokerFailure::Resolve {
        reason: "it has no address".into(),
    };
    for address in resolved {
        let connected = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(stream)
        };
        match connected.await {
            Ok(stream) => return Ok(stream),
            Err(error) => {
                why = BrokerFailure::Connect {
                    address,
                    reason: error.to_string(),
                }
            }
        }
    }
    Err(why)
}

/// Waits for the broker's Open. One that announces its own failure is followed by a Close that says why.
async fn handshake(wire: &mut Wire) -> Result<RemoteOpen, BrokerFailure> {
    let mut greeted = None;
    loop {
        while let Some(event) = wire.poll_event() {
            match event {
                Event::RemoteOpen(open) => greeted = Some(*open),
                Event::Closed(reason) => return Err(failure(&reason)),
                // Mechanisms with challenges are not offered, and nothing else can happen before Open.
                Event::SaslInit(_)
                | Event::SaslResponse(_)
                | Event::SaslChallenge(_)
                | Event::SaslOutcome { .. }
                | Event::SessionBegun { .. }
                | Event::LinkRequested { .. }
                | Event::LinkAttached { .. }
                | Event::Credit { .. }
                | Event::Drained { .. }
                | Event::Message(_)
                | Event::Aborted { .. }
                | Event::Declare { .. }
                | Event::Discharge { .. }
                | Event::Disposition { .. }
                | Event::LinkDetached { .. }
                | Event::SessionEnded { .. } => {}
            }
        }
        wire.flush();
        if let Some(open) = greeted.take_if(|open| !announces_failure(open)) {
            return Ok(open);
        }
        if let Some(reason) = wire.ended() {
            return Err(BrokerFailure::Lost {
                reason: reason.to_owned(),
            });
        }
        wire.turn().await;
    }
}

fn announces_failure(open: &RemoteOpen) -> bool {
    let failed = open.properties.get("amqp:connection-establishment-failed");
    failed.and_then(Value::as_bool).unwrap_or(false)
}

/// A close before the connection was of use.
fn failure(reason: &CloseReason) -> BrokerFailure {
    match reason {
        CloseReason::Remote(error) => {
            let refusal = Refusal::new(error.as_ref());
            if refusal.condition == condition::UNAUTHORIZED_ACCESS.as_str() {
                BrokerFailure::Denied {
                    reason: refusal.to_string(),
                }
            } else {
                BrokerFailure::Refused(refusal)
            }
        }
        CloseReason::SaslFailed(code @ (SaslCode::Auth | SaslCode::SysPerm)) => BrokerFailure::Denied {
            reason: format!("SASL outcome {code:?}"),
        },
        CloseReason::Local
        | CloseReason::Violation(_)
        | CloseReason::IdleTimeout
        | CloseReason::WriteTimeout
        | CloseReason::HandshakeTimeout
        | CloseReason::SaslFailed(SaslCode::Ok | SaslCode::Sys | SaslCode::SysTemp)
        | CloseReason::UnsupportedProtocol(_)
        | CloseReason::TransportLost => BrokerFailure::Lost {
            reason: close_text(reason),
        },
    }
}

/// A close in words.
pub(super) fn close_text(reason: &CloseReason) -> String {
    match reason {
        CloseReason::Local => "it was closed here".into(),
        CloseReason::Remote(error) => format!("the broker closed it: {}", Refusal::new(error.as_ref())),
        CloseReason::Violation(error) => format!("the broker broke the protocol: {error}"),
        CloseReason::IdleTimeout => "the broker was silent".into(),
        CloseReason::HandshakeTimeout => "the broker did not greet".into(),
        CloseReason::SaslFailed(code) => format!("SASL outcome {code:?}"),
        CloseReason::UnsupportedProtocol(header) => {
            format!("another protocol: {}", header.escape_ascii())
        }
        CloseReason::WriteTimeout => "the broker took no bytes".into(),
        CloseReason::TransportLost => "the socket ended".into(),
    }
}
