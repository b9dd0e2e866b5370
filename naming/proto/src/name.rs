//! JNDI composite names: parsing, printing and limits, as `javax.naming.CompositeName` does it.
//!
//! Components are separated by `/`. `\` escapes a separator, a quote or itself before one of those; a
//! component may be quoted whole with `"` or `'`. Leading and trailing separators make empty components,
//! and a name of only separators has one empty component for each. Names are case-sensitive.
//!
//! There may be millions of names, so each is one piece of text. Mostly that is the text as printed, whose
//! components are what stands between the separators. Where quotes or escapes make it otherwise, the piece is
//! a mark, the length of the text as printed, that text, and the components with a zero byte between them; as
//! no control character stands in a name, neither can be taken for a part of it.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

const SEPARATOR: char = '/';
const ESCAPE: char = '\\';

/// A composite name. The empty name is the root context.
///
/// Cheap to clone. A `Name` exists only because its text was accepted, so it keeps the limits: a component
/// has at most 255 bytes, a name at most 32 components and 1,024 bytes as printed, and no control characters.
#[derive(Clone)]
pub struct Name(Arc<str>);

/// Begins a piece that holds the components beside the text.
const MARK: char = '\u{1}';
/// Stands between those components.
const GAP: char = '\0';
/// The digits of the length behind the mark, each of 6 bits above `0`.
const LENGTH_DIGITS: usize = 3;
const HEAD_BYTES: usize = 1 + LENGTH_DIGITS;

/// A text that is not a composite name, or one beyond the limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// A component began with a quote that never closes.
    #[error("{text:?}: a quote is not closed")]
    UnclosedQuote {
        /// The text given.
        text: String,
    },
    /// A quote closed before the end of its component.
    #[error("{text:?}: a closing quote stands before the end of its component")]
    EarlyCloseQuote {
        /// The text given.
        text: String,
    },
    /// The last character of a component was an escape that escapes nothing.
    #[error("{text:?}: a component ends in an escape that escapes nothing")]
    DanglingEscape {
        /// The text given.
        text: String,
    },
    /// A control character.
    #[error("control character U+{:04X} in a name", *found as u32)]
    ControlCharacter {
        /// The character.
        found: char,
    },
    /// A component with too many bytes.
    #[error(
        "a component of {length} bytes: at most {} are allowed",
        Name::COMPONENT_BYTES_MAX
    )]
    ComponentTooLong {
        /// Bytes given.
        length: usize,
    },
    /// Too many components.
    #[error("{count} components: at most {} are allowed", Name::COMPONENTS_MAX)]
    TooManyComponents {
        /// Components given.
        count: usize,
    },
    /// The printed name has too many bytes.
    #[error("a name of {length} bytes: at most {} are allowed", Name::BYTES_MAX)]
    TooLong {
        /// Bytes given.
        length: usize,
    },
    /// Not UTF-8.
    #[error("a name that is not UTF-8")]
    NotUtf8,
}

impl Name {
    /// The longest component, in bytes.
    pub const COMPONENT_BYTES_MAX: usize = 255;
    /// The most components.
    pub const COMPONENTS_MAX: usize = 32;
    /// The longest printed name, in bytes.
    pub const BYTES_MAX: usize = 1024;

    /// The empty name: the root context.
    #[must_use]
    pub fn root() -> Self {
        Self("".into())
    }

    /// A name of these components, each taken as it stands (no escapes, no quotes).
    ///
    /// # Errors
    /// `InvalidName` when a limit is passed or a control character stands in a component.
    pub fn from_components<I, S>(components: I) -> Result<Self, InvalidName>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let components: Vec<S> = components.into_iter().collect();
        check(components.len(), components.iter().map(AsRef::as_ref))?;
        let text = print(&components);
        if text.len() > Self::BYTES_MAX {
            return Err(InvalidName::TooLong { length: text.len() });
        }
        Ok(Self::packed(&text, &components))
    }

    /// A name from bytes as they come from a connection.
    ///
    /// # Errors
    /// `InvalidName::NotUtf8`, or whatever is wrong with the text.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, InvalidName> {
        if bytes.len() > 2 * Self::BYTES_MAX {
            return Err(InvalidName::TooLong { length: bytes.len() });
        }
        std::str::from_utf8(bytes)
            .map_err(|_| InvalidName::NotUtf8)?
            .parse()
    }

    /// The components, unescaped, from the root downwards.
    #[must_use]
    pub fn components(&self) -> Components<'_> {
        if let Some((_, components)) = self.marked() {
            return Components {
                left: 1 + components.matches(GAP).count(),
                rest: components,
                gap: GAP,
            };
        }
        let text: &str = &self.0;
        let separators = text.bytes().filter(|&b| b == SEPARATOR as u8).count();
        if separators == text.len() {
            return Components {
                rest: text.get(1..).unwrap_or_default(),
                left: separators,
                gap: SEPARATOR,
            };
        }
        Components {
            rest: text,
            left: 1 + separators,
            gap: SEPARATOR,
        }
    }

    /// The canonical text: what `javax.naming.CompositeName.toString` prints.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.marked().map_or(&self.0, |(text, _)| text)
    }

    /// Whether this is the empty name.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of the context that would hold this one; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let above = self.components().len().checked_sub(1)?;
        Some(self.prefix(above))
    }

    /// The first `count` components (all of them when there are fewer).
    #[must_use]
    pub fn prefix(&self, count: usize) -> Self {
        let length = self.components().len();
        if count >= length {
            return self.clone();
        }
        match self.cut(count) {
            Some((above, _)) => Self(above.into()),
            None => Self::accepted(self.components().take(count)),
        }
    }

    /// What is left after the first `count` components.
    #[must_use]
    pub fn suffix(&self, count: usize) -> Self {
        if count == 0 {
            return self.clone();
        }
        match self.cut(count) {
            Some((_, below)) => Self(below.into()),
            None => Self::accepted(self.components().skip(count)),
        }
    }

    /// The last component, unescaped; `None` for the root.
    #[must_use]
    pub fn last(&self) -> Option<&str> {
        self.components().next_back()
    }

    /// This name with `below` appended.
    ///
    /// # Errors
    /// `InvalidName` when the result passes a limit.
    pub fn join(&self, below: &Self) -> Result<Self, InvalidName> {
        Self::from_components(self.components().chain(below.components()))
    }

    /// Whether `self` is `above` or lies below it.
    #[must_use]
    pub fn starts_with(&self, above: &Self) -> bool {
        if above.is_root() {
            return true;
        }
        if self.is_plain() && above.is_plain() {
            let rest = self.0.strip_prefix(&*above.0);
            return rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(SEPARATOR));
        }
        let mut mine = self.components();
        above.components().all(|component| mine.next() == Some(component))
    }

    /// Whether the piece is the text, with exactly the separators between the components.
    fn is_plain(&self) -> bool {
        !self.0.starts_with([MARK, SEPARATOR])
    }

    /// The text and the components of a piece that holds both.
    fn marked(&self) -> Option<(&str, &str)> {
        let rest = self.0.strip_prefix(MARK)?;
        let (digits, rest) = rest.split_at(LENGTH_DIGITS);
        let digit = |number, digit: u8| (number << 6) | usize::from(digit - b'0');
        Some(rest.split_at(digits.bytes().fold(0, digit)))
    }

    /// A plain name before and after the separator behind the first `count` components; `None` where there
    /// is no such place, or where a part of the text would not be the text of the part.
    fn cut(&self, count: usize) -> Option<(&str, &str)> {
        if !self.is_plain() {
            return None;
        }
        let (at, _) = self.0.match_indices(SEPARATOR).nth(count.checked_sub(1)?)?;
        let (above, below) = (&self.0[..at], &self.0[at + 1..]);
        let is_whole = !below.is_empty() && !below.starts_with(SEPARATOR);
        is_whole.then_some((above, below))
    }

    /// A part of an accepted name is within every limit but may print longer by escapes it shares.
    fn accepted<'a>(components: impl Iterator<Item = &'a str>) -> Self {
        let components: Vec<&str> = components.collect();
        Self::packed(&print(&components), &components)
    }

    /// The name with this text and these components.
    fn packed<S: AsRef<str>>(text: &str, components: &[S]) -> Self {
        let plain = Self(text.into());
        let components = components.iter().map(AsRef::as_ref);
        if plain.components().eq(components.clone()) {
            return plain;
        }
        let mut piece = String::with_capacity(HEAD_BYTES + 2 * text.len());
        piece.push(MARK);
        for place in (0..LENGTH_DIGITS).rev() {
            piece.push(char::from(b'0' + ((text.len() >> (6 * place)) & 0b11_1111) as u8));
        }
        piece.push_str(text);
        for (at, component) in components.enumerate() {
            if at > 0 {
                piece.push(GAP);
            }
            piece.push_str(component);
        }
        Self(piece.into())
    }
}

/// The components of a name, in order.
#[derive(Clone, Debug)]
pub struct Components<'a> {
    /// Those not yet taken, with gaps between them.
    rest: &'a str,
    left: usize,
    gap: char,
}

impl<'a> Iterator for Components<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        let (component, rest) = self.rest.split_once(self.gap).unwrap_or((self.rest, ""));
        self.rest = rest;
        Some(component)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for Components<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let (rest, component) = self.rest.rsplit_once(self.gap).unwrap_or(("", self.rest));
        self.rest = rest;
        Some(component)
    }
}

impl ExactSizeIterator for Components<'_> {}

fn check<'a>(count: usize, components: impl Iterator<Item = &'a str>) -> Result<(), InvalidName> {
    if count > Name::COMPONENTS_MAX {
        return Err(InvalidName::TooManyComponents { count });
    }
    for component in components {
        if component.len() > Name::COMPONENT_BYTES_MAX {
            return Err(InvalidName::ComponentTooLong {
                length: component.len(),
            });
        }
        if let Some(found) = component.chars().find(|c| c.is_control()) {
            return Err(InvalidName::ControlCharacter { found });
        }
    }
    Ok(())
}

impl FromStr for Name {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if text.len() > 2 * Self::BYTES_MAX {
            return Err(InvalidName::TooLong { length: text.len() });
        }
        if text.len() > Self::BYTES_MAX || text.contains([ESCAPE, '"', '\'', MARK]) {
            return Self::from_components(split(text)?);
        }
        // Without quotes and escapes every text prints as itself.
        let name = Self(text.into());
        check(name.components().len(), name.components())?;
        Ok(name)
    }
}

/// Splits a text into unescaped components.
fn split(text: &str) -> Result<Vec<String>, InvalidName> {
    let mut components = Vec::new();
    let mut rest = text;
    let mut only_empty = true;
    while !rest.is_empty() {
        let (component, after) = take_component(text, rest)?;
        only_empty &= component.is_empty();
        components.push(component);
        let Some(below) = after.strip_prefix(SEPARATOR) else {
            break;
        };
        if below.is_empty() && !only_empty {
            components.push(String::new());
        }
        rest = below;
    }
    Ok(components)
}

/// Reads one component. What comes back as the rest is empty or begins with the separator.
fn take_component<'a>(text: &str, rest: &'a str) -> Result<(String, &'a str), InvalidName> {
    if let Some(quote @ ('"' | '\'')) = rest.chars().next() {
        return take_quoted(text, &rest[1..], quote);
    }
    let mut component = String::new();
    let mut chars = rest.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            SEPARATOR => return Ok((component, &rest[at..])),
            ESCAPE => match chars.next_if(|&(_, next)| is_meta(next)) {
                Some((_, escaped)) => component.push(escaped),
                None if chars.peek().is_none() => {
                    return Err(InvalidName::DanglingEscape {
                        text: text.to_owned(),
                    });
                }
                None => component.push(ESCAPE),
            },
            _ => component.push(c),
        }
    }
    Ok((component, ""))
}

/// Reads a component after its opening quote. Inside, an escape escapes only the closing quote.
fn take_quoted<'a>(text: &str, rest: &'a str, quote: char) -> Result<(String, &'a str), InvalidName> {
    let mut component = String::new();
    let mut chars = rest.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c == quote {
            let after = &rest[at + 1..];
            if after.is_empty() || after.starts_with(SEPARATOR) {
                return Ok((component, after));
            }
            return Err(InvalidName::EarlyCloseQuote {
                text: text.to_owned(),
            });
        }
        let escaped = if c == ESCAPE {
            chars.next_if(|&(_, next)| next == quote)
        } else {
            None
        };
        component.push(escaped.map_or(c, |(_, quote)| quote));
    }
    Err(InvalidName::UnclosedQuote {
        text: text.to_owned(),
    })
}

const fn is_meta(c: char) -> bool {
    matches!(c, SEPARATOR | ESCAPE | '"' | '\'')
}

fn print<S: AsRef<str>>(components: &[S]) -> String {
    let mut text = String::new();
    for (index, component) in components.iter().enumerate() {
        if index > 0 {
            text.push(SEPARATOR);
        }
        print_component(component.as_ref(), &mut text);
    }
    let only_empty = components.iter().all(|c| c.as_ref().is_empty());
    if only_empty && !components.is_empty() {
        text.push(SEPARATOR);
    }
    text
}

fn print_component(component: &str, text: &mut String) {
    // `CompositeName` quotes a component that holds a separator. It prints one that also ends in an
    // escape so that it cannot be read back; there the escaped form is used instead.
    if component.contains(SEPARATOR) && !component.ends_with(ESCAPE) {
        text.push('"');
        for c in component.chars() {
            if c == '"' {
                text.push(ESCAPE);
            }
            text.push(c);
        }
        text.push('"');
        return;
    }
    let mut chars = component.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        let escaped = match c {
            '"' | '\'' => first,
            ESCAPE => chars.peek().is_none_or(|&next| is_meta(next)),
            SEPARATOR => true,
            _ => false,
        };
        if escaped {
            text.push(ESCAPE);
        }
        text.push(c);
        first = false;
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Default for Name {
    fn default() -> Self {
        Self::root()
    }
}

/// One text has one piece.
impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Name {}

/// Component by component, so that a context is followed by everything below it.
impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        if self.is_plain() && other.is_plain() {
            return cmp_plain(self.0.as_bytes(), other.0.as_bytes());
        }
        self.components().cmp(other.components())
    }
}

/// Compares plain texts as their components compare: a separator ends a component, so it comes before every
/// other byte.
fn cmp_plain(a: &[u8], b: &[u8]) -> Ordering {
    let rank = |byte: u8| if byte == SEPARATOR as u8 { 0 } else { byte };
    match a.iter().zip(b).find(|(a, b)| a != b) {
        Some((a, b)) => rank(*a).cmp(&rank(*b)),
        None => a.len().cmp(&b.len()),
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Reader)
    }
}

struct Reader;

impl de::Visitor<'_> for Reader {
    type Value = Name;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a composite name")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Name, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn components(text: &str) -> Vec<String> {
        let name: Name = text.parse().expect("a valid name");
        name.components().map(str::to_owned).collect()
    }

    /// The examples of the `CompositeName` documentation, and its rules one by one.
    #[test]
    fn separators_quotes_and_escapes_split_as_in_jndi() {
        for (text, expected) in [
            ("", &[][..]),
            ("/", &[""]),
            ("//", &["", ""]),
            ("x", &["x"]),
            ("a/b/c", &["a", "b", "c"]),
            ("/a", &["", "a"]),
            ("a/", &["a", ""]),
            ("x//y", &["x", "", "y"]),
            ("a\\/b", &["a/b"]),
            ("\"a/b\"/c", &["a/b", "c"]),
            ("'a/b'/c", &["a/b", "c"]),
            ("\"it's\"", &["it's"]),
            ("\"a\\\"b\"", &["a\"b"]),
            ("a\\b", &["a\\b"]),
            ("a\\\\", &["a\\"]),
            ("it's", &["it's"]),
        ] {
            assert_eq!(components(text), expected, "{text:?}");
        }
    }

    #[test]
    fn malformed_names_say_what_is_wrong() {
        let refused = |text: &str| text.parse::<Name>().expect_err("an invalid name");
        assert!(matches!(refused("\"a"), InvalidName::UnclosedQuote { .. }));
        assert!(matches!(refused("'a'b"), InvalidName::EarlyCloseQuote { .. }));
        assert!(matches!(refused("a\\"), InvalidName::DanglingEscape { .. }));
        assert!(matches!(
            refused("a\nb"),
            InvalidName::ControlCharacter { found: '\n' }
        ));
        assert!(matches!(
            refused(&"x".repeat(256)),
            InvalidName::ComponentTooLong { length: 256 }
        ));
        assert!(matches!(
            refused(&"x/".repeat(32)),
            InvalidName::TooManyComponents { count: 33 }
        ));
        assert!(matches!(
            refused(&format!("{0}/{0}/{0}/{0}/{0}", "x".repeat(250))),
            InvalidName::TooLong { .. }
        ));
    }

    #[test]
    fn a_context_sorts_before_everything_below_it() {
        let mut names: Vec<Name> = ["ab", "a/b", "a-b", "a", ""]
            .iter()
            .map(|n| n.parse().expect("a valid name"))
            .collect();
        names.sort();
        let sorted: Vec<&str> = names.iter().map(Name::as_str).collect();
        assert_eq!(sorted, ["", "a", "a/b", "a-b", "ab"]);
    }

    proptest! {
        #[test]
        fn what_is_printed_parses_back(parts in proptest::collection::vec("[ab/\\\\'\" é]{0,6}", 0..6)) {
            let name = Name::from_components(&parts).expect("within limits");
            prop_assert!(name.components().eq(&parts));
            prop_assert!(name.components().rev().eq(parts.iter().rev()));
            prop_assert_eq!(name.as_str().parse::<Name>().expect("printed names parse"), name);
        }

        #[test]
        fn order_parts_and_beginnings_are_those_of_the_components(
            a in proptest::collection::vec("[ab!/\\\\']{0,2}", 0..4),
            b in proptest::collection::vec("[ab!/\\\\']{0,2}", 0..4),
        ) {
            let [left, right] = [&a, &b].map(|parts| Name::from_components(parts).expect("within limits"));
            prop_assert_eq!(left.cmp(&right), a.cmp(&b));
            prop_assert_eq!(left == right, a == b);
            prop_assert_eq!(left.starts_with(&right), a.starts_with(&b));
            for count in 0..=a.len() + 1 {
                let at = count.min(a.len());
                prop_assert_eq!(left.prefix(count), Name::from_components(&a[..at]).expect("within limits"));
                prop_assert_eq!(left.suffix(count), Name::from_components(&a[at..]).expect("within limits"));
            }
            let joined = Name::from_components(a.iter().chain(&b)).expect("within limits");
            prop_assert_eq!(left.join(&right).expect("within limits"), joined);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<Name>();
        }
    }
}
