//! `status`: every naming server of the provider list, asked one by one.

use daymark_client::proto::{Endpoint, Status};
use daymark_client::{LookupError, Naming, Providers};
use serde::Serialize;

use crate::args::StatusArgs;
use crate::failure::{Failure, exit};
use crate::output::{Output, table};
use crate::provider;

/// One server, as it sees itself or as it failed to answer.
#[derive(Serialize)]
struct Server {
    server: String,
    #[serde(flatten)]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// `daymark status`. It asks every server, so that one that answers does not hide one that is gone.
///
/// # Errors
/// `Unreachable` where no server answered.
pub(crate) async fn status(args: StatusArgs) -> Result<(), Failure> {
    let asking = &args.asking;
    let providers = provider::providers(asking.provider.as_deref(), asking.jndi_properties.as_deref())?;
    let mut servers = Vec::new();
    for endpoint in providers.endpoints() {
        servers.push(ask(endpoint, asking.timeout).await);
    }
    let output = Output::new(asking.json);
    if asking.json {
        for server in &servers {
            output.show(server, |_| String::new())?;
        }
    } else {
        output.show(&servers, |servers| {
            table(
                &[
                    "server", "node", "term", "leader", "revision", "version", "cluster",
                ],
                servers.iter().map(row),
            )
        })?;
    }
    if servers.iter().all(|server| server.status.is_none()) {
        return Err(Failure::new("Unreachable", "no naming server answered")
            .exiting(exit::UNREACHABLE)
            .hint("`daymark naming` starts a server; --provider or DAYMARK_PROVIDER_URL says where to ask"));
    }
    Ok(())
}

async fn ask(endpoint: &Endpoint, timeout: std::time::Duration) -> Server {
    let answer = match Providers::new(vec![endpoint.clone()]) {
        Ok(alone) => Naming::new(alone, provider::config(timeout))
            .status()
            .await
            .map_err(|error| why(&error)),
        Err(error) => Err(error.to_string()),
    };
    let (status, error) = match answer {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(error)),
    };
    Server {
        server: endpoint.to_string(),
        status,
        error,
    }
}

/// What the one server did, without the list of servers around it.
fn why(error: &LookupError) -> String {
    match error {
        LookupError::Unreachable { attempts, .. } | LookupError::OutcomeUnknown { attempts, .. } => attempts
            .last()
            .map_or_else(|| error.to_string(), |attempt| attempt.why.to_string()),
        LookupError::Refused(_)
        | LookupError::AuthenticationFailed { .. }
        | LookupError::NotBoundInTime { .. }
        | LookupError::WrongKind { .. } => error.to_string(),
    }
}

fn row(server: &Server) -> Vec<String> {
    let Some(status) = &server.status else {
        return vec![server.server.clone(), server.error.clone().unwrap_or_default()];
    };
    vec![
        server.server.clone(),
        status.node.to_string(),
        status.term.to_string(),
        status
            .leader
            .map_or_else(|| "-".to_owned(), |leader| leader.to_string()),
        status.revision.to_string(),
        status.version.clone(),
        status.cluster_id.clone(),
    ]
}
