//! The rules of the directory as stories, and random interleavings of every write against a model.

mod bindings;
mod exports;
mod groups;
mod history;
mod interleavings;
mod limits;
mod links;
mod listing;
mod model;
mod operations;
mod search;
mod snapshots;
mod support;
mod timeline;
mod transact;
