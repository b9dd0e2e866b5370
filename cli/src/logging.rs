//! Log lines on standard error. `DAYMARK_LOG` says which: a level, or `target=level` pairs.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::args::LogFormat;
use crate::failure::Failure;

const VARIABLE: &str = "DAYMARK_LOG";

/// Starts logging for this process.
///
/// # Errors
/// A usage failure when `DAYMARK_LOG` cannot be understood.
pub(crate) fn start(format: LogFormat, default: &str) -> Result<(), Failure> {
    let directives = std::env::var(VARIABLE).unwrap_or_else(|_| default.to_owned());
    let filter = EnvFilter::try_new(&directives).map_err(|error| {
        Failure::usage("InvalidLogFilter", format!("{VARIABLE}={directives:?}: {error}"))
            .hint("for example DAYMARK_LOG=info, or DAYMARK_LOG=warn,daymark_broker_server=debug")
    })?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_span_events(FmtSpan::NONE);
    let started = match format {
        LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| Failure::new("LoggingFailed", error))
}
