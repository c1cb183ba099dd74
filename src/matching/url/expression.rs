//! The expressions of a URL: each a host suffix and a path prefix.

use sha2::{Digest, Sha256};

use super::CanonicalUrl;

/// Hosts besides the exact one.
const PARENTS: usize = 4;
/// Labels of the longest parent.
const LABELS: usize = 5;
/// Folders, the root counted.
const FOLDERS: usize = 4;

/// What of the host an expression covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostScope {
    /// The host of the URL (and, as an entry, everything below it).
    Exact,
    /// A domain that the host is in.
    Parent,
}

/// What of the path an expression covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathScope {
    /// The very path with its query.
    Query,
    /// The path, whatever its query.
    Path,
    /// A folder and all in it.
    Folder,
    /// The whole host.
    Root,
}

/// A host suffix and a path prefix that a URL is covered by.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Expression {
    text: String,
    /// What of the host it covers.
    pub host: HostScope,
    /// What of the path it covers.
    pub path: PathScope,
}

impl std::fmt::Debug for Expression {
    /// Shows the scope only: a link must not reach a log.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expression")
            .field("host", &self.host)
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Expression {
    /// The expression itself: host and path without a scheme.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What is published and looked up: its SHA-256.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.text.as_bytes()).into()
    }
}

impl CanonicalUrl {
    /// Lists the expressions, up to 5 hosts × 6 paths, the most exact first; none twice.
    #[must_use]
    pub fn expressions(&self) -> Vec<Expression> {
        let paths = self.paths();
        let mut expressions = Vec::new();
        for (host_scope, host) in self.hosts() {
            for (path_scope, path) in &paths {
                let text = format!("{host}{path}");
                expressions.push(Expression {
                    text,
                    host: host_scope,
                    path: *path_scope,
                });
            }
        }
        expressions
    }

    /// The most exact expression: what an entry for this very URL publishes.
    #[must_use]
    pub fn exact(&self) -> Expression {
        let query = self
            .query
            .as_ref()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        let path = match (&self.query, self.path.as_str()) {
            (Some(_), _) => PathScope::Query,
            (None, "/") => PathScope::Root,
            (None, path) if path.ends_with('/') => PathScope::Folder,
            (None, _) => PathScope::Path,
        };
        Expression {
            text: format!("{}{}{query}", self.host, self.path),
            host: HostScope::Exact,
            path,
        }
    }

    fn hosts(&self) -> Vec<(HostScope, &str)> {
        let mut hosts = vec![(HostScope::Exact, self.host.as_str())];
        if self.is_address {
            return hosts;
        }
        let labels = self.host.split('.').count();
        let first = labels.saturating_sub(LABELS).max(1);
        let starts = self
            .host
            .match_indices('.')
            .map(|(at, _)| at.saturating_add(1));
        // The last label alone is a top-level domain, and not looked up.
        let parents = starts
            .skip(first.saturating_sub(1))
            .take(labels.saturating_sub(first.saturating_add(1)));
        let parents = parents.take(PARENTS).filter_map(|at| self.host.get(at..));
        hosts.extend(parents.map(|host| (HostScope::Parent, host)));
        hosts
    }

    fn paths(&self) -> Vec<(PathScope, String)> {
        let mut paths = Vec::new();
        if let Some(query) = &self.query {
            paths.push((PathScope::Query, format!("{}?{query}", self.path)));
        }
        if !self.path.ends_with('/') {
            paths.push((PathScope::Path, self.path.clone()));
        }
        let folders = self
            .path
            .match_indices('/')
            .filter_map(|(at, _)| self.path.get(..=at));
        for folder in folders.take(FOLDERS) {
            let scope = if folder == "/" {
                PathScope::Root
            } else {
                PathScope::Folder
            };
            paths.push((scope, folder.to_owned()));
        }
        if self.path.ends_with('/') && !paths.iter().any(|(_, path)| *path == self.path) {
            paths.insert(
                usize::from(self.query.is_some()),
                (PathScope::Folder, self.path.clone()),
            );
        }
        paths
    }
}
