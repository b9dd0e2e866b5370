//! `watch`: what happens to a name, as it happens.

use daymark_client::proto::{Binding, Change, ChangeKind, Revision, WatchMessage};

use super::show;
use crate::args::WatchArgs;
use crate::failure::Failure;
use crate::output::Output;
use crate::provider;
use crate::servers::stop_signal;

/// `daymark watch`. Ends after the changes asked for; Ctrl-C ends it before.
///
/// # Errors
/// What the directory answered, or that no server answered for the whole `--timeout`.
pub(crate) async fn watch(args: WatchArgs) -> Result<(), Failure> {
    let naming = provider::naming(&args.asking)?;
    let output = Output::new(args.asking.json);
    let mut watch = naming.watch(&args.name, args.scope.into(), args.from);
    let mut left = args.changes;
    let mut stop = std::pin::pin!(stop_signal()?);
    while left != Some(0) {
        let message = tokio::select! {
            message = watch.next() => message?,
            () = &mut stop => return interrupted(left),
        };
        output.show(&message, text)?;
        if let (WatchMessage::Changed { .. }, Some(count)) = (&message, &mut left) {
            *count -= 1;
        }
    }
    Ok(())
}

/// A watch without an end is over when it is interrupted; one that waits for changes has missed them.
fn interrupted(left: Option<u64>) -> Result<(), Failure> {
    match left {
        None => Ok(()),
        Some(left) => Err(Failure::new(
            "Interrupted",
            format!("interrupted, {left} changes before the end"),
        )),
    }
}

/// One line for each name a message speaks of, its revision first.
fn text(message: &WatchMessage) -> String {
    match message {
        WatchMessage::State { change } => line(None, change),
        WatchMessage::Bookmark { revision } => format!("{revision:>8}  that is all, as of this revision"),
        WatchMessage::Changed {
            revision, changes, ..
        } => {
            let lines: Vec<String> = changes
                .iter()
                .map(|change| line(Some(*revision), change))
                .collect();
            lines.join("\n")
        }
        WatchMessage::Compacted { oldest } => {
            format!("{oldest:>8}  earlier revisions are no longer kept: the state follows anew")
        }
    }
}

fn line(revision: Option<Revision>, change: &Change) -> String {
    let (what, detail) = match &change.kind {
        ChangeKind::Bound { binding } => ("bound", bound(binding)),
        ChangeKind::Rebound { binding } => ("rebound", bound(binding)),
        ChangeKind::Unbound => ("unbound", String::new()),
        ChangeKind::Withheld {
            group,
            epoch,
            withheld,
        } => (
            "withheld",
            format!("{}, group {group}, epoch {epoch}", show::withheld(withheld)),
        ),
    };
    let revision = revision.map_or_else(|| "now".to_owned(), |revision| revision.to_string());
    format!("{revision:>8}  {what:<8}  {}  {detail}", show::name(&change.name))
        .trim_end()
        .to_owned()
}

fn bound(binding: &Binding) -> String {
    let kind = binding.object.kind().as_str();
    let to = show::bound_to(&binding.object).unwrap_or_default();
    match &binding.owner {
        Some(owner) => format!("{kind} {to} ({})", show::owner(owner)),
        None => format!("{kind} {to}"),
    }
}
