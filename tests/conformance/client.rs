//! Cases through the Rust library: its own method for every verb it has one for.

use std::time::Duration;

use daymark_client::proto::{NamingError, ReadOptions, Request, Write, WriteRequest};
use daymark_client::{LookupError, Naming, NamingConfig};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::runtime::Runtime;

use super::{Door, words};

/// How long a server that lags is asked again and again.
const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) struct Client {
    naming: Naming,
    runtime: Runtime,
}

impl Client {
    pub(crate) fn of(address: &str) -> Self {
        let providers = address.parse().expect("a provider list");
        Self {
            naming: Naming::new(
                providers,
                NamingConfig {
                    total_timeout: PATIENCE,
                    ..NamingConfig::default()
                },
            ),
            runtime: Runtime::new().expect("a runtime"),
        }
    }
}

impl Door for Client {
    fn ask(&mut self, verb: &str, args: &Map<String, Value>) -> Result<Value, Value> {
        let request = Request::from_arguments(&words::of(verb, args), Naming::new_op);
        let request = request.map_err(|error| document(&error))?;
        let answer = self.runtime.block_on(typed(&self.naming, request));
        answer.map_err(|error| match refusal(&error) {
            Some(error) => document(error),
            None => panic!("{verb}: {error}"),
        })
    }
}

/// What the directory said: as the answer, or, as after `Lagging`, as the reason why the client went on to the next
/// server until its time was over.
fn refusal(error: &LookupError) -> Option<&NamingError> {
    error.naming_error().or_else(|| error.passed_over())
}

fn document(error: &NamingError) -> Value {
    serde_json::to_value(error).expect("a document")
}

fn value<T: Serialize>(answer: Result<T, LookupError>) -> Result<Value, LookupError> {
    answer.map(|answer| serde_json::to_value(answer).expect("a document"))
}

async fn typed(naming: &Naming, request: Request) -> Result<Value, LookupError> {
    let plain = |options: &ReadOptions| *options == ReadOptions::default();
    match request {
        Request::Lookup { name, options } => value(naming.lookup_with(&name, options).await),
        Request::LookupLink { name, options } if plain(&options) => value(naming.lookup_link(&name).await),
        Request::List { name, options } if plain(&options) => value(naming.list(&name).await),
        Request::ListBindings { name, options } if plain(&options) => {
            value(naming.list_bindings(&name).await)
        }
        Request::Attributes { name, ids, options } if plain(&options) => {
            let ids: Option<Vec<&str>> = ids.as_ref().map(|ids| ids.iter().map(String::as_str).collect());
            value(naming.attributes(&name, ids.as_deref()).await)
        }
        Request::Search {
            name,
            search,
            options,
        } if plain(&options) => value(naming.search(&name, search).await),
        Request::Groups => value(naming.groups().await),
        Request::Group { group } => value(naming.group(&group).await),
        Request::Timeline { group } => value(naming.timeline(&group).await),
        Request::Renew { group, member, lease } => value(naming.renew(&group, &member, lease).await),
        Request::Write(WriteRequest { op, write }) => written(naming, op, write).await,
        // With options there is no method for every verb.
        request @ (Request::LookupLink { .. }
        | Request::List { .. }
        | Request::ListBindings { .. }
        | Request::Attributes { .. }
        | Request::Search { .. }
        | Request::Status
        | Request::Watch { .. }) => {
            let document = naming.ask(request).await?;
            Ok(serde_json::from_slice(&document).expect("a document"))
        }
    }
}

/// A write under its operation id, so that a case can repeat it.
async fn written(
    naming: &Naming,
    op: daymark_client::proto::OpId,
    write: Write,
) -> Result<Value, LookupError> {
    value(naming.write_as(op, write).await)
}
