//! From a request to the arguments of its command.

use std::borrow::Cow;

use serde::Serialize;

use crate::{Attributes, GroupName, Name, ReadOptions, Request, Search, Write, WriteRequest};

impl Request {
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
