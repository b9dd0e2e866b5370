//! The verbs that read names: `lookup`, `list`, `attributes` and `search`; and `ask`, which spells every verb.

use daymark_client::Naming;
use daymark_client::proto::{
    AttributesOf, Binding, Found, ListEntry, Listing, NamingError, ReadOptions, Request, Search,
};
use serde::de::DeserializeOwned;

use super::show;
use crate::args::{AskArgs, AttributesArgs, ListArgs, LookupArgs, SearchArgs};
use crate::failure::Failure;
use crate::output::{Output, print_line, table};
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

/// `daymark attributes`.
///
/// # Errors
/// What the directory answered, or that nobody answered.
pub(crate) async fn attributes(args: AttributesArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let options = ReadOptions {
        strong: args.strong,
        ..ReadOptions::default()
    };
    let request = Request::Attributes {
        name: args.name,
        ids: (!args.ids.is_empty()).then_some(args.ids),
        options,
    };
    let read: AttributesOf = ask(&naming, request).await?;
    Output::new(args.asking.json).show(&read, |read| {
        let each = read
            .attributes
            .iter()
            .flat_map(|(id, values)| values.map(move |value| [id.to_owned(), value.to_owned()]));
        table(&["attribute", "value"], each)
    })
}

/// `daymark search`.
///
/// # Errors
/// What the directory answered, or that nobody answered; that the search stopped at a limit, once what was found
/// until then is shown.
pub(crate) async fn search(args: SearchArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let search = Search {
        scope: args.scope.into(),
        filter: args.filter,
        size_limit: Some(args.size_limit),
        time_limit_ms: args
            .time_limit
            .map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)),
        ids: (!args.ids.is_empty()).then_some(args.ids),
    };
    let options = ReadOptions {
        strong: args.strong,
        ..ReadOptions::default()
    };
    let request = Request::Search {
        name: args.base,
        search,
        options,
    };
    let found: Found = ask(&naming, request).await?;
    Output::new(args.asking.json).show(&found, |found| {
        table(
            &["name", "type", "bound to", "attributes"],
            found.entries.iter().map(|binding| found_row(binding)),
        )
    })?;
    match found.stopped {
        // Whoever sets a size limit gets as many as were asked for: that is no failure.
        Some(NamingError::SizeLimitExceeded { .. }) if args.size_limit > 0 => Ok(()),
        Some(error) => Err(Failure::from(error)),
        None => Ok(()),
    }
}

/// `daymark ask`.
///
/// # Errors
/// That it is no request; what the directory answered, or that nobody answered.
pub(crate) async fn raw(args: AskArgs) -> Result<(), Failure> {
    if args.words.iter().any(|word| word.eq_ignore_ascii_case("help")) && args.words.len() == 1 {
        let verbs = Request::usage()
            .iter()
            .map(|(verb, arguments)| [*verb, *arguments]);
        return print_line(&table(&["verb", "arguments"], verbs));
    }
    let request = Request::from_arguments(&args.words, Naming::new_op)?;
    let document = provider::naming(&args.asking)?.ask(request).await?;
    if args.asking.json {
        return print_line(&String::from_utf8_lossy(&document));
    }
    let document: serde_json::Value = serde_json::from_slice(&document).map_err(bad_answer)?;
    print_line(&format!("{document:#}"))
}

fn found_row(binding: &Binding) -> [String; 4] {
    [
        show::name(&binding.name),
        binding.object.kind().as_str().to_owned(),
        show::bound_to(&binding.object).unwrap_or_default(),
        show::attributes(&binding.attributes).unwrap_or_default(),
    ]
}

/// Asks what the client has no method for and reads the document.
async fn ask<T: DeserializeOwned>(naming: &Naming, request: Request) -> Result<T, Failure> {
    let document = naming.ask(request).await?;
    serde_json::from_slice(&document).map_err(bad_answer)
}

fn bad_answer(error: serde_json::Error) -> Failure {
    let why = format!("the naming server answered what this version cannot read: {error}");
    Failure::new("BadAnswer", why)
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
            .and_then(|b| b.owner.as_deref())
            .map(show::owner)
            .unwrap_or_default(),
        binding.map(|b| b.revision.to_string()).unwrap_or_default(),
    ]
}
