//! `naming` and `broker`: processes that serve until they are told to stop or can no longer.

use std::io::Read;
use std::path::Path;

use daymark_broker_server::{BrokerError, BrokerOptions};
use daymark_client::proto::Role;
use daymark_naming_server::{NamingOptions, Server, StartError, StopReason};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{BrokerArgs, NamingArgs, RoleArg, Serving};
use crate::failure::{Failure, exit};
use crate::output::print_line;
use crate::{logging, provider};

/// `daymark naming`.
///
/// # Errors
/// Why the server does not start, or can no longer serve.
pub(crate) async fn naming(args: NamingArgs) -> Result<(), Failure> {
    begin(&args.serving)?;
    let mut options = NamingOptions {
        listen: args.listen,
        ..NamingOptions::new(args.data)
    };
    if let Some(path) = args.config {
        configure(&mut options, &path)?;
    }
    let stop = stop_signal()?;
    let server = Server::start(options).await.map_err(not_started)?;
    print_line(&format!("listening {}", server.local_addr()))?;
    tokio::select! {
        () = stop => {
            server.stop().await;
            Ok(())
        }
        reason = server.stopped() => ended(&reason),
    }
}

/// `daymark broker`.
///
/// # Errors
/// Why the broker does not start, or can no longer be a member.
pub(crate) async fn broker(args: BrokerArgs) -> Result<(), Failure> {
    begin(&args.serving)?;
    let naming = provider::providers(args.naming.as_deref(), args.jndi_properties.as_deref())?;
    let store = args.store.parse().map_err(|error| {
        Failure::usage("InvalidStore", format!("--store: {error}"))
            .hint("for example --store journal:/srv/orders")
    })?;
    let options = BrokerOptions {
        name: args.name,
        role: match args.role {
            RoleArg::Primary => Role::Primary,
            RoleArg::Backup => Role::Backup,
        },
        group: args.group,
        store,
        naming,
        listen: args.listen,
        admin: args.admin,
        config: args.config,
    };
    let stop = stop_signal()?;
    let ended = daymark_broker_server::run(options, stop).await;
    ended.map_err(broker_ended)
}

fn broker_ended(error: BrokerError) -> Failure {
    let (code, hint) = match &error {
        BrokerError::Config(_) => ("InvalidConfig", None),
        BrokerError::Listen { .. } => (
            "CannotListen",
            Some("another process may listen there; --admin and peer_listen take others"),
        ),
        BrokerError::StepFailed { .. } => ("PromotionFailed", None),
        BrokerError::StoreFailed { .. } => ("StoreFailed", None),
    };
    let failure = Failure::new(code, &error).exiting(error.exit_code());
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Takes what the file says.
fn configure(options: &mut NamingOptions, path: &Path) -> Result<(), Failure> {
    let unusable = |why: String| Failure::usage("InvalidConfig", format!("{}: {why}", path.display()));
    let text = std::fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    options
        .configure(&text)
        .map_err(|error| unusable(error.to_string()))
}

fn not_started(error: StartError) -> Failure {
    let (code, hint) = match &error {
        StartError::PortInUse { .. } => (
            "PortInUse",
            Some("another server may run already; --listen takes another port"),
        ),
        StartError::CannotListen { .. } => {
            ("CannotListen", Some("--listen takes an address of this machine"))
        }
        StartError::DataDirectory { .. } => (
            "DataDirectory",
            Some("--data takes a directory this user may write to"),
        ),
        StartError::InUse(_) => ("DataInUse", Some("one process at a time holds a data directory")),
        StartError::Log(_) => ("LogFailed", None),
        StartError::Record { .. } | StartError::Damaged { .. } => ("DataDamaged", None),
        StartError::Replica { .. } => ("ReplicaFailed", None),
    };
    let failure = Failure::new(code, error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn ended(reason: &StopReason) -> Result<(), Failure> {
    match reason {
        StopReason::Requested => Ok(()),
        StopReason::ListenerFailed { why } => Err(Failure::new("ListenerFailed", why)),
    }
}

/// What is logged where `DAYMARK_LOG` says nothing: Raft's own lines only when something is wrong.
const LOGGED: &str = "info,openraft=warn";

fn begin(serving: &Serving) -> Result<(), Failure> {
    logging::start(serving.log_format, LOGGED)?;
    if serving.exit_with_parent {
        exit_with_parent()?;
    }
    Ok(())
}

/// Ends this process at once when standard input ends: whoever started it is gone and cannot stop it.
fn exit_with_parent() -> Result<(), Failure> {
    let wait = || {
        let mut buffer = [0; 64];
        while matches!(std::io::stdin().read(&mut buffer), Ok(count) if count > 0) {}
        std::process::exit(i32::from(exit::FAILED));
    };
    std::thread::Builder::new().name("parent".into()).spawn(wait)?;
    Ok(())
}

/// Resolves at the first SIGTERM or SIGINT. From now on they no longer end the process by themselves.
///
/// # Errors
/// What the system says when it does not let signals be handled.
pub(crate) fn stop_signal() -> Result<impl Future<Output = ()> + Send + 'static, Failure> {
    let refused = |error| Failure::new("NoSignals", format!("signals cannot be handled: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(refused)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(refused)?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
