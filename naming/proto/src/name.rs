//! JNDI composite names: parsing, printing and limits, as `javax.naming.CompositeName` does it.
//!
//! Components are separated by `/`. `\` escapes a separator, a quote or itself before one of those; a
//! component may be quoted whole with `"` or `'`. Leading and trailing separators make empty components,
//! and a name of only separators has one empty component for each. Names are case-sensitive.

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
pub struct Name(Arc<Inner>);

struct Inner {
    components: Box<[Box<str>]>,
    text: Box<str>,
}

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
        Self(Arc::new(Inner {
            components: Box::default(),
            text: Box::default(),
        }))
    }

    /// A name of these components, each taken as it stands (no escapes, no quotes).
    ///
    /// # Errors
    /// `InvalidName` when a limit is passed or a control character stands in a component.
    pub fn from_components<I, S>(components: I) -> Result<Self, InvalidName>
    where
        I: IntoIterator<Item = S>,
        S: Into<Box<str>>,
    {
        let components: Box<[Box<str>]> = components.into_iter().map(Into::into).collect();
        check(&components)?;
        let text = print(&components);
        if text.len() > Self::BYTES_MAX {
            return Err(InvalidName::TooLong { length: text.len() });
        }
        Ok(Self(Arc::new(Inner {
            components,
            text: text.into(),
        })))
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
    pub fn components(&self) -> &[Box<str>] {
        &self.0.components
    }

    /// The canonical text: what `javax.naming.CompositeName.toString` prints.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// Whether this is the empty name.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.components.is_empty()
    }

    /// The name of the context that would hold this one; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (_, above) = self.0.components.split_last()?;
        Some(Self::accepted(above))
    }

    /// The first `count` components (all of them when there are fewer).
    #[must_use]
    pub fn prefix(&self, count: usize) -> Self {
        Self::accepted(&self.0.components[..count.min(self.0.components.len())])
    }

    /// What is left after the first `count` components.
    #[must_use]
    pub fn suffix(&self, count: usize) -> Self {
        Self::accepted(&self.0.components[count.min(self.0.components.len())..])
    }

    /// The last component, unescaped; `None` for the root.
    #[must_use]
    pub fn last(&self) -> Option<&str> {
        self.0.components.last().map(AsRef::as_ref)
    }

    /// This name with `below` appended.
    ///
    /// # Errors
    /// `InvalidName` when the result passes a limit.
    pub fn join(&self, below: &Self) -> Result<Self, InvalidName> {
        Self::from_components(self.0.components.iter().chain(below.0.components.iter()).cloned())
    }

    /// Whether `self` is `above` or lies below it.
    #[must_use]
    pub fn starts_with(&self, above: &Self) -> bool {
        self.0.components.starts_with(&above.0.components)
    }

    /// A part of an accepted name is within every limit but may print longer by escapes it shares.
    fn accepted(components: &[Box<str>]) -> Self {
        let text = print(components);
        Self(Arc::new(Inner {
            components: components.into(),
            text: text.into(),
        }))
    }
}

fn check(components: &[Box<str>]) -> Result<(), InvalidName> {
    if components.len() > Name::COMPONENTS_MAX {
        return Err(InvalidName::TooManyComponents {
            count: components.len(),
        });
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
        Self::from_components(split(text)?)
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
        f.pad(&self.0.text)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.text, f)
    }
}

impl Default for Name {
    fn default() -> Self {
        Self::root()
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.text == other.0.text
    }
}

impl Eq for Name {}

/// Component by component, so that a context is followed by everything below it.
impl Ord for Name {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.components.cmp(&other.0.components)
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.text.hash(state);
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.text)
    }
}

impl<'de> Deserialize<'de> for Name {
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

    fn components(text: &str) -> Vec<String> {
        let name: Name = text.parse().expect("a valid name");
        name.components().iter().map(|c| c.to_string()).collect()
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
            let name = Name::from_components(parts).expect("within limits");
            prop_assert_eq!(name.as_str().parse::<Name>().expect("printed names parse"), name);
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "\\PC{0,40}") {
            let _ = text.parse::<Name>();
        }
    }
}
