//! How a command ends: exit codes, and errors that say what to do next.

use std::fmt;
use std::process::ExitCode;

use crate::config::ConfigError;

/// The exit codes of every command. `docs/OPERATORS.md` lists them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done, all of it.
    Done = 0,
    /// Failed; nothing or not everything was done.
    Failed = 1,
    /// Called wrongly, or the configuration is wrong.
    Usage = 2,
    /// Done, but not for all that was given: lines were rejected, files could not
    /// be read, or nothing that was asked for is known.
    Partial = 3,
    /// A scan found something that is known.
    Known = 10,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command ended early.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CliError {
    /// Something went wrong.
    Failed {
        /// What, as a fact.
        what: String,
        /// What to do next, if there is something.
        next: Option<String>,
        /// How the process ends.
        exit: Exit,
    },
    /// All is said already; only the exit code is left.
    Quiet(Exit),
    /// Nobody reads standard output any longer, as in `hashpact … | head`.
    OutputClosed,
}

impl CliError {
    /// A failure without advice.
    #[must_use]
    pub fn failed(what: impl fmt::Display) -> Self {
        Self::with(Exit::Failed, what)
    }

    /// A wrong call or configuration.
    #[must_use]
    pub fn usage(what: impl fmt::Display) -> Self {
        Self::with(Exit::Usage, what)
    }

    /// Adds what to do next.
    #[must_use]
    pub fn next(self, advice: impl fmt::Display) -> Self {
        match self {
            Self::Failed { what, exit, .. } => Self::Failed {
                what,
                next: Some(advice.to_string()),
                exit,
            },
            Self::Quiet(_) | Self::OutputClosed => self,
        }
    }

    /// What and what next in one line, as notices and logs have it.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        match self {
            Self::Failed { what, next, .. } => match next {
                Some(next) => format!("{what}; next: {next}"),
                None => what.clone(),
            },
            Self::Quiet(_) | Self::OutputClosed => String::new(),
        }
    }

    /// How the process ends.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        match self {
            Self::Failed { exit, .. } | Self::Quiet(exit) => *exit,
            Self::OutputClosed => Exit::Done,
        }
    }

    fn with(exit: Exit, what: impl fmt::Display) -> Self {
        Self::Failed {
            what: what.to_string(),
            next: None,
            exit,
        }
    }
}

impl CliError {
    /// What went wrong and what to do next, each empty where nothing is said.
    #[must_use]
    pub fn into_words(self) -> (String, String) {
        match self {
            Self::Failed { what, next, .. } => (what, next.unwrap_or_default()),
            Self::Quiet(_) | Self::OutputClosed => Default::default(),
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        Self::usage(error)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed { what, next, .. } => {
                write!(f, "error: {what}")?;
                next.iter().try_for_each(|next| write!(f, "\nnext: {next}"))
            }
            Self::Quiet(_) | Self::OutputClosed => Ok(()),
        }
    }
}

impl std::error::Error for CliError {}
