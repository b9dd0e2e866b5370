//! The command line of what a broker's admin endpoint offers: `daymark queue`, `topic`, `subscription`,
//! `connection`, `link`, `factory`.

use clap::{Args, Subcommand, ValueEnum};
use daymark_client::proto::{GroupName, Name};
use serde_json::Value;

use crate::args::Asking;

/// Whose active broker is asked.
#[derive(Args, Debug)]
pub(crate) struct InGroup {
    /// The group; its active broker is asked
    pub(crate) group: GroupName,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// One thing of a group.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The group.
    #[command(flatten)]
    pub(crate) of: InGroup,
    /// Its name: that of a factory, or the AMQP address of a queue or topic; not the name it is exported under
    pub(crate) name: String,
}

/// One connection or link of a group.
#[derive(Args, Debug)]
pub(crate) struct Numbered {
    /// The group.
    #[command(flatten)]
    pub(crate) of: InGroup,
    /// Its number, as `list` shows it
    pub(crate) id: u64,
}

/// `daymark queue`.
#[derive(Debug, Subcommand)]
pub(crate) enum QueueVerb {
    /// Show every queue with its counts
    List(InGroup),
    /// Show a queue with its counts and settings
    Show(Named),
    /// Make a queue, or set one anew; a setting that is not given gets its default
    Put(Put),
    /// Delete a queue and the messages in it
    Delete(Delete),
    /// Show the messages that wait in a queue, first to be delivered first; nothing is taken
    Browse(Browse),
    /// Drop the messages of a queue that are not out for delivery
    Purge(Named),
}

/// `daymark topic`.
#[derive(Debug, Subcommand)]
pub(crate) enum TopicVerb {
    /// Show every topic with its counts
    List(InGroup),
    /// Show a topic with its counts and settings
    Show(Named),
    /// Make a topic, or set one anew; a setting that is not given gets its default
    Put(Put),
    /// Delete a topic; its subscriptions stay, and wait for it to come again
    Delete(Delete),
}

/// `daymark subscription`.
#[derive(Debug, Subcommand)]
pub(crate) enum SubscriptionVerb {
    /// Show every subscription that has a name
    List(InGroup),
    /// End a subscription (unsubscribe); the messages in it go with it
    Delete(Unsubscribe),
}

/// `daymark connection`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionVerb {
    /// Show every open connection
    List(InGroup),
    /// Close a connection; its client may connect again
    Close(Numbered),
}

/// `daymark link`.
#[derive(Debug, Subcommand)]
pub(crate) enum LinkVerb {
    /// Show every producer, consumer, browser and coordinator
    List(InGroup),
    /// Close a link
    Close(Numbered),
}

/// `daymark factory`.
#[derive(Debug, Subcommand)]
pub(crate) enum FactoryVerb {
    /// Show every connection factory the group exports, with its attributes
    List(InGroup),
    /// Show a connection factory with its attributes
    Show(Named),
    /// Make a connection factory, or set one anew; a setting that is not given gets its default
    Put(PutFactory),
    /// Delete a connection factory; clients that have it go on
    Delete(Named),
}

/// `put`.
#[derive(Args, Debug)]
#[command(after_help = "\
What is made is stored with the messages: it survives restarts and failovers. What stands in the configuration of
the brokers is changed there.

With --export the name is published before the command ends. If somebody else has it, nothing is changed; if no
naming server answers, it is stored, published when one does, and the command says so.

Examples:
  daymark queue put orders billing --max-messages 100000 --when-full reject
  daymark queue put orders billing --export jms/billing")]
pub(crate) struct Put {
    /// What to make.
    #[command(flatten)]
    pub(crate) at: Named,
    /// Messages held at most; those of a topic are those of each subscription [default: no limit]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_messages: Option<u64>,
    /// Bytes held at most [default: no limit]
    #[arg(long, value_name = "BYTES")]
    pub(crate) max_bytes: Option<u64>,
    /// What happens then [default: block]
    #[arg(long, value_enum)]
    pub(crate) when_full: Option<WhenFullArg>,
    /// Deliveries of one message that may fail; 0: no bound [default: 10]
    #[arg(long, value_name = "COUNT")]
    pub(crate) max_delivery_attempts: Option<u32>,
    /// The queue that gets what was rejected or failed too often; '': dropped [default: DLQ]
    #[arg(long, value_name = "QUEUE")]
    pub(crate) dead_letter: Option<String>,
    /// The queue that gets what expired; '': dropped [default: '']
    #[arg(long, value_name = "QUEUE")]
    pub(crate) expiry: Option<String>,
    /// The name in the directory it is published under [default: none]
    #[arg(long, value_name = "NAME")]
    pub(crate) export: Option<Name>,
}

/// `daymark factory put`.
#[derive(Args, Debug)]
#[command(after_help = "\
What is made is stored with the messages: it survives restarts and failovers. What stands in the configuration of
the brokers is changed there, and has its export name for a name.

The factory is published before the command ends, and is what the next lookup brings; connections that are open
keep the settings they were made with. If somebody else has its name, nothing is changed; if no naming server
answers, it is stored, published when one does, and the command says so.

Settings are those of `settings = { ... }` in broker.toml.

Examples:
  daymark factory put orders patient --export jms/PatientFactory --setting initial_connect_attempts=-1
  daymark factory put orders quick --export jms/Quick --setting call_timeout_ms=2000 --setting reconnect_enabled=false")]
pub(crate) struct PutFactory {
    /// What to make.
    #[command(flatten)]
    pub(crate) at: Named,
    /// The name in the directory it is published under
    #[arg(long, value_name = "NAME")]
    pub(crate) export: Name,
    /// How its clients connect, reconnect and give up; may be given several times
    #[arg(long = "setting", value_name = "KEY=VALUE", value_parser = setting)]
    pub(crate) settings: Vec<(String, Value)>,
}

/// A setting with its value.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    match serde_json::from_str(value) {
        Ok(value @ (Value::Bool(_) | Value::Number(_))) => Ok((key.to_owned(), value)),
        Ok(Value::Null | Value::String(_) | Value::Array(_) | Value::Object(_)) | Err(_) => {
            Err(format!("{value:?}: write a number, true or false"))
        }
    }
}

/// What happens at a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum WhenFullArg {
    /// Producers get no more credit until there is room
    Block,
    /// The message is rejected
    Reject,
    /// The oldest message makes room
    DropOldest,
}

/// `delete` of a queue or topic.
#[derive(Args, Debug)]
pub(crate) struct Delete {
    /// What to delete.
    #[command(flatten)]
    pub(crate) at: Named,
    /// Only if it is empty and nobody is attached
    #[arg(long)]
    pub(crate) only_if_unused: bool,
}

/// `daymark queue browse`.
#[derive(Args, Debug)]
#[command(after_help = "\
With --json, also the properties and annotations of each message.

Example:
  daymark queue browse orders billing --selector \"region = 'EU'\" --limit 10")]
pub(crate) struct Browse {
    /// What to look into.
    #[command(flatten)]
    pub(crate) at: Named,
    /// Messages at most, 1 to 1000
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: u16,
    /// Only what a JMS selector chooses
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
}

/// `daymark subscription delete`.
#[derive(Args, Debug)]
pub(crate) struct Unsubscribe {
    /// What to end.
    #[command(flatten)]
    pub(crate) at: Named,
    /// The client it belongs to; without it one that all clients share
    #[arg(long, value_name = "ID")]
    pub(crate) client: Option<String>,
}
