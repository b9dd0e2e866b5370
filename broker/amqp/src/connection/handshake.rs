//! From the first byte to Open, and Close: protocol headers, SASL, who we are.
//!
//! It decides the order of the opening moves. It never decides whether a peer may enter: it waits for the
//! owner's answer and parses nothing meanwhile.

use super::{Command, Connection, Fault, FrameHead, framing};
use crate::config::{OpenOptions, RemoteOpen};
use crate::error::{AmqpError, CommandError, condition};
use crate::event::{CloseReason, Event};
use crate::performative::{Open, Performative};
use crate::sasl::{Sasl, SaslCode, SaslFrame, SaslInit, credentials};
use crate::value::Symbol;
use bytes::{Buf, Bytes};
use std::time::Duration;

const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for a protocol header.
    Header {
        sasl_done: bool,
    },
    Sasl(Stage),
    /// AMQP frames.
    Frames,
    Finished,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Server: the client chooses a mechanism.
    Init,
    /// Server: the owner decides.
    Decision,
    /// Server: the client answers a challenge.
    Response,
    /// Client: the server names its mechanisms.
    Mechanisms,
    /// Client: the server decides, or challenges.
    Outcome,
    /// Client: the owner answers a challenge.
    Challenge,
}

impl Stage {
    pub(super) const fn waits_for_owner(self) -> bool {
        matches!(self, Self::Decision | Self::Challenge)
    }
}

impl Connection {
    pub(super) fn start_client(&mut self) {
        let sasl = self.config.sasl.client_init().is_some();
        self.output.raw(if sasl { &SASL_HEADER } else { &AMQP_HEADER });
    }

    pub(super) fn read_header(&mut self, sasl_done: bool) -> bool {
        let Some(header) = self.input.first_chunk::<8>().copied() else {
            return false;
        };
        self.input.advance(8);
        if self.client {
            self.on_server_header(header, sasl_done)
        } else {
            self.on_client_header(header, sasl_done)
        }
        true
    }

    fn on_client_header(&mut self, header: [u8; 8], sasl_done: bool) {
        let (mechanisms, required) = match &self.config.sasl {
            Sasl::Server { mechanisms, required } if !sasl_done => (Some(mechanisms.clone()), *required),
            Sasl::Server { .. }
            | Sasl::None
            | Sasl::Anonymous
            | Sasl::Plain { .. }
            | Sasl::External
            | Sasl::Custom { .. } => (None, false),
        };
        if header == AMQP_HEADER && !required {
            self.output.raw(&AMQP_HEADER);
            self.phase = Phase::Frames;
            return;
        }
        if header == SASL_HEADER
            && let Some(mechanisms) = mechanisms
        {
            self.output.raw(&SASL_HEADER);
            self.output.sasl(&SaslFrame::Mechanisms(mechanisms));
            self.phase = Phase::Sasl(Stage::Init);
            return;
        }
        // The answer to a header we do not take is the one we would take.
        self.output
            .raw(if required { &SASL_HEADER } else { &AMQP_HEADER });
        self.finish(CloseReason::UnsupportedProtocol(header));
    }

    fn on_server_header(&mut self, header: [u8; 8], sasl_done: bool) {
        let sasl = self.config.sasl.client_init().is_some() && !sasl_done;
        if header != if sasl { SASL_HEADER } else { AMQP_HEADER } {
            return self.finish(CloseReason::UnsupportedProtocol(header));
        }
        self.phase = if sasl {
            Phase::Sasl(Stage::Mechanisms)
        } else {
            Phase::Frames
        };
    }

    pub(super) fn read_sasl_frame(&mut self, frame: &FrameHead) -> Result<(), Fault> {
        if frame.kind != 1 {
            return Err(framing("not a SASL frame"));
        }
        let decoded = SaslFrame::decode(&self.input[frame.body..frame.size]);
        self.input.advance(frame.size);
        let Phase::Sasl(stage) = self.phase else {
            return Ok(());
        };
        match (stage, decoded?) {
            (
                Stage::Init,
                SaslFrame::Init {
                    mechanism,
                    response,
                    hostname,
                },
            ) => {
                self.on_sasl_init(mechanism, response, hostname);
            }
            (Stage::Response, SaslFrame::Response(response)) => {
                self.phase = Phase::Sasl(Stage::Decision);
                self.events.push_back(Event::SaslResponse(response));
            }
            (Stage::Mechanisms, SaslFrame::Mechanisms(offered)) => self.on_sasl_mechanisms(&offered),
            (Stage::Outcome, SaslFrame::Challenge(challenge)) => {
                self.phase = Phase::Sasl(Stage::Challenge);
                self.events.push_back(Event::SaslChallenge(challenge));
            }
            (Stage::Outcome, SaslFrame::Outcome { code, additional }) => {
                self.on_sasl_outcome(code, additional)
            }
            _ => {
                let text = "a SASL frame out of turn";
                return Err(Fault::Connection(AmqpError::new(condition::NOT_ALLOWED, text)));
            }
        }
        Ok(())
    }

    fn on_sasl_init(&mut self, mechanism: Symbol, response: Option<Bytes>, hostname: Option<String>) {
        let offered =
            matches!(&self.config.sasl, Sasl::Server { mechanisms, .. } if mechanisms.contains(&mechanism));
        let credentials = if offered {
            credentials(&mechanism, response)
        } else {
            None
        };
        match credentials {
            Some(credentials) => {
                self.phase = Phase::Sasl(Stage::Decision);
                let init = SaslInit {
                    mechanism,
                    hostname,
                    credentials,
                };
                self.events.push_back(Event::SaslInit(Box::new(init)));
            }
            None => self.refuse_sasl(SaslCode::Auth, None),
        }
    }

    fn on_sasl_mechanisms(&mut self, offered: &[Symbol]) {
        match self.config.sasl.client_init() {
            Some((mechanism, response)) if offered.contains(&mechanism) => {
                // The hostname is known once the owner has called `open`; without it the field stays empty.
                let hostname = self.open_waiting.as_ref().and_then(|open| open.hostname.clone());
                self.output.sasl(&SaslFrame::Init {
                    mechanism,
                    response,
                    hostname,
                });
                self.phase = Phase::Sasl(Stage::Outcome);
            }
            Some(_) | None => self.finish(CloseReason::SaslFailed(SaslCode::Auth)),
        }
    }

    fn on_sasl_outcome(&mut self, code: SaslCode, additional: Option<Bytes>) {
        self.events.push_back(Event::SaslOutcome { code, additional });
        if code != SaslCode::Ok {
            return self.finish(CloseReason::SaslFailed(code));
        }
        self.output.raw(&AMQP_HEADER);
        self.phase = Phase::Header { sasl_done: true };
        if let Some(open) = self.open_waiting.take() {
            self.write_open(open);
        }
    }

    fn refuse_sasl(&mut self, code: SaslCode, additional: Option<Bytes>) {
        self.output.sasl(&SaslFrame::Outcome { code, additional });
        self.finish(CloseReason::SaslFailed(code));
    }

    /// Server: decides on `SaslInit` or `SaslResponse`. Any code but `Ok` ends the connection.
    ///
    /// # Errors
    /// `NotOpen` if no decision is due.
    pub fn sasl_outcome(&mut self, code: SaslCode, additional: Option<Bytes>) -> Command {
        self.require_stage(Stage::Decision)?;
        if code == SaslCode::Ok {
            self.output.sasl(&SaslFrame::Outcome { code, additional });
            self.phase = Phase::Header { sasl_done: true };
        } else {
            self.refuse_sasl(code, additional);
        }
        Ok(())
    }

    /// Server: asks for more; `SaslResponse` follows.
    ///
    /// # Errors
    /// `NotOpen` if no decision is due.
    pub fn sasl_challenge(&mut self, challenge: Bytes) -> Command {
        self.require_stage(Stage::Decision)?;
        self.output.sasl(&SaslFrame::Challenge(challenge));
        self.phase = Phase::Sasl(Stage::Response);
        Ok(())
    }

    /// Client: answers `SaslChallenge`.
    ///
    /// # Errors
    /// `NotOpen` if no answer is due.
    pub fn sasl_response(&mut self, response: Bytes) -> Command {
        self.require_stage(Stage::Challenge)?;
        self.output.sasl(&SaslFrame::Response(response));
        self.phase = Phase::Sasl(Stage::Outcome);
        Ok(())
    }

    fn require_stage(&self, stage: Stage) -> Command {
        if self.phase == Phase::Sasl(stage) {
            Ok(())
        } else {
            Err(CommandError::NotOpen)
        }
    }

    /// Opens our side. A client calls it at once, a server after `RemoteOpen`. Before the opening moves are
    /// done it is kept and written in its turn.
    ///
    /// # Errors
    /// `NotOpen` if it was called before, or the connection has ended.
    pub fn open(&mut self, open: OpenOptions) -> Command {
        if self.open_sent || self.open_waiting.is_some() || self.phase == Phase::Finished {
            return Err(CommandError::NotOpen);
        }
        let ready = match self.phase {
            Phase::Frames => true,
            // A client's AMQP header is out already, unless SASL comes first.
            Phase::Header { sasl_done } => {
                self.client && (sasl_done || self.config.sasl.client_init().is_none())
            }
            Phase::Sasl(_) | Phase::Finished => false,
        };
        if !self.client && !ready {
            return Err(CommandError::NotOpen);
        }
        if ready {
            self.write_open(open)
        } else {
            self.open_waiting = Some(open)
        }
        Ok(())
    }

    fn write_open(&mut self, open: OpenOptions) {
        let idle_timeout = self.config.idle_timeout.map(|idle| millis(idle / 2));
        self.open_sent = true;
        self.output.frame(
            0,
            &Performative::Open(Box::new(Open {
                container_id: open.container_id,
                hostname: open.hostname,
                max_frame_size: self.config.max_frame_size,
                channel_max: self.config.max_sessions - 1,
                idle_timeout,
                offered_capabilities: open.offered_capabilities,
                desired_capabilities: open.desired_capabilities,
                properties: open.properties,
            })),
        );
    }

    pub(super) fn on_open(&mut self, open: Open) -> Result<(), Fault> {
        if self.peer.is_some() {
            return Err(Fault::Connection(AmqpError::new(
                condition::NOT_ALLOWED,
                "a second Open",
            )));
        }
        if open.max_frame_size < 512 {
            let text = "max-frame-size is below 512";
            return Err(Fault::Connection(AmqpError::new(condition::INVALID_FIELD, text)));
        }
        let remote = RemoteOpen {
            container_id: open.container_id,
            hostname: open.hostname,
            max_frame_size: open.max_frame_size,
            channel_max: open.channel_max,
            idle_timeout: open
                .idle_timeout
                .filter(|ms| *ms > 0)
                .map(|ms| Duration::from_millis(ms.into())),
            offered_capabilities: open.offered_capabilities,
            desired_capabilities: open.desired_capabilities,
            properties: open.properties,
        };
        self.peer = Some(remote.clone());
        self.events.push_back(Event::RemoteOpen(Box::new(remote)));
        Ok(())
    }

    /// Closes the connection. `Closed` follows when the peer has answered or `close_timeout` is over. A
    /// connection that never opened ends at once.
    pub fn close(&mut self, error: Option<AmqpError>) {
        if self.close_sent || self.phase == Phase::Finished {
            return;
        }
        let speaks = self.phase == Phase::Frames || self.open_sent;
        if !speaks {
            return self.finish(CloseReason::Local);
        }
        self.write_close(error);
        self.close_deadline = Some(self.now + self.config.close_timeout);
    }

    /// Writes Close after all that is due before it, and Open if it is still missing.
    pub(super) fn write_close(&mut self, error: Option<AmqpError>) {
        if self.close_sent {
            return;
        }
        if !self.open_sent {
            let open = self.open_waiting.take().unwrap_or_default();
            self.write_open(open);
        }
        self.flush();
        self.output.frame(0, &Performative::Close(error));
        self.close_sent = true;
    }

    pub(super) fn on_close(&mut self, error: Option<AmqpError>) {
        let reason = if self.close_sent {
            CloseReason::Local
        } else {
            CloseReason::Remote(error)
        };
        self.write_close(None);
        self.finish(reason);
    }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX).max(1)
}
