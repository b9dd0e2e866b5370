//! Search filters as RFC 4515 writes them, with the absolute true `(&)` and false `(|)` of RFC 4526.
//!
//! It decides what a text means and how a filter is printed; what a filter matches is decided by the
//! directory. Blanks may stand around the parentheses of a filter, never inside a comparison, where every
//! character counts. A single comparison may come without its parentheses. Extensible match (`:=`) is not supported.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A search filter. Parsing and printing are inverse to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All of them match; `(&)` always does.
    And(Vec<Self>),
    /// At least one of them matches; `(|)` never does.
    Or(Vec<Self>),
    /// It does not match.
    Not(Box<Self>),
    /// `(id=*)`: the attribute is there.
    Present {
        /// The attribute.
        id: String,
    },
    /// One value compares with the assertion.
    Compare {
        /// The attribute.
        id: String,
        /// How they compare.
        comparison: Comparison,
        /// The assertion.
        value: String,
    },
    /// `(id=initial*any*any*last)`: one value holds these parts in this order. At least one part is there.
    Substrings {
        /// The attribute.
        id: String,
        /// What the value begins with.
        initial: Option<String>,
        /// What follows somewhere, one after the other.
        any: Vec<String>,
        /// What the value ends with.
        last: Option<String>,
    },
}

/// How a value compares with an assertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `~=`
    Approximate,
    /// `>=`
    AtLeast,
    /// `<=`
    AtMost,
}

impl Comparison {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Approximate => "~=",
            Self::AtLeast => ">=",
            Self::AtMost => "<=",
        }
    }
}

/// A text that is no search filter (`javax.naming.directory.InvalidSearchFilterException`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("search filter, at byte {position}: {reason}")]
pub struct InvalidFilter {
    /// The byte at which it goes wrong, counted from 0.
    pub position: usize,
    /// What is wrong there.
    pub reason: String,
}

impl Filter {
    /// The longest text of a filter, in bytes.
    pub const BYTES_MAX: usize = 8_192;
    /// How deep filters may nest.
    pub const DEPTH_MAX: usize = 16;
    /// The most comparisons and combinations in one filter.
    pub const PARTS_MAX: usize = 256;
    /// The longest attribute id, in bytes.
    pub const ID_BYTES_MAX: usize = 128;

    /// A filter that always matches.
    #[must_use]
    pub const fn everything() -> Self {
        Self::And(Vec::new())
    }
}

/// Whether a character may stand in an attribute id: every one except blanks, control characters and those
/// that mean something in a filter or in a list of ids.
#[must_use]
pub fn is_id_character(c: char) -> bool {
    !c.is_whitespace() && !c.is_control() && !"()*\\&|!=<>~:,".contains(c)
}

impl FromStr for Filter {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        let mut parser = Parser {
            text,
            at: 0,
            parts: 0,
        };
        if text.len() > Self::BYTES_MAX {
            return Err(parser.refuse(format!(
                "the filter has {} bytes, at most {} are allowed",
                text.len(),
                Self::BYTES_MAX
            )));
        }
        parser.blanks();
        let filter = match parser.peek() {
            None => return Err(parser.refuse("the filter is empty")),
            Some('(') => parser.filter(1)?,
            Some(_) => parser.comparison()?,
        };
        parser.blanks();
        match parser.peek() {
            None => Ok(filter),
            Some(c) => Err(parser.refuse(format!("{c:?} follows the end of the filter"))),
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Comparisons and combinations read.
    parts: usize,
}

impl Parser<'_> {
    fn refuse(&self, reason: impl Into<String>) -> InvalidFilter {
        InvalidFilter {
            position: self.at,
            reason: reason.into(),
        }
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip(&mut self, c: char) -> bool {
        let is_there = self.peek() == Some(c);
        if is_there {
            self.at += c.len_utf8();
        }
        is_there
    }

    fn blanks(&mut self) {
        while self.skip(' ') {}
    }

    fn count_part(&mut self) -> Result<(), InvalidFilter> {
        self.parts += 1;
        if self.parts > Filter::PARTS_MAX {
            return Err(self.refuse(format!("more than {} parts", Filter::PARTS_MAX)));
        }
        Ok(())
    }

    /// A filter in its parentheses.
    fn filter(&mut self, depth: usize) -> Result<Filter, InvalidFilter> {
        if depth > Filter::DEPTH_MAX {
            return Err(self.refuse(format!("nested more than {} deep", Filter::DEPTH_MAX)));
        }
        if !self.skip('(') {
            return Err(self.refuse("a filter begins with '('"));
        }
        self.blanks();
        let filter = match self.peek() {
            Some('&') => Filter::And(self.list(depth)?),
            Some('|') => Filter::Or(self.list(depth)?),
            Some('!') => {
                self.count_part()?;
                self.at += 1;
                self.blanks();
                let inner = self.filter(depth + 1)?;
                self.blanks();
                Filter::Not(Box::new(inner))
            }
            Some(_) | None => self.comparison()?,
        };
        if !self.skip(')') {
            return Err(self.refuse("')' is missing"));
        }
        Ok(filter)
    }

    /// The operator and the filters behind it.
    fn list(&mut self, depth: usize) -> Result<Vec<Filter>, InvalidFilter> {
        self.count_part()?;
        self.at += 1;
        let mut filters = Vec::new();
        self.blanks();
        while self.peek() == Some('(') {
            filters.push(self.filter(depth + 1)?);
            self.blanks();
        }
        Ok(filters)
    }

    fn comparison(&mut self) -> Result<Filter, InvalidFilter> {
        self.count_part()?;
        let id = self.id()?;
        let comparison = match self.peek() {
            Some('=') => Comparison::Equal,
            Some('~') => Comparison::Approximate,
            Some('>') => Comparison::AtLeast,
            Some('<') => Comparison::AtMost,
            Some(':') => return Err(self.refuse("extensible match is not supported")),
            Some(_) | None => return Err(self.refuse("'=', '~=', '>=' or '<=' is missing")),
        };
        if comparison != Comparison::Equal {
            self.at += 1;
        }
        if !self.skip('=') {
            return Err(self.refuse("'=' is missing"));
        }
        let start = self.at;
        let mut pieces = vec![self.value()?];
        while self.skip('*') {
            pieces.push(self.value()?);
        }
        if pieces.len() == 1 {
            let value = pieces.pop().unwrap_or_default();
            return Ok(Filter::Compare {
                id,
                comparison,
                value,
            });
        }
        if comparison != Comparison::Equal {
            self.at = start;
            return Err(self.refuse(format!("'*' cannot stand behind '{}'", comparison.as_str())));
        }
        self.substrings(id, pieces, start)
    }

    fn substrings(
        &mut self,
        id: String,
        mut pieces: Vec<String>,
        start: usize,
    ) -> Result<Filter, InvalidFilter> {
        if pieces.len() == 2 && pieces.iter().all(String::is_empty) {
            return Ok(Filter::Present { id });
        }
        let some = |piece: String| (!piece.is_empty()).then_some(piece);
        let last = pieces.pop().and_then(some);
        let initial = some(pieces.remove(0));
        if pieces.iter().any(String::is_empty) {
            self.at = start;
            return Err(self.refuse("nothing stands between two '*'"));
        }
        Ok(Filter::Substrings {
            id,
            initial,
            any: pieces,
            last,
        })
    }

    fn id(&mut self) -> Result<String, InvalidFilter> {
        let rest = &self.text[self.at..];
        let end = rest.find(|c| !is_id_character(c)).unwrap_or(rest.len());
        if end == 0 && rest.starts_with(':') {
            return Err(self.refuse("extensible match is not supported"));
        }
        if end == 0 {
            return Err(self.refuse("an attribute id is missing"));
        }
        if end > Filter::ID_BYTES_MAX {
            return Err(self.refuse(format!(
                "an attribute id of {end} bytes, at most {} are allowed",
                Filter::ID_BYTES_MAX
            )));
        }
        self.at += end;
        Ok(rest[..end].to_owned())
    }

    /// A value up to the next `*` or `)`, its escapes resolved.
    fn value(&mut self) -> Result<String, InvalidFilter> {
        let start = self.at;
        let mut value = Vec::new();
        while let Some(c) = self.peek() {
            match c {
                '*' | ')' => break,
                '(' => return Err(self.refuse("'(' in a value is written \\28")),
                '\0' => return Err(self.refuse("a zero byte in a value is written \\00")),
                '\\' => value.push(self.escape()?),
                c => {
                    value.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
                    self.at += c.len_utf8();
                }
            }
        }
        String::from_utf8(value).map_err(|_| InvalidFilter {
            position: start,
            reason: "the bytes of the value are not UTF-8".to_owned(),
        })
    }

    fn escape(&mut self) -> Result<u8, InvalidFilter> {
        let digits = self.text.get(self.at + 1..self.at + 3);
        let is_hex = |digits: &&str| digits.bytes().all(|b| b.is_ascii_hexdigit());
        let byte = digits
            .filter(is_hex)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let byte = byte.ok_or_else(|| self.refuse("'\\' is followed by two hexadecimal digits"))?;
        self.at += 3;
        Ok(byte)
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        match self {
            Self::And(filters) => print_list("&", filters, f)?,
            Self::Or(filters) => print_list("|", filters, f)?,
            Self::Not(filter) => write!(f, "!{filter}")?,
            Self::Present { id } => write!(f, "{id}=*")?,
            Self::Compare {
                id,
                comparison,
                value,
            } => {
                write!(f, "{id}{}{}", comparison.as_str(), Escaped(value))?;
            }
            Self::Substrings {
                id,
                initial,
                any,
                last,
            } => {
                write!(f, "{id}={}*", Escaped(initial.as_deref().unwrap_or_default()))?;
                any.iter().try_for_each(|part| write!(f, "{}*", Escaped(part)))?;
                write!(f, "{}", Escaped(last.as_deref().unwrap_or_default()))?;
            }
        }
        f.write_str(")")
    }
}

fn print_list(operator: &str, filters: &[Filter], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(operator)?;
    filters.iter().try_for_each(|filter| fmt::Display::fmt(filter, f))
}

/// A value with `*`, `(`, `)`, `\` and control characters written as `\XX`.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if matches!(c, '*' | '(' | ')' | '\\') || c.is_ascii_control() {
                write!(f, "\\{:02x}", c as u32)?;
            } else {
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Filter {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn refused(text: &str) -> (usize, String) {
        let InvalidFilter { position, reason } = text.parse::<Filter>().expect_err(text);
        (position, reason)
    }

    /// The examples of RFC 4515, section 4, apart from extensible match.
    #[test]
    fn the_examples_of_the_rfc_are_read_and_printed() {
        for text in [
            "(cn=Babs Jensen)",
            "(!(cn=Tim Howes))",
            "(&(objectClass=Person)(|(sn=Jensen)(cn=Babs J*)))",
            "(o=univ*of*mich*)",
            "(seeAlso=)",
            "(o=Parens R Us \\28for all your parenthetical needs\\29)",
            "(cn=*\\2a*)",
            "(filename=C:\\5cMyFile)",
            "(bin=\\00\\00\\00\\04)",
            "(1.3.6.1.4.1.1466.0=\\04\\02Hi)",
        ] {
            assert_eq!(parsed(text).to_string(), text);
        }
        assert_eq!(parsed("(sn=Lu\\c4\\8di\\c4\\87)").to_string(), "(sn=Lučić)");
    }

    #[test]
    fn every_kind_of_comparison_is_told_apart() {
        assert_eq!(parsed("(a=*)"), Filter::Present { id: "a".into() });
        assert_eq!(
            parsed("(a=x*y*z)"),
            Filter::Substrings {
                id: "a".into(),
                initial: Some("x".into()),
                any: vec!["y".into()],
                last: Some("z".into()),
            }
        );
        for (text, comparison) in [
            ("(a=1)", Comparison::Equal),
            ("(a~=1)", Comparison::Approximate),
            ("(a>=1)", Comparison::AtLeast),
            ("(a<=1)", Comparison::AtMost),
        ] {
            let (id, value) = ("a".to_owned(), "1".to_owned());
            assert_eq!(
                parsed(text),
                Filter::Compare {
                    id,
                    comparison,
                    value
                }
            );
        }
        assert_eq!(parsed("(&)"), Filter::everything());
        assert_eq!(parsed("(|)"), Filter::Or(Vec::new()));
    }

    #[test]
    fn blanks_between_filters_and_missing_outer_parentheses_are_forgiven() {
        assert_eq!(parsed(" ( & (a=1) ( ! (b=2) ) ) "), parsed("(&(a=1)(!(b=2)))"));
        assert_eq!(parsed("a=1"), parsed("(a=1)"));
        assert_ne!(parsed("(a= 1)"), parsed("(a=1)"));
    }

    #[test]
    fn an_error_says_where_and_why() {
        for (text, position, reason) in [
            ("", 0, "the filter is empty"),
            ("(a=1", 4, "')' is missing"),
            ("(a=1)x", 5, "'x' follows the end of the filter"),
            ("(=1)", 1, "an attribute id is missing"),
            ("(a)", 2, "'=', '~=', '>=' or '<=' is missing"),
            ("(a>1)", 3, "'=' is missing"),
            ("(a=\\2)", 3, "'\\' is followed by two hexadecimal digits"),
            ("(a=\\c4)", 3, "the bytes of the value are not UTF-8"),
            ("(a=(b))", 3, "'(' in a value is written \\28"),
            ("(a>=*)", 4, "'*' cannot stand behind '>='"),
            ("(a=x**y)", 3, "nothing stands between two '*'"),
            ("(!a=1)", 2, "a filter begins with '('"),
            ("(&(a=1)b)", 7, "')' is missing"),
            ("(a:=1)", 2, "extensible match is not supported"),
            ("(:dn:2.4.8.10:=Dino)", 1, "extensible match is not supported"),
        ] {
            assert_eq!(refused(text), (position, reason.to_owned()), "{text}");
        }
    }

    #[test]
    fn depth_parts_and_length_are_bounded() {
        let nested = |depth: usize| format!("{}(a=1){}", "(!".repeat(depth), ")".repeat(depth));
        assert!(nested(Filter::DEPTH_MAX - 1).parse::<Filter>().is_ok());
        assert_eq!(refused(&nested(Filter::DEPTH_MAX)).1, "nested more than 16 deep");
        let wide = |parts: usize| format!("(|{})", "(a=1)".repeat(parts));
        assert!(wide(Filter::PARTS_MAX - 1).parse::<Filter>().is_ok());
        assert_eq!(refused(&wide(Filter::PARTS_MAX)).1, "more than 256 parts");
        assert!(refused(&format!("(a={})", "x".repeat(9_000))).1.contains("8192"));
        assert!(
            refused(&format!("({}=1)", "x".repeat(129)))
                .1
                .contains("129 bytes")
        );
    }

    fn filters() -> impl Strategy<Value = Filter> {
        let id = || "[a-zA-Z][a-zA-Z0-9.;-]{0,6}";
        let part = || "[a *()\\\\\u{0}-\u{1f}éč]{1,6}";
        let comparison = prop_oneof![
            Just(Comparison::Equal),
            Just(Comparison::Approximate),
            Just(Comparison::AtLeast),
            Just(Comparison::AtMost)
        ];
        let optional = || prop::option::of(part());
        let leaf = prop_oneof![
            id().prop_map(|id| Filter::Present { id }),
            (id(), comparison, "[a *()\\\\\u{0}-\u{1f}éč]{0,6}").prop_map(|(id, comparison, value)| {
                Filter::Compare {
                    id,
                    comparison,
                    value,
                }
            }),
            (id(), optional(), prop::collection::vec(part(), 0..3), optional())
                .prop_filter("a part is there", |(_, initial, any, last)| {
                    initial.is_some() || !any.is_empty() || last.is_some()
                })
                .prop_map(|(id, initial, any, last)| Filter::Substrings {
                    id,
                    initial,
                    any,
                    last
                }),
        ];
        leaf.prop_recursive(4, 30, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::And),
                prop::collection::vec(inner.clone(), 0..4).prop_map(Filter::Or),
                inner.prop_map(|filter| Filter::Not(Box::new(filter))),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(filter in filters()) {
            prop_assert_eq!(filter.to_string().parse::<Filter>(), Ok(filter));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[()&|!=~<>:*\\\\a0 é]{0,40}") {
            if let Ok(filter) = text.parse::<Filter>() {
                prop_assert_eq!(filter.to_string().parse::<Filter>(), Ok(filter));
            }
        }
    }
}
