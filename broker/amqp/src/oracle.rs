//! What another implementation makes of what we write, and we of what it writes: `serde_amqp`, which knows nothing of
//! our codec. It chooses other widths and shorter lists, so that more than our own forms is read.

use proptest::collection::vec;
use proptest::prelude::*;

use crate::performative::Performative;
use crate::read::Reader;
use crate::roundtrip::{encode, performative, sasl, scalar};
use crate::sasl::SaslFrame;
use crate::value::Value;
use crate::write::put_value;

/// The same, read and written again by the other codec.
fn through(bytes: &[u8]) -> Vec<u8> {
    let theirs: serde_amqp::Value = serde_amqp::from_slice(bytes).expect("they can read it");
    serde_amqp::to_vec(&theirs).expect("they can write it")
}

/// Whether the other codec knows all of it: it does not read its own arrays when they are empty or hold lists, it mixes
/// up maps with keys of some kinds, and its descriptors are numbers or names.
fn is_known(shown: &impl std::fmt::Debug) -> bool {
    let shown = format!("{shown:?}");
    let mut described = shown.split("Described(").skip(1);
    let usual = |inner: &str| inner.starts_with("Ulong(") || inner.starts_with("Symbol(");
    !shown.contains("Array(") && !shown.contains("Map(") && described.all(usual)
}

/// The other codec keeps each key of a map once, and cannot compare all kinds of values.
fn map(values: Vec<Value>) -> Value {
    let numbered = values.into_iter().enumerate();
    Value::Map(
        numbered
            .map(|(number, value)| (Value::String(number.to_string()), value))
            .collect(),
    )
}

/// Values that the other codec knows.
fn plain() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 64, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..8).prop_map(Value::List),
            vec(inner.clone(), 0..5).prop_map(map),
            (any::<u64>(), inner.clone())
                .prop_map(|(code, value)| Value::Described(Box::new(Value::Ulong(code)), Box::new(value))),
            vec(any::<u32>(), 1..8)
                .prop_map(|items| Value::Array(items.into_iter().map(Value::Uint).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn every_value_means_the_same_to_both(value in plain()) {
        let mut bytes = Vec::new();
        put_value(&mut bytes, &value);
        let theirs = through(&bytes);
        let mut reader = Reader::new(&theirs);
        prop_assert_eq!(reader.value().unwrap(), value);
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn every_performative_means_the_same_to_both(performative in performative()) {
        prop_assume!(is_known(&performative));
        let theirs = through(&encode(&performative));
        prop_assert_eq!(Performative::decode(&theirs).unwrap(), (performative, theirs.len()));
    }

    #[test]
    fn every_sasl_frame_means_the_same_to_both(frame in sasl()) {
        prop_assume!(frame != SaslFrame::Mechanisms(Vec::new()));
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        prop_assert_eq!(SaslFrame::decode(&through(&bytes)).unwrap(), frame);
    }
}
