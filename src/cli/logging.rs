//! Starts logging: to standard error, as text or JSON.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::error::CliError;
use crate::config::LogFormat;

/// Starts logging for the rest of the process. `level` is a level or a list of
/// directives such as `info,hashpact_net=debug`.
///
/// # Errors
/// A level that is none, or a second start.
pub fn start(format: LogFormat, level: &str) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(level)
        .map_err(|error| CliError::usage(format!("log level {level:?}: {error}")))?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        // Its own complaint would panic once standard error is closed.
        .log_internal_errors(false);
    let started = match format {
        LogFormat::Text => builder.finish().try_init(),
        LogFormat::Json => builder
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .finish()
            .try_init(),
    };
    started.map_err(CliError::failed)
}
