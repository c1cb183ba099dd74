//! Links given on the command line or in a file: their expressions, as digests.

use std::io::BufRead;

use hashpact_core::reject::Rejection;
use hashpact_core::signal::{Signal, SignalKind};
use hashpact_matching::url::{self, Expression, HostScope, MAX_URL_BYTES, PathScope, UrlError};

use crate::cli::error::CliError;

/// Links in one command.
const LINKS_MAX: usize = 100_000;

/// One link, which is named by its number: links are shown nowhere.
pub struct Link {
    /// `link 1` and so on.
    pub name: String,
    /// Its expressions, the most exact first, or why there are none.
    pub expressions: Result<Vec<Expression>, UrlError>,
}

impl Link {
    /// What is asked for.
    ///
    /// # Errors
    /// None; a digest makes a signal.
    pub fn signals(expressions: &[Expression]) -> Result<Vec<Signal>, Rejection> {
        let signals = expressions.iter().map(|expression| {
            let digest = expression.digest().to_vec();
            Signal::new(SignalKind::Url, digest.into(), None)
        });
        signals.collect()
    }
}

/// What of a link an expression covers.
#[must_use]
pub fn scope(expression: &Expression) -> (&'static str, &'static str) {
    let host = match expression.host {
        HostScope::Exact => "host",
        HostScope::Parent => "parent domain",
    };
    let path = match expression.path {
        PathScope::Query => "page with query",
        PathScope::Path => "page",
        PathScope::Folder => "folder",
        PathScope::Root => "all of it",
    };
    (host, path)
}

/// Takes links apart; "-" stands for standard input, a link a line.
///
/// # Errors
/// When standard input cannot be read, or there are more than is sensible.
pub fn links_of(given: &[String]) -> Result<Vec<Link>, CliError> {
    let mut links = Vec::new();
    for text in given {
        if text != "-" {
            add(&mut links, text.trim())?;
            continue;
        }
        let mut input = std::io::stdin().lock();
        let mut line = Vec::new();
        loop {
            line.clear();
            // One byte more than a link may have, and its end.
            let most = MAX_URL_BYTES as u64 + 3;
            let read = std::io::Read::take(&mut input, most).read_until(b'\n', &mut line);
            if read.map_err(|error| CliError::failed(format!("standard input: {error}")))? == 0 {
                break;
            }
            if line.len() as u64 == most && line.last() != Some(&b'\n') {
                let skipped = input.skip_until(b'\n');
                skipped.map_err(|error| CliError::failed(format!("standard input: {error}")))?;
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.trim();
            if !text.is_empty() {
                add(&mut links, text)?;
            }
        }
    }
    Ok(links)
}

fn add(links: &mut Vec<Link>, text: &str) -> Result<(), CliError> {
    if links.len() == LINKS_MAX {
        return Err(CliError::usage(format!("more than {LINKS_MAX} links"))
            .next("ask in several; hashpact import --format urls takes any number"));
    }
    links.push(Link {
        name: format!("link {}", links.len().saturating_add(1)),
        expressions: url::canonicalize(text.as_bytes()).map(|url| url.expressions()),
    });
    Ok(())
}
