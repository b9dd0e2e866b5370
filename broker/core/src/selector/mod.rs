//! JMS message selectors (Jakarta Messaging §3.8): which messages a consumer wants.
//!
//! It decides whether a text is a selector and whether a message matches. It never looks into a message
//! itself: whoever asks shows the properties. Invariant: neither a text nor a value can make it recurse, or
//! take time, beyond what the length and nesting limits permit, and a match allocates nothing.
//!
//! The grammar, keywords in any case:
//!
//! ```text
//! or         := and { OR and }
//! and        := not { AND not }
//! not        := { NOT } test
//! test       := sum [ ( = | <> | < | <= | > | >= ) sum
//!                   | [NOT] BETWEEN sum AND sum
//!                   | [NOT] IN ( 'text' {, 'text'} )           on an identifier
//!                   | [NOT] LIKE 'pattern' [ESCAPE 'c']        on an identifier
//!                   | IS [NOT] NULL ]                          on an identifier
//! sum        := product { ( + | - ) product }
//! product    := unary { ( * | / ) unary }
//! unary      := { + | - } ( literal | identifier | ( or ) )
//! ```
//!
//! A comparison of values of different kinds is false, whichever comparison it is; one with an absent value
//! is unknown. `NOT`, `AND` and `OR` follow the tables of §3.8.1.2; a message matches only if the whole is
//! true. Texts and truth values can only be equal or not. Integers wrap as in Java; dividing one by zero
//! gives an unknown value.

mod eval;
mod lex;
mod like;
mod parse;
mod print;

use std::fmt;

use like::Pattern;

/// Longest selector text, in bytes.
pub const MAX_SELECTOR_BYTES: usize = 16 << 10;

/// Deepest nesting of parentheses, signs and `NOT`.
pub const MAX_SELECTOR_DEPTH: usize = 64;

/// A selector that was understood.
#[derive(Clone, Debug)]
pub struct Selector {
    text: String,
    condition: Expr,
}

impl Selector {
    /// Reads a selector.
    ///
    /// # Errors
    /// [`SelectorError`] with the place and the reason.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let condition = parse::parse(text)?;
        Ok(Self {
            text: text.to_owned(),
            condition,
        })
    }

    /// Whether a message with these properties is wanted.
    #[must_use]
    pub fn matches(&self, properties: &dyn Properties) -> bool {
        eval::truth(&self.condition, properties) == Some(true)
    }

    /// The text as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Two selectors are equal if they say the same, however they are spaced.
impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.condition == other.condition
    }
}

/// With every parenthesis written out; reads back as an equal selector.
impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

/// What a selector may ask of a message.
pub trait Properties {
    /// The application property of this name, or the JMS header (`JMSPriority`, `JMSTimestamp`,
    /// `JMSMessageID`, `JMSCorrelationID`, `JMSType`, `JMSDeliveryMode`) or JMS-defined property
    /// (`JMSXGroupID`, `JMSXDeliveryCount`, …). Names count by the letter.
    fn value(&self, name: &str) -> Value<'_>;
}

/// A value a selector can work with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Absent, or of a kind that selectors do not know, such as binary.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(&'a str),
}

/// A text that is no selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {at} of the selector: {why}")]
pub struct SelectorError {
    /// Where, as an offset in bytes.
    pub at: usize,
    /// What is wrong there.
    pub why: Why,
}

/// What is wrong with a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// Nothing but white space.
    #[error("it is empty")]
    Empty,
    /// Longer than [`MAX_SELECTOR_BYTES`].
    #[error("it has {length} bytes, and may have {MAX_SELECTOR_BYTES}")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// Nested deeper than [`MAX_SELECTOR_DEPTH`].
    #[error("it is nested deeper than {MAX_SELECTOR_DEPTH} levels")]
    TooDeep,
    /// A character that begins nothing.
    #[error("{0:?} has no meaning here")]
    Character(char),
    /// A text without its closing quote.
    #[error("the text is not closed")]
    OpenText,
    /// Digits that are no number, or one out of range.
    #[error("{0} is not a number that fits")]
    Number(String),
    /// Something else should stand here.
    #[error("{wanted} is expected, not {found}")]
    Expected {
        /// What should stand here.
        wanted: &'static str,
        /// What stands here.
        found: String,
    },
    /// An operand of a kind the operator does not take.
    #[error("{operator} does not work on {kind}")]
    Kind {
        /// The operator.
        operator: &'static str,
        /// What it was given.
        kind: &'static str,
    },
    /// `IN`, `LIKE` or `IS` after something that is no identifier.
    #[error("{operator} works on an identifier only")]
    IdentifierNeeded {
        /// The operator.
        operator: &'static str,
    },
    /// An escape that is not one character, or one at the end of the pattern.
    #[error("the escape must be one character, followed by another in the pattern")]
    Escape,
}

#[derive(Clone, Debug, PartialEq)]
enum Expr {
    Identifier(String),
    Text(String),
    Int(i64),
    Float(f64),
    Bool(bool),
    Negated(Box<Self>),
    /// At least two.
    Chain(Box<Self>, Vec<(Arithmetic, Self)>),
    Compare(Box<Self>, Comparison, Box<Self>),
    Between {
        value: Box<Self>,
        low: Box<Self>,
        high: Box<Self>,
        negated: bool,
    },
    In {
        name: String,
        texts: Vec<String>,
        negated: bool,
    },
    Like {
        name: String,
        pattern: Pattern,
        negated: bool,
    },
    IsNull {
        name: String,
        negated: bool,
    },
    Not(Box<Self>),
    /// At least two.
    And(Vec<Self>),
    /// At least two.
    Or(Vec<Self>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}
