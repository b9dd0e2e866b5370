//! Credit: how many messages a receiver will take, and drain, by which it asks for what there is.
//!
//! Delivery-counts are serial numbers (RFC 1982). A drain is answered when the owner says that what was
//! available has been sent, never before.

use super::link::Link;
use super::session::End;
use super::{Command, Connection, Fault};
use crate::error::{AmqpError, CommandError, condition};
use crate::event::{Event, Key, LinkId};
use crate::performative::{Flow, Performative, Role};
use crate::ring::{left, serial_before};

impl Link {
    fn grant(&mut self, credit: u32, drain: bool) {
        self.credit = credit;
        self.drain = drain;
        let limit = self.delivery_count.wrapping_add(credit);
        // Credit taken back does not outlaw messages already on their way.
        if serial_before(self.limit, limit) {
            self.limit = limit;
        }
    }
}

impl Connection {
    pub(super) fn on_link_flow(&mut self, session: Key, handle: u32, flow: &Flow) -> Result<(), Fault> {
        let key = self.link_by_handle(session, handle)?;
        let Some(link) = self.links.fetch_mut(key) else {
            return Ok(());
        };
        if link.local == End::Detached {
            return Ok(());
        }
        match link.role {
            // Messages would be given to a consumer that has not been told to settle them with it.
            Role::Sender if flow.transactional => {
                let text = "transactional acquisition: a flow with a txn-id is not supported";
                let error = AmqpError::new(condition::NOT_IMPLEMENTED, text);
                let _ = self.detach(LinkId(key), true, Some(error));
                return Ok(());
            }
            Role::Sender => {
                let seen = flow.delivery_count.unwrap_or(link.delivery_count);
                let credit = left(flow.link_credit.unwrap_or(0), seen, link.delivery_count);
                let news = credit != link.credit || flow.drain;
                (link.credit, link.drain) = (credit, flow.drain);
                if news && link.local == End::Attached {
                    self.events.push_back(Event::Credit {
                        link: LinkId(key),
                        credit,
                        drain: flow.drain,
                    });
                }
            }
            Role::Receiver => {
                if let Some(count) = flow.delivery_count
                    && serial_before(link.delivery_count, count)
                    && !serial_before(link.limit, count)
                {
                    let burnt = count.wrapping_sub(link.delivery_count);
                    link.delivery_count = count;
                    link.credit = link.credit.saturating_sub(burnt);
                }
                self.check_drained(key);
            }
        }
        if flow.echo {
            self.write_link_flow(key);
        }
        Ok(())
    }

    /// Receiver: reports a drain done once no credit is left.
    pub(super) fn check_drained(&mut self, key: Key) {
        if let Some(link) = self.links.fetch_mut(key)
            && link.drain
            && link.credit == 0
        {
            link.drain = false;
            self.events.push_back(Event::Drained { link: LinkId(key) });
        }
    }

    fn write_link_flow(&mut self, key: Key) {
        let Some(link) = self.links.fetch(key).filter(|link| link.local == End::Attached) else {
            return;
        };
        let Some(session) = self.sessions.fetch_mut(link.session) else {
            return;
        };
        let mut flow = session.flow(self.config.incoming_window);
        let counted = link.role == Role::Sender || link.remote != End::Unattached;
        flow.handle = Some(link.local_handle);
        flow.delivery_count = counted.then_some(link.delivery_count);
        flow.link_credit = Some(link.credit);
        flow.drain = link.drain;
        flow.available = (link.role == Role::Sender).then_some(link.available);
        self.output.frame(session.channel, &Performative::Flow(flow));
    }

    /// Receiver: sets the credit outstanding to `credit` messages from now. With `drain` the sender sends
    /// what it has and gives the rest back: `Drained` follows.
    ///
    /// # Errors
    /// `UnknownLink`, `WrongRole`, or `NotAttached` if our side is not attached.
    pub fn grant_credit(&mut self, link: LinkId, credit: u32, drain: bool) -> Command {
        self.require_open()?;
        let held = self.live_link(link)?;
        if held.role != Role::Receiver {
            return Err(CommandError::WrongRole);
        }
        held.grant(credit.min(i32::MAX.cast_unsigned()), drain);
        self.write_link_flow(link.0);
        Ok(())
    }

    /// Sender: says that all that was available has been sent. Credit left is given back if the receiver
    /// asked for it; otherwise nothing happens.
    ///
    /// # Errors
    /// `UnknownLink`, `WrongRole`, or `NotAttached`.
    pub fn drained(&mut self, link: LinkId) -> Command {
        self.require_open()?;
        let held = self.live_link(link)?;
        if held.role != Role::Sender {
            return Err(CommandError::WrongRole);
        }
        if !held.drain {
            return Ok(());
        }
        held.delivery_count = held.delivery_count.wrapping_add(held.credit);
        held.credit = 0;
        self.write_link_flow(link.0);
        if let Some(held) = self.links.fetch_mut(link.0) {
            held.drain = false;
        }
        Ok(())
    }

    /// Sender: how many messages wait for credit. A hint that goes with the next flow.
    ///
    /// # Errors
    /// `UnknownLink`, `WrongRole`, or `NotAttached`.
    pub fn set_available(&mut self, link: LinkId, available: u32) -> Command {
        let held = self.live_link(link)?;
        if held.role != Role::Sender {
            return Err(CommandError::WrongRole);
        }
        held.available = available;
        Ok(())
    }

    /// A link attached on our side and not detached by the peer.
    fn live_link(&mut self, link: LinkId) -> Command<&mut Link> {
        let held = self.links.fetch_mut(link.0).ok_or(CommandError::UnknownLink)?;
        let session = self
            .sessions
            .fetch(held.session)
            .ok_or(CommandError::UnknownLink)?;
        let live = held.local == End::Attached && held.remote != End::Detached && session.is_open();
        if live {
            Ok(held)
        } else {
            Err(CommandError::NotAttached)
        }
    }

    /// Sender: whether the receiver waits to hear that all that was available has been sent.
    #[must_use]
    pub fn is_draining(&self, link: LinkId) -> bool {
        self.links.fetch(link.0).is_some_and(|link| link.drain)
    }

    /// Credit left on a link, of either role; 0 if it has gone.
    #[must_use]
    pub fn credit(&self, link: LinkId) -> u32 {
        self.links.fetch(link.0).map_or(0, |link| link.credit)
    }
}
