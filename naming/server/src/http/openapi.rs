//! The OpenAPI document, made from the table of routes.

use std::sync::OnceLock;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::OP_ID;
use super::table::{ROUTES, Route, Says};

/// The schemas that routes name.
const SCHEMAS: &str = include_str!("schemas.json");

/// The document as JSON.
pub(super) fn document() -> Bytes {
    static DOCUMENT: OnceLock<Bytes> = OnceLock::new();
    DOCUMENT.get_or_init(|| made().to_string().into()).clone()
}

fn made() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.verb.as_str().to_ascii_lowercase()] = operation(route);
    }
    // The file is part of this program, and a test reads it.
    let schemas: Value = serde_json::from_str(SCHEMAS).unwrap_or_default();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Daymark naming server",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Names are JNDI composite names, percent-encoded; {name} takes their separators as they \
                            are. Every answer carries Daymark-Revision, Daymark-Term and Daymark-Cluster-Id.",
        },
        "paths": paths,
        "components": { "schemas": schemas },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": {
            "200": { "description": "Done", "content": content(route.says) },
            "default": {
                "description": "Anything else, as RFC 9457 has it",
                "content": { "application/problem+json": { "schema": schema("Problem") } },
            },
        },
    });
    if let Some(body) = route.body {
        operation["requestBody"] = json!({
            "required": body != "Subcontext",
            "content": { "application/json": { "schema": schema(body) } },
        });
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let mut parameters = Vec::new();
    for (variable, says) in [
        ("name", "A composite name; empty for the root"),
        ("group", "A group"),
    ] {
        if route.path.contains(&format!("{{{variable}}}")) {
            parameters.push(parameter("path", variable, says, None));
        }
    }
    let query = route.query.iter();
    parameters.extend(query.map(|given| parameter("query", given.name, given.says, Some(given.example))));
    if route.takes_condition {
        let says = "The revision that the binding must have, such as \"17\"";
        parameters.push(parameter("header", "If-Match", says, Some("\"17\"")));
        let says = "*: the name must not be bound";
        parameters.push(parameter("header", "If-None-Match", says, Some("*")));
    }
    if route.writes {
        let says = "The client's identity of the write, 1 to 32 hexadecimal digits: a repeated one is answered as the \
                    first time";
        parameters.push(parameter("header", OP_ID.as_str(), says, Some("2a")));
    }
    parameters
}

fn parameter(place: &str, name: &str, says: &str, example: Option<&str>) -> Value {
    let mut parameter = json!({
        "in": place,
        "name": name,
        "description": says,
        "required": place == "path" || name == "filter",
        "schema": { "type": "string" },
    });
    if let Some(example) = example {
        parameter["example"] = example.into();
    }
    parameter
}

fn schema(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn content(says: Says) -> Value {
    match says {
        Says::Document(name) => json!({ "application/json": { "schema": schema(name) } }),
        Says::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
        Says::Events(name) => json!({ "text/event-stream": { "schema": schema(name) } }),
        Says::Bytes => {
            json!({ "application/octet-stream": { "schema": { "type": "string", "format": "binary" } } })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_that_is_named_is_there_and_every_one_there_is_named() {
        let document = made();
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let text = document.to_string();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap_or_default();
            assert!(schemas.contains_key(name), "{name} is missing");
        }
        for name in schemas.keys() {
            assert!(
                text.contains(&format!("#/components/schemas/{name}\"")),
                "nobody names {name}"
            );
        }
    }
}
