//! The verbs that ask the directory. Each asks once, shows the answer and is done; the client does the
//! retrying, and the directory the deciding.

mod groups;
mod promote;
mod read;
mod show;
mod status;
mod switchover;
mod timeline;
mod watch;
mod write;

pub(crate) use groups::groups;
pub(crate) use promote::{active_admin, admin_endpoint, promote};
pub(crate) use read::{attributes, list, lookup, raw, search};
pub(crate) use status::status;
pub(crate) use switchover::switchover;
pub(crate) use timeline::timeline;
pub(crate) use watch::watch;
pub(crate) use write::{
    bind, create_subcontext, destroy_subcontext, modify_attributes, rebind, rename, transact, unbind,
};
