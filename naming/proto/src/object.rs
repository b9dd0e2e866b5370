//! What a name can be bound to. Data only: no code base, no factory class, no serialized object.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::json::JsonText;
use crate::{Endpoint, Epoch, FactorySettings, GroupName, MemberName, Name};

/// What a name is bound to. JSON: an object whose `type` is the kind.
///
/// There may be millions, so what is large stands in a box.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    /// A subcontext: names can be bound below it.
    Context,
    /// Another name, followed by `lookup`.
    Link {
        /// The name to go on with, from the root.
        target: Name,
    },
    /// How to reach a message broker.
    ConnectionFactory(Box<ConnectionFactory>),
    /// A queue at a broker.
    Queue {
        /// The queue's address at the broker.
        address: Box<str>,
    },
    /// A topic at a broker.
    Topic {
        /// The topic's address at the broker.
        address: Box<str>,
    },
    /// A JNDI `Reference`: a class name and typed addresses. Nobody loads the class.
    Reference(Box<Reference>),
    /// Any JSON value, as its text.
    Value {
        /// JSON text, checked when it was parsed.
        json: Box<str>,
    },
}

/// The kind of an object, as `list` shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ObjectKind {
    /// A subcontext.
    Context,
    /// A link.
    Link,
    /// A connection factory.
    ConnectionFactory,
    /// A queue.
    Queue,
    /// A topic.
    Topic,
    /// A JNDI reference.
    Reference,
    /// A JSON value.
    Value,
}

impl ObjectKind {
    /// The kind as it is written in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Context => "context",
            Self::Link => "link",
            Self::ConnectionFactory => "connection-factory",
            Self::Queue => "queue",
            Self::Topic => "topic",
            Self::Reference => "reference",
            Self::Value => "value",
        }
    }
}

/// A JNDI `Reference` without its factory: what class the object had and where to find it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reference {
    /// The class name, as information.
    pub class_name: String,
    /// The addresses, in order.
    pub addresses: Vec<RefAddr>,
}

/// One typed address of a `Reference` (`javax.naming.StringRefAddr`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RefAddr {
    /// The address type, for example `URL`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The address itself.
    pub content: String,
}

/// How to reach a message broker, and how a client of it should behave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionFactory {
    /// Where to connect, the active broker first.
    pub brokers: Vec<BrokerAddress>,
    /// The group that exported this factory; absent where somebody bound it by hand.
    #[serde(default)]
    pub group: Option<GroupName>,
    /// The epoch of the active broker that exported it. A broker that greets with a lower one is stale.
    #[serde(default)]
    pub epoch: Option<Epoch>,
    /// How a client connects, reconnects and gives up.
    #[serde(default)]
    pub settings: FactorySettings,
}

/// Where one broker of a pair listens while it is active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerAddress {
    /// Host name or address.
    pub host: String,
    /// AMQP port.
    pub port: u16,
    /// The member's name, where it is known.
    #[serde(default)]
    pub member: Option<MemberName>,
}

impl BrokerAddress {
    /// The address without the member's name.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        Endpoint {
            host: self.host.clone(),
            port: self.port,
        }
    }
}

/// A text that is not an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an object to bind: {reason}")]
pub struct InvalidObject {
    /// What the JSON parser found.
    pub reason: String,
}

impl Object {
    /// The kind of this object.
    #[must_use]
    pub const fn kind(&self) -> ObjectKind {
        match self {
            Self::Context => ObjectKind::Context,
            Self::Link { .. } => ObjectKind::Link,
            Self::ConnectionFactory(_) => ObjectKind::ConnectionFactory,
            Self::Queue { .. } => ObjectKind::Queue,
            Self::Topic { .. } => ObjectKind::Topic,
            Self::Reference(_) => ObjectKind::Reference,
            Self::Value { .. } => ObjectKind::Value,
        }
    }

    /// An object from its JSON text.
    ///
    /// # Errors
    /// `InvalidObject` with the place and the reason.
    pub fn from_json(text: &[u8]) -> Result<Self, InvalidObject> {
        serde_json::from_slice(text).map_err(|error| InvalidObject {
            reason: error.to_string(),
        })
    }
}

/// The JSON form, to be written. A value goes out as the text that it is.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Written<'a> {
    Context {},
    Link { target: &'a Name },
    ConnectionFactory(&'a ConnectionFactory),
    Queue { address: &'a str },
    Topic { address: &'a str },
    Reference(&'a Reference),
    Value { value: JsonText<'a> },
}

/// The JSON form, as it is read. The other form (logs, snapshots) is `Stored`, because formats without field
/// names cannot read a tag inside the object.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
enum Readable {
    Context {},
    Link { target: Name },
    ConnectionFactory(Box<ConnectionFactory>),
    Queue { address: Box<str> },
    Topic { address: Box<str> },
    Reference(Box<Reference>),
    Value { value: serde_json::Value },
}

/// The other form, to be written: variants and fields of `Stored`.
#[derive(Serialize)]
#[serde(rename = "Stored")]
enum Storing<'a> {
    Context,
    Link { target: &'a Name },
    ConnectionFactory(&'a ConnectionFactory),
    Queue { address: &'a str },
    Topic { address: &'a str },
    Reference(&'a Reference),
    Value { json: &'a str },
}

#[derive(Deserialize)]
enum Stored {
    Context,
    Link { target: Name },
    ConnectionFactory(Box<ConnectionFactory>),
    Queue { address: Box<str> },
    Topic { address: Box<str> },
    Reference(Box<Reference>),
    Value { json: Box<str> },
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return self.storing().serialize(serializer);
        }
        self.written().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let readable = Readable::deserialize(deserializer)?;
            readable.try_into().map_err(de::Error::custom)
        } else {
            Stored::deserialize(deserializer).map(Into::into)
        }
    }
}

impl Object {
    fn written(&self) -> Written<'_> {
        match self {
            Self::Context => Written::Context {},
            Self::Link { target } => Written::Link { target },
            Self::ConnectionFactory(factory) => Written::ConnectionFactory(factory),
            Self::Queue { address } => Written::Queue { address },
            Self::Topic { address } => Written::Topic { address },
            Self::Reference(reference) => Written::Reference(reference),
            Self::Value { json } => Written::Value {
                value: JsonText(json),
            },
        }
    }

    fn storing(&self) -> Storing<'_> {
        match self {
            Self::Context => Storing::Context,
            Self::Link { target } => Storing::Link { target },
            Self::ConnectionFactory(factory) => Storing::ConnectionFactory(factory),
            Self::Queue { address } => Storing::Queue { address },
            Self::Topic { address } => Storing::Topic { address },
            Self::Reference(reference) => Storing::Reference(reference),
            Self::Value { json } => Storing::Value { json },
        }
    }
}

impl TryFrom<Readable> for Object {
    type Error = serde_json::Error;

    fn try_from(readable: Readable) -> Result<Self, Self::Error> {
        Ok(match readable {
            Readable::Context {} => Self::Context,
            Readable::Link { target } => Self::Link { target },
            Readable::ConnectionFactory(factory) => Self::ConnectionFactory(factory),
            Readable::Queue { address } => Self::Queue { address },
            Readable::Topic { address } => Self::Topic { address },
            Readable::Reference(reference) => Self::Reference(reference),
            Readable::Value { value } => Self::Value {
                json: serde_json::to_string(&value)?.into(),
            },
        })
    }
}

impl From<Stored> for Object {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Context => Self::Context,
            Stored::Link { target } => Self::Link { target },
            Stored::ConnectionFactory(factory) => Self::ConnectionFactory(factory),
            Stored::Queue { address } => Self::Queue { address },
            Stored::Topic { address } => Self::Topic { address },
            Stored::Reference(reference) => Self::Reference(reference),
            Stored::Value { json } => Self::Value { json },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn examples() -> Vec<Object> {
        vec![
            Object::Context,
            Object::Link {
                target: "a/b".parse().expect("a name"),
            },
            Object::Queue {
                address: "examples".into(),
            },
            Object::Value {
                json: r#"{"a":[1,null]}"#.into(),
            },
            Object::Reference(Box::new(Reference {
                class_name: "x.Y".into(),
                addresses: vec![RefAddr {
                    kind: "URL".into(),
                    content: "amqp://h".into(),
                }],
            })),
            Object::ConnectionFactory(Box::new(ConnectionFactory {
                brokers: vec![BrokerAddress {
                    host: "kkam".into(),
                    port: 9741,
                    member: None,
                }],
                group: Some("orders".parse().expect("a label")),
                epoch: Some(Epoch(3)),
                settings: FactorySettings::default(),
            })),
        ]
    }

    #[test]
    fn an_object_takes_three_words_beside_its_texts() {
        assert_eq!(size_of::<Object>(), 3 * size_of::<usize>());
    }

    #[test]
    fn every_object_survives_both_forms() {
        for object in examples() {
            let json = serde_json::to_string(&object).expect("JSON");
            assert_eq!(Object::from_json(json.as_bytes()), Ok(object.clone()), "{json}");
            let bytes = postcard::to_stdvec(&object).expect("bytes");
            assert_eq!(postcard::from_bytes::<Object>(&bytes), Ok(object));
        }
    }

    #[test]
    fn a_value_that_is_no_json_has_no_json_form() {
        for json in ["", "{", "1 2"] {
            let value = Object::Value { json: json.into() };
            assert!(serde_json::to_string(&value).is_err(), "{json:?}");
        }
    }

    #[test]
    fn unknown_keys_and_kinds_are_refused() {
        for json in [
            r#"{"type":"queue","address":"q","codebase":"http://x"}"#,
            r#"{"type":"context","factory":"x"}"#,
            r#"{"type":"serialized","data":""}"#,
            r#"{"type":"connection-factory","brokers":[],"factory":"x"}"#,
            r#"{"address":"q"}"#,
            "[",
        ] {
            assert!(Object::from_json(json.as_bytes()).is_err(), "{json}");
        }
    }
}
