//! How a step is spelled at the RESP door.

use serde_json::{Map, Value};

/// A verb: its words, the arguments that follow, and those that come with a keyword.
type Spelling = (
    &'static str,
    &'static [&'static str],
    &'static [&'static str],
    &'static [(&'static str, &'static str)],
);

const READ: &[(&str, &str)] = &[
    ("min_revision", "MINREV"),
    ("wait_ms", "WAIT"),
    ("strong", "STRONG"),
];
const WRITE: &[(&str, &str)] = &[
    ("attributes", "ATTRS"),
    ("expected", "IFREV"),
    ("eta_ms", "ETA"),
    ("op", "OP"),
];

const SPELLINGS: &[Spelling] = &[
    ("lookup", &["LOOKUP"], &["name"], READ),
    ("lookup-link", &["LOOKUPLINK"], &["name"], READ),
    ("list", &["LIST"], &["name"], READ),
    ("list-bindings", &["LISTBINDINGS"], &["name"], READ),
    ("attributes", &["ATTRIBUTES"], &["name"], &[("ids", "IDS")]),
    (
        "search",
        &["SEARCH"],
        &["name", "filter"],
        &[
            ("scope", "SCOPE"),
            ("size_limit", "LIMIT"),
            ("time_limit_ms", "TIME"),
            ("ids", "IDS"),
        ],
    ),
    ("bind", &["BIND"], &["name", "object"], WRITE),
    ("rebind", &["REBIND"], &["name", "object"], WRITE),
    ("unbind", &["UNBIND"], &["name"], WRITE),
    ("create-subcontext", &["CREATESUBCONTEXT"], &["name"], WRITE),
    ("destroy-subcontext", &["DESTROYSUBCONTEXT"], &["name"], WRITE),
    ("rename", &["RENAME"], &["name", "target"], WRITE),
    (
        "modify-attributes",
        &["MODIFY"],
        &["name", "modifications"],
        WRITE,
    ),
    ("transact", &["TRANSACT"], &["writes"], WRITE),
    ("group-list", &["GROUP", "LIST"], &[], &[]),
    ("group-show", &["GROUP", "SHOW"], &["group"], &[]),
    ("group-timeline", &["GROUP", "TIMELINE"], &["group"], &[]),
    (
        "group-join",
        &["GROUP", "JOIN"],
        &["group", "member", "description"],
        WRITE,
    ),
    (
        "group-leave",
        &["GROUP", "LEAVE"],
        &["group", "member", "lease"],
        WRITE,
    ),
    (
        "group-claim",
        &["GROUP", "CLAIM"],
        &["group", "member", "store_epoch", "evidence"],
        WRITE,
    ),
    (
        "group-publish",
        &["GROUP", "PUBLISH"],
        &["group", "member", "epoch", "exports"],
        WRITE,
    ),
    (
        "group-withdraw",
        &["GROUP", "WITHDRAW"],
        &["group", "epoch", "reason"],
        WRITE,
    ),
    (
        "group-record",
        &["GROUP", "RECORD"],
        &["group", "member", "epoch", "report"],
        WRITE,
    ),
    (
        "lease-renew",
        &["LEASE", "RENEW"],
        &["group", "member", "lease"],
        &[],
    ),
    ("get", &["GET"], &["name"], &[]),
];

/// The words of a step whose placeholders are replaced.
pub(crate) fn of(verb: &str, args: &Map<String, Value>) -> Vec<String> {
    let spelling = SPELLINGS.iter().find(|spelling| spelling.0 == verb);
    let (_, verbs, positional, keywords) = spelling.unwrap_or_else(|| panic!("no verb {verb}"));
    let mut words: Vec<String> = verbs.iter().map(|&word| word.to_owned()).collect();
    words.extend(positional.iter().map(|&key| word(&args[key])));
    for (key, keyword) in *keywords {
        match args.get(*key) {
            None => {}
            Some(Value::Bool(true)) => words.push((*keyword).to_owned()),
            Some(Value::Array(ids)) if *key == "ids" => {
                let ids: Vec<String> = ids.iter().map(word).collect();
                words.extend([(*keyword).to_owned(), ids.join(",")]);
            }
            Some(value) => words.extend([(*keyword).to_owned(), word(value)]),
        }
    }
    let known = |key: &String| positional.contains(&key.as_str()) || keywords.iter().any(|(k, _)| k == key);
    assert!(args.keys().all(known), "{verb} has no such arguments: {args:?}");
    words
}

/// A text stands for itself, everything else is JSON.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
