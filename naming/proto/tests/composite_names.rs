//! Names against `javax.naming.CompositeName` itself: what it made of 900 texts is committed as data
//! (`tests/vectors/CompositeNames.java` writes it).

use daymark_naming_proto::Name;
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    text: String,
    #[serde(default)]
    invalid: bool,
    #[serde(default)]
    components: Vec<String>,
    #[serde(default)]
    printed: String,
}

fn vectors() -> Vec<Vector> {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/data/composite-names.jsonl"
    );
    let lines = std::fs::read_to_string(file).expect("the vectors are part of the checkout");
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a vector"))
        .collect()
}

#[test]
fn every_text_splits_as_in_the_jdk() {
    let vectors = vectors();
    assert!(vectors.len() >= 500, "{} vectors", vectors.len());
    for vector in vectors {
        match vector.text.parse::<Name>() {
            Ok(name) => {
                assert!(!vector.invalid, "{:?} is invalid in the JDK", vector.text);
                let components: Vec<&str> = name.components().collect();
                assert_eq!(components, vector.components, "{:?}", vector.text);
            }
            Err(error) => assert!(vector.invalid, "{:?}: {error}", vector.text),
        }
    }
}

/// The one departure: a component with a separator that ends in an escape. The JDK quotes it and cannot
/// read that back; we escape it.
#[test]
fn every_name_prints_as_in_the_jdk_where_the_jdk_can_read_it_back() {
    let mut departures = 0;
    for vector in vectors().into_iter().filter(|v| !v.invalid) {
        let name: Name = vector.text.parse().expect("a valid name");
        assert_eq!(
            name.as_str().parse::<Name>().as_ref(),
            Ok(&name),
            "{:?}",
            vector.text
        );
        if name.as_str() == vector.printed {
            continue;
        }
        assert_ne!(
            vector.printed.parse::<Name>().as_ref(),
            Ok(&name),
            "{:?}",
            vector.text
        );
        departures += 1;
    }
    assert!(
        departures < 40,
        "{departures} names print otherwise than in the JDK"
    );
}
