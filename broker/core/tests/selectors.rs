//! Message selectors: the grammar, its refusals, and what matches.

use std::collections::BTreeMap;

use daymark_broker_core::selector::{MAX_SELECTOR_BYTES, Properties, Selector, SelectorError, Value, Why};
use proptest::prelude::*;

/// Properties of a message, by name.
#[derive(Default)]
struct Message(BTreeMap<&'static str, Value<'static>>);

impl Properties for Message {
    fn value(&self, name: &str) -> Value<'_> {
        self.0.get(name).copied().unwrap_or(Value::Null)
    }
}

fn message() -> Message {
    Message(BTreeMap::from([
        ("JMSPriority", Value::Int(4)),
        ("JMSDeliveryMode", Value::Text("PERSISTENT")),
        ("JMSType", Value::Text("car")),
        ("JMSXDeliveryCount", Value::Int(1)),
        ("colour", Value::Text("blue")),
        ("quote", Value::Text("it's 100%")),
        ("weight", Value::Int(2_600)),
        ("price", Value::Float(2.5)),
        ("sold", Value::Bool(false)),
        ("fresh", Value::Bool(true)),
        ("größe", Value::Int(7)),
        ("$_1", Value::Int(1)),
    ]))
}

fn matches(text: &str) -> bool {
    Selector::parse(text)
        .unwrap_or_else(|error| panic!("{text}: {error}"))
        .matches(&message())
}

/// What the selector and its negation say: `None` if neither holds.
fn truth(text: &str) -> Option<bool> {
    match (matches(text), matches(&format!("NOT ({text})"))) {
        (true, false) => Some(true),
        (false, true) => Some(false),
        (false, false) => None,
        (true, true) => panic!("{text} and its negation are both true"),
    }
}

#[test]
fn what_the_specification_shows_as_true_matches() {
    for text in [
        "JMSType = 'car' AND colour = 'blue' AND weight > 2500",
        "weight BETWEEN 2500 AND 2600 and weight between 2599.5 and 1e4",
        "weight NOT BETWEEN 1 AND 2",
        "colour IN ('red', 'blue')",
        "colour NOT IN ('red')",
        "colour LIKE 'b%e' AND colour LIKE '_l_e' AND colour NOT LIKE 'l%'",
        "quote = 'it''s 100%'",
        "quote LIKE '%100!%' ESCAPE '!'",
        "nothing IS NULL AND colour IS NOT NULL",
        "NOT sold AND fresh = TRUE and sold = false AND sold <> fresh",
        "weight * 2 + 1 = 5201 AND weight / 7 = 371 AND weight - 1 - 1 = 2598",
        "price * 2 = 5 AND price = 2.5 AND price <> 2 AND +price >= 2.5e0 AND -price < .5",
        "JMSPriority = 4 AND JMSDeliveryMode = 'PERSISTENT' AND JMSXDeliveryCount = 1",
        "weight = 0xA28 AND weight = 05050 AND weight = 2600L AND price = 2.5d AND 7. = 7",
        "größe = 7 AND $_1 = 1",
        "-9223372036854775808 < 0 AND 9223372036854775807 > 0",
        "weight>2500 AND(colour='blue')",
        "sold = TRUE OR sold = FALSE",
        "1 + 2 * 3 = 7 AND (1 + 2) * 3 = 9 AND - - 3 = 3 AND -(3) = -3",
    ] {
        assert!(matches(text), "{text}");
    }
}

#[test]
fn and_or_and_not_follow_the_tables_of_the_specification() {
    let (yes, no, unknown) = ("fresh", "sold", "nothing = 1");
    let and = |a: Option<bool>, b: Option<bool>| match (a, b) {
        (Some(false), _) | (_, Some(false)) => Some(false),
        (Some(true), Some(true)) => Some(true),
        _ => None,
    };
    let or = |a: Option<bool>, b: Option<bool>| match (a, b) {
        (Some(true), _) | (_, Some(true)) => Some(true),
        (Some(false), Some(false)) => Some(false),
        _ => None,
    };
    for left in [yes, no, unknown] {
        for right in [yes, no, unknown] {
            let (a, b) = (truth(left), truth(right));
            assert_eq!(
                truth(&format!("{left} AND {right}")),
                and(a, b),
                "{left} AND {right}"
            );
            assert_eq!(
                truth(&format!("{left} OR {right}")),
                or(a, b),
                "{left} OR {right}"
            );
        }
    }
    assert_eq!(
        (truth(yes), truth(no), truth(unknown)),
        (Some(true), Some(false), None)
    );
}

#[test]
fn an_absent_value_makes_every_test_but_is_null_unknown() {
    for text in [
        "nothing = 1",
        "nothing <> 'a'",
        "nothing < 1",
        "nothing + 1 = 2",
        "nothing IN ('a')",
        "nothing NOT IN ('a')",
        "nothing LIKE '%'",
        "nothing NOT LIKE '%'",
        "nothing BETWEEN 1 AND 2",
        "nothing NOT BETWEEN 1 AND 2",
        "-nothing = 1",
        "nothing",
        "weight / 0 = 1",
        "colour + 1 = 2",
        "colour",
    ] {
        assert_eq!(truth(text), None, "{text}");
    }
}

#[test]
fn values_of_different_kinds_compare_as_false_whatever_the_comparison() {
    for text in [
        "colour = 1",
        "colour <> 1",
        "colour < weight",
        "sold = 'false'",
        "sold <> 0",
        "weight LIKE '2%'",
        "weight NOT LIKE '2%'",
        "weight IN ('2600')",
        "weight NOT IN ('2600')",
        "colour BETWEEN 1 AND 2",
        "colour NOT BETWEEN 1 AND 2",
        "colour > sold",
    ] {
        assert_eq!(truth(text), Some(false), "{text}");
    }
}

#[test]
fn what_is_no_selector_is_refused_with_its_place() {
    let found = |text: &str| Selector::parse(text).map(|selector| selector.to_string());
    let cases: [(&str, usize, &str); 22] = [
        ("", 0, "it is empty"),
        ("  ", 2, "it is empty"),
        ("a = ", 4, "a value is expected, not the end"),
        (
            "a = 1 b",
            6,
            "an operator or the end is expected, not the identifier b",
        ),
        ("a == 1", 3, "a value is expected, not a comparison"),
        ("a = 'x", 4, "the text is not closed"),
        ("a ! b", 2, "'!' has no meaning here"),
        ("a = 12abc", 4, "12abc is not a number that fits"),
        ("a = 09", 4, "09 is not a number that fits"),
        (
            "a = 9223372036854775808",
            4,
            "9223372036854775808 is not a number that fits",
        ),
        ("a = 1e999", 4, "1e999 is not a number that fits"),
        ("1", 0, "a selector does not work on a number"),
        ("'a'", 0, "a selector does not work on a text"),
        ("a AND 1", 6, "AND does not work on a number"),
        ("NOT 'a'", 4, "NOT does not work on a text"),
        ("a + 'b' = 1", 4, "+ does not work on a text"),
        ("a < 'b'", 4, "< does not work on a text"),
        ("'a' LIKE 'b'", 0, "LIKE works on an identifier only"),
        ("a LIKE 'b' ESCAPE 'xx'", 18, "the escape must be one character"),
        ("a LIKE 'b!' ESCAPE '!'", 7, "the escape must be one character"),
        ("a IN ()", 6, "a text in quotes is expected, not )"),
        (
            "a NOT = 1",
            6,
            "BETWEEN, IN or LIKE is expected, not a comparison",
        ),
    ];
    for (text, at, why) in cases {
        let error = found(text).expect_err(text);
        assert_eq!(error.at, at, "{text}: {error}");
        assert!(error.why.to_string().starts_with(why), "{text}: {error}");
    }
}

#[test]
fn nesting_and_length_have_limits_and_long_chains_do_not_count_as_nesting() {
    let deep = format!("{}a = 1{}", "(".repeat(1_000), ")".repeat(1_000));
    for text in [
        deep,
        format!("{}a", "NOT ".repeat(1_000)),
        format!("{}a = 1", "- ".repeat(1_000)),
    ] {
        let error = Selector::parse(&text).unwrap_err();
        assert_eq!(error.why, Why::TooDeep, "{error}");
    }
    let chain = vec!["weight = 1"; 1_000].join(" OR ");
    assert!(!matches(&chain));
    let sum = vec!["0"; 1_000].join(" + ");
    assert!(matches(&format!("{sum} + weight = 2600")));
    let long = " ".repeat(MAX_SELECTOR_BYTES + 1);
    let length = long.len();
    let refused = Selector::parse(&long).map(|_| ());
    assert_eq!(
        refused,
        Err(SelectorError {
            at: 0,
            why: Why::TooLong { length }
        })
    );
}

#[test]
fn a_pattern_made_to_be_tried_again_and_again_is_soon_done() {
    let long: &'static str = "a".repeat(20_000).leak();
    let message = Message(BTreeMap::from([("text", Value::Text(long))]));
    let pattern = format!("text LIKE '{}b'", "a%".repeat(2_000));
    assert!(!Selector::parse(&pattern).unwrap().matches(&message));
}

#[test]
fn selectors_are_the_same_however_they_are_spaced() {
    let parse = |text| Selector::parse(text).unwrap();
    assert_eq!(parse("a=1 and b in('x')"), parse("(a  =  1) AND b IN ( 'x' )"));
    assert_ne!(parse("a = 1"), parse("a = 1.0"));
}

/// The obvious and slow way.
fn like(pattern: &[char], text: &[char]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some(('%', rest)) => (0..=text.len()).any(|skip| like(rest, &text[skip..])),
        Some(('_', rest)) => !text.is_empty() && like(rest, &text[1..]),
        Some((letter, rest)) => text.first() == Some(letter) && like(rest, &text[1..]),
    }
}

fn number() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        (-1e9..1e9f64).prop_map(|n| format!("{n:?}")),
        "[a-c]".prop_map(|name| name),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            (inner.clone(), "[-+*/]", inner.clone()).prop_map(|(a, sign, b)| format!("{a} {sign} {b}")),
            inner.clone().prop_map(|inner| format!("({inner})")),
            inner.prop_map(|inner| format!("- {inner}")),
        ]
    })
}

fn condition() -> impl Strategy<Value = String> {
    let text = "[a-z'%_!]{0,4}".prop_map(|text: String| format!("'{}'", text.replace('\'', "''")));
    let not = prop_oneof![Just(""), Just("NOT ")];
    let leaf = prop_oneof![
        (
            number(),
            prop_oneof![Just("="), Just("<>"), Just("<"), Just(">=")],
            number()
        )
            .prop_map(|(a, sign, b)| format!("{a} {sign} {b}")),
        (number(), not.clone(), number(), number())
            .prop_map(|(a, not, b, c)| format!("{a} {not}BETWEEN {b} AND {c}")),
        ("[a-c]", not.clone(), prop::collection::vec(text.clone(), 1..4))
            .prop_map(|(a, not, texts)| format!("{a} {not}in ({})", texts.join(","))),
        ("[a-c]", not.clone(), "[a-c%_]{0,5}").prop_map(|(a, not, p)| format!("{a} {not}like '{p}'")),
        ("[a-c]", "[a-c%_]{0,5}").prop_map(|(a, p)| format!("{a} LIKE '{p}!%' ESCAPE '!'")),
        ("[a-c]", not).prop_map(|(a, not)| format!("{a} is {not}null")),
        ("[a-c]", text).prop_map(|(a, text)| format!("{a} = {text}")),
        Just("c".to_owned()),
        Just("true".to_owned()),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} AND {b}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} OR {b}")),
            inner.clone().prop_map(|a| format!("NOT {a}")),
            inner.prop_map(|a| format!("({a})")),
        ]
    })
}

fn value() -> impl Strategy<Value = Value<'static>> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-5..5i64).prop_map(Value::Int),
        (-5.0..5.0f64).prop_map(Value::Float),
        prop_oneof![Just(""), Just("a"), Just("abc"), Just("b%")].prop_map(Value::Text),
    ]
}

proptest! {
    #[test]
    fn a_printed_selector_reads_back_the_same_and_says_the_same(
        text in condition(), a in value(), b in value(), c in value(),
    ) {
        let selector = Selector::parse(&text).unwrap();
        let again = Selector::parse(&selector.to_string()).unwrap();
        prop_assert_eq!(&selector, &again);
        let message = Message(BTreeMap::from([("a", a), ("b", b), ("c", c)]));
        prop_assert_eq!(selector.matches(&message), again.matches(&message));
        let negated = Selector::parse(&format!("NOT ({text})")).unwrap();
        prop_assert!(!(selector.matches(&message) && negated.matches(&message)));
    }

    #[test]
    fn like_agrees_with_the_obvious_way(pattern in "[abü%_]{0,8}", text in "[abü]{0,10}") {
        let text: &'static str = text.leak();
        let message = Message(BTreeMap::from([("a", Value::Text(text))]));
        let selector = Selector::parse(&format!("a LIKE '{pattern}'")).unwrap();
        let letters: Vec<char> = pattern.chars().collect();
        prop_assert_eq!(selector.matches(&message), like(&letters, &text.chars().collect::<Vec<_>>()));
    }

    #[test]
    fn no_text_at_all_brings_the_parser_down(text in "[ a'=<>()0-9.eE+*/,%_-]{0,40}|\\PC{0,40}") {
        if let Err(error) = Selector::parse(&text) {
            prop_assert!(error.at <= text.len());
        }
    }
}
