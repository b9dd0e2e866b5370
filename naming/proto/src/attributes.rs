//! Attributes of a binding: `BasicAttributes` with case-insensitive ids and many values each.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Attributes by id. Ids compare without regard to ASCII case and keep the spelling they came with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes(BTreeMap<String, (String, Vec<String>)>);

impl Attributes {
    /// No attributes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the values of one attribute, whatever they were.
    pub fn set(&mut self, id: &str, values: Vec<String>) {
        self.0.insert(id.to_ascii_lowercase(), (id.to_owned(), values));
    }

    /// The values of one attribute; `None` where it is absent.
    #[must_use]
    pub fn values(&self, id: &str) -> Option<&[String]> {
        self.0
            .get(&id.to_ascii_lowercase())
            .map(|(_, values)| values.as_slice())
    }

    /// Removes one attribute and says whether it was there.
    pub fn remove(&mut self, id: &str) -> bool {
        self.0.remove(&id.to_ascii_lowercase()).is_some()
    }

    /// Every attribute, sorted by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.0
            .values()
            .map(|(id, values)| (id.as_str(), values.as_slice()))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl FromIterator<(String, Vec<String>)> for Attributes {
    fn from_iter<T: IntoIterator<Item = (String, Vec<String>)>>(iter: T) -> Self {
        let mut attributes = Self::new();
        for (id, values) in iter {
            attributes.set(&id, values);
        }
        attributes
    }
}

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.values().map(|(id, values)| (id, values)))
    }
}

impl<'de> Deserialize<'de> for Attributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::<String, Vec<String>>::deserialize(deserializer).map(|map| map.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_compare_without_case_and_keep_their_spelling() {
        let mut attributes = Attributes::new();
        attributes.set("Region", vec!["eu".into()]);
        assert_eq!(attributes.values("REGION"), Some(&["eu".to_owned()][..]));
        assert_eq!(attributes.iter().next().map(|(id, _)| id), Some("Region"));
        assert!(attributes.remove("region") && attributes.is_empty());
    }
}
