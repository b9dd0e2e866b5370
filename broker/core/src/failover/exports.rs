//! The names that administrators gave to destinations and connection factories, beside those that are
//! configured: which of them a publication offers, what a refusal of naming means for them, and what an
//! administrator is told.
//!
//! A refusal never ends a term because of such a name: the change that brought it is refused, or the name is
//! left out and offered again later. What is configured is never left out.
//!
//! Invariant: a change is part of the set, or was refused and is not; it is told one answer.

use std::collections::BTreeMap;
use std::fmt;

use daymark_naming_proto::{FactorySettings, Name};

use super::{Action, Actions, Note};

/// Where a name leads that an administrator gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// To the queue at this address.
    Queue(String),
    /// To the topic at this address.
    Topic(String),
    /// To a connection factory: how clients reach the brokers of the group.
    Factory {
        /// Its own name.
        name: String,
        /// How clients connect, reconnect and give up.
        settings: Box<FactorySettings>,
    },
}

/// A name that an administrator gave to a destination or a connection factory.
#[derive(Clone, Debug, PartialEq)]
pub struct AddedExport {
    /// The name to publish.
    pub name: Name,
    /// Where it leads.
    pub to: Target,
}

/// What an administrator changes about the names, as one step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ExportChange {
    /// Published from now on, or again.
    pub add: Option<AddedExport>,
    /// Published no more. Where `add` has the same name, that counts.
    pub remove: Option<Name>,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExportAnswer {
    /// Naming has it.
    Published,
    /// Naming did not answer: the change is part of the set, which is published when naming is back.
    Waiting,
    /// Naming does not take it. The set in force is the one before.
    Refused {
        /// Naming's reason.
        why: String,
    },
    /// This broker is not active, or no longer. Nothing was changed.
    NotActive,
}

/// How it stands with a name that an administrator gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Naming did not take it in this term yet.
    Waiting,
    /// Naming has it.
    Published,
    /// Naming refused it. It is offered again every 5 s, and with the next term.
    LeftOut {
        /// Naming's reason.
        why: String,
    },
}

/// What a refusal of the set was about.
pub(super) enum Fault {
    /// The change under way, which is dropped.
    Change,
    /// Names that are left out now.
    Names,
    /// What is configured.
    Configured,
}

/// The added names of a term.
#[derive(Clone, Debug, Default)]
pub(super) struct Added {
    names: BTreeMap<Name, Entry>,
    change: Option<Change>,
}

#[derive(Clone, Debug)]
struct Entry {
    to: Target,
    standing: Standing,
    /// Whether the next publication has it.
    offered: bool,
}

#[derive(Clone, Debug)]
struct Change {
    wish: ExportChange,
    /// Whether the publication under way has it.
    offered: bool,
}

impl Entry {
    const fn new(to: Target) -> Self {
        Self {
            to,
            standing: Standing::Waiting,
            offered: true,
        }
    }
}

impl Added {
    /// The names that a recovered store tells of.
    pub(super) fn recovered(exports: Vec<AddedExport>) -> Self {
        let entry = |export: AddedExport| (export.name, Entry::new(export.to));
        Self {
            names: exports.into_iter().map(entry).collect(),
            change: None,
        }
    }

    /// Takes up a change. There is one at a time.
    pub(super) fn begin(&mut self, wish: ExportChange) {
        assert!(self.change.is_none(), "a change before the last one was answered");
        self.change = Some(Change { wish, offered: false });
    }

    /// Whether a change waits for the next publication.
    fn is_due(&self) -> bool {
        self.change.as_ref().is_some_and(|change| !change.offered)
    }

    /// What the publication that begins now has beside the configured names.
    pub(super) fn offer(&mut self) -> Vec<AddedExport> {
        let offered = self.names.iter().filter(|(_, entry)| entry.offered);
        let mut offered: BTreeMap<&Name, &Target> = offered.map(|(name, entry)| (name, &entry.to)).collect();
        if let Some(Change { wish, offered: seen }) = &mut self.change {
            *seen = true;
            if let Some(name) = &wish.remove {
                offered.remove(name);
            }
            if let Some(add) = &wish.add {
                offered.insert(&add.name, &add.to);
            }
        }
        let export = |(name, to): (&Name, &Target)| AddedExport {
            name: name.clone(),
            to: to.clone(),
        };
        offered.into_iter().map(export).collect()
    }

    /// The next publication has every name again.
    pub(super) fn offer_all(&mut self) {
        for entry in self.names.values_mut() {
            entry.offered = true;
        }
    }

    /// Whether some name is left out.
    pub(super) fn is_partial(&self) -> bool {
        self.names.values().any(|entry| !entry.offered)
    }

    /// Naming took what was offered.
    pub(super) fn published(&mut self, out: &mut Actions) {
        if !self.is_due() {
            self.settle(ExportAnswer::Published, out);
        }
        for entry in self.names.values_mut().filter(|entry| entry.offered) {
            entry.standing = Standing::Published;
        }
    }

    /// Naming does not answer: the change is part of what is published when it does.
    pub(super) fn unanswered(&mut self, out: &mut Actions) {
        self.settle(ExportAnswer::Waiting, out);
    }

    fn settle(&mut self, answer: ExportAnswer, out: &mut Actions) {
        let Some(Change { wish, .. }) = self.change.take() else {
            return;
        };
        if let Some(name) = wish.remove {
            self.names.remove(&name);
        }
        if let Some(add) = wish.add {
            self.names.insert(add.name, Entry::new(add.to));
        }
        out.push(Action::AnswerExport(answer));
    }

    /// Naming refused what was offered, because of this name where it told one.
    pub(super) fn refused(&mut self, name: Option<&Name>, why: &str, out: &mut Actions) -> Fault {
        let is_it = |known: &Name| name.is_none_or(|name| name == known);
        let brought = self.change.as_ref().filter(|change| change.offered);
        let brought = brought.and_then(|change| change.wish.add.as_ref());
        if brought.is_some_and(|add| is_it(&add.name)) {
            self.change = None;
            let why = why.to_owned();
            out.push(Action::AnswerExport(ExportAnswer::Refused { why }));
            return Fault::Change;
        }
        let at_fault = self.names.iter_mut();
        let at_fault = at_fault.filter(|(known, entry)| entry.offered && is_it(known));
        let (mut found, mut news) = (false, Vec::new());
        for (name, entry) in at_fault {
            found = true;
            entry.offered = false;
            let standing = Standing::LeftOut { why: why.to_owned() };
            if entry.standing != standing {
                entry.standing = standing;
                news.push(name.clone());
            }
        }
        if !news.is_empty() {
            let why = why.to_owned();
            out.push(Action::Note(Note::ExportsLeftOut { names: news, why }));
        }
        if found { Fault::Names } else { Fault::Configured }
    }

    /// How it stands with each name.
    pub(super) fn standings(&self) -> BTreeMap<Name, Standing> {
        let standing = |(name, entry): (&Name, &Entry)| (name.clone(), entry.standing.clone());
        self.names.iter().map(standing).collect()
    }
}

impl ExportAnswer {
    /// The answer as it is written in traces.
    const fn as_str(&self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::Waiting => "waiting",
            Self::Refused { .. } => "refused",
            Self::NotActive => "not-active",
        }
    }
}

impl fmt::Display for ExportAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())?;
        match self {
            Self::Refused { why } => write!(f, " why={why:?}"),
            Self::Published | Self::Waiting | Self::NotActive => Ok(()),
        }
    }
}

impl Standing {
    /// The standing as tools are told.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Published => "published",
            Self::LeftOut { .. } => "left-out",
        }
    }
}
