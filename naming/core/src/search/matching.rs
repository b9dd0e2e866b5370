//! What a filter matches.
//!
//! Ids compare without regard to ASCII case. Values compare as RFC 4517's `caseIgnoreMatch` does: without
//! regard to case, blanks at the ends left out, several blanks in a row like one. `>=` and `<=` compare as
//! numbers where both sides are whole numbers, otherwise as texts. `~=` also disregards everything but letters
//! and digits. A comparison with an attribute that is absent does not match, so its negation does. A
//! binding without an attribute `objectClass` has its kind as one, so that `(objectClass=*)` finds everything.

use std::cmp::Ordering;

use daymark_naming_proto::{Binding, Comparison, Filter};

const OBJECT_CLASS: &str = "objectClass";

/// A filter prepared for many bindings.
pub(super) struct Matcher {
    root: Node,
    parts: u64,
}

enum Node {
    And(Vec<Self>),
    Or(Vec<Self>),
    Not(Box<Self>),
    Leaf { id: String, test: Test },
}

/// What one value must be, in the form that values compare in.
enum Test {
    Present,
    Equal(String),
    Approximate(String),
    AtLeast(Bound),
    AtMost(Bound),
    Parts {
        initial: String,
        any: Vec<String>,
        last: String,
    },
}

struct Bound {
    text: String,
    number: Option<i128>,
}

impl Matcher {
    pub(super) fn new(filter: &Filter) -> Self {
        let mut parts = 0;
        let root = Node::new(filter, &mut parts);
        Self { root, parts }
    }

    /// Comparisons and combinations in it.
    pub(super) const fn parts(&self) -> u64 {
        self.parts
    }

    pub(super) fn matches(&self, binding: &Binding) -> bool {
        self.root.matches(binding)
    }
}

impl Node {
    fn new(filter: &Filter, parts: &mut u64) -> Self {
        *parts += 1;
        let mut all = |filters: &[Filter]| filters.iter().map(|filter| Self::new(filter, parts)).collect();
        match filter {
            Filter::And(filters) => Self::And(all(filters)),
            Filter::Or(filters) => Self::Or(all(filters)),
            Filter::Not(filter) => Self::Not(Box::new(Self::new(filter, parts))),
            Filter::Present { id } => Self::leaf(id, Test::Present),
            Filter::Compare {
                id,
                comparison,
                value,
            } => Self::leaf(
                id,
                match comparison {
                    Comparison::Equal => Test::Equal(prepared(value)),
                    Comparison::Approximate => Test::Approximate(approximated(value)),
                    Comparison::AtLeast => Test::AtLeast(Bound::new(value)),
                    Comparison::AtMost => Test::AtMost(Bound::new(value)),
                },
            ),
            Filter::Substrings {
                id,
                initial,
                any,
                last,
            } => Self::leaf(
                id,
                Test::Parts {
                    initial: folded(initial.as_deref().unwrap_or_default())
                        .trim_start()
                        .to_owned(),
                    any: any.iter().map(|part| folded(part)).collect(),
                    last: folded(last.as_deref().unwrap_or_default()).trim_end().to_owned(),
                },
            ),
        }
    }

    fn leaf(id: &str, test: Test) -> Self {
        Self::Leaf {
            id: id.to_owned(),
            test,
        }
    }

    fn matches(&self, binding: &Binding) -> bool {
        match self {
            Self::And(nodes) => nodes.iter().all(|node| node.matches(binding)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(binding)),
            Self::Not(node) => !node.matches(binding),
            Self::Leaf { id, test } => match binding.attributes.values(id) {
                Some(mut values) => values.any(|value| test.holds(value)),
                None if id.eq_ignore_ascii_case(OBJECT_CLASS) => test.holds(binding.object.kind().as_str()),
                None => false,
            },
        }
    }
}

impl Test {
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Equal(wanted) => prepared(value) == *wanted,
            Self::Approximate(wanted) => approximated(value) == *wanted,
            Self::AtLeast(bound) => bound.compare(value).is_ge(),
            Self::AtMost(bound) => bound.compare(value).is_le(),
            Self::Parts { initial, any, last } => has_parts(&prepared(value), initial, any, last),
        }
    }
}

impl Bound {
    fn new(text: &str) -> Self {
        Self {
            text: prepared(text),
            number: whole_number(text),
        }
    }

    /// How a value compares with this bound.
    fn compare(&self, value: &str) -> Ordering {
        match (self.number, whole_number(value)) {
            (Some(bound), Some(value)) => value.cmp(&bound),
            (Some(_) | None, _) => prepared(value).as_str().cmp(&self.text),
        }
    }
}

fn whole_number(text: &str) -> Option<i128> {
    text.trim().parse().ok()
}

fn has_parts(value: &str, initial: &str, any: &[String], last: &str) -> bool {
    let Some(mut rest) = value.strip_prefix(initial) else {
        return false;
    };
    for part in any {
        match rest.find(part.as_str()) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// A value in lower case, blanks at its ends left out, several blanks in a row made one.
fn prepared(text: &str) -> String {
    let text = folded(text);
    match text.trim() {
        trimmed if trimmed.len() == text.len() => text,
        trimmed => trimmed.to_owned(),
    }
}

/// Lower case, several blanks in a row made one.
fn folded(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_whitespace() {
            if !folded.ends_with(' ') {
                folded.push(' ');
            }
        } else {
            folded.extend(c.to_lowercase());
        }
    }
    folded
}

/// Letters and digits, in lower case.
fn approximated(text: &str) -> String {
    let meant = text.chars().filter(|c| c.is_alphanumeric());
    meant.flat_map(char::to_lowercase).collect()
}
