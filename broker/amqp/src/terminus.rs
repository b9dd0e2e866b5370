//! Termini: where a link comes from and goes to, with filters.

use crate::desc;
use crate::list::List;
use crate::read::{DecodeError, Reader};
use crate::state::{Outcome, outcome_field, put_outcome};
use crate::value::{Fields, Symbol, Value};
use crate::write::{ListWriter, put_symbol};

type Result<T> = std::result::Result<T, DecodeError>;

/// What of a terminus outlives its link.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Nothing.
    #[default]
    None,
    /// That it exists and how it is configured.
    Configuration,
    /// Also the unsettled deliveries.
    UnsettledState,
}

/// When the countdown to the end of a terminus begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExpiryPolicy {
    /// When the link detaches.
    LinkDetach,
    /// When the session ends.
    #[default]
    SessionEnd,
    /// When the connection closes.
    ConnectionClose,
    /// Never.
    Never,
}

/// When a dynamic node goes (part 3.5.10 of the specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LifetimePolicy {
    /// With the link that made it.
    DeleteOnClose,
    /// With the last link to it.
    DeleteOnNoLinks,
    /// When it holds no message.
    DeleteOnNoMessages,
    /// When it has neither link nor message.
    DeleteOnNoLinksOrMessages,
}

impl LifetimePolicy {
    /// Its key in the properties of a dynamic node.
    pub const KEY: Symbol = Symbol::from_static("lifetime-policy");

    /// The policy these properties of a dynamic node name; none if they name none, or one that is unknown.
    #[must_use]
    pub fn of(properties: &Fields) -> Option<Self> {
        let Value::Described(named, _) = properties.get(Self::KEY.as_str())? else {
            return None;
        };
        let policies = [
            Self::DeleteOnClose,
            Self::DeleteOnNoLinks,
            Self::DeleteOnNoMessages,
            Self::DeleteOnNoLinksOrMessages,
        ];
        policies.into_iter().find(|policy| {
            let (code, name) = policy.descriptor();
            is_descriptor(named, code, name)
        })
    }

    /// The value that names this policy.
    #[must_use]
    pub fn value(self) -> Value {
        let (code, _) = self.descriptor();
        Value::Described(Box::new(Value::Ulong(code)), Box::new(Value::List(Vec::new())))
    }

    const fn descriptor(self) -> (u64, &'static str) {
        match self {
            Self::DeleteOnClose => (desc::DELETE_ON_CLOSE, "amqp:delete-on-close:list"),
            Self::DeleteOnNoLinks => (desc::DELETE_ON_NO_LINKS, "amqp:delete-on-no-links:list"),
            Self::DeleteOnNoMessages => (desc::DELETE_ON_NO_MESSAGES, "amqp:delete-on-no-messages:list"),
            Self::DeleteOnNoLinksOrMessages => (
                desc::DELETE_ON_NO_LINKS_OR_MESSAGES,
                "amqp:delete-on-no-links-or-messages:list",
            ),
        }
    }
}

/// How a source hands out messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DistributionMode {
    /// A message goes to one link.
    Move,
    /// Every link gets a copy: browsing.
    Copy,
}

/// Where messages of a link come from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Source {
    /// The node; none for a dynamic node still to be made.
    pub address: Option<String>,
    /// What outlives the link.
    pub durable: Durability,
    /// When it expires.
    pub expiry_policy: ExpiryPolicy,
    /// Seconds from the start of expiry to its end.
    pub timeout: u32,
    /// The peer asks for a new node.
    pub dynamic: bool,
    /// Wishes for the dynamic node, such as a [`LifetimePolicy`].
    pub dynamic_node_properties: Fields,
    /// Move or copy.
    pub distribution_mode: Option<DistributionMode>,
    /// Filters by key; see [`Source::filters`].
    pub filter: Fields,
    /// What a delivery settled without an outcome means.
    pub default_outcome: Option<Outcome>,
    /// Outcomes the source understands.
    pub outcomes: Vec<Symbol>,
    /// Capabilities such as `queue`, `topic`, `shared`.
    pub capabilities: Vec<Symbol>,
}

impl Source {
    /// The source at this address.
    #[must_use]
    pub fn address(address: impl Into<String>) -> Self {
        Self {
            address: Some(address.into()),
            ..Self::default()
        }
    }

    /// The filters, the well-known ones recognised by descriptor (code or name).
    #[must_use]
    pub fn filters(&self) -> Vec<Filter> {
        self.filter
            .iter()
            .map(|(key, value)| Filter::new(key, value))
            .collect()
    }
}

/// One filter of a source.
#[derive(Clone, Debug, PartialEq)]
pub enum Filter {
    /// A JMS message selector.
    Selector {
        /// The key it was given under.
        key: Symbol,
        /// The selector.
        expression: String,
    },
    /// Do not deliver what the same connection sent.
    NoLocal {
        /// The key it was given under.
        key: Symbol,
    },
    /// Another filter.
    Other {
        /// The key it was given under.
        key: Symbol,
        /// The descriptor; null if the filter was not described.
        descriptor: Value,
        /// The value.
        value: Value,
    },
}

impl Filter {
    /// The value for [`Source::filter`] of a JMS selector.
    #[must_use]
    pub fn selector_value(expression: &str) -> Value {
        Value::Described(
            Box::new(Value::Ulong(desc::SELECTOR)),
            Box::new(Value::from(expression)),
        )
    }

    /// The value for [`Source::filter`] of a no-local filter.
    #[must_use]
    pub fn no_local_value() -> Value {
        Value::Described(
            Box::new(Value::Ulong(desc::NO_LOCAL)),
            Box::new(Value::List(Vec::new())),
        )
    }

    fn new(key: &Symbol, value: &Value) -> Self {
        let key = key.clone();
        let Value::Described(descriptor, value) = value else {
            return Self::Other {
                key,
                descriptor: Value::Null,
                value: value.clone(),
            };
        };
        if is_descriptor(descriptor, desc::SELECTOR, "apache.org:selector-filter:string")
            && let Value::String(expression) = &**value
        {
            return Self::Selector {
                key,
                expression: expression.clone(),
            };
        }
        if is_descriptor(descriptor, desc::NO_LOCAL, "apache.org:no-local-filter:list") {
            return Self::NoLocal { key };
        }
        Self::Other {
            key,
            descriptor: (**descriptor).clone(),
            value: (**value).clone(),
        }
    }
}

fn is_descriptor(descriptor: &Value, code: u64, name: &str) -> bool {
    *descriptor == Value::Ulong(code) || descriptor.as_symbol().is_some_and(|symbol| *symbol == *name)
}

/// Where messages of a link go to.
#[derive(Clone, Debug, PartialEq)]
pub enum Target {
    /// A node, or the anonymous relay.
    Node(TargetNode),
    /// The transaction coordinator.
    Coordinator {
        /// Capabilities such as `amqp:local-transactions`.
        capabilities: Vec<Symbol>,
    },
}

impl Target {
    /// The target at this address.
    #[must_use]
    pub fn address(address: impl Into<String>) -> Self {
        Self::Node(TargetNode {
            address: Some(address.into()),
            ..TargetNode::default()
        })
    }
}

/// A node that messages go to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TargetNode {
    /// The node; none for the anonymous relay (each message says where it goes), or for a dynamic node.
    pub address: Option<String>,
    /// What outlives the link.
    pub durable: Durability,
    /// When it expires.
    pub expiry_policy: ExpiryPolicy,
    /// Seconds from the start of expiry to its end.
    pub timeout: u32,
    /// The peer asks for a new node.
    pub dynamic: bool,
    /// Wishes for the dynamic node, such as `lifetime-policy`.
    pub dynamic_node_properties: Fields,
    /// Capabilities such as `queue`, `topic`, `temporary-queue`.
    pub capabilities: Vec<Symbol>,
}

impl TargetNode {
    /// Whether messages carry their own destination.
    #[must_use]
    pub const fn is_anonymous_relay(&self) -> bool {
        self.address.is_none() && !self.dynamic
    }
}

pub(crate) fn put_source(buf: &mut Vec<u8>, source: &Source) {
    let mut list = ListWriter::described(buf, desc::SOURCE);
    list.string(source.address.as_deref());
    put_lifetime(&mut list, source.durable, source.expiry_policy, source.timeout);
    list.flag(source.dynamic);
    list.fields(&source.dynamic_node_properties);
    list.option(source.distribution_mode, |buf, mode| match mode {
        DistributionMode::Move => put_symbol(buf, "move"),
        DistributionMode::Copy => put_symbol(buf, "copy"),
    });
    list.fields(&source.filter);
    list.option(source.default_outcome.as_ref(), put_outcome);
    list.symbols(&source.outcomes);
    list.symbols(&source.capabilities);
    list.finish();
}

pub(crate) fn put_target(buf: &mut Vec<u8>, target: &Target) {
    match target {
        Target::Coordinator { capabilities } => {
            let mut list = ListWriter::described(buf, desc::COORDINATOR);
            list.symbols(capabilities);
            list.finish();
        }
        Target::Node(node) => {
            let mut list = ListWriter::described(buf, desc::TARGET);
            list.string(node.address.as_deref());
            put_lifetime(&mut list, node.durable, node.expiry_policy, node.timeout);
            list.flag(node.dynamic);
            list.fields(&node.dynamic_node_properties);
            list.symbols(&node.capabilities);
            list.finish();
        }
    }
}

fn put_lifetime(list: &mut ListWriter<'_>, durable: Durability, expiry: ExpiryPolicy, timeout: u32) {
    match durable {
        Durability::None => list.null(),
        Durability::Configuration => list.uint(1),
        Durability::UnsettledState => list.uint(2),
    }
    let expiry = match expiry {
        ExpiryPolicy::LinkDetach => Some("link-detach"),
        ExpiryPolicy::SessionEnd => None,
        ExpiryPolicy::ConnectionClose => Some("connection-close"),
        ExpiryPolicy::Never => Some("never"),
    };
    list.option(expiry, put_symbol);
    list.option((timeout != 0).then_some(timeout), crate::write::put_uint);
}

pub(crate) fn source_field(list: &mut List<'_>) -> Result<Option<Source>> {
    let Some(mut raw) = list.raw()? else {
        return Ok(None);
    };
    if raw.descriptor()? != desc::SOURCE {
        return Err(DecodeError::Descriptor);
    }
    let mut fields = raw.list()?;
    Ok(Some(Source {
        address: fields.string("address")?,
        durable: durable_field(&mut fields)?,
        expiry_policy: expiry_field(&mut fields)?,
        timeout: fields.uint("timeout")?.unwrap_or(0),
        dynamic: fields.boolean("dynamic")?,
        dynamic_node_properties: fields.fields("dynamic-node-properties")?,
        distribution_mode: mode_field(&mut fields)?,
        filter: fields.fields("filter")?,
        default_outcome: outcome_field(&mut fields)?,
        outcomes: fields.symbols("outcomes")?,
        capabilities: fields.symbols("capabilities")?,
    }))
}

pub(crate) fn target_field(list: &mut List<'_>) -> Result<Option<Target>> {
    let Some(mut raw) = list.raw()? else {
        return Ok(None);
    };
    match raw.descriptor()? {
        desc::TARGET => node(&mut raw).map(|node| Some(Target::Node(node))),
        desc::COORDINATOR => {
            let capabilities = raw.list()?.symbols("capabilities")?;
            Ok(Some(Target::Coordinator { capabilities }))
        }
        _ => Err(DecodeError::Descriptor),
    }
}

fn node(raw: &mut Reader<'_>) -> Result<TargetNode> {
    let mut fields = raw.list()?;
    Ok(TargetNode {
        address: fields.string("address")?,
        durable: durable_field(&mut fields)?,
        expiry_policy: expiry_field(&mut fields)?,
        timeout: fields.uint("timeout")?.unwrap_or(0),
        dynamic: fields.boolean("dynamic")?,
        dynamic_node_properties: fields.fields("dynamic-node-properties")?,
        capabilities: fields.symbols("capabilities")?,
    })
}

fn durable_field(fields: &mut List<'_>) -> Result<Durability> {
    match fields.uint("durable")? {
        None | Some(0) => Ok(Durability::None),
        Some(1) => Ok(Durability::Configuration),
        Some(2) => Ok(Durability::UnsettledState),
        Some(_) => Err(DecodeError::Range("durable")),
    }
}

fn expiry_field(fields: &mut List<'_>) -> Result<ExpiryPolicy> {
    match fields.text("expiry-policy")? {
        None | Some("session-end") => Ok(ExpiryPolicy::SessionEnd),
        Some("link-detach") => Ok(ExpiryPolicy::LinkDetach),
        Some("connection-close") => Ok(ExpiryPolicy::ConnectionClose),
        Some("never") => Ok(ExpiryPolicy::Never),
        Some(_) => Err(DecodeError::Range("expiry-policy")),
    }
}

fn mode_field(fields: &mut List<'_>) -> Result<Option<DistributionMode>> {
    match fields.text("distribution-mode")? {
        None => Ok(None),
        Some("move") => Ok(Some(DistributionMode::Move)),
        Some("copy") => Ok(Some(DistributionMode::Copy)),
        Some(_) => Err(DecodeError::Range("distribution-mode")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lifetime_policy_is_known_by_number_and_by_name() {
        for policy in [
            LifetimePolicy::DeleteOnClose,
            LifetimePolicy::DeleteOnNoLinks,
            LifetimePolicy::DeleteOnNoMessages,
            LifetimePolicy::DeleteOnNoLinksOrMessages,
        ] {
            let by_number = Fields::new().with(LifetimePolicy::KEY, policy.value());
            assert_eq!(LifetimePolicy::of(&by_number), Some(policy));
            let (code, name) = policy.descriptor();
            assert_eq!(desc::by_name(name), Some(code));
            let name = Value::Symbol(Symbol::from_static(name));
            let value = Value::Described(Box::new(name), Box::new(Value::List(Vec::new())));
            assert_eq!(
                LifetimePolicy::of(&Fields::new().with(LifetimePolicy::KEY, value)),
                Some(policy)
            );
        }
        let unknown = Fields::new().with(LifetimePolicy::KEY, "for-ever");
        assert_eq!(LifetimePolicy::of(&unknown), None);
        assert_eq!(LifetimePolicy::of(&Fields::new()), None);
    }
}
