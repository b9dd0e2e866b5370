//! Directory documents as text.

use daymark_client::proto::{
    Attributes, Binding, BrokerAddress, ConnectionFactory, Object, Owner, Reference, Withholding,
};

use crate::output::facts;

/// A binding, one fact per line.
pub(crate) fn binding(binding: &Binding) -> String {
    facts([
        ("name", Some(name(&binding.name))),
        ("type", Some(binding.object.kind().as_str().to_owned())),
        (bound_to_label(&binding.object), bound_to(&binding.object)),
        ("settings", settings(&binding.object)),
        ("attributes", attributes(&binding.attributes)),
        ("exported by", binding.owner.as_deref().map(owner)),
        (
            "revision",
            Some(format!("{} (made at {})", binding.revision, binding.created)),
        ),
    ])
}

/// A name as it is shown: the root has no text of its own.
pub(crate) fn name(name: &daymark_client::proto::Name) -> String {
    if name.is_root() {
        "(root)".to_owned()
    } else {
        name.to_string()
    }
}

const fn bound_to_label(object: &Object) -> &'static str {
    match object {
        Object::Context => "context",
        Object::Link { .. } => "leads to",
        Object::ConnectionFactory(_) => "brokers",
        Object::Queue { .. } | Object::Topic { .. } => "address",
        Object::Reference(_) => "class",
        Object::Value { .. } => "value",
    }
}

/// What an object says, on one line; `None` for a context.
pub(crate) fn bound_to(object: &Object) -> Option<String> {
    match object {
        Object::Context => None,
        Object::Link { target } => Some(name(target)),
        Object::ConnectionFactory(factory) => Some(brokers(factory)),
        Object::Queue { address } | Object::Topic { address } => Some(address.to_string()),
        Object::Reference(reference) => Some(class(reference)),
        Object::Value { json } => Some(json.to_string()),
    }
}

fn brokers(factory: &ConnectionFactory) -> String {
    let brokers: Vec<String> = factory.brokers.iter().map(broker).collect();
    brokers.join(", ")
}

fn broker(broker: &BrokerAddress) -> String {
    match &broker.member {
        Some(member) => format!("{} ({member})", broker.endpoint()),
        None => broker.endpoint().to_string(),
    }
}

fn class(reference: &Reference) -> String {
    let addresses = reference
        .addresses
        .iter()
        .map(|a| format!(" {}={}", a.kind, a.content));
    std::iter::once(reference.class_name.clone())
        .chain(addresses)
        .collect()
}

/// The settings that differ from the defaults.
fn settings(object: &Object) -> Option<String> {
    let Object::ConnectionFactory(factory) = object else {
        return None;
    };
    let given = serde_json::to_value(&factory.settings).ok()?;
    let default = serde_json::to_value(daymark_client::proto::FactorySettings::default()).ok()?;
    let changed: Vec<String> = given
        .as_object()?
        .iter()
        .filter(|(key, value)| default.get(key) != Some(value))
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    (!changed.is_empty()).then(|| changed.join(" "))
}

/// Attributes on one line; `None` where there are none.
pub(crate) fn attributes(attributes: &Attributes) -> Option<String> {
    let shown: Vec<String> = attributes
        .iter()
        .map(|(id, values)| format!("{id}={}", values.collect::<Vec<_>>().join(",")))
        .collect();
    (!shown.is_empty()).then(|| shown.join(" "))
}

/// Who exported it, and under which epoch.
pub(crate) fn owner(owner: &Owner) -> String {
    format!("group {}, epoch {}", owner.group, owner.epoch)
}

/// Why exports are not available.
pub(crate) fn withheld(withheld: &Withholding) -> String {
    match withheld.eta_ms {
        Some(eta_ms) => format!(
            "{} since revision {}, back in {eta_ms} ms",
            withheld.reason, withheld.since
        ),
        None => format!("{} since revision {}", withheld.reason, withheld.since),
    }
}
