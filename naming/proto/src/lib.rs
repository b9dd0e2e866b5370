//! What naming servers and clients say to each other.
//!
//! Names, bindings, groups, requests, replies, events and errors, each with its JSON form, and the RESP
//! framing that carries them. This crate decides nothing about state: the rules are in `naming/core`.
//! It holds no sockets, clock or randomness.
//!
//! Every reply document has one JSON form, the same through the HTTP door and the RESP door.

mod attributes;
mod error;
mod factory;
mod failover;
mod filter;
mod group;
mod ids;
mod json;
mod name;
mod object;
mod reply;
mod request;
pub mod resp;
mod verbs;

pub use attributes::{Attributes, Modification, ModificationOp, Values};
pub use error::{Advice, NamingError, UnavailableReason};
pub use factory::{FactorySettings, InvalidSetting, SETTING_MS_MAX};
pub use failover::{Failover, FailoverKind, FailoverReport, FailoverStep, Timeline};
pub use filter::{Comparison, Filter, InvalidFilter, is_id_character};
pub use group::{
    Endpoint, Evidence, Export, GroupView, InvalidEndpoint, JoinRequest, Member, MemberState, Role,
    WithdrawReason, Withholding,
};
pub use ids::{Epoch, GroupName, InvalidLabel, LeaseId, MemberName, OpId, Revision, StepCode};
pub use name::{Components, InvalidName, Name};
pub use object::{BrokerAddress, ConnectionFactory, InvalidObject, Object, ObjectKind, RefAddr, Reference};
pub use reply::{
    AttributesOf, Binding, Change, ChangeKind, ChangeSet, Found, Groups, ListEntry, Listing, Owner, Renewed,
    Status, WatchMessage, WriteDetail, Written,
};
pub use request::{ReadOptions, Request, Scope, Search, TransactWrite, Write, WriteRequest};

/// The port of a Daymark naming server where none is given.
pub const DEFAULT_PORT: u16 = 9736;
