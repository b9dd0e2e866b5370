//! Asks before anything is broken.

use std::io::{IsTerminal, Write};

use super::How;
use super::target::Target;
use crate::failure::Failure;

/// Returns if the operator wants it: by `--yes`, or by an answer at the terminal.
///
/// # Errors
/// That nobody said yes.
pub(super) fn confirm(how: How, target: &Target, yes: bool) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let question = question(how, target);
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        let message = format!("{question}: there is no terminal to ask at");
        return Err(Failure::usage("NotConfirmed", message).hint("--yes does it without asking"));
    }
    let mut error = std::io::stderr();
    let _ = write!(error, "{question}. Go on? [y/N] ");
    let _ = error.flush();
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
        return Ok(());
    }
    Err(Failure::new("NotConfirmed", "nothing was done"))
}

fn question(how: How, target: &Target) -> String {
    let (active, group) = (&target.active, &target.group.name);
    let ready: Vec<&str> = target.ready.iter().map(|name| name.as_str()).collect();
    let pid = target
        .process
        .as_ref()
        .map_or_else(String::new, |process| format!(" (process {})", process.id()));
    let does = match how {
        How::Kill => format!("kills {active}{pid}, the active broker of group {group}"),
        How::Switchover => format!("takes group {group} away from its active broker {active}"),
        How::Freeze => format!("freezes {active}{pid}, the active broker of group {group}"),
    };
    format!("this {does}; ready to follow: {}", ready.join(", "))
}
