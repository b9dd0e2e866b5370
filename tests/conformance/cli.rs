//! Cases on the command line: a verb's own command where it can say what the step says, else `daymark ask`.

use std::collections::BTreeSet;

use daymark_test_support::Program;
use serde_json::{Map, Value};

use super::{Door, words};

pub(crate) struct CommandLine<'a> {
    program: &'a Program,
    address: String,
    used: BTreeSet<String>,
}

/// The longest word of a command line.
const WORD_MAX: usize = 100 << 10;

/// The verbs that have a command of their own.
const COMMANDS: [&str; 14] = [
    "attributes",
    "bind",
    "create-subcontext",
    "destroy-subcontext",
    "group-list",
    "list",
    "list-bindings",
    "lookup",
    "lookup-link",
    "modify-attributes",
    "rebind",
    "rename",
    "search",
    "unbind",
];

impl<'a> CommandLine<'a> {
    pub(crate) fn of(program: &'a Program, address: &str) -> Self {
        Self {
            program,
            address: address.to_owned(),
            used: BTreeSet::new(),
        }
    }

    /// That the cases did not all go through `daymark ask`.
    pub(crate) fn has_used_its_own_verbs(&self) {
        let used: Vec<&str> = self.used.iter().map(String::as_str).collect();
        for command in COMMANDS.iter().chain(&["transact"]) {
            assert!(
                used.contains(command),
                "no case went through the command of {command}"
            );
        }
    }
}

impl Door for CommandLine<'_> {
    fn ask(&mut self, verb: &str, args: &Map<String, Value>) -> Result<Value, Value> {
        let own = own(self.program, verb, args);
        if own.is_some() {
            self.used.insert(verb.to_owned());
        }
        let command = own.unwrap_or_else(|| {
            let mut command = vec!["ask".to_owned(), "--".to_owned()];
            command.extend(words::of(verb, args));
            command
        });
        let mut line = vec!["--json", "--timeout", "3s", "--provider", &self.address];
        let at = 1;
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let (first, rest) = command.split_at(at);
        line.splice(0..0, first.iter().copied());
        line.extend(rest);
        let ran = self.program.run(&line);
        if ran.code == Some(0) {
            return Ok(serde_json::from_str(ran.stdout.trim()).expect("a document"));
        }
        let said: Value = serde_json::from_str(ran.stderr.trim())
            .unwrap_or_else(|_| panic!("{line:?} ended with {:?} and said {}", ran.code, ran.stderr));
        Err(said.get("detail").cloned().unwrap_or(said))
    }
}

/// The command of this verb, or `None` where it has none or none that says this.
fn own(program: &Program, verb: &str, args: &Map<String, Value>) -> Option<Vec<String>> {
    let command = match verb {
        "lookup-link" => "lookup",
        "list-bindings" => "list",
        "group-list" => "groups",
        other if COMMANDS.contains(&other) || other == "transact" => other,
        _ => return None,
    };
    let mut line = vec![command.to_owned()];
    match verb {
        "lookup-link" => line.push("--link".to_owned()),
        "list-bindings" => line.push("--bindings".to_owned()),
        _ => {}
    }
    for (key, value) in args {
        flag(verb, key, value, &mut line)?;
    }
    line.push("--".to_owned());
    for key in positional(verb) {
        let value = args.get(*key)?;
        let word = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        // The system takes no longer words than this.
        if word.len() > WORD_MAX && verb == "transact" {
            line.push(format!("@{}", program.file("writes.json", &word).display()));
        } else {
            line.push(word);
        }
    }
    if verb == "attributes"
        && let Some(ids) = args.get("ids")
    {
        // No id at all means every attribute there, and none here.
        let ids = texts(ids).filter(|ids| !ids.is_empty())?;
        line.extend(ids);
    }
    // What the command line itself refuses, it refuses in the words of its parser.
    is_well_formed(args).then_some(line)
}

fn positional(verb: &str) -> &'static [&'static str] {
    match verb {
        "bind" | "rebind" => &["name", "object"],
        "rename" => &["name", "target"],
        "search" => &["filter"],
        "transact" => &["writes"],
        "group-list" => &[],
        _ => &["name"],
    }
}

fn flag(verb: &str, key: &str, value: &Value, line: &mut Vec<String>) -> Option<()> {
    let mut add = |flag: &str, value: String| line.push(format!("--{flag}={value}"));
    match (verb, key) {
        ("search", "name") => add("base", value.as_str()?.to_owned()),
        ("search", "scope") => add("scope", value.as_str()?.to_owned()),
        ("search", "size_limit") => return None, // It is no failure there to have as many as were asked for.
        ("search", "ids") => texts(value)
            .filter(|ids| !ids.is_empty())?
            .into_iter()
            .for_each(|id| add("attr", id)),
        ("attributes", "ids") => {}
        (_, "expected") => add("if-revision", value.as_u64()?.to_string()),
        (_, "attributes") => {
            let attributes = value.as_object()?;
            // Without a flag the command leaves them as they are.
            if attributes.is_empty() && verb == "rebind" {
                return None;
            }
            for (id, values) in attributes {
                let values = texts(values)
                    .filter(|values| !values.is_empty() && !id.contains('=') && !id.is_empty())?;
                values
                    .into_iter()
                    .for_each(|value| add("attr", format!("{id}={value}")));
            }
        }
        (_, "modifications") => {
            let changes = value.as_array()?;
            // The command orders them: what is added comes first, what is removed last.
            let [change] = changes.as_slice() else {
                return None;
            };
            let (op, id) = (change.get("op")?.as_str()?, change.get("id")?.as_str()?);
            if id.is_empty() || id.contains('=') {
                return None;
            }
            let values = change.get("values").map_or(Some(Vec::new()), texts)?;
            match (op, values.as_slice()) {
                ("remove", []) => add("remove", id.to_owned()),
                (_, []) => return None,
                (op @ ("add" | "replace" | "remove"), values) => {
                    values.iter().for_each(|value| add(op, format!("{id}={value}")))
                }
                _ => return None,
            }
        }
        (_, key) if positional(verb).contains(&key) => {}
        _ => return None,
    }
    Some(())
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value
        .as_array()?
        .iter()
        .map(|text| Some(text.as_str()?.to_owned()))
        .collect()
}

/// Whether every name and filter is one: the parser of the command line refuses others by itself.
fn is_well_formed(args: &Map<String, Value>) -> bool {
    use daymark_client::proto::{Filter, Name, Object, TransactWrite};
    let is = |key: &str, check: fn(&str) -> bool| {
        args.get(key)
            .is_none_or(|value| value.as_str().is_some_and(check))
    };
    is("name", |text| text.parse::<Name>().is_ok())
        && is("target", |text| text.parse::<Name>().is_ok())
        && is("filter", |text| text.parse::<Filter>().is_ok())
        && args
            .get("object")
            .is_none_or(|object| Object::from_json(object.to_string().as_bytes()).is_ok())
        && args
            .get("writes")
            .is_none_or(|writes| serde_json::from_value::<Vec<TransactWrite>>(writes.clone()).is_ok())
}
