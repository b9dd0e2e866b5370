//! `lookup` and `list`.

use daymark_client::Naming;
use daymark_client::proto::{Binding, ListEntry, Listing, ReadOptions, Request};
use serde::de::DeserializeOwned;

use super::show;
use crate::args::{ListArgs, LookupArgs};
use crate::failure::Failure;
use crate::output::{Output, table};
use crate::provider;

/// `daymark lookup`.
///
/// # Errors
/// What the directory answered, or that nobody answered.
pub(crate) async fn lookup(args: LookupArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let options = ReadOptions {
        min_revision: None,
        wait_ms: args
            .wait
            .map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
        strong: args.strong,
    };
    let binding: Binding = if args.link {
        ask(
            &naming,
            Request::LookupLink {
                name: args.name,
                options,
            },
        )
        .await?
    } else {
        naming.lookup_with(&args.name, options).await?
    };
    Output::new(args.asking.json).show(&binding, show::binding)
}

/// `daymark list`.
///
/// # Errors
/// What the directory answered, or that nobody answered.
pub(crate) async fn list(args: ListArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let (name, bindings) = (args.name, args.bindings);
    let options = ReadOptions {
        strong: args.strong,
        ..ReadOptions::default()
    };
    let request = if bindings {
        Request::ListBindings { name, options }
    } else {
        Request::List { name, options }
    };
    let listing: Listing = ask(&naming, request).await?;
    Output::new(args.asking.json).show(&listing, |listing| {
        if bindings {
            table(
                &["name", "type", "bound to", "exported by", "revision"],
                listing.entries.iter().map(bound),
            )
        } else {
            table(&["name", "type"], listing.entries.iter().map(kind))
        }
    })
}

/// Asks what the client has no method for and reads the document.
async fn ask<T: DeserializeOwned>(naming: &Naming, request: Request) -> Result<T, Failure> {
    let document = naming.ask(request).await?;
    serde_json::from_slice(&document).map_err(|error| {
        Failure::new(
            "BadAnswer",
            format!("the naming server answered what this version cannot read: {error}"),
        )
    })
}

fn kind(entry: &ListEntry) -> [String; 2] {
    [show::name(&entry.name), entry.kind.as_str().to_owned()]
}

fn bound(entry: &ListEntry) -> [String; 5] {
    let [name, kind] = kind(entry);
    let binding = entry.binding.as_deref();
    [
        name,
        kind,
        binding
            .and_then(|b| show::bound_to(&b.object))
            .unwrap_or_default(),
        binding
            .and_then(|b| b.owner.as_ref())
            .map(show::owner)
            .unwrap_or_default(),
        binding.map(|b| b.revision.to_string()).unwrap_or_default(),
    ]
}
