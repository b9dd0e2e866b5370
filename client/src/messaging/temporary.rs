//! Temporary destinations as programs hold them.

use std::sync::Arc;

use super::connection::SessionHandle;
use super::destination::{Destination, Kind, Made};
use super::driver::{Command, OpenTemporary};
use super::error::OpenError;

/// A temporary queue or topic: for answers, for example. It is deleted with the last clone of this handle, with its
/// session and with the connection.
///
/// After a failover it is made anew, empty, before anything that uses it; its address may then be another one, but
/// the destination and everything made from it stay valid.
#[derive(Clone)]
pub struct Temporary {
    held: Arc<Handle>,
}

struct Handle {
    session: Arc<SessionHandle>,
    key: u64,
    destination: Destination,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.session.line.leave(Command::CloseTemporary { key: self.key });
    }
}

impl Temporary {
    pub(super) async fn open(session: Arc<SessionHandle>, kind: Kind) -> Result<Self, OpenError> {
        let line = session.line.clone();
        let made = Arc::new(Made::default());
        let held = Arc::new(Handle {
            key: line.next_key(),
            destination: Destination::made(kind, Arc::clone(&made)),
            session,
        });
        let (key, session) = (held.key, held.session.key);
        let open = |reply| {
            Command::OpenTemporary(OpenTemporary {
                key,
                session,
                kind,
                made,
                reply,
            })
        };
        line.ask(open).await??;
        Ok(Self { held })
    }

    /// Where messages go: for consumers of this connection, and for `Message::reply_to`.
    #[must_use]
    pub fn destination(&self) -> &Destination {
        &self.held.destination
    }
}
