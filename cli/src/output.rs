//! What goes to standard output: tables for people, one JSON document per line for programs.

use std::io::{self, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::failure::Failure;

/// How answers are shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    /// JSON lines, or text.
    pub(crate) const fn new(json: bool) -> Self {
        Self { json }
    }

    /// Shows one document: itself as JSON, or the text made of it.
    ///
    /// # Errors
    /// `Failure` when standard output cannot be written.
    pub(crate) fn show<T: Serialize>(
        self,
        document: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        let line = if self.json {
            serde_json::to_string(document)
                .map_err(|error| Failure::new("OutputFailed", format!("no JSON form: {error}")))?
        } else {
            text(document)
        };
        print_line(&line)
    }
}

/// Writes a line and flushes, so that whoever waits for it has it. A reader that went away (`| head`) has
/// seen enough: that is no failure, and ends the program.
///
/// # Errors
/// `Failure` when standard output cannot be written.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        written => Ok(written?),
    }
}

/// A table with a header, without lines: columns are cut by blanks, as other tools expect.
pub(crate) fn table<R>(header: &[&str], rows: impl IntoIterator<Item = R>) -> String
where
    R: IntoIterator,
    R::Item: ToString,
{
    let mut table = bare();
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row.into_iter().map(|cell| cell.to_string()));
    }
    text(&table)
}

/// Facts, one per line: what it is, then its value. Facts without a value are left out.
pub(crate) fn facts<W: Into<String>>(facts: impl IntoIterator<Item = (W, Option<String>)>) -> String {
    let mut table = bare();
    for (what, value) in facts {
        if let Some(value) = value {
            table.add_row([what.into(), value]);
        }
    }
    text(&table)
}

fn bare() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// The table without the blanks the style puts at both ends of a line.
fn text(table: &Table) -> String {
    let lines: Vec<String> = table
        .lines()
        .map(|line| line.strip_prefix(' ').unwrap_or(&line).trim_end().to_owned())
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_a_header_and_aligned_columns_without_lines() {
        let shown = table(&["name", "type"], [["a", "queue"], ["longer", "topic"]]);
        assert_eq!(shown, "name    type\na       queue\nlonger  topic");
    }

    #[test]
    fn facts_without_a_value_are_left_out() {
        let shown = facts([
            ("name", Some("x".into())),
            ("owner", None),
            ("type", Some("queue".into())),
        ]);
        assert_eq!(shown, "name  x\ntype  queue");
    }
}
