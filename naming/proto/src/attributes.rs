//! Attributes of a binding: `BasicAttributes` with case-insensitive ids and many values each.
//!
//! A binding may have none, and there may be millions of bindings, so all attributes of one stand in one
//! piece of text: for each attribute, sorted by id without regard to case, its id, the number of its values
//! and its values, each text behind its length. Lengths are written as ASCII digits of base 64, so that the piece is
//! a text as a whole and every part of it a slice.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Attributes by id. Ids compare without regard to ASCII case and keep the spelling they came with.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Attributes(Box<str>);

impl Attributes {
    /// No attributes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the values of one attribute, whatever they were.
    pub fn set(&mut self, id: &str, values: Vec<String>) {
        let mut all = self.owned();
        all.insert(id.to_ascii_lowercase(), (id.to_owned(), values));
        *self = Self::packed(&all.into_values().collect::<Vec<_>>());
    }

    /// The values of one attribute; `None` where it is absent.
    #[must_use]
    pub fn values(&self, id: &str) -> Option<Values<'_>> {
        self.iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(id))
            .map(|(_, values)| values)
    }

    /// Removes one attribute and says whether it was there.
    pub fn remove(&mut self, id: &str) -> bool {
        let mut all = self.owned();
        let was_there = all.remove(&id.to_ascii_lowercase()).is_some();
        if was_there {
            *self = Self::packed(&all.into_values().collect::<Vec<_>>());
        }
        was_there
    }

    /// Every attribute, sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Values<'_>)> {
        let mut rest: &str = &self.0;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let id = take_text(&mut rest);
            let left = take_number(&mut rest);
            let values = Values { rest, left };
            for _ in 0..left {
                take_text(&mut rest);
            }
            Some((id, values))
        })
    }

    /// Those of these ids that are there.
    #[must_use]
    pub fn selected<S: AsRef<str>>(&self, ids: &[S]) -> Self {
        let is_wanted = |id: &str| ids.iter().any(|wanted| wanted.as_ref().eq_ignore_ascii_case(id));
        let wanted = self.iter().filter(|(id, _)| is_wanted(id));
        let wanted = wanted.map(|(id, values)| (id, values.collect()));
        Self::packed::<_, &str>(&wanted.collect::<Vec<_>>())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    fn owned(&self) -> BTreeMap<String, (String, Vec<String>)> {
        let owned = |(id, values): (&str, Values<'_>)| {
            let values = values.map(str::to_owned).collect();
            (id.to_ascii_lowercase(), (id.to_owned(), values))
        };
        self.iter().map(owned).collect()
    }

    /// Puts attributes that are sorted and distinct into one piece, which is made once in its size.
    fn packed<I: AsRef<str>, V: AsRef<str>>(attributes: &[(I, Vec<V>)]) -> Self {
        let bytes = |(id, values): &(I, Vec<V>)| {
            let texts: usize = values.iter().map(|value| text_bytes(value.as_ref())).sum();
            text_bytes(id.as_ref()) + number_bytes(values.len()) + texts
        };
        let mut text = String::with_capacity(attributes.iter().map(bytes).sum());
        for (id, values) in attributes {
            push_text(id.as_ref(), &mut text);
            push_number(values.len(), &mut text);
            values
                .iter()
                .for_each(|value| push_text(value.as_ref(), &mut text));
        }
        Self(text.into())
    }
}

/// The values of one attribute, in order.
#[derive(Clone)]
pub struct Values<'a> {
    rest: &'a str,
    left: usize,
}

impl<'a> Iterator for Values<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        self.left = self.left.checked_sub(1)?;
        Some(take_text(&mut self.rest))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Values<'_> {}

impl fmt::Debug for Values<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.clone())
    }
}

/// A digit that another one follows stands 64 places higher; all digits are ASCII.
const DIGIT_BITS: u32 = 6;
const GOES_ON: u8 = 1 << DIGIT_BITS;

fn push_number(mut number: usize, text: &mut String) {
    loop {
        let digit = (number % usize::from(GOES_ON)) as u8;
        number >>= DIGIT_BITS;
        if number == 0 {
            text.push(char::from(digit));
            return;
        }
        text.push(char::from(digit | GOES_ON));
    }
}

/// How many digits `push_number` writes.
const fn number_bytes(number: usize) -> usize {
    let bits = usize::BITS - number.leading_zeros();
    if bits == 0 {
        1
    } else {
        bits.div_ceil(DIGIT_BITS) as usize
    }
}

/// How many bytes `push_text` writes.
const fn text_bytes(part: &str) -> usize {
    number_bytes(part.len()) + part.len()
}

fn push_text(part: &str, text: &mut String) {
    push_number(part.len(), text);
    text.push_str(part);
}

fn take_number(rest: &mut &str) -> usize {
    let (mut number, mut shift) = (0, 0);
    for (at, byte) in rest.bytes().enumerate() {
        number |= usize::from(byte % GOES_ON) << shift;
        shift += DIGIT_BITS;
        if byte < GOES_ON {
            *rest = &rest[at + 1..];
            return number;
        }
    }
    *rest = "";
    number
}

fn take_text<'a>(rest: &mut &'a str) -> &'a str {
    let length = take_number(rest);
    let (text, after) = rest.split_at(length);
    *rest = after;
    text
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl<I: AsRef<str>, V: AsRef<str>> FromIterator<(I, Vec<V>)> for Attributes {
    /// Of two attributes whose ids differ in case only, the later one stays.
    fn from_iter<T: IntoIterator<Item = (I, Vec<V>)>>(iter: T) -> Self {
        let mut all: Vec<(I, Vec<V>)> = iter.into_iter().collect();
        let lower = |id: &I| id.as_ref().to_ascii_lowercase();
        let is_in_order = |a: &(I, _), b: &(I, _)| {
            let (a, b) = (a.0.as_ref().bytes(), b.0.as_ref().bytes());
            a.map(|c| c.to_ascii_lowercase())
                .lt(b.map(|c| c.to_ascii_lowercase()))
        };
        if !all.is_sorted_by(is_in_order) {
            // The sort is stable: among equals the last one came last.
            all.sort_by_cached_key(|(id, _)| lower(id));
            all.reverse();
            all.dedup_by(|a, b| a.0.as_ref().eq_ignore_ascii_case(b.0.as_ref()));
            all.reverse();
        }
        Self::packed(&all)
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.len()))?;
        for (id, values) in self.iter() {
            map.serialize_entry(id, &values)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Attributes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("attributes: lists of texts by id")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Attributes, A::Error> {
        let mut all = Vec::new();
        while let Some((Borrowed(id), values)) = map.next_entry::<Borrowed<'de>, Vec<Borrowed<'de>>>()? {
            all.push((id, values));
        }
        Ok(all.into_iter().collect())
    }
}

/// A text that is copied only where its source cannot lend it.
struct Borrowed<'a>(Cow<'a, str>);

impl AsRef<str> for Borrowed<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Borrowed<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Borrowed<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Borrowed(text.into()))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Borrowed(text.to_owned().into()))
            }

            fn visit_string<E>(self, text: String) -> Result<Self::Value, E> {
                Ok(Borrowed(text.into()))
            }
        }

        deserializer.deserialize_str(Text)
    }
}

/// One change of one attribute (`javax.naming.directory.ModificationItem`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Modification {
    /// What to do with the values.
    pub op: ModificationOp,
    /// The attribute.
    pub id: String,
    /// The values; each is compared exactly.
    #[serde(default)]
    pub values: Vec<String>,
}

/// What a modification does (`DirContext.ADD_ATTRIBUTE` and its companions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ModificationOp {
    /// Adds the values it does not have; makes the attribute where it is absent. Wants at least one value.
    Add,
    /// Gives it exactly these values; without values it is removed.
    Replace,
    /// Takes these values away, whether or not they are there; without values, or with its last one, the
    /// attribute is removed.
    Remove,
}

impl ModificationOp {
    /// The operation as it is written on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Replace => "replace",
            Self::Remove => "remove",
        }
    }
}

impl Attributes {
    /// Carries one modification out, whose values are known to be as its operation wants them.
    pub fn modify(&mut self, modification: &Modification) {
        let Modification { op, id, values } = modification;
        let before: Vec<String> = self
            .values(id)
            .map_or_else(Vec::new, |values| values.map(str::to_owned).collect());
        let after = match op {
            ModificationOp::Add => with(before, values),
            ModificationOp::Replace => with(Vec::new(), values),
            ModificationOp::Remove if values.is_empty() => Vec::new(),
            ModificationOp::Remove => {
                let mut after = before;
                after.retain(|value| !values.contains(value));
                after
            }
        };
        if after.is_empty() {
            self.remove(id);
        } else {
            self.set(&self.spelling(id), after);
        }
    }

    /// How the id is spelled here, or as given where it is absent.
    fn spelling(&self, id: &str) -> String {
        let known = self.iter().find(|(known, _)| known.eq_ignore_ascii_case(id));
        known.map_or(id, |(known, _)| known).to_owned()
    }
}

/// The union of both, in order.
fn with(mut values: Vec<String>, more: &[String]) -> Vec<String> {
    for value in more {
        if !values.contains(value) {
            values.push(value.clone());
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn list(attributes: &Attributes, id: &str) -> Option<Vec<String>> {
        Some(attributes.values(id)?.map(str::to_owned).collect())
    }

    #[test]
    fn ids_compare_without_case_and_keep_their_spelling() {
        let mut attributes = Attributes::new();
        attributes.set("Region", vec!["eu".into()]);
        assert_eq!(list(&attributes, "REGION"), Some(vec!["eu".to_owned()]));
        assert_eq!(attributes.iter().next().map(|(id, _)| id), Some("Region"));
        assert!(attributes.remove("region") && attributes.is_empty());
    }

    #[test]
    fn of_two_spellings_of_one_id_the_later_stays() {
        let both = [("b", vec!["1"]), ("B", vec!["2"]), ("a", vec![])];
        let attributes: Attributes = both.into_iter().collect();
        let all: Vec<_> = attributes.iter().map(|(id, _)| id).collect();
        assert_eq!(all, ["a", "B"]);
        assert_eq!(list(&attributes, "b"), Some(vec!["2".to_owned()]));
    }

    #[test]
    fn a_piece_is_counted_as_it_is_written() {
        for number in [0, 1, 63, 64, 4_095, 4_096, 262_143, 262_144, usize::MAX] {
            let mut text = String::new();
            push_number(number, &mut text);
            assert_eq!(text.len(), number_bytes(number), "{number}");
        }
    }

    #[test]
    fn modifications_add_replace_and_remove_values_as_sets() {
        let modified = |op, values: &[&str]| {
            let mut attributes: Attributes = [("Tier", vec!["gold", "old"])].into_iter().collect();
            attributes.modify(&Modification {
                op,
                id: "tier".into(),
                values: values.iter().map(|v| (*v).to_owned()).collect(),
            });
            attributes
                .iter()
                .map(|(id, values)| format!("{id}={values:?}"))
                .collect::<String>()
        };
        assert_eq!(
            modified(ModificationOp::Add, &["gold", "new"]),
            r#"Tier=["gold", "old", "new"]"#
        );
        assert_eq!(modified(ModificationOp::Replace, &["x", "x"]), r#"Tier=["x"]"#);
        assert_eq!(modified(ModificationOp::Replace, &[]), "");
        assert_eq!(
            modified(ModificationOp::Remove, &["old", "never"]),
            r#"Tier=["gold"]"#
        );
        assert_eq!(modified(ModificationOp::Remove, &["old", "gold"]), "");
        assert_eq!(modified(ModificationOp::Remove, &[]), "");
    }

    proptest! {
        #[test]
        fn what_is_put_in_comes_out_in_every_form(
            all in prop::collection::btree_map("[a-z]{1,70}", prop::collection::vec("\\PC{0,80}", 0..5), 0..5)
        ) {
            let attributes: Attributes = all.clone().into_iter().collect();
            let out: BTreeMap<String, Vec<String>> = attributes
                .iter()
                .map(|(id, values)| (id.to_owned(), values.map(str::to_owned).collect()))
                .collect();
            prop_assert_eq!(out, all);
            let bytes = postcard::to_stdvec(&attributes).expect("bytes");
            prop_assert_eq!(postcard::from_bytes::<Attributes>(&bytes).expect("attributes"), attributes.clone());
            let json = serde_json::to_string(&attributes).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<Attributes>(&json).expect("attributes"), attributes);
        }
    }
}
