//! Cases over HTTP: method, path, query, headers and body, as an OpenAPI client would put them.

use std::fmt::Write as _;

use daymark_test_support::http_ask;
use serde_json::{Map, Value, json};

use super::Door;

pub(crate) struct Http {
    pub(crate) address: String,
}

impl Door for Http {
    fn ask(&mut self, verb: &str, args: &Map<String, Value>) -> Result<Value, Value> {
        let request = Request::of(verb, args);
        let headers: Vec<(&str, &str)> = request
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let body = request.body.map(|body| body.to_string()).unwrap_or_default();
        let answer = http_ask(&self.address, request.method, &request.path, &headers, &body);
        let answer = answer.unwrap_or_else(|| panic!("no answer to {} {}", request.method, request.path));
        if answer.status < 300 {
            Ok(answer.body)
        } else {
            Err(answer.body)
        }
    }
}

struct Request {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Option<Value>,
}

impl Request {
    fn of(verb: &str, args: &Map<String, Value>) -> Self {
        let (method, path) = path(verb, args);
        let mut query = String::new();
        for (key, name, unit) in [
            ("min_revision", "min_revision", ""),
            ("wait_ms", "wait", "ms"),
            ("filter", "filter", ""),
            ("scope", "scope", ""),
            ("size_limit", "limit", ""),
            ("time_limit_ms", "time", "ms"),
        ] {
            if let Some(value) = args.get(key) {
                let _ = write!(query, "&{name}={}{unit}", encoded(&text(value)));
            }
        }
        if let Some(Value::Array(ids)) = args.get("ids") {
            let ids: Vec<String> = ids.iter().map(text).collect();
            let _ = write!(query, "&ids={}", encoded(&ids.join(",")));
        }
        match verb {
            "lookup-link" => query.push_str("&links=no"),
            "list-bindings" => query.push_str("&bindings=true"),
            _ => {}
        }
        if args.get("strong") == Some(&Value::Bool(true)) {
            query.push_str("&consistency=strong");
        }
        let path = match query.strip_prefix('&') {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        Self {
            method,
            path,
            headers: headers(args),
            body: body(verb, args),
        }
    }
}

fn path(verb: &str, args: &Map<String, Value>) -> (&'static str, String) {
    let named = |prefix: &str| format!("/v1/{prefix}/{}", encoded(&text(&args["name"])));
    let of_group = |what: &str| format!("/v1/groups/{}{what}", encoded(&text(&args["group"])));
    match verb {
        "lookup" | "lookup-link" => ("GET", named("names")),
        "list" | "list-bindings" => ("GET", named("list")),
        "attributes" => ("GET", named("attributes")),
        "search" => ("GET", named("search")),
        "bind" => ("POST", named("names")),
        "rebind" => ("PUT", named("names")),
        "unbind" => ("DELETE", named("names")),
        "create-subcontext" => ("PUT", named("contexts")),
        "destroy-subcontext" => ("DELETE", named("contexts")),
        "modify-attributes" => ("PATCH", named("attributes")),
        "rename" => ("POST", "/v1/rename".to_owned()),
        "transact" => ("POST", "/v1/transact".to_owned()),
        "group-list" => ("GET", "/v1/groups".to_owned()),
        "group-show" => ("GET", of_group("")),
        "group-timeline" => ("GET", of_group("/timeline")),
        "group-join" => ("POST", of_group("/join")),
        "group-leave" => ("POST", of_group("/leave")),
        "group-claim" => ("POST", of_group("/claim")),
        "group-publish" => ("POST", of_group("/publish")),
        "group-withdraw" => ("POST", of_group("/withdraw")),
        "group-record" => ("POST", of_group("/record")),
        "lease-renew" => ("POST", of_group("/renew")),
        other => ("GET", format!("/v1/{other}")),
    }
}

fn headers(args: &Map<String, Value>) -> Vec<(&'static str, String)> {
    let mut headers = Vec::new();
    if let Some(op) = args.get("op") {
        headers.push(("daymark-op-id", text(op)));
    }
    match args.get("expected").map(text) {
        Some(expected) if expected == "0" => headers.push(("if-none-match", "*".to_owned())),
        Some(expected) => headers.push(("if-match", format!("\"{expected}\""))),
        None => {}
    }
    headers
}

fn body(verb: &str, args: &Map<String, Value>) -> Option<Value> {
    let with = |keys: &[(&str, &str)]| {
        let given = keys
            .iter()
            .filter_map(|(key, name)| Some(((*name).to_owned(), parsed(args.get(*key)?))));
        Some(Value::Object(given.collect()))
    };
    match verb {
        "bind" | "rebind" => with(&[("object", "object"), ("attributes", "attributes")]),
        "create-subcontext" => with(&[("attributes", "attributes")]),
        "modify-attributes" => Some(parsed(&args["modifications"])),
        "transact" => Some(parsed(&args["writes"])),
        "rename" => with(&[("name", "name"), ("target", "target")]),
        "group-join" => with(&[("member", "member"), ("description", "join")]),
        "group-leave" | "lease-renew" => with(&[("member", "member"), ("lease", "lease")]),
        "group-claim" => with(&[
            ("member", "member"),
            ("store_epoch", "store_epoch"),
            ("evidence", "evidence"),
        ]),
        "group-publish" => with(&[("member", "member"), ("epoch", "epoch"), ("exports", "exports")]),
        "group-withdraw" => with(&[("epoch", "epoch"), ("reason", "reason"), ("eta_ms", "eta_ms")]),
        "group-record" => with(&[("member", "member"), ("epoch", "epoch"), ("report", "report")]),
        _ => None,
    }
}

/// Arguments come as values, or as texts with JSON in them that is wrong on purpose.
fn parsed(value: &Value) -> Value {
    json!(value)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Percent-encoded but for letters, digits and the separator of names.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"/-._".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
