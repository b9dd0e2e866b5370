//! Each command as the request it makes, and what to show of the answer.

use serde_json::{Map, Value, json};

use super::args::{
    Browse, ConnectionVerb, Delete, FactoryVerb, InGroup, LinkVerb, Named, Numbered, Put, PutFactory,
    QueueVerb, SubscriptionVerb, TopicVerb, WhenFullArg,
};
use crate::admin::Ask;

/// What to ask whom, and what to show of it.
pub(crate) struct Request<'a> {
    pub(crate) of: &'a InGroup,
    pub(super) ask: Ask,
    pub(super) path: String,
    pub(super) view: View,
}

impl Request<'_> {
    /// Whether errors are to be JSON documents.
    pub(crate) const fn wants_json(&self) -> bool {
        self.of.asking.json
    }
}

/// What people are shown of an answer.
pub(crate) enum View {
    /// The members of a list, as columns.
    Table {
        /// The key of the list.
        of: &'static str,
        columns: &'static [&'static str],
    },
    /// All that is in it.
    Facts,
    /// All that is in each member of the list of this key.
    FactsOfEach(&'static str),
    /// How many messages went, and the detail of the answer if it has one.
    Dropped,
    /// This sentence, and the detail of the answer if it has one.
    Done(String),
}

impl QueueVerb {
    /// What it asks.
    pub(crate) fn request(&self) -> Request<'_> {
        match self {
            Self::List(of) => list(
                of,
                "queues",
                &[
                    "name",
                    "messages",
                    "bytes",
                    "unsettled",
                    "consumers",
                    "producers",
                    "dead_lettered",
                    "export",
                    "export_state",
                ],
            ),
            Self::Show(at) => request(&at.of, Ask::Get, path("queues", &at.name), View::Facts),
            Self::Put(put) => put.request("queue"),
            Self::Delete(delete) => delete.request("queues"),
            Self::Browse(browse) => browse.request(),
            Self::Purge(at) => {
                let path = format!("{}/purge", path("queues", &at.name));
                request(&at.of, Ask::Post(json!({})), path, View::Dropped)
            }
        }
    }
}

impl TopicVerb {
    /// What it asks.
    pub(crate) fn request(&self) -> Request<'_> {
        match self {
            Self::List(of) => list(
                of,
                "topics",
                &["name", "producers", "received", "export", "export_state"],
            ),
            Self::Show(at) => request(&at.of, Ask::Get, path("topics", &at.name), View::Facts),
            Self::Put(put) => put.request("topic"),
            Self::Delete(delete) => delete.request("topics"),
        }
    }
}

impl SubscriptionVerb {
    /// What it asks.
    pub(crate) fn request(&self) -> Request<'_> {
        match self {
            Self::List(of) => list(
                of,
                "subscriptions",
                &[
                    "name",
                    "client",
                    "topic",
                    "selector",
                    "durable",
                    "shared",
                    "messages",
                    "consumers",
                ],
            ),
            Self::Delete(end) => {
                let Named { of, name } = &end.at;
                let path = path("subscriptions", name);
                let client = end
                    .client
                    .as_deref()
                    .map(|client| format!("?client={}", encoded(client)));
                let path = path + &client.unwrap_or_default();
                request(
                    of,
                    Ask::Delete,
                    path,
                    View::Done(format!("subscription {name} ended")),
                )
            }
        }
    }
}

impl ConnectionVerb {
    /// What it asks.
    pub(crate) fn request(&self) -> Request<'_> {
        match self {
            Self::List(of) => list(
                of,
                "connections",
                &["id", "remote", "container", "user", "since_ms", "links"],
            ),
            Self::Close(at) => at.close("connection"),
        }
    }
}

impl LinkVerb {
    /// What it asks.
    pub(crate) fn request(&self) -> Request<'_> {
        match self {
            Self::List(of) => list(
                of,
                "links",
                &[
                    "id",
                    "connection",
                    "kind",
                    "address",
                    "name",
                    "selector",
                    "subscription",
                ],
            ),
            Self::Close(at) => at.close("link"),
        }
    }
}

impl FactoryVerb {
    /// What it asks.
    pub(crate) fn request(&self) -> Request<'_> {
        match self {
            Self::List(of) => request(
                of,
                Ask::Get,
                "/v1/factories".to_owned(),
                View::FactsOfEach("factories"),
            ),
            Self::Show(at) => request(&at.of, Ask::Get, path("factories", &at.name), View::Facts),
            Self::Put(put) => put.request(),
            Self::Delete(at) => {
                let done = View::Done(format!("factory {} is deleted", at.name));
                request(&at.of, Ask::Delete, path("factories", &at.name), done)
            }
        }
    }
}

impl Put {
    fn request(&self, kind: &str) -> Request<'_> {
        let Named { of, name } = &self.at;
        let given = [
            ("max_messages", self.max_messages.map(Value::from)),
            ("max_bytes", self.max_bytes.map(Value::from)),
            ("when_full", self.when_full.map(|full| full.as_str().into())),
            (
                "max_delivery_attempts",
                self.max_delivery_attempts.map(Value::from),
            ),
            ("dead_letter", self.dead_letter.as_deref().map(Value::from)),
            ("expiry", self.expiry.as_deref().map(Value::from)),
            ("export", self.export.as_ref().map(|name| name.as_str().into())),
        ];
        let given = given
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)));
        let body = Value::Object(given.collect::<Map<_, _>>());
        let path = path(&format!("{kind}s"), name);
        request(
            of,
            Ask::Put(body),
            path,
            View::Done(format!("{kind} {name} is set")),
        )
    }
}

impl PutFactory {
    fn request(&self) -> Request<'_> {
        let Named { of, name } = &self.at;
        let settings: Map<_, _> = self.settings.iter().cloned().collect();
        let body = json!({ "export": self.export.as_str(), "settings": settings });
        let done = View::Done(format!("factory {name} is set"));
        request(of, Ask::Put(body), path("factories", name), done)
    }
}

impl WhenFullArg {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Reject => "reject",
            Self::DropOldest => "drop-oldest",
        }
    }
}

impl Delete {
    fn request(&self, kind: &str) -> Request<'_> {
        let unused = if self.only_if_unused {
            "?only_if_unused=true"
        } else {
            ""
        };
        let path = path(kind, &self.at.name) + unused;
        request(&self.at.of, Ask::Delete, path, View::Dropped)
    }
}

impl Browse {
    fn request(&self) -> Request<'_> {
        let selector = self.selector.as_deref();
        let selector = selector.map(|selector| format!("&selector={}", encoded(selector)));
        let path = format!(
            "{}/messages?limit={}{}",
            path("queues", &self.at.name),
            self.limit,
            selector.unwrap_or_default()
        );
        let view = View::Table {
            of: "messages",
            columns: &[
                "number",
                "size",
                "durable",
                "priority",
                "delivery_count",
                "message_id",
                "subject",
                "text",
            ],
        };
        request(&self.at.of, Ask::Get, path, view)
    }
}

impl Numbered {
    fn close(&self, kind: &str) -> Request<'_> {
        let done = View::Done(format!("{kind} {} is closed", self.id));
        request(&self.of, Ask::Delete, format!("/v1/{kind}s/{}", self.id), done)
    }
}

fn list<'a>(of: &'a InGroup, what: &'static str, columns: &'static [&'static str]) -> Request<'a> {
    request(
        of,
        Ask::Get,
        format!("/v1/{what}"),
        View::Table { of: what, columns },
    )
}

const fn request(of: &InGroup, ask: Ask, path: String, view: View) -> Request<'_> {
    Request { of, ask, path, view }
}

fn path(kind: &str, name: &str) -> String {
    format!("/v1/{kind}/{}", encoded(name))
}

/// A text as it may stand in a path or a query (RFC 3986).
fn encoded(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_anything_in_it_is_one_part_of_a_path() {
        assert_eq!(
            path("queues", "a/b?c#ü 1.x"),
            "/v1/queues/a%2Fb%3Fc%23%C3%BC%201.x"
        );
    }
}
