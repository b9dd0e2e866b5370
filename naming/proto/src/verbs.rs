//! How the RESP door spells requests. Both directions, so that client and server cannot disagree.

use std::borrow::Cow;
use std::str::FromStr;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{
    Attributes, Epoch, Evidence, GroupName, LeaseId, MemberName, Name, NamingError, Object, OpId,
    ReadOptions, Request, Revision, Scope, Search, WithdrawReason, Write, WriteRequest,
};

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

    /// Reads a request from the arguments of a RESP command. `new_op` makes the operation id of a write
    /// that brings none.
    ///
    /// # Errors
    /// `InvalidName`, `InvalidRequest` or, for a verb that does not exist, `NotSupported`.
    pub fn from_arguments<A: AsRef<[u8]>>(
        arguments: &[A],
        new_op: impl FnOnce() -> OpId,
    ) -> Result<Self, NamingError> {
        let mut words = Words {
            arguments: arguments.iter().map(AsRef::as_ref).collect(),
            next: 0,
        };
        let verb = words.keyword("verb")?;
        let request = match verb.as_str() {
            "LOOKUP" => Self::Lookup {
                name: words.name()?,
                options: words.read_options()?,
            },
            "LOOKUPLINK" => Self::LookupLink {
                name: words.name()?,
                options: words.read_options()?,
            },
            "LIST" => Self::List {
                name: words.name_or_root()?,
                options: words.read_options()?,
            },
            "LISTBINDINGS" => Self::ListBindings {
                name: words.name_or_root()?,
                options: words.read_options()?,
            },
            "STATUS" => Self::Status,
            "WATCH" => words.watch()?,
            "GROUP" => words.group(new_op)?,
            "LEASE" => words.lease()?,
            "ATTRIBUTES" => words.attributes()?,
            "SEARCH" => words.search()?,
            "TRANSACT" => {
                let writes = words.json("writes")?;
                words.finish(Write::Transact { writes }, new_op)?
            }
            "BIND" | "REBIND" | "UNBIND" | "CREATESUBCONTEXT" | "DESTROYSUBCONTEXT" | "RENAME" | "MODIFY" => {
                words.naming_write(&verb, new_op)?
            }
            _ => {
                return Err(NamingError::NotSupported {
                    what: format!("verb {verb}; HELP lists the verbs"),
                });
            }
        };
        words.end()?;
        Ok(request)
    }

    /// The arguments of the RESP command that asks this.
    ///
    /// # Panics
    /// Never for values made by this crate: their JSON forms always exist.
    #[must_use]
    pub fn to_arguments(&self) -> Vec<Cow<'_, str>> {
        match self {
            Self::Lookup { name, options } => read("LOOKUP", name, options),
            Self::LookupLink { name, options } => read("LOOKUPLINK", name, options),
            Self::List { name, options } => read("LIST", name, options),
            Self::ListBindings { name, options } => read("LISTBINDINGS", name, options),
            Self::Groups => vec!["GROUP".into(), "LIST".into()],
            Self::Group { group } => vec!["GROUP".into(), "SHOW".into(), group.as_str().into()],
            Self::Status => vec!["STATUS".into()],
            Self::Renew { group, member, lease } => vec![
                "LEASE".into(),
                "RENEW".into(),
                group.as_str().into(),
                member.as_str().into(),
                lease.to_string().into(),
            ],
            Self::Watch { name, scope, from } => {
                let mut words = vec![
                    "WATCH".into(),
                    name.as_str().into(),
                    "SCOPE".into(),
                    scope.as_str().into(),
                ];
                option("FROM", *from, &mut words);
                words
            }
            Self::Write(request) => write(request),
            Self::Attributes { name, ids, options } => {
                let mut words = vec!["ATTRIBUTES".into(), name.as_str().into()];
                option("IDS", ids.as_ref().map(|ids| ids.join(",")), &mut words);
                read_options(options, &mut words);
                words
            }
            Self::Search {
                name,
                search,
                options,
            } => search_words(name, search, options),
            Self::Timeline { group } => vec!["GROUP".into(), "TIMELINE".into(), group.as_str().into()],
        }
    }
}

fn search_words<'a>(name: &'a Name, search: &Search, options: &ReadOptions) -> Vec<Cow<'a, str>> {
    let mut words = vec![
        "SEARCH".into(),
        name.as_str().into(),
        search.filter.to_string().into(),
        "SCOPE".into(),
        search.scope.as_str().into(),
    ];
    option("LIMIT", search.size_limit, &mut words);
    option("TIME", search.time_limit_ms, &mut words);
    option("IDS", search.ids.as_ref().map(|ids| ids.join(",")), &mut words);
    read_options(options, &mut words);
    words
}

fn read<'a>(verb: &'static str, name: &'a Name, options: &ReadOptions) -> Vec<Cow<'a, str>> {
    let mut words = vec![verb.into(), name.as_str().into()];
    read_options(options, &mut words);
    words
}

fn read_options(options: &ReadOptions, words: &mut Vec<Cow<'_, str>>) {
    option("MINREV", options.min_revision, words);
    option("WAIT", options.wait_ms, words);
    if options.strong {
        words.push("STRONG".into());
    }
}

fn option<T: ToString>(keyword: &'static str, value: Option<T>, words: &mut Vec<Cow<'_, str>>) {
    if let Some(value) = value {
        words.push(keyword.into());
        words.push(value.to_string().into());
    }
}

fn json<T: Serialize>(value: &T) -> Cow<'static, str> {
    // Our own types have string keys and no failing parts.
    serde_json::to_string(value).unwrap_or_default().into()
}

fn attributes(attributes: &Attributes, words: &mut Vec<Cow<'_, str>>) {
    words.push("ATTRS".into());
    words.push(json(attributes));
}

fn write(request: &WriteRequest) -> Vec<Cow<'_, str>> {
    let mut words: Vec<Cow<'_, str>> = Vec::with_capacity(10);
    match &request.write {
        Write::Bind {
            name,
            object,
            attributes: given,
        } => {
            words.extend(["BIND".into(), name.as_str().into(), json(object)]);
            attributes(given, &mut words);
        }
        Write::Rebind {
            name,
            object,
            attributes: given,
            expected,
        } => {
            words.extend(["REBIND".into(), name.as_str().into(), json(object)]);
            if let Some(given) = given {
                attributes(given, &mut words);
            }
            option("IFREV", *expected, &mut words);
        }
        Write::Unbind { name, expected } => {
            words.extend(["UNBIND".into(), name.as_str().into()]);
            option("IFREV", *expected, &mut words);
        }
        Write::CreateSubcontext {
            name,
            attributes: given,
        } => {
            words.extend(["CREATESUBCONTEXT".into(), name.as_str().into()]);
            attributes(given, &mut words);
        }
        Write::DestroySubcontext { name } => {
            words.extend(["DESTROYSUBCONTEXT".into(), name.as_str().into()]);
        }
        Write::Rename {
            name,
            target,
            expected,
        } => {
            words.extend(["RENAME".into(), name.as_str().into(), target.as_str().into()]);
            option("IFREV", *expected, &mut words);
        }
        Write::ModifyAttributes {
            name,
            modifications,
            expected,
        } => {
            words.extend(["MODIFY".into(), name.as_str().into(), json(modifications)]);
            option("IFREV", *expected, &mut words);
        }
        Write::Transact { writes } => words.extend(["TRANSACT".into(), json(writes)]),
        Write::Join { .. }
        | Write::Leave { .. }
        | Write::Claim { .. }
        | Write::Publish { .. }
        | Write::Withdraw { .. }
        | Write::EndLease { .. }
        | Write::RecordFailover { .. } => group_write(&request.write, &mut words),
    }
    words.push("OP".into());
    words.push(request.op.to_string().into());
    words
}

fn group_write<'a>(write: &'a Write, words: &mut Vec<Cow<'a, str>>) {
    let mut say = |verb: &'static str, group: &'a GroupName, rest: Vec<Cow<'a, str>>| {
        words.extend(["GROUP".into(), verb.into(), group.as_str().into()]);
        words.extend(rest);
    };
    match write {
        Write::Join { group, member, join } => say("JOIN", group, vec![member.as_str().into(), json(join)]),
        Write::Leave { group, member, lease } => {
            say(
                "LEAVE",
                group,
                vec![member.as_str().into(), lease.to_string().into()],
            );
        }
        Write::Claim {
            group,
            member,
            store_epoch,
            evidence,
        } => {
            let epoch = store_epoch.to_string().into();
            say(
                "CLAIM",
                group,
                vec![member.as_str().into(), epoch, evidence.as_str().into()],
            );
        }
        Write::Publish {
            group,
            member,
            epoch,
            exports,
        } => {
            say(
                "PUBLISH",
                group,
                vec![member.as_str().into(), epoch.to_string().into(), json(exports)],
            );
        }
        Write::Withdraw {
            group,
            epoch,
            reason,
            eta_ms,
        } => {
            say(
                "WITHDRAW",
                group,
                vec![epoch.to_string().into(), reason.as_str().into()],
            );
            option("ETA", *eta_ms, words);
        }
        // Only a server says this, into its own log: no door knows the verb.
        Write::EndLease { group, member, lease } => {
            say(
                "ENDLEASE",
                group,
                vec![member.as_str().into(), lease.to_string().into()],
            );
        }
        Write::RecordFailover {
            group,
            member,
            epoch,
            report,
        } => {
            say(
                "RECORD",
                group,
                vec![member.as_str().into(), epoch.to_string().into(), json(report)],
            );
        }
        Write::Bind { .. }
        | Write::Rebind { .. }
        | Write::Unbind { .. }
        | Write::CreateSubcontext { .. }
        | Write::DestroySubcontext { .. }
        | Write::Rename { .. }
        | Write::ModifyAttributes { .. }
        | Write::Transact { .. } => {}
    }
}

/// The arguments not yet read.
struct Words<'a> {
    arguments: Vec<&'a [u8]>,
    next: usize,
}

impl<'a> Words<'a> {
    fn take(&mut self, what: &str) -> Result<&'a str, NamingError> {
        let word = self
            .arguments
            .get(self.next)
            .ok_or_else(|| NamingError::invalid(format!("{what} is missing")))?;
        self.next += 1;
        std::str::from_utf8(word).map_err(|_| NamingError::invalid(format!("{what} is not UTF-8")))
    }

    fn keyword(&mut self, what: &str) -> Result<String, NamingError> {
        let word = self.take(what)?;
        if word.len() > 64 {
            return Err(NamingError::invalid(format!("{what} of {} bytes", word.len())));
        }
        Ok(word.to_ascii_uppercase())
    }

    fn end(&self) -> Result<(), NamingError> {
        match self.arguments.get(self.next) {
            Some(word) => {
                let word = String::from_utf8_lossy(&word[..word.len().min(64)]);
                Err(NamingError::invalid(format!("unexpected argument {word:?}")))
            }
            None => Ok(()),
        }
    }

    fn name(&mut self) -> Result<Name, NamingError> {
        Ok(self.take("name")?.parse()?)
    }

    fn name_or_root(&mut self) -> Result<Name, NamingError> {
        if self.next == self.arguments.len() {
            Ok(Name::root())
        } else {
            self.name()
        }
    }

    fn parse<T: FromStr>(&mut self, what: &str) -> Result<T, NamingError>
    where
        T::Err: std::fmt::Display,
    {
        let word = self.take(what)?;
        word.parse()
            .map_err(|error| NamingError::invalid(format!("{what} {word:?}: {error}")))
    }

    fn json<T: DeserializeOwned>(&mut self, what: &str) -> Result<T, NamingError> {
        let word = self.take(what)?;
        serde_json::from_str(word).map_err(|error| NamingError::invalid(format!("{what}: {error}")))
    }

    fn read_options(&mut self) -> Result<ReadOptions, NamingError> {
        let mut options = ReadOptions::default();
        while self.next < self.arguments.len() {
            let keyword = self.keyword("option")?;
            self.read_option(&keyword, &mut options)?;
        }
        Ok(options)
    }

    fn read_option(&mut self, keyword: &str, options: &mut ReadOptions) -> Result<(), NamingError> {
        match keyword {
            "MINREV" => options.min_revision = Some(self.parse("MINREV")?),
            "WAIT" => options.wait_ms = Some(self.parse("WAIT")?),
            "STRONG" => options.strong = true,
            other => return Err(NamingError::invalid(format!("unknown option {other:?}"))),
        }
        Ok(())
    }

    /// Attribute ids with commas between them; an empty word is none.
    fn ids(&mut self) -> Result<Vec<String>, NamingError> {
        let ids = self.take("IDS")?.split(',').filter(|id| !id.is_empty());
        Ok(ids.map(str::to_owned).collect())
    }

    fn attributes(&mut self) -> Result<Request, NamingError> {
        let name = self.name_or_root()?;
        let (mut ids, mut options) = (None, ReadOptions::default());
        while self.next < self.arguments.len() {
            match self.keyword("option")?.as_str() {
                "IDS" => ids = Some(self.ids()?),
                other => self.read_option(other, &mut options)?,
            }
        }
        Ok(Request::Attributes { name, ids, options })
    }

    fn search(&mut self) -> Result<Request, NamingError> {
        let name = self.name()?;
        let mut search = Search::new(Scope::default(), self.take("filter")?.parse()?);
        let mut options = ReadOptions::default();
        while self.next < self.arguments.len() {
            match self.keyword("option")?.as_str() {
                "SCOPE" => search.scope = scope_of(self.take("SCOPE")?)?,
                "LIMIT" => search.size_limit = Some(self.parse("LIMIT")?),
                "TIME" => search.time_limit_ms = Some(self.parse("TIME")?),
                "IDS" => search.ids = Some(self.ids()?),
                other => self.read_option(other, &mut options)?,
            }
        }
        Ok(Request::Search {
            name,
            search,
            options,
        })
    }

    fn watch(&mut self) -> Result<Request, NamingError> {
        let name = self.name()?;
        let (mut scope, mut from) = (Scope::default(), None);
        while self.next < self.arguments.len() {
            match self.keyword("option")?.as_str() {
                "SCOPE" => scope = scope_of(self.take("SCOPE")?)?,
                "FROM" => from = Some(self.parse::<Revision>("FROM")?),
                other => return Err(NamingError::invalid(format!("unknown option {other:?}"))),
            }
        }
        Ok(Request::Watch { name, scope, from })
    }

    fn lease(&mut self) -> Result<Request, NamingError> {
        match self.keyword("lease verb")?.as_str() {
            "RENEW" => Ok(Request::Renew {
                group: self.parse("group")?,
                member: self.parse("member")?,
                lease: self.parse("lease")?,
            }),
            other => Err(NamingError::NotSupported {
                what: format!("verb LEASE {other}; HELP lists the verbs"),
            }),
        }
    }

    fn group(&mut self, new_op: impl FnOnce() -> OpId) -> Result<Request, NamingError> {
        let verb = self.keyword("group verb")?;
        if verb == "LIST" {
            return Ok(Request::Groups);
        }
        let group: GroupName = self.parse("group")?;
        let write = match verb.as_str() {
            "SHOW" => return Ok(Request::Group { group }),
            "TIMELINE" => return Ok(Request::Timeline { group }),
            "RECORD" => Write::RecordFailover {
                group,
                member: self.parse("member")?,
                epoch: self.parse("epoch")?,
                report: self.json("report")?,
            },
            "JOIN" => Write::Join {
                group,
                member: self.parse("member")?,
                join: self.json("description")?,
            },
            "LEAVE" => Write::Leave {
                group,
                member: self.parse("member")?,
                lease: self.parse::<LeaseId>("lease")?,
            },
            "CLAIM" => Write::Claim {
                group,
                member: self.parse::<MemberName>("member")?,
                store_epoch: self.parse("store-epoch")?,
                evidence: evidence_of(self.take("evidence")?)?,
            },
            "PUBLISH" => Write::Publish {
                group,
                member: self.parse("member")?,
                epoch: self.parse::<Epoch>("epoch")?,
                exports: self.json("exports")?,
            },
            "WITHDRAW" => Write::Withdraw {
                group,
                epoch: self.parse("epoch")?,
                reason: reason_of(self.take("reason")?)?,
                eta_ms: None,
            },
            other => {
                return Err(NamingError::NotSupported {
                    what: format!("verb GROUP {other}; HELP lists the verbs"),
                });
            }
        };
        self.finish(write, new_op)
    }

    fn naming_write(&mut self, verb: &str, new_op: impl FnOnce() -> OpId) -> Result<Request, NamingError> {
        let name = self.name()?;
        let write = match verb {
            "BIND" => Write::Bind {
                name,
                object: self.object()?,
                attributes: Attributes::new(),
            },
            "REBIND" => Write::Rebind {
                name,
                object: self.object()?,
                attributes: None,
                expected: None,
            },
            "UNBIND" => Write::Unbind { name, expected: None },
            "RENAME" => Write::Rename {
                name,
                target: self.name()?,
                expected: None,
            },
            "MODIFY" => Write::ModifyAttributes {
                name,
                modifications: self.json("modifications")?,
                expected: None,
            },
            "CREATESUBCONTEXT" => Write::CreateSubcontext {
                name,
                attributes: Attributes::new(),
            },
            _ => Write::DestroySubcontext { name },
        };
        self.finish(write, new_op)
    }

    fn object(&mut self) -> Result<Object, NamingError> {
        Ok(Object::from_json(self.take("object")?.as_bytes())?)
    }

    /// Reads the options of a write, each only where the verb has it.
    fn finish(&mut self, mut write: Write, new_op: impl FnOnce() -> OpId) -> Result<Request, NamingError> {
        let mut op = None;
        while self.next < self.arguments.len() {
            let keyword = self.keyword("option")?;
            match (keyword.as_str(), &mut write) {
                ("OP", _) => op = Some(self.parse("OP")?),
                ("ATTRS", Write::Bind { attributes, .. } | Write::CreateSubcontext { attributes, .. }) => {
                    *attributes = self.json("ATTRS")?;
                }
                ("ATTRS", Write::Rebind { attributes, .. }) => *attributes = Some(self.json("ATTRS")?),
                (
                    "IFREV",
                    Write::Rebind { expected, .. }
                    | Write::Unbind { expected, .. }
                    | Write::Rename { expected, .. }
                    | Write::ModifyAttributes { expected, .. },
                ) => {
                    *expected = Some(self.parse("IFREV")?);
                }
                ("ETA", Write::Withdraw { eta_ms, .. }) => *eta_ms = Some(self.parse("ETA")?),
                (other, _) => return Err(NamingError::invalid(format!("unknown option {other:?}"))),
            }
        }
        Ok(Request::Write(WriteRequest {
            op: op.unwrap_or_else(new_op),
            write,
        }))
    }
}

fn scope_of(word: &str) -> Result<Scope, NamingError> {
    [Scope::Object, Scope::OneLevel, Scope::Subtree]
        .into_iter()
        .find(|scope| word.eq_ignore_ascii_case(scope.as_str()))
        .ok_or_else(|| NamingError::invalid(format!("scope {word:?}: object, one-level or subtree")))
}

fn evidence_of(word: &str) -> Result<Evidence, NamingError> {
    [Evidence::None, Evidence::StoreLock, Evidence::Operator]
        .into_iter()
        .find(|evidence| word.eq_ignore_ascii_case(evidence.as_str()))
        .ok_or_else(|| NamingError::invalid(format!("evidence {word:?}: none, store-lock or operator")))
}

fn reason_of(word: &str) -> Result<WithdrawReason, NamingError> {
    [
        WithdrawReason::Planned,
        WithdrawReason::Handover,
        WithdrawReason::Failed,
    ]
    .into_iter()
    .find(|reason| word.eq_ignore_ascii_case(reason.as_str()))
    .ok_or_else(|| NamingError::invalid(format!("reason {word:?}: planned, handover or failed")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Endpoint, Export, FailoverKind, FailoverReport, FailoverStep, JoinRequest, Modification,
        ModificationOp, Role, TransactWrite,
    };

    fn name(text: &str) -> Name {
        text.parse().expect("a name")
    }

    fn writes() -> Vec<Write> {
        let group: GroupName = "orders".parse().expect("a label");
        let member: MemberName = "kkam".parse().expect("a label");
        let object = Object::Queue {
            address: "q \"1\"".into(),
        };
        let attributes: Attributes = [("Region".to_owned(), vec!["eu".to_owned()])]
            .into_iter()
            .collect();
        vec![
            Write::Bind {
                name: name("a/b"),
                object: object.clone(),
                attributes: attributes.clone(),
            },
            Write::Rebind {
                name: name("a"),
                object: object.clone(),
                attributes: Some(attributes),
                expected: Some(Revision(0)),
            },
            Write::Rebind {
                name: name("a"),
                object: object.clone(),
                attributes: None,
                expected: None,
            },
            Write::Unbind {
                name: name("a"),
                expected: Some(Revision(7)),
            },
            Write::CreateSubcontext {
                name: name("c"),
                attributes: Attributes::new(),
            },
            Write::DestroySubcontext { name: name("c") },
            Write::Join {
                group: group.clone(),
                member: member.clone(),
                join: JoinRequest {
                    role: Role::Primary,
                    endpoint: Endpoint {
                        host: "kkam".into(),
                        port: 9741,
                    },
                    admin: None,
                    peer: None,
                    lease_ms: 3000,
                    shadow: vec![],
                },
            },
            Write::Leave {
                group: group.clone(),
                member: member.clone(),
                lease: LeaseId(3),
            },
            Write::Claim {
                group: group.clone(),
                member: member.clone(),
                store_epoch: Epoch(2),
                evidence: Evidence::StoreLock,
            },
            Write::Publish {
                group: group.clone(),
                member,
                epoch: Epoch(3),
                exports: vec![Export {
                    name: name("q"),
                    object,
                    attributes: Attributes::new(),
                }],
            },
            Write::Withdraw {
                group,
                epoch: Epoch(3),
                reason: WithdrawReason::Planned,
                eta_ms: Some(50),
            },
        ]
    }

    /// The writes that change attributes, move names, come as one, or tell of a failover.
    fn larger_writes() -> Vec<Write> {
        let modifications = vec![Modification {
            op: ModificationOp::Add,
            id: "tier".into(),
            values: vec!["a b".into()],
        }];
        let expected = Some(Revision(3));
        vec![
            Write::Rename {
                name: name("a"),
                target: name("b/c"),
                expected,
            },
            Write::ModifyAttributes {
                name: name("a"),
                modifications: modifications.clone(),
                expected,
            },
            Write::Transact {
                writes: vec![
                    TransactWrite::CreateSubcontext {
                        name: name("a"),
                        attributes: Attributes::new(),
                    },
                    TransactWrite::Bind {
                        name: name("a/b"),
                        object: Object::Context,
                        attributes: Attributes::new(),
                    },
                    TransactWrite::Rebind {
                        name: name("a/b"),
                        object: Object::Context,
                        attributes: None,
                        expected,
                    },
                    TransactWrite::Unbind {
                        name: name("x"),
                        expected: None,
                    },
                    TransactWrite::DestroySubcontext {
                        name: name("x"),
                        expected,
                    },
                    TransactWrite::Rename {
                        name: name("x"),
                        target: name("y"),
                        expected,
                    },
                    TransactWrite::ModifyAttributes {
                        name: name("x"),
                        modifications,
                        expected,
                    },
                    TransactWrite::Check {
                        name: name("x"),
                        expected: Revision(0),
                    },
                ],
            },
            Write::RecordFailover {
                group: "orders".parse().expect("a label"),
                member: "kkam".parse().expect("a label"),
                epoch: Epoch(3),
                report: FailoverReport {
                    kind: FailoverKind::Failover,
                    began_unix_ms: 1,
                    from: None,
                    steps: vec![FailoverStep {
                        step: "suspected".parse().expect("a label"),
                        at_us: 0,
                        note: String::new(),
                        numbers: [("messages".to_owned(), 3)].into_iter().collect(),
                    }],
                },
            },
        ]
    }

    fn requests() -> Vec<Request> {
        let options = ReadOptions {
            min_revision: Some(Revision(4)),
            wait_ms: Some(10),
            strong: true,
        };
        let mut requests: Vec<Request> = writes()
            .into_iter()
            .chain(larger_writes())
            .map(|write| Request::Write(WriteRequest { op: OpId(77), write }))
            .collect();
        requests.extend([
            Request::Lookup {
                name: name("x"),
                options,
            },
            Request::LookupLink {
                name: name("x"),
                options: ReadOptions::default(),
            },
            Request::List {
                name: Name::root(),
                options: ReadOptions::default(),
            },
            Request::ListBindings {
                name: name("x"),
                options,
            },
            Request::Groups,
            Request::Group {
                group: "g".parse().expect("a label"),
            },
            Request::Status,
            Request::Renew {
                group: "g".parse().expect("a label"),
                member: "m".parse().expect("a label"),
                lease: LeaseId(9),
            },
            Request::Watch {
                name: name("x"),
                scope: Scope::Subtree,
                from: Some(Revision(1)),
            },
            Request::Attributes {
                name: name("x"),
                ids: Some(vec!["a".into(), "b".into()]),
                options,
            },
            Request::Attributes {
                name: name("x"),
                ids: Some(Vec::new()),
                options: ReadOptions::default(),
            },
            Request::Search {
                name: Name::root(),
                search: Search {
                    scope: Scope::Subtree,
                    filter: "(&(a=b c)(!(d=*)))".parse().expect("a filter"),
                    size_limit: Some(10),
                    time_limit_ms: Some(100),
                    ids: Some(vec!["a".into()]),
                },
                options,
            },
            Request::Timeline {
                group: "g".parse().expect("a label"),
            },
        ]);
        requests
    }

    #[test]
    fn every_request_reads_back_from_its_own_spelling() {
        for request in requests() {
            let words: Vec<Vec<u8>> = request
                .to_arguments()
                .iter()
                .map(|w| w.as_bytes().to_vec())
                .collect();
            assert_eq!(Request::from_arguments(&words, || OpId(1)), Ok(request));
        }
    }

    #[test]
    fn every_write_survives_its_stored_form() {
        for write in writes().into_iter().chain(larger_writes()) {
            let bytes = postcard::to_stdvec(&write).expect("bytes");
            assert_eq!(postcard::from_bytes::<Write>(&bytes), Ok(write));
        }
    }

    #[test]
    fn bad_arguments_are_named() {
        let refused = |line: &str| {
            let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            Request::from_arguments(&words, || OpId(1)).expect_err(line)
        };
        assert_eq!(refused("LOOKUP").to_string(), "invalid request: name is missing");
        assert_eq!(refused("LOOKUP x MINREV y").code(), "InvalidRequest");
        assert_eq!(
            refused("LOOKUP x FAST").to_string(),
            "invalid request: unknown option \"FAST\""
        );
        assert_eq!(refused("LOOKUP 'x").code(), "InvalidName");
        assert_eq!(refused("UNBIND x ATTRS {}").code(), "InvalidRequest");
        assert_eq!(
            refused("STATUS now").to_string(),
            "invalid request: unexpected argument \"now\""
        );
        assert_eq!(refused("GET x").code(), "NotSupported");
        assert_eq!(refused("GROUP ENDLEASE g m 1").code(), "NotSupported");
        assert_eq!(refused("BIND x {}").code(), "InvalidRequest");
        assert_eq!(refused("SEARCH x (a=1").code(), "InvalidSearchFilter");
        assert_eq!(refused("SEARCH x (a=1) DEPTH 3").code(), "InvalidRequest");
        assert_eq!(refused("MODIFY x [{}]").code(), "InvalidRequest");
        assert!(
            refused(r#"TRANSACT [{"transact":{"writes":[]}}]"#)
                .to_string()
                .contains("unknown variant `transact`")
        );
    }
}
