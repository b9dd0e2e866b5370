//! How the RESP door spells requests. Both directions, so that client and server cannot disagree: `read` takes
//! commands apart, `spell` makes them.

mod read;
mod spell;
#[cfg(test)]
mod tests;

use crate::Request;

/// Verbs and their arguments, as `HELP` shows them.
pub(crate) const USAGE: &[(&str, &str)] = &[
    ("LOOKUP", "name [MINREV revision] [WAIT ms] [STRONG]"),
    ("LOOKUPLINK", "name [MINREV revision] [WAIT ms] [STRONG]"),
    ("LIST", "[name] [MINREV revision] [STRONG]"),
    ("LISTBINDINGS", "[name] [MINREV revision] [STRONG]"),
    ("BIND", "name object [ATTRS attributes] [OP id]"),
    (
        "REBIND",
        "name object [ATTRS attributes] [IFREV revision] [OP id]",
    ),
    ("UNBIND", "name [IFREV revision] [OP id]"),
    ("CREATESUBCONTEXT", "name [ATTRS attributes] [OP id]"),
    ("DESTROYSUBCONTEXT", "name [OP id]"),
    ("RENAME", "name target [IFREV revision] [OP id]"),
    ("ATTRIBUTES", "name [IDS id,id...] [MINREV revision] [STRONG]"),
    ("MODIFY", "name modifications [IFREV revision] [OP id]"),
    (
        "SEARCH",
        "name filter [SCOPE object|one-level|subtree] [LIMIT count] [TIME ms] [IDS id,id...] [MINREV revision] [STRONG]",
    ),
    ("TRANSACT", "writes [OP id]"),
    ("WATCH", "name [SCOPE object|one-level|subtree] [FROM revision]"),
    ("GROUP LIST", ""),
    ("GROUP SHOW", "group"),
    ("GROUP JOIN", "group member description [OP id]"),
    ("GROUP LEAVE", "group member lease [OP id]"),
    (
        "GROUP CLAIM",
        "group member store-epoch none|store-lock|operator [OP id]",
    ),
    ("GROUP PUBLISH", "group member epoch exports [OP id]"),
    (
        "GROUP WITHDRAW",
        "group epoch planned|handover|failed [ETA ms] [OP id]",
    ),
    ("GROUP RECORD", "group member epoch report [OP id]"),
    ("GROUP TIMELINE", "group"),
    ("LEASE RENEW", "group member lease"),
    ("STATUS", ""),
];

impl Request {
    /// Every verb with its arguments, for help texts.
    #[must_use]
    pub const fn usage() -> &'static [(&'static str, &'static str)] {
        USAGE
    }
}
