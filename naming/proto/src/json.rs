//! JSON text, written as it is read, without a tree in between.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Deserializer, Serialize, Serializer};

/// JSON text as what it says. A text that is no JSON is an error of its serializer.
pub(crate) struct JsonText<'a>(pub(crate) &'a str);

impl Serialize for JsonText<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = serde_json::Deserializer::from_str(self.0);
        let written = text
            .deserialize_any(Passing(serializer))
            .map_err(S::Error::custom)?;
        text.end().map_err(S::Error::custom)?;
        Ok(written)
    }
}

/// Hands whatever is read to a serializer.
struct Passing<S>(S);

impl<'de, S: Serializer> Visitor<'de> for Passing<S> {
    type Value = S::Ok;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<S::Ok, E> {
        self.0.serialize_unit().map_err(E::custom)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<S::Ok, E> {
        self.0.serialize_bool(value).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<S::Ok, E> {
        self.0.serialize_u64(value).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<S::Ok, E> {
        self.0.serialize_i64(value).map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<S::Ok, E> {
        self.0.serialize_f64(value).map_err(E::custom)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<S::Ok, E> {
        self.0.serialize_str(value).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<S::Ok, A::Error> {
        let mut out = self.0.serialize_seq(None).map_err(A::Error::custom)?;
        while items.next_element_seed(Item(&mut out))?.is_some() {}
        out.end().map_err(A::Error::custom)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<S::Ok, A::Error> {
        let mut out = self.0.serialize_map(None).map_err(A::Error::custom)?;
        while let Some(key) = entries.next_key::<std::borrow::Cow<'_, str>>()? {
            out.serialize_key(&key).map_err(A::Error::custom)?;
            entries.next_value_seed(Entry(&mut out))?;
        }
        out.end().map_err(A::Error::custom)
    }
}

/// An item of an array.
struct Item<'a, S>(&'a mut S);

impl<'de, S: SerializeSeq> DeserializeSeed<'de> for Item<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<(), D::Error> {
        self.0
            .serialize_element(&Unread::new(text))
            .map_err(D::Error::custom)
    }
}

/// The value of an entry of an object.
struct Entry<'a, S>(&'a mut S);

impl<'de, S: SerializeMap> DeserializeSeed<'de> for Entry<'_, S> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, text: D) -> Result<(), D::Error> {
        self.0
            .serialize_value(&Unread::new(text))
            .map_err(D::Error::custom)
    }
}

/// What is read as it is written, which happens once.
struct Unread<D>(Cell<Option<D>>);

impl<D> Unread<D> {
    const fn new(text: D) -> Self {
        Self(Cell::new(Some(text)))
    }
}

impl<'de, D: Deserializer<'de>> Serialize for Unread<D> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = self
            .0
            .take()
            .ok_or_else(|| S::Error::custom("JSON that was written already"))?;
        text.deserialize_any(Passing(serializer))
            .map_err(S::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_written_as_what_it_says() {
        for json in [
            "null",
            r#"{"a":[1,-2,2.5,true,null,"x\n\"y"],"b":{"c":[]}}"#,
            "18446744073709551615",
        ] {
            assert_eq!(serde_json::to_string(&JsonText(json)).expect("JSON"), json);
            let tree = serde_json::to_value(JsonText(json)).expect("JSON");
            assert_eq!(tree.to_string(), json);
        }
    }

    #[test]
    fn a_text_that_is_no_json_is_an_error() {
        for json in ["", "{", "1 2", "[1,}"] {
            assert!(serde_json::to_string(&JsonText(json)).is_err(), "{json:?}");
        }
    }
}
