//! What a case is: its steps, its placeholders, and how an answer is compared with what is expected.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) case: String,
    pub(crate) steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Step {
    pub(crate) verb: String,
    pub(crate) args: Map<String, Value>,
    #[serde(default)]
    pub(crate) expect: Option<Value>,
    #[serde(default)]
    pub(crate) error: Option<Value>,
    #[serde(default)]
    pub(crate) save: BTreeMap<String, String>,
}

/// What placeholders stand for.
pub(crate) struct Scope {
    /// The case's corner.
    pub(crate) corner: String,
    pub(crate) saved: BTreeMap<String, Value>,
}

impl Scope {
    pub(crate) fn new(corner: &str) -> Self {
        let ids = (1..=2).map(|n| (format!("op{n}"), Value::from(format!("{n:032x}"))));
        Self {
            corner: corner.to_owned(),
            saved: ids.collect(),
        }
    }

    /// The value with every placeholder replaced.
    pub(crate) fn filled(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.filled_text(text),
            Value::Array(items) => items.iter().map(|item| self.filled(item)).collect(),
            Value::Object(fields) => self.filled_object(fields),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    fn filled_text(&self, text: &str) -> Value {
        let Some(name) = text.strip_prefix('$') else {
            return text.replace('@', &self.corner).into();
        };
        let (name, more) = name.split_once('+').unwrap_or((name, "0"));
        let saved = self
            .saved
            .get(name)
            .unwrap_or_else(|| panic!("{text} was not saved"));
        match saved.as_u64() {
            Some(number) => (number + more.parse::<u64>().expect("a number")).into(),
            None => saved.clone(),
        }
    }

    fn filled_object(&self, fields: &Map<String, Value>) -> Value {
        let only = fields.iter().next().filter(|_| fields.len() == 1);
        let arguments = |value: &Value| self.filled(value).as_array().cloned().expect("an array");
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        match only {
            Some((key, value)) if key == "$repeat" => {
                let [what, count] = &arguments(value)[..] else {
                    panic!("a text and a number: {value}");
                };
                text(what).repeat(count_of(count)).into()
            }
            Some((key, value)) if key == "$join" => {
                arguments(value).iter().map(text).collect::<String>().into()
            }
            Some((key, value)) if key == "$times" => {
                let [what, count] = &arguments(value)[..] else {
                    panic!("a value and a number: {value}");
                };
                vec![what.clone(); count_of(count)].into()
            }
            Some(_) | None => {
                let filled = fields
                    .iter()
                    .map(|(key, value)| (key.clone(), self.filled(value)));
                Value::Object(filled.collect())
            }
        }
    }
}

fn count_of(value: &Value) -> usize {
    usize::try_from(value.as_u64().expect("a number")).expect("a small number")
}

/// Whether `answer` contains `expected`, or where it does not.
pub(crate) fn compare(answer: &Value, expected: &Value, at: &str) -> Result<(), String> {
    let differ = || Err(format!("{at}: {answer} is not {expected}"));
    match (answer, expected) {
        (_, Value::Object(fields)) if fields.contains_key("$exactly") => {
            if *answer == fields["$exactly"] {
                Ok(())
            } else {
                differ()
            }
        }
        (Value::Array(items), Value::Object(fields)) if fields.contains_key("$contains") => {
            let wanted = &fields["$contains"];
            if items.iter().any(|item| compare(item, wanted, at).is_ok()) {
                Ok(())
            } else {
                differ()
            }
        }
        (Value::Object(found), Value::Object(fields)) => fields.iter().try_for_each(|(key, value)| {
            let at = format!("{at}/{key}");
            compare(found.get(key).unwrap_or(&Value::Null), value, &at)
        }),
        (Value::Array(found), Value::Array(items)) if found.len() == items.len() => {
            let mut pairs = found.iter().zip(items).enumerate();
            pairs.try_for_each(|(n, (found, item))| compare(found, item, &format!("{at}/{n}")))
        }
        (answer, expected) if answer == expected => Ok(()),
        _ => differ(),
    }
}
