//! What the server says of itself and its verbs over RESP.

use daymark_naming_proto::Request;
use daymark_naming_proto::resp::Frame;

use crate::dispatch::Dispatcher;

/// The session's verbs beside those of `Request`.
const SESSION: &[(&str, &str)] = &[
    ("HELLO", "[2|3 [SETNAME name]]"),
    ("PING", "[message]"),
    ("ECHO", "message"),
    ("INFO", "[section]"),
    ("EXPLAIN", "[name]"),
    ("MEMBERS", ""),
    ("LIMITS", ""),
    ("LEASE LIST", ""),
    ("ERRORS", "JSON|TEXT"),
    ("UNWATCH", "id"),
    ("HELP", ""),
    ("COMMAND", "[COUNT|LIST|DOCS|INFO] [verb]"),
    ("QUIT", ""),
];

/// In the words of Redis: clients need not ask where which name is, and may write here.
const MODE: &str = "standalone";
const ROLE: &str = "master";

fn text(text: impl Into<Vec<u8>>) -> Frame {
    Frame::Bulk(text.into().into())
}

fn number(number: u64) -> Frame {
    Frame::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

/// The answer to `HELLO`: what Redis clients look for, then what is ours.
pub(super) fn hello(dispatcher: &Dispatcher, id: u64, resp3: bool) -> Frame {
    let standing = dispatcher.standing();
    let revision = dispatcher.root().revision();
    let identity = &dispatcher.identity;
    let pairs = [
        ("server", text("daymark")),
        ("version", text(env!("CARGO_PKG_VERSION"))),
        ("proto", Frame::Integer(if resp3 { 3 } else { 2 })),
        ("id", number(id)),
        ("mode", text(MODE)),
        ("role", text(ROLE)),
        ("modules", Frame::Array(Vec::new())),
        ("cluster_id", text(identity.cluster_id.as_str())),
        ("term", number(standing.term)),
        ("revision", number(revision.0)),
        ("node", number(identity.node)),
    ];
    Frame::Map(pairs.into_iter().map(|(key, value)| (text(key), value)).collect())
}

/// The answer to `INFO`, which some Redis clients ask before anything else: one line for each key.
pub(super) fn info(dispatcher: &Dispatcher) -> Frame {
    let version = env!("CARGO_PKG_VERSION");
    let (term, revision) = (dispatcher.standing().term, dispatcher.root().revision());
    text(format!(
        "# Server\r\nserver:daymark\r\nversion:{version}\r\nredis_mode:{MODE}\r\ncluster_id:{}\r\nterm:{term}\r\n\
         revision:{revision}\r\n# Persistence\r\nloading:0\r\n# Replication\r\nrole:{ROLE}\r\n",
        dispatcher.identity.cluster_id
    ))
}

fn verbs() -> impl Iterator<Item = (&'static str, &'static str)> {
    Request::usage().iter().chain(SESSION).copied()
}

/// The answer to `HELP`: one line for each verb.
pub(super) fn help() -> Frame {
    let line =
        |(verb, arguments): (&str, &str)| Frame::Simple(format!("{verb} {arguments}").trim_end().to_owned());
    Frame::Array(verbs().map(line).collect())
}

/// The answer to `COMMAND`, in the shape that Redis tools expect; `asked` are the verbs asked for, all where there
/// are none. A verb of two words may have a bar between them, as Redis writes it.
pub(super) fn command(sub: &str, asked: &[String]) -> Frame {
    let is_asked = |verb: &str| asked.is_empty() || asked.iter().any(|asked| asked.replace('|', " ") == verb);
    let chosen = || verbs().filter(|(verb, _)| is_asked(verb));
    match sub {
        "COUNT" => number(verbs().count() as u64),
        "LIST" => Frame::Array(verbs().map(|(verb, _)| text(verb.to_ascii_lowercase())).collect()),
        "DOCS" => Frame::Map(
            chosen()
                .map(|(verb, arguments)| (text(verb), doc(verb, arguments)))
                .collect(),
        ),
        "" => Frame::Array(verbs().map(|(verb, _)| entry(verb)).collect()),
        "INFO" if asked.is_empty() => Frame::Array(verbs().map(|(verb, _)| entry(verb)).collect()),
        "INFO" => Frame::Array(asked.iter().map(|asked| known(asked)).collect()),
        _ => Frame::Error(format!("NOTSUPPORTED COMMAND {sub}: COUNT, LIST, DOCS or INFO")),
    }
}

/// What `COMMAND INFO` says of one verb; null for one that is not there.
fn known(asked: &str) -> Frame {
    let asked = asked.replace('|', " ");
    verbs()
        .find(|(verb, _)| *verb == asked)
        .map_or(Frame::Null, |(verb, _)| entry(verb))
}

/// Name, arity (any), flags, and the positions of keys (none).
fn entry(verb: &str) -> Frame {
    let none = Frame::Integer(0);
    let parts = [
        text(verb.to_ascii_lowercase()),
        Frame::Integer(-1),
        Frame::Array(Vec::new()),
        none.clone(),
        none.clone(),
        none,
    ];
    Frame::Array(parts.to_vec())
}

fn doc(verb: &str, arguments: &str) -> Frame {
    let pairs = [
        ("summary", text(format!("{verb} {arguments}").trim_end())),
        ("since", text(env!("CARGO_PKG_VERSION"))),
        ("group", text("daymark")),
        ("arguments", Frame::Array(hints(arguments))),
    ];
    Frame::Map(pairs.into_iter().map(|(key, value)| (text(key), value)).collect())
}

/// Arguments as `redis-cli` shows them while one types: `name`, `[TOKEN value]`, `[TOKEN]`.
fn hints(arguments: &str) -> Vec<Frame> {
    let mut hints = Vec::new();
    let mut rest = arguments.trim();
    while !rest.is_empty() {
        let (part, after) = match rest
            .strip_prefix('[')
            .and_then(|inner| inner.rsplit_once(']').map(|_| inner))
        {
            Some(inner) => inner
                .split_once(']')
                .map_or((inner, ""), |(part, after)| (part, after)),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        hints.push(hint(part, rest.starts_with('[')));
        rest = after.trim_start();
    }
    hints
}

fn hint(part: &str, optional: bool) -> Frame {
    let mut pairs = match part.split_once(' ') {
        Some((token, value)) => vec![("name", value), ("type", "string"), ("token", token)],
        None if optional && part.chars().all(char::is_uppercase) => {
            vec![("name", part), ("type", "pure-token"), ("token", part)]
        }
        None => vec![("name", part), ("type", "string")],
    };
    pairs.push(("display_text", part.rsplit(' ').next().unwrap_or(part)));
    let mut pairs: Vec<(Frame, Frame)> = pairs
        .into_iter()
        .map(|(key, value)| (text(key), text(value)))
        .collect();
    if optional {
        pairs.push((
            text("flags"),
            Frame::Array(vec![Frame::Simple("optional".to_owned())]),
        ));
    }
    Frame::Map(pairs)
}
