//! What docs/client.md repeats of the code.

use std::collections::BTreeMap;

use daymark_client::proto::FactorySettings;
use serde_json::Value;

#[test]
fn the_settings_documented_are_all_there_are_with_their_defaults() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/client.md");
    let text = std::fs::read_to_string(path).expect("docs/client.md");
    let after = text
        .split_once("| setting | default |")
        .expect("where the settings begin")
        .1;
    let rows = after.lines().skip(2).take_while(|line| line.starts_with('|'));
    let documented: BTreeMap<String, Value> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
            let default = serde_json::from_str(cells[2]).expect("a default");
            (cells[1].to_owned(), default)
        })
        .collect();
    let Ok(Value::Object(actual)) = serde_json::to_value(FactorySettings::default()) else {
        panic!("settings are an object");
    };
    assert_eq!(documented, actual.into_iter().collect());
}
