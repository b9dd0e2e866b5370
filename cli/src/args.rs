//! The command line: verbs, flags and their help texts. What it accepts is already parsed into the types
//! the verbs use, so that a verb has nothing left to check.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use daymark_client::proto::{DEFAULT_PORT, Endpoint, Filter, GroupName, MemberName, Name, Revision, Scope};

use crate::manage::{ConnectionVerb, FactoryVerb, LinkVerb, QueueVerb, SubscriptionVerb, TopicVerb};
use crate::span;

/// An active/standby message broker and the naming server that says where it is.
#[derive(Debug, Parser)]
#[command(name = "daymark", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

const AFTER_HELP: &str = "\
See it work:
  daymark demo

By hand, each in a terminal of its own:
  daymark naming
  daymark broker --name one --role primary --group orders \\
                 --store journal:store --listen 127.0.0.1:9741
  daymark broker --name two --role backup --group orders \\
                 --store journal:store --listen 127.0.0.1:9742
  daymark lookup QueueConnectionFactory

Exit codes:
  0  done
  1  refused or failed
  2  the command line, a configuration or a provider list cannot be used
  3  no such name, group or member, or nothing of that name in the broker
  4  known and not available now, or no answer in time
  5  no naming server could be reached";

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Run a naming server
    Naming(NamingArgs),
    /// Run one broker of a group: active or standby, as things stand
    Broker(BrokerArgs),
    /// Show what a name is bound to
    Lookup(LookupArgs),
    /// List the names directly below a context
    List(ListArgs),
    /// Bind a name; refused if it is bound
    Bind(BindArgs),
    /// Bind a name, whatever it was bound to
    Rebind(RebindArgs),
    /// Unbind a name; a name that is not bound is no error
    Unbind(UnbindArgs),
    /// Make a subcontext
    CreateSubcontext(CreateSubcontextArgs),
    /// Remove an empty subcontext; one that does not exist is no error
    DestroySubcontext(NameArgs),
    /// Move a binding to another name, a context with everything below it
    Rename(RenameArgs),
    /// Show the attributes of a name
    Attributes(AttributesArgs),
    /// Add, replace or remove attributes, all changes or none
    ModifyAttributes(ModifyAttributesArgs),
    /// Find bindings by their attributes
    Search(SearchArgs),
    /// Carry out several writes as one, all or none
    Transact(TransactArgs),
    /// Ask anything the directory can be asked, in the words of its RESP door
    Ask(AskArgs),
    /// Print what happens to a name, until Ctrl-C
    Watch(WatchArgs),
    /// Show broker groups: who is active, at which epoch, with which exports
    Groups(GroupsArgs),
    /// Ask a standby to become the active one
    Promote(PromoteArgs),
    /// Hand the service of a group over to a standby, without losing or doubling anything
    Switchover(SwitchoverArgs),
    /// Show the last failovers of a group, step by step
    Timeline(TimelineArgs),
    /// Show, make, set, empty, browse and delete the queues of a group
    #[command(subcommand)]
    Queue(QueueVerb),
    /// Show, make, set and delete the topics of a group
    #[command(subcommand)]
    Topic(TopicVerb),
    /// Show and end the subscriptions of a group
    #[command(subcommand)]
    Subscription(SubscriptionVerb),
    /// Show and close the connections to a group
    #[command(subcommand)]
    Connection(ConnectionVerb),
    /// Show and close the links to a group: producers, consumers, browsers
    #[command(subcommand)]
    Link(LinkVerb),
    /// Show the connection factories of a group
    #[command(subcommand)]
    Factory(FactoryVerb),
    /// Show every naming server of the provider list
    Status(StatusArgs),
    /// Kill the active broker under load, and count
    Demo(DemoArgs),
    /// Fail a running group over, once, and say what clients saw
    Drill(DrillArgs),
}

/// Where to ask, and how to answer.
#[derive(Args, Clone, Debug)]
pub(crate) struct Asking {
    /// Naming servers, for example kkam:9736,kkm-PC:9736 [env: DAYMARK_PROVIDER_URL] [default: 127.0.0.1:9736]
    ///
    /// Separated by commas, blanks or semicolons; a port that is not given is 9736. In this order: this flag,
    /// --jndi-properties, the environment variable DAYMARK_PROVIDER_URL, ./jndi.properties, 127.0.0.1:9736.
    #[arg(long, value_name = "LIST", help_heading = "Asking")]
    pub(crate) provider: Option<String>,
    /// Take the list from java.naming.provider.url in this file; ./jndi.properties is read where it exists
    #[arg(long, value_name = "FILE", help_heading = "Asking")]
    pub(crate) jndi_properties: Option<PathBuf>,
    /// How long to try, over all servers
    #[arg(long, value_name = "TIME", value_parser = span::parse, default_value = "10s", help_heading = "Asking")]
    pub(crate) timeout: Duration,
    /// Answer with one JSON document per line; errors too, on standard error
    #[arg(long, help_heading = "Asking")]
    pub(crate) json: bool,
}

/// How a server logs and when it ends.
#[derive(Args, Clone, Debug)]
pub(crate) struct Serving {
    /// How log lines look, on standard error; DAYMARK_LOG says which (for example info, or daymark=debug)
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t = LogFormat::Text, help_heading = "Serving")]
    pub(crate) log_format: LogFormat,
    /// End as soon as standard input ends: whoever holds its other end is gone.
    #[arg(long, hide = true)]
    pub(crate) exit_with_parent: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON document per line.
    Json,
}

/// `daymark naming`.
#[derive(Args, Debug)]
#[command(after_help = "\
Prints `listening HOST:PORT` when it answers. One port speaks HTTP and RESP:
  curl http://127.0.0.1:9736/v1/names/QueueConnectionFactory
  redis-cli -p 9736 LOOKUP QueueConnectionFactory
SIGTERM or Ctrl-C stops it.")]
pub(crate) struct NamingArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "HOST:PORT", value_parser = naming_endpoint, default_value = "0.0.0.0:9736")]
    pub(crate) listen: Endpoint,
    /// The data directory: everything acknowledged is in it before it is acknowledged
    #[arg(long, value_name = "DIR", default_value = "daymark-naming")]
    pub(crate) data: PathBuf,
    /// Limits and storage, as TOML; what it does not name has its default
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Logs and life.
    #[command(flatten)]
    pub(crate) serving: Serving,
}

/// `daymark broker`.
#[derive(Args, Debug)]
#[command(after_help = "\
Prints `admin HOST:PORT` when its admin endpoint answers. A standby opens no store and no messaging port.
SIGTERM or Ctrl-C stops it: its exports are withdrawn, and no failover follows. `kill -9` is followed by one.")]
pub(crate) struct BrokerArgs {
    /// This broker's name in its group
    #[arg(long, value_name = "MEMBER")]
    pub(crate) name: MemberName,
    /// What it should be when everything is well
    #[arg(long, value_enum)]
    pub(crate) role: RoleArg,
    /// The active/standby set it belongs to
    #[arg(long, value_name = "GROUP")]
    pub(crate) group: GroupName,
    /// The store both brokers of the group share: journal:DIR or postgres://USER@HOST/DATABASE
    #[arg(long, value_name = "STORE")]
    pub(crate) store: String,
    /// Naming servers, for example kkam:9736,kkm-PC:9736 [env: DAYMARK_PROVIDER_URL] [default: 127.0.0.1:9736]
    #[arg(long, value_name = "LIST")]
    pub(crate) naming: Option<String>,
    /// Take the list from java.naming.provider.url in this file
    #[arg(long, value_name = "FILE")]
    pub(crate) jndi_properties: Option<PathBuf>,
    /// Where clients reach it while it is active (AMQP 1.0)
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Endpoint,
    /// Where its admin and health endpoint listens, in every state [default: the host of --listen, a free port]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) admin: Option<Endpoint>,
    /// Queues, exports and timings; without it one queue `examples`, exported as ExamplesQueue
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Logs and life.
    #[command(flatten)]
    pub(crate) serving: Serving,
}

/// A configured role on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Becomes active when everything is well
    Primary,
    /// Becomes active when the primary cannot
    Backup,
}

/// `daymark lookup`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  daymark lookup QueueConnectionFactory
  daymark lookup ExamplesQueue --wait 10s
  daymark lookup QueueConnectionFactory --json | jq .object.brokers")]
pub(crate) struct LookupArgs {
    /// The name, as javax.naming.CompositeName reads it: components separated by /
    pub(crate) name: Name,
    /// Wait until the name is bound, at most this long (such as 10s)
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    pub(crate) wait: Option<Duration>,
    /// Answer from a majority's state, not from one server's
    #[arg(long)]
    pub(crate) strong: bool,
    /// Show a link itself, not what it leads to
    #[arg(long)]
    pub(crate) link: bool,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark list`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  daymark list
  daymark list orders --bindings")]
pub(crate) struct ListArgs {
    /// The context; without it the root
    #[arg(default_value = "", hide_default_value = true)]
    pub(crate) name: Name,
    /// Show what each name is bound to
    #[arg(long)]
    pub(crate) bindings: bool,
    /// Answer from a majority's state, not from one server's
    #[arg(long)]
    pub(crate) strong: bool,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// What to bind: exactly one of these.
#[derive(Args, Clone, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct ObjectArgs {
    /// The object as JSON, for example '{"type":"queue","address":"examples"}'
    #[arg(value_name = "JSON")]
    pub(crate) object: Option<String>,
    /// A queue at this address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) queue: Option<String>,
    /// A topic at this address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) topic: Option<String>,
    /// A link to this name
    #[arg(long, value_name = "NAME")]
    pub(crate) link: Option<Name>,
    /// Any JSON value
    #[arg(long, value_name = "JSON")]
    pub(crate) value: Option<String>,
}

/// `daymark bind`.
#[derive(Args, Debug)]
#[command(
    override_usage = "daymark bind [OPTIONS] <NAME> <JSON|--queue ADDRESS|--topic ADDRESS|--link NAME|--value JSON>"
)]
#[command(after_help = "\
Examples:
  daymark bind BillingQueue --queue billing --attr owner=accounts
  daymark bind current --link BillingQueue
  daymark bind limits --value '{\"per_second\":100}'
  daymark bind BillingTopic '{\"type\":\"topic\",\"address\":\"billing.events\"}'")]
pub(crate) struct BindArgs {
    /// The name; its context must exist
    pub(crate) name: Name,
    /// What to bind.
    #[command(flatten)]
    pub(crate) object: ObjectArgs,
    /// An attribute; may be given several times, also for several values of one attribute
    #[arg(long = "attr", value_name = "KEY=VALUE", value_parser = attribute)]
    pub(crate) attributes: Vec<(String, String)>,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark rebind`.
#[derive(Args, Debug)]
#[command(
    override_usage = "daymark rebind [OPTIONS] <NAME> <JSON|--queue ADDRESS|--topic ADDRESS|--link NAME|--value JSON>"
)]
#[command(after_help = "\
Examples:
  daymark rebind BillingQueue --queue billing-2
  daymark rebind BillingQueue --queue billing-2 --if-revision 17")]
pub(crate) struct RebindArgs {
    /// The name; its context must exist
    pub(crate) name: Name,
    /// What to bind.
    #[command(flatten)]
    pub(crate) object: ObjectArgs,
    /// An attribute; without any, the binding keeps those it has
    #[arg(long = "attr", value_name = "KEY=VALUE", value_parser = attribute)]
    pub(crate) attributes: Vec<(String, String)>,
    /// Only if the binding is at this revision; 0: only if the name is not bound
    #[arg(long, value_name = "REVISION")]
    pub(crate) if_revision: Option<Revision>,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark unbind`.
#[derive(Args, Debug)]
pub(crate) struct UnbindArgs {
    /// The name
    pub(crate) name: Name,
    /// Only if the binding is at this revision
    #[arg(long, value_name = "REVISION")]
    pub(crate) if_revision: Option<Revision>,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark create-subcontext`.
#[derive(Args, Debug)]
pub(crate) struct CreateSubcontextArgs {
    /// The name; its context must exist
    pub(crate) name: Name,
    /// An attribute; may be given several times
    #[arg(long = "attr", value_name = "KEY=VALUE", value_parser = attribute)]
    pub(crate) attributes: Vec<(String, String)>,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// A verb with nothing but a name.
#[derive(Args, Debug)]
pub(crate) struct NameArgs {
    /// The name
    pub(crate) name: Name,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark rename`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  daymark rename BillingQueue billing/Incoming
  daymark rename drafts orders --if-revision 17")]
pub(crate) struct RenameArgs {
    /// The name; a link is moved itself, not followed
    pub(crate) name: Name,
    /// The new name: not bound, its context exists
    pub(crate) target: Name,
    /// Only if the binding is at this revision
    #[arg(long, value_name = "REVISION")]
    pub(crate) if_revision: Option<Revision>,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark attributes`.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  daymark attributes BillingQueue
  daymark attributes BillingQueue owner tier")]
pub(crate) struct AttributesArgs {
    /// The name
    pub(crate) name: Name,
    /// Which attributes; without any, all
    #[arg(value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Answer from a majority's state, not from one server's
    #[arg(long)]
    pub(crate) strong: bool,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark modify-attributes`.
#[derive(Args, Debug)]
#[command(after_help = "\
First everything that is added, then what is replaced, then what is removed.

Examples:
  daymark modify-attributes BillingQueue --add tier=gold --remove owner
  daymark modify-attributes BillingQueue --replace owner=accounts --replace owner=audit")]
pub(crate) struct ModifyAttributesArgs {
    /// The name
    pub(crate) name: Name,
    /// Add a value; may be given several times
    #[arg(long, value_name = "ID=VALUE", value_parser = attribute)]
    pub(crate) add: Vec<(String, String)>,
    /// Replace all values; given several times, one attribute gets several values
    #[arg(long, value_name = "ID=VALUE", value_parser = attribute)]
    pub(crate) replace: Vec<(String, String)>,
    /// Remove an attribute, or one value of it; may be given several times
    #[arg(long, value_name = "ID[=VALUE]")]
    pub(crate) remove: Vec<String>,
    /// Only if the binding is at this revision
    #[arg(long, value_name = "REVISION")]
    pub(crate) if_revision: Option<Revision>,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark search`.
#[derive(Args, Debug)]
#[command(after_help = "\
A filter is written as RFC 4515 says: (owner=accounts), (&(tier=gold)(!(owner=*))), (name=Billing*), (size>=10).

Examples:
  daymark search '(owner=accounts)'
  daymark search '(&(tier=gold)(owner=acc*))' --base billing --size-limit 10
  daymark search '(objectClass=*)' --scope object --base BillingQueue")]
pub(crate) struct SearchArgs {
    /// The filter
    pub(crate) filter: Filter,
    /// Where to begin; without it the root
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) base: Name,
    /// How far around it
    #[arg(long, value_enum, default_value_t = ScopeArg::Subtree)]
    pub(crate) scope: ScopeArg,
    /// End after this many; 0: as many as the server allows
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    pub(crate) size_limit: u64,
    /// End after this long (such as 500ms); without it as long as the server allows
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    pub(crate) time_limit: Option<Duration>,
    /// Show only this attribute; may be given several times
    #[arg(long = "attr", value_name = "ID")]
    pub(crate) ids: Vec<String>,
    /// Answer from a majority's state, not from one server's
    #[arg(long)]
    pub(crate) strong: bool,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark transact`.
#[derive(Args, Debug)]
#[command(after_help = "\
The writes are a JSON array; each element has one key, its verb:
  [{\"bind\": {\"name\": \"a\", \"object\": {\"type\": \"queue\", \"address\": \"a\"}}},
   {\"unbind\": {\"name\": \"b\", \"expected\": 17}},
   {\"check\": {\"name\": \"c\", \"expected\": 4}}]
Verbs: bind, rebind, unbind, create-subcontext, destroy-subcontext, rename, modify-attributes, check.

Examples:
  daymark transact '[{\"rename\": {\"name\": \"new\", \"target\": \"current\"}}]'
  daymark transact @writes.json")]
pub(crate) struct TransactArgs {
    /// The writes as JSON; @FILE reads them from a file, - from standard input
    #[arg(value_name = "JSON|@FILE|-")]
    pub(crate) writes: String,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark ask`.
#[derive(Args, Debug)]
#[command(after_help = "\
The answer is the JSON document that the directory answers at every door. A watch has no single answer: daymark watch.

Examples:
  daymark ask HELP
  daymark ask LOOKUP BillingQueue MINREV 17
  daymark ask GROUP SHOW orders
  daymark ask REBIND limits '{\"type\":\"value\",\"value\":100}' IFREV 17")]
pub(crate) struct AskArgs {
    /// The verb and its arguments; HELP lists them
    #[arg(required = true, value_name = "WORD")]
    pub(crate) words: Vec<String>,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark watch`.
#[derive(Args, Debug)]
#[command(after_help = "\
First the state as it is, then every change in order, without gaps: the connection may break and come back.

Examples:
  daymark watch QueueConnectionFactory
  daymark watch '' --scope subtree --json")]
pub(crate) struct WatchArgs {
    /// The name
    pub(crate) name: Name,
    /// How far around the name
    #[arg(long, value_enum, default_value_t = ScopeArg::Object)]
    pub(crate) scope: ScopeArg,
    /// Only changes after this revision, without the state first
    #[arg(long, value_name = "REVISION")]
    pub(crate) from: Option<Revision>,
    /// End after this many changes
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) changes: Option<u64>,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// How far a watch or a search reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScopeArg {
    /// The name itself
    Object,
    /// The names directly below it
    OneLevel,
    /// The name and everything below it
    Subtree,
}

impl From<ScopeArg> for Scope {
    fn from(scope: ScopeArg) -> Self {
        match scope {
            ScopeArg::Object => Self::Object,
            ScopeArg::OneLevel => Self::OneLevel,
            ScopeArg::Subtree => Self::Subtree,
        }
    }
}

/// `daymark groups`.
#[derive(Args, Debug)]
pub(crate) struct GroupsArgs {
    /// Only this one, with its members
    pub(crate) group: Option<GroupName>,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark promote`.
#[derive(Args, Debug)]
#[command(after_help = "\
Without --force the standby takes over only if it can take the store's lock. With it, you say that the lock
holder is frozen or gone; its epoch is over from then on, so it can neither store nor acknowledge anything.

Example:
  daymark promote orders two --force")]
pub(crate) struct PromoteArgs {
    /// The group
    pub(crate) group: GroupName,
    /// The member to become active
    pub(crate) member: MemberName,
    /// Take over although another process holds the store's lock
    #[arg(long)]
    pub(crate) force: bool,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark timeline`.
#[derive(Args, Debug)]
pub(crate) struct TimelineArgs {
    /// The group
    pub(crate) group: GroupName,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark switchover`.
#[derive(Args, Debug)]
#[command(after_help = "\
The active broker closes its port, withdraws its names and releases the store; the other one takes over at
once, and the old one stays as its standby. Clients reconnect. If the other one does not become active, the
old one takes the service back, and the command fails.

Examples:
  daymark switchover orders
  daymark switchover orders --to one")]
pub(crate) struct SwitchoverArgs {
    /// The group
    pub(crate) group: GroupName,
    /// Who shall be active [default: a ready primary before a ready backup, then by name]
    #[arg(long, value_name = "MEMBER")]
    pub(crate) to: Option<MemberName>,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark status`.
#[derive(Args, Debug)]
pub(crate) struct StatusArgs {
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

/// `daymark demo`.
#[derive(Args, Debug)]
#[command(after_help = "\
Starts a naming server, an active and a standby broker as processes of their own in a temporary directory,
streams numbered persistent messages through names, kills the active with SIGKILL, restarts it as the standby,
and reports what was lost (nothing) and doubled (nothing), and how long each step of each failover took.
Exit code 0 only if nothing was lost or doubled.

Examples:
  daymark demo
  daymark demo --messages 100000 --kills 5
  daymark demo --json | jq .failovers")]
pub(crate) struct DemoArgs {
    /// How many messages to send
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub(crate) messages: u64,
    /// How many times to kill the active broker
    #[arg(long, value_name = "K", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub(crate) kills: u32,
    /// How many messages may be on their way at once
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) window: u32,
    /// Give up after this long
    #[arg(long, value_name = "TIME", value_parser = span::parse, default_value = "2m")]
    pub(crate) deadline: Duration,
    /// Work in this directory, which must be empty or new, and keep it
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
    /// Report as one JSON document
    #[arg(long)]
    pub(crate) json: bool,
}

/// `daymark drill`.
#[derive(Args, Debug)]
#[command(after_help = "\
Sends and receives numbered messages at the address daymark.drill, gives the cause, and reports the longest
gap between acknowledgements, what was lost (nothing) and doubled (nothing), and each step's share of the gap.
Needs a standby that is ready. --kill and --freeze are signals: they work where the active broker's process
runs. A frozen broker goes on when another one is active, and also when the drill ends in any other way.
Exit code 0 only if nothing was lost or doubled.

Examples:
  daymark drill orders
  daymark drill orders --kill --yes --json | jq .longest_gap_ms")]
pub(crate) struct DrillArgs {
    /// The group
    pub(crate) group: GroupName,
    /// Kill the active broker's process with SIGKILL; it is not started again
    #[arg(long, group = "cause")]
    pub(crate) kill: bool,
    /// Hand the service over as `daymark switchover` does; this is the default
    #[arg(long, group = "cause")]
    pub(crate) switchover: bool,
    /// Stop the active broker's process with SIGSTOP until another one is active
    #[arg(long, group = "cause")]
    pub(crate) freeze: bool,
    /// Do not ask
    #[arg(long)]
    pub(crate) yes: bool,
    /// Give up after this long
    #[arg(long, value_name = "TIME", value_parser = span::parse, default_value = "2m")]
    pub(crate) deadline: Duration,
    /// Where to ask.
    #[command(flatten)]
    pub(crate) asking: Asking,
}

impl Verb {
    /// Whether errors are to be JSON documents.
    pub(crate) fn wants_json(&self) -> bool {
        match self {
            Self::Naming(_) | Self::Broker(_) => false,
            Self::Lookup(args) => args.asking.json,
            Self::List(args) => args.asking.json,
            Self::Bind(args) => args.asking.json,
            Self::Rebind(args) => args.asking.json,
            Self::Unbind(args) => args.asking.json,
            Self::CreateSubcontext(args) => args.asking.json,
            Self::DestroySubcontext(args) => args.asking.json,
            Self::Ask(args) => args.asking.json,
            Self::Rename(args) => args.asking.json,
            Self::Attributes(args) => args.asking.json,
            Self::ModifyAttributes(args) => args.asking.json,
            Self::Search(args) => args.asking.json,
            Self::Transact(args) => args.asking.json,
            Self::Watch(args) => args.asking.json,
            Self::Groups(args) => args.asking.json,
            Self::Promote(args) => args.asking.json,
            Self::Switchover(args) => args.asking.json,
            Self::Timeline(args) => args.asking.json,
            Self::Status(args) => args.asking.json,
            Self::Queue(verb) => verb.request().wants_json(),
            Self::Topic(verb) => verb.request().wants_json(),
            Self::Subscription(verb) => verb.request().wants_json(),
            Self::Connection(verb) => verb.request().wants_json(),
            Self::Link(verb) => verb.request().wants_json(),
            Self::Factory(verb) => verb.request().wants_json(),
            Self::Demo(args) => args.json,
            Self::Drill(args) => args.asking.json,
        }
    }
}

fn naming_endpoint(text: &str) -> Result<Endpoint, String> {
    Endpoint::parse_or(text, Some(DEFAULT_PORT)).map_err(|error| error.to_string())
}

fn attribute(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn exactly_one_object_can_be_bound() {
        let parse = |words: &[&str]| Cli::try_parse_from([&["daymark", "bind", "x"], words].concat());
        assert!(parse(&["--queue", "q"]).is_ok());
        assert!(parse(&["--value", "1", "--attr", "a=b", "--attr", "a=c"]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--queue", "q", "--topic", "t"]).is_err());
        assert!(parse(&["--queue", "q", "--attr", "=b"]).is_err());
    }

    #[test]
    fn unknown_flags_and_malformed_values_are_refused() {
        for line in [
            "daymark naming --port 1",
            "daymark lookup",
            "daymark lookup \"'open\"",
            "daymark lookup x --wait 10",
            "daymark broker --name a --role boss --group g --store journal:s --listen h:1",
            "daymark broker --name a/b --role backup --group g --store journal:s --listen h:1",
            "daymark broker --name a --role backup --group g --store journal:s --listen h",
            "daymark demo --messages 0",
            "daymark drill",
            "daymark drill orders --kill --freeze",
            "daymark watch x --changes 0",
            "daymark search (owner=a",
            "daymark modify-attributes x --add owner",
            "daymark rename x",
        ] {
            let words = line.split(' ').map(|word| word.trim_matches('"'));
            assert!(Cli::try_parse_from(words).is_err(), "{line}");
        }
    }
}
