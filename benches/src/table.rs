//! The table a bench prints: our figure, what others reach in the same run, and whether that is what was wanted.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::{Outcome, other};

/// Whom our figure stands beside, what it reaches there, and how many times that is wanted; 0 where nothing is.
pub type Beside<'a> = (&'a str, Option<f64>, f64);

/// The rows of the table, and what could not be measured.
#[derive(Debug)]
pub struct Table {
    rows: Vec<String>,
    absent: Vec<String>,
}

impl Default for Table {
    fn default() -> Self {
        Self::with_header("| figure | Daymark | beside |\n|---|---|---|")
    }
}

impl Table {
    /// A table with columns of its own.
    #[must_use]
    pub fn with_header(header: &str) -> Self {
        let mut table = Self {
            rows: Vec::new(),
            absent: Vec::new(),
        };
        table.line(header.to_owned());
        table
    }

    /// One figure of ours and what it is beside the others: `(whom, theirs, at least so many times it)`;
    /// 0 where nothing is wanted.
    pub fn figure(&mut self, what: &str, unit: &str, ours: f64, others: &[Beside<'_>]) {
        let mut row = format!("| {what} | {} {unit} |", short(ours));
        for (whom, theirs, wanted) in others {
            if let Some(theirs) = theirs {
                let ratio = ours / theirs;
                let verdict = match *wanted {
                    0.0 => String::new(),
                    wanted if ratio >= wanted => format!(" (wanted {wanted} ×: reached)"),
                    wanted => format!(" (wanted {wanted} ×: **missed**)"),
                };
                let _ = write!(row, " {whom} {} → {ratio:.2} ×{verdict}<br>", short(*theirs));
            } else {
                let _ = write!(row, " {whom}: not measured<br>");
            }
        }
        self.line(row + " |");
    }

    /// One figure of ours of which less is better: theirs is at least so many times ours.
    pub fn cost(&mut self, what: &str, unit: &str, ours: f64, others: &[Beside<'_>]) {
        let mut row = format!("| {what} | {} {unit} |", short(ours));
        for (whom, theirs, wanted) in others {
            if let Some(theirs) = theirs {
                let ratio = theirs / ours;
                let verdict = match *wanted {
                    0.0 => String::new(),
                    wanted if ratio >= wanted => format!(" (wanted 1/{wanted}: reached)"),
                    wanted => format!(" (wanted 1/{wanted}: **missed**)"),
                };
                let _ = write!(row, " {whom} {} → 1/{ratio:.2}{verdict}<br>", short(*theirs));
            } else {
                let _ = write!(row, " {whom}: not measured<br>");
            }
        }
        self.line(row + " |");
    }

    /// One figure that has to stay at or below a bound.
    pub fn bound(&mut self, what: &str, ours: &str, bound: &str, kept: bool) {
        let verdict = if kept { "reached" } else { "**missed**" };
        self.line(format!("| {what} | {ours} | at most {bound}: {verdict} |"));
    }

    /// A row as it stands; it is printed at once.
    pub fn line(&mut self, row: String) {
        println!("{row}");
        self.rows.push(row);
    }

    /// What came of a peer; one that failed is named at the end.
    pub fn peer<T>(&mut self, outcome: Outcome<T>) -> Option<T> {
        outcome.map_err(|error| self.absent.push(error.to_string())).ok()
    }

    /// Names what could not be measured and writes the table to `target/benches/NAME`.
    ///
    /// # Errors
    /// That it cannot be written.
    pub fn write(&self, name: &str) -> Outcome<()> {
        for absent in &self.absent {
            println!("not measured: {absent}");
        }
        let directory = target()?.join("benches");
        std::fs::create_dir_all(&directory)?;
        let path = directory.join(name);
        std::fs::write(&path, self.rows.join("\n") + "\n")?;
        println!("written to {}", path.display());
        Ok(())
    }
}

/// The directory everything built goes to.
///
/// # Errors
/// That this program does not run from one.
pub fn target() -> Outcome<PathBuf> {
    let exe = std::env::current_exe()?;
    let found = exe.ancestors().find(|dir| dir.join("CACHEDIR.TAG").exists());
    Ok(found.ok_or_else(|| other("no target directory"))?.to_path_buf())
}

/// A figure with the digits that matter.
#[must_use]
pub fn short(figure: f64) -> String {
    match figure {
        figure if figure >= 1e6 => format!("{:.2} M", figure / 1e6),
        figure if figure >= 1e4 => format!("{:.0} k", figure / 1e3),
        figure if figure >= 100.0 => format!("{figure:.0}"),
        figure => format!("{figure:.2}"),
    }
}
