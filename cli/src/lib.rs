//! The `daymark` command: naming server, broker, directory tools, demo, drill.
//!
//! It parses the command line, shows answers and errors, and runs the demo and the drill. It decides nothing about names,
//! epochs or messages: the servers and the client library do.
//!
//! A library beside the executable, so that the benches can run the same program and the same demo.

mod admin;
mod args;
pub mod demo;
mod directory;
mod drill;
mod failure;
mod ledger;
mod logging;
mod manage;
mod output;
mod provider;
mod servers;
mod span;

use std::process::ExitCode;

use clap::Parser;

use crate::args::{Cli, Verb};
use crate::failure::Failure;

/// Servers allocate and free small pieces on several threads for as long as they run: this allocator costs them a fifth
/// less processor time for each durable write than the system's, and a tenth less memory.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs the command line of this process to its end.
pub fn main() -> ExitCode {
    run(Cli::parse())
}

/// Runs the command line `daymark ARGUMENTS...` to its end.
pub fn main_with<I>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = std::ffi::OsString>,
{
    let name = std::ffi::OsString::from("daymark");
    run(Cli::parse_from(std::iter::once(name).chain(arguments)))
}

fn run(cli: Cli) -> ExitCode {
    let json = cli.verb.wants_json();
    match with_runtime(cli.verb) {
        Ok(code) => code,
        Err(failure) => {
            failure.show(json);
            ExitCode::from(failure.exit_code())
        }
    }
}

fn with_runtime(verb: Verb) -> Result<ExitCode, Failure> {
    let mut builder = match &verb {
        Verb::Naming(_) | Verb::Broker(_) | Verb::Demo(_) | Verb::Drill(_) => {
            tokio::runtime::Builder::new_multi_thread()
        }
        Verb::Lookup(_)
        | Verb::List(_)
        | Verb::Bind(_)
        | Verb::Rebind(_)
        | Verb::Unbind(_)
        | Verb::CreateSubcontext(_)
        | Verb::DestroySubcontext(_)
        | Verb::Ask(_)
        | Verb::Rename(_)
        | Verb::Attributes(_)
        | Verb::ModifyAttributes(_)
        | Verb::Search(_)
        | Verb::Transact(_)
        | Verb::Watch(_)
        | Verb::Groups(_)
        | Verb::Promote(_)
        | Verb::Switchover(_)
        | Verb::Timeline(_)
        | Verb::Queue(_)
        | Verb::Topic(_)
        | Verb::Subscription(_)
        | Verb::Connection(_)
        | Verb::Link(_)
        | Verb::Factory(_)
        | Verb::Status(_) => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = builder.enable_all().build()?;
    let ended = runtime.block_on(perform(verb));
    // A blocking call that hangs must not keep a command that is done from ending.
    runtime.shutdown_background();
    ended
}

async fn perform(verb: Verb) -> Result<ExitCode, Failure> {
    match verb {
        Verb::Naming(args) => servers::naming(args).await?,
        Verb::Broker(args) => servers::broker(args).await?,
        Verb::Lookup(args) => directory::lookup(args).await?,
        Verb::List(args) => directory::list(args).await?,
        Verb::Bind(args) => directory::bind(args).await?,
        Verb::Rebind(args) => directory::rebind(args).await?,
        Verb::Unbind(args) => directory::unbind(args).await?,
        Verb::CreateSubcontext(args) => directory::create_subcontext(args).await?,
        Verb::DestroySubcontext(args) => directory::destroy_subcontext(args).await?,
        Verb::Ask(args) => directory::raw(args).await?,
        Verb::Rename(args) => directory::rename(args).await?,
        Verb::Attributes(args) => directory::attributes(args).await?,
        Verb::ModifyAttributes(args) => directory::modify_attributes(args).await?,
        Verb::Search(args) => directory::search(args).await?,
        Verb::Transact(args) => directory::transact(args).await?,
        Verb::Watch(args) => directory::watch(args).await?,
        Verb::Groups(args) => directory::groups(args).await?,
        Verb::Promote(args) => directory::promote(args).await?,
        Verb::Timeline(args) => directory::timeline(args).await?,
        Verb::Switchover(args) => directory::switchover(args).await?,
        Verb::Status(args) => directory::status(args).await?,
        Verb::Queue(verb) => manage::perform(verb.request()).await?,
        Verb::Topic(verb) => manage::perform(verb.request()).await?,
        Verb::Subscription(verb) => manage::perform(verb.request()).await?,
        Verb::Connection(verb) => manage::perform(verb.request()).await?,
        Verb::Link(verb) => manage::perform(verb.request()).await?,
        Verb::Factory(verb) => manage::perform(verb.request()).await?,
        Verb::Demo(args) => return demo::command(args).await,
        Verb::Drill(args) => return drill::command(args).await,
    }
    Ok(ExitCode::SUCCESS)
}
