//! From the arguments of a command to a request. Each option is taken only where its verb has it.

use std::str::FromStr;

use serde::de::DeserializeOwned;

use crate::{
    Attributes, Epoch, Evidence, GroupName, LeaseId, MemberName, Name, NamingError, Object, OpId,
    ReadOptions, Request, Revision, Scope, Search, WithdrawReason, Write, WriteRequest,
};

impl Request {
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
