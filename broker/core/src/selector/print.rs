//! A selector as text again, with every parenthesis written out.

use std::fmt::{self, Display, Formatter};

use super::{Arithmetic, Comparison, Expr};

impl Arithmetic {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
        }
    }
}

impl Comparison {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "'{}'", self.0.replace('\'', "''"))
    }
}

fn not(negated: bool) -> &'static str {
    if negated { "NOT " } else { "" }
}

fn joined(f: &mut Formatter<'_>, parts: &[Expr], word: &str) -> fmt::Result {
    f.write_str("(")?;
    for (n, part) in parts.iter().enumerate() {
        let word = if n == 0 { "" } else { word };
        write!(f, "{word}{part}")?;
    }
    f.write_str(")")
}

impl Display for Expr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Identifier(name) => f.write_str(name),
            Self::Text(text) => Quoted(text).fmt(f),
            Self::Int(number) => write!(f, "{number}"),
            // Always with a point or an exponent, so that it stays what it is.
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Bool(known) => f.write_str(if *known { "TRUE" } else { "FALSE" }),
            Self::Negated(inner) => write!(f, "-({inner})"),
            Self::Chain(first, others) => {
                write!(f, "({first}")?;
                others
                    .iter()
                    .try_for_each(|(sign, other)| write!(f, " {} {other}", sign.as_str()))?;
                f.write_str(")")
            }
            Self::Compare(left, comparison, right) => {
                write!(f, "({left} {} {right})", comparison.as_str())
            }
            Self::Between {
                value,
                low,
                high,
                negated,
            } => write!(f, "({value} {}BETWEEN {low} AND {high})", not(*negated)),
            Self::In { name, texts, negated } => {
                write!(f, "({name} {}IN (", not(*negated))?;
                for (n, text) in texts.iter().enumerate() {
                    write!(f, "{}{}", if n == 0 { "" } else { ", " }, Quoted(text))?;
                }
                f.write_str("))")
            }
            Self::Like {
                name,
                pattern,
                negated,
            } => {
                write!(f, "({name} {}LIKE {}", not(*negated), Quoted(&pattern.text))?;
                if let Some(escape) = pattern.escape {
                    write!(f, " ESCAPE {}", Quoted(&escape.to_string()))?;
                }
                f.write_str(")")
            }
            Self::IsNull { name, negated } => write!(f, "({name} IS {}NULL)", not(*negated)),
            Self::Not(inner) => write!(f, "(NOT {inner})"),
            Self::And(all) => joined(f, all, " AND "),
            Self::Or(any) => joined(f, any, " OR "),
        }
    }
}
