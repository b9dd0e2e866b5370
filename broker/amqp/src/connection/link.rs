//! Links: attach, refuse, steal, credit, drain, detach.
//!
//! Invariant: every link the owner has heard of, or started, ends with exactly one `LinkDetached`; links it
//! refused end without.

use super::session::End;
use super::{Command, Connection, Fault};
use crate::config::{AcceptOptions, AttachOptions, RemoteAttach};
use crate::error::{AmqpError, CommandError, condition};
use crate::event::{DeliveryId, Event, Key, LinkId, SessionId, Unsettled};
use crate::performative::{Attach, Detach, Performative, RcvSettleMode, Role, SndSettleMode};
use crate::terminus::Target;

#[derive(Debug)]
pub(super) struct Link {
    pub(super) session: Key,
    pub(super) name: String,
    /// Ours.
    pub(super) role: Role,
    pub(super) local_handle: u32,
    remote_handle: Option<u32>,
    pub(super) local: End,
    pub(super) remote: End,
    /// `LinkDetached` was queued, or none is due.
    announced: bool,
    /// Its target is the coordinator.
    pub(super) coordinator: bool,
    pub(super) delivery_count: u32,
    pub(super) credit: u32,
    pub(super) drain: bool,
    pub(super) available: u32,
    /// Receiver: the delivery-count up to which credit was ever granted.
    pub(super) limit: u32,
    pub(super) unsettled: u32,
    pub(super) partial: Option<Box<super::receive::Partial>>,
    /// What the receiving side takes; 0 for no limit.
    pub(super) max_message_size: u64,
    snd_settle_mode: SndSettleMode,
    rcv_settle_mode: RcvSettleMode,
}

impl Link {
    fn new(session: Key, name: String, role: Role) -> Self {
        Self {
            session,
            name,
            role,
            local_handle: 0,
            remote_handle: None,
            local: End::Unattached,
            remote: End::Unattached,
            announced: false,
            coordinator: false,
            delivery_count: 0,
            credit: 0,
            drain: false,
            available: 0,
            limit: 0,
            unsettled: 0,
            partial: None,
            max_message_size: 0,
            snd_settle_mode: SndSettleMode::Mixed,
            rcv_settle_mode: RcvSettleMode::First,
        }
    }

    /// Both sides are there.
    pub(super) fn is_attached(&self) -> bool {
        self.local == End::Attached && self.remote == End::Attached
    }

    /// Ours, and the peer has not answered yet.
    fn is_awaited(&self) -> bool {
        self.local != End::Unattached && self.remote == End::Unattached
    }

    /// The link is in use, or its answer is still to come: its name is taken.
    fn holds_name(&self) -> bool {
        self.is_awaited() || (!self.announced && self.remote != End::Detached && self.local != End::Detached)
    }
}

impl Connection {
    /// Starts a link we send on. `LinkAttached` follows.
    ///
    /// # Errors
    /// `UnknownSession`, `NameInUse`, `TooManyLinks`, or `FrameTooLarge`.
    pub fn attach_sender(&mut self, session: SessionId, attach: AttachOptions) -> Command<LinkId> {
        self.start_link(session.0, Role::Sender, attach)
    }

    /// Starts a link we receive on. `LinkAttached` follows. Credit may be granted at once.
    ///
    /// # Errors
    /// `UnknownSession`, `NameInUse`, `TooManyLinks`, or `FrameTooLarge`.
    pub fn attach_receiver(&mut self, session: SessionId, attach: AttachOptions) -> Command<LinkId> {
        self.start_link(session.0, Role::Receiver, attach)
    }

    fn start_link(&mut self, key: Key, role: Role, options: AttachOptions) -> Command<LinkId> {
        self.require_open()?;
        self.open_session(key)?;
        if self.named(key, &options.name, role).is_some() {
            return Err(CommandError::NameInUse);
        }
        let mut link = Link::new(key, options.name.clone(), role);
        link.coordinator = matches!(options.target, Some(Target::Coordinator { .. }));
        link.snd_settle_mode = options.snd_settle_mode;
        link.rcv_settle_mode = options.rcv_settle_mode;
        if role == Role::Receiver {
            link.max_message_size = self.message_limit(options.max_message_size);
        }
        let link = self.links.insert(link);
        if let Err(error) = self.write_attach(link, options) {
            self.links.remove(link);
            return Err(error);
        }
        if let Some(session) = self.sessions.fetch_mut(key) {
            session.links.push(link);
        }
        Ok(LinkId(link))
    }

    fn message_limit(&self, wanted: u64) -> u64 {
        if wanted == 0 {
            self.config.max_message_size
        } else {
            wanted.min(self.config.max_message_size)
        }
    }

    fn named(&self, session: Key, name: &str, role: Role) -> Option<Key> {
        let links = &self.sessions.fetch(session)?.links;
        let matches = |key: &&Key| {
            self.links
                .fetch(**key)
                .is_some_and(|link| link.role == role && link.holds_name() && link.name == name)
        };
        links.iter().find(matches).copied()
    }

    /// Takes a handle and writes Attach; the link becomes attached on our side.
    fn write_attach(&mut self, key: Key, options: AttachOptions) -> Command {
        let link = self.links.fetch_mut(key).ok_or(CommandError::UnknownLink)?;
        let session = self
            .sessions
            .fetch_mut(link.session)
            .ok_or(CommandError::UnknownSession)?;
        let free = session
            .local_handles
            .iter()
            .position(Option::is_none)
            .unwrap_or(session.local_handles.len());
        let handle = u32::try_from(free).map_err(|_| CommandError::TooManyLinks)?;
        if handle >= self.config.max_links || handle > session.remote_handle_max {
            return Err(CommandError::TooManyLinks);
        }
        let max_frame = self.peer.as_ref().map_or(u32::MAX, |peer| peer.max_frame_size);
        let before = self.output.buffer().len();
        self.output.frame(
            session.channel,
            &Performative::Attach(Box::new(Attach {
                name: options.name,
                handle,
                role: link.role,
                snd_settle_mode: options.snd_settle_mode,
                rcv_settle_mode: options.rcv_settle_mode,
                source: options.source,
                target: options.target,
                has_unsettled: false,
                initial_delivery_count: (link.role == Role::Sender).then_some(link.delivery_count),
                max_message_size: if link.role == Role::Receiver {
                    link.max_message_size
                } else {
                    0
                },
                offered_capabilities: options.offered_capabilities,
                desired_capabilities: options.desired_capabilities,
                properties: options.properties,
            })),
        );
        if u32::try_from(self.output.buffer().len() - before).map_or(true, |size| size > max_frame) {
            self.output.rewind(before);
            return Err(CommandError::FrameTooLarge);
        }
        if free == session.local_handles.len() {
            session.local_handles.push(None);
        }
        session.local_handles[free] = Some(key);
        link.local_handle = handle;
        link.local = End::Attached;
        Ok(())
    }

    pub(super) fn on_attach(&mut self, key: Key, attach: Attach) -> Result<(), Fault> {
        if attach.handle >= self.config.max_links {
            let error = AmqpError::new(condition::FRAMING_ERROR, "handle above handle-max");
            return Err(Fault::Connection(error));
        }
        let index = attach.handle as usize;
        let Some(session) = self.sessions.fetch_mut(key) else {
            return Ok(());
        };
        if session.remote_handles.get(index).copied().flatten().is_some() {
            let error = AmqpError::new(condition::HANDLE_IN_USE, format!("handle {index} is attached"));
            return Err(Fault::Session(key, error));
        }
        let role = attach.role.other();
        let named = self.named(key, &attach.name, role);
        let awaited = named.filter(|link| self.links.fetch(*link).is_some_and(Link::is_awaited));
        if let (Some(old), None) = (named, awaited) {
            self.steal(old);
        }
        let link = awaited.unwrap_or_else(|| self.adopt(key, &attach, role));
        self.map_handle(key, index, link);
        self.remote_attached(link, attach, awaited.is_some());
        Ok(())
    }

    fn adopt(&mut self, session: Key, attach: &Attach, role: Role) -> Key {
        let mut link = Link::new(session, attach.name.clone(), role);
        link.coordinator = matches!(attach.target, Some(Target::Coordinator { .. }));
        link.snd_settle_mode = attach.snd_settle_mode;
        link.rcv_settle_mode = attach.rcv_settle_mode;
        let link = self.links.insert(link);
        if let Some(session) = self.sessions.fetch_mut(session) {
            session.links.push(link);
        }
        link
    }

    fn map_handle(&mut self, session: Key, index: usize, link: Key) {
        let Some(session) = self.sessions.fetch_mut(session) else {
            return;
        };
        if session.remote_handles.len() <= index {
            session.remote_handles.resize(index + 1, None);
        }
        session.remote_handles[index] = Some(link);
    }

    fn remote_attached(&mut self, key: Key, attach: Attach, answer: bool) {
        let Some(link) = self.links.fetch_mut(key) else {
            return;
        };
        link.remote = End::Attached;
        link.remote_handle = Some(attach.handle);
        match link.role {
            Role::Receiver => {
                link.delivery_count = attach.initial_delivery_count.unwrap_or(0);
                link.limit = link.delivery_count.wrapping_add(link.credit);
            }
            Role::Sender => link.max_message_size = attach.max_message_size,
        }
        if link.local == End::Detached {
            return; // The owner has given the link up; the answer to our Detach comes next.
        }
        let (session, role) = (SessionId(link.session), link.role);
        let attach = Box::new(RemoteAttach {
            name: attach.name,
            role,
            source: attach.source,
            target: attach.target,
            snd_settle_mode: attach.snd_settle_mode,
            rcv_settle_mode: attach.rcv_settle_mode,
            initial_delivery_count: attach.initial_delivery_count,
            max_message_size: attach.max_message_size,
            offered_capabilities: attach.offered_capabilities,
            desired_capabilities: attach.desired_capabilities,
            properties: attach.properties,
            has_unsettled: attach.has_unsettled,
        });
        let link = LinkId(key);
        self.events.push_back(if answer {
            Event::LinkAttached { link, attach }
        } else {
            Event::LinkRequested {
                link,
                session,
                attach,
            }
        });
    }

    /// A second attach of a name takes the link over from the first.
    fn steal(&mut self, key: Key) {
        let error = AmqpError::new(condition::LINK_STOLEN, "the link was attached again");
        self.fail_link(key, error);
    }

    /// Takes a link the peer asked for.
    ///
    /// # Errors
    /// `UnknownLink`, `NotAttached` if it was answered or has ended, `TooManyLinks`, `FrameTooLarge`.
    pub fn accept_link(&mut self, link: LinkId, accept: AcceptOptions) -> Command {
        self.require_open()?;
        let limit = self.message_limit(accept.max_message_size);
        let held = self.requested(link)?;
        if held.role == Role::Receiver {
            held.max_message_size = limit;
        }
        held.snd_settle_mode = accept.snd_settle_mode.unwrap_or(held.snd_settle_mode);
        held.rcv_settle_mode = accept.rcv_settle_mode.unwrap_or(held.rcv_settle_mode);
        let options = AttachOptions {
            name: held.name.clone(),
            source: accept.source,
            target: accept.target,
            snd_settle_mode: held.snd_settle_mode,
            rcv_settle_mode: held.rcv_settle_mode,
            offered_capabilities: accept.offered_capabilities,
            desired_capabilities: accept.desired_capabilities,
            properties: accept.properties,
            max_message_size: 0,
        };
        self.write_attach(link.0, options)?;
        if let Some(held) = self
            .links
            .fetch(link.0)
            .filter(|l| l.role == Role::Sender && l.credit > 0)
        {
            let (credit, drain) = (held.credit, held.drain);
            self.events.push_back(Event::Credit { link, credit, drain });
        }
        Ok(())
    }

    fn requested(&mut self, link: LinkId) -> Command<&mut Link> {
        let held = self.links.fetch_mut(link.0).ok_or(CommandError::UnknownLink)?;
        let waits = held.local == End::Unattached && held.remote == End::Attached && !held.announced;
        if waits {
            Ok(held)
        } else {
            Err(CommandError::NotAttached)
        }
    }

    /// Turns a link down: an attach without the terminus the peer wanted, then a closing detach with the
    /// reason. Nothing more is heard of the link.
    ///
    /// # Errors
    /// `UnknownLink`, or `NotAttached` if it was answered or has ended.
    pub fn refuse_link(&mut self, link: LinkId, error: AmqpError) -> Command {
        self.require_open()?;
        self.requested(link)?.announced = true;
        self.write_refusal(link.0, Some(error));
        Ok(())
    }

    fn write_refusal(&mut self, key: Key, error: Option<AmqpError>) {
        let Some(link) = self.links.fetch_mut(key) else {
            return;
        };
        let options = AttachOptions {
            name: link.name.clone(),
            snd_settle_mode: link.snd_settle_mode,
            rcv_settle_mode: link.rcv_settle_mode,
            ..AttachOptions::default()
        };
        match self.write_attach(key, options) {
            Ok(()) => self.write_detach(key, true, error),
            // Without a handle there is no way to answer on the link.
            Err(_) => {
                let Some(session) = self.links.fetch(key).map(|link| link.session) else {
                    return;
                };
                let error = error.unwrap_or_else(|| {
                    AmqpError::new(condition::RESOURCE_LIMIT_EXCEEDED, "no handle is free")
                });
                self.fail_session(session, error);
            }
        }
    }

    /// Detaches a link: closes it if `closed`, or leaves its termini to their expiry policy. Also the answer
    /// to `LinkDetached { by_peer: true, .. }`; otherwise `LinkDetached` follows.
    ///
    /// # Errors
    /// `UnknownLink` if it has ended, or `NotAttached` if it was detached before.
    pub fn detach(&mut self, link: LinkId, closed: bool, error: Option<AmqpError>) -> Command {
        self.require_open()?;
        let held = self.links.fetch(link.0).ok_or(CommandError::UnknownLink)?;
        self.sessions
            .fetch(held.session)
            .filter(|s| s.local == End::Attached)
            .ok_or(CommandError::UnknownLink)?;
        match held.local {
            End::Detached => return Err(CommandError::NotAttached),
            End::Unattached => self.write_refusal(link.0, error),
            End::Attached => self.write_detach(link.0, closed, error),
        }
        Ok(())
    }

    /// Writes Detach, and forgets the link if the peer's came first.
    fn write_detach(&mut self, key: Key, closed: bool, error: Option<AmqpError>) {
        let Some(session) = self.links.fetch(key).map(|link| link.session) else {
            return;
        };
        self.flush_session(session);
        let Some(link) = self.links.fetch_mut(key) else {
            return;
        };
        link.local = End::Detached;
        let handle = link.local_handle;
        let over = link.remote == End::Detached;
        if let Some(session) = self.sessions.fetch_mut(session) {
            session.pending.take_if(|pending| pending.link == key);
            self.output.frame(
                session.channel,
                &Performative::Detach(Detach {
                    handle,
                    closed,
                    error,
                }),
            );
        }
        if over {
            self.forget_link(key);
        }
        self.pump(session);
    }

    pub(super) fn fail_link(&mut self, key: Key, error: AmqpError) {
        let Some(local) = self.links.fetch(key).map(|link| link.local) else {
            return;
        };
        let unsettled = self.take_unsettled(key);
        self.announce_link_end(key, true, Some(error.clone()), false, unsettled);
        match local {
            End::Attached => self.write_detach(key, true, Some(error)),
            End::Unattached => self.write_refusal(key, Some(error)),
            End::Detached => {}
        }
    }

    pub(super) fn on_detach(&mut self, session: Key, detach: Detach) -> Result<(), Fault> {
        let key = self.link_by_handle(session, detach.handle)?;
        let Some(link) = self.links.fetch_mut(key) else {
            return Ok(());
        };
        link.remote = End::Detached;
        let by_peer = link.local != End::Detached;
        if let Some(session) = self.sessions.fetch_mut(session) {
            session.remote_handles[detach.handle as usize] = None;
        }
        let unsettled = self.take_unsettled(key);
        self.announce_link_end(key, detach.closed, detach.error, by_peer, unsettled);
        if !by_peer {
            self.forget_link(key);
        }
        Ok(())
    }

    pub(super) fn link_by_handle(&self, session: Key, handle: u32) -> Result<Key, Fault> {
        let handles = self
            .sessions
            .fetch(session)
            .map(|session| &session.remote_handles);
        let link = handles.and_then(|handles| handles.get(handle as usize).copied().flatten());
        link.ok_or_else(|| {
            let text = format!("no link has handle {handle}");
            Fault::Session(session, AmqpError::new(condition::UNATTACHED_HANDLE, text))
        })
    }

    fn take_unsettled(&mut self, key: Key) -> Vec<Unsettled> {
        let Some(link) = self.links.fetch_mut(key) else {
            return Vec::new();
        };
        link.unsettled = 0;
        let Some(session) = self.sessions.fetch_mut(link.session) else {
            return Vec::new();
        };
        session.received.extract(|held| held.link == key);
        let sent = session.sent.extract(|held| held.link == key).into_iter();
        sent.map(|(id, sent)| Unsettled {
            delivery: DeliveryId(id),
            context: sent.context,
        })
        .collect()
    }

    pub(super) fn announce_link_end(
        &mut self,
        key: Key,
        closed: bool,
        error: Option<AmqpError>,
        by_peer: bool,
        unsettled: Vec<Unsettled>,
    ) {
        let Some(link) = self.links.fetch_mut(key) else {
            return;
        };
        if let Some(partial) = link.partial.take() {
            self.partial -= partial.len();
        }
        if std::mem::replace(&mut link.announced, true) {
            return;
        }
        let error = error.map(Box::new);
        self.events.push_back(Event::LinkDetached {
            link: LinkId(key),
            closed,
            error,
            by_peer,
            unsettled,
        });
    }

    fn forget_link(&mut self, key: Key) {
        let Some(link) = self.links.remove(key) else {
            return;
        };
        let Some(session) = self.sessions.fetch_mut(link.session) else {
            return;
        };
        if let Some(place) = session.links.iter().position(|held| *held == key) {
            session.links.swap_remove(place);
        }
        if let Some(slot) = session.local_handles.get_mut(link.local_handle as usize)
            && *slot == Some(key)
        {
            *slot = None;
        }
    }

    /// Deliveries of a link not yet settled; 0 if it has gone.
    #[must_use]
    pub fn unsettled(&self, link: LinkId) -> u32 {
        self.links.fetch(link.0).map_or(0, |link| link.unsettled)
    }

    /// Our role on a link.
    #[must_use]
    pub fn role(&self, link: LinkId) -> Option<Role> {
        self.links.fetch(link.0).map(|link| link.role)
    }

    /// The name of a link.
    #[must_use]
    pub fn link_name(&self, link: LinkId) -> Option<&str> {
        self.links.fetch(link.0).map(|link| link.name.as_str())
    }

    /// The session of a link.
    #[must_use]
    pub fn session_of(&self, link: LinkId) -> Option<SessionId> {
        self.links.fetch(link.0).map(|link| SessionId(link.session))
    }

    /// How deliveries of a link are settled: as agreed so far.
    #[must_use]
    pub fn settle_modes(&self, link: LinkId) -> Option<(SndSettleMode, RcvSettleMode)> {
        self.links
            .fetch(link.0)
            .map(|link| (link.snd_settle_mode, link.rcv_settle_mode))
    }
}
