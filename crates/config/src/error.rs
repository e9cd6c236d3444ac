//! What is wrong with a configuration, and where.

use std::fmt;
use std::io;
use std::path::PathBuf;

/// Where a flag's value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it.
    Default,
    /// The command line.
    CommandLine,
    /// A line of a flag file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::CommandLine => f.write_str("command line"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
        }
    }
}

/// Why a program cannot start as configured. Each is one line; none shows a password.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// `--help` or `--version` was asked for; not an error, but nothing is to be started.
    #[error("{0}")]
    Answered(String),
    /// The command line cannot be understood.
    #[error("{0}")]
    Usage(String),
    /// A flag file cannot be read.
    #[error("cannot read the flag file {} ({origin})", path.display())]
    Flagfile {
        /// The file.
        path: PathBuf,
        /// Who asked for it.
        origin: Origin,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A line of a flag file is neither flag nor comment.
    #[error("{origin}: expected --name=value or a comment, found {text:?}")]
    StrayText {
        /// The line.
        origin: Origin,
        /// How it begins.
        text: String,
    },
    /// A flag that needs a value has none.
    #[error("{origin}: --{flag} needs a value")]
    NoValue {
        /// The flag.
        flag: String,
        /// Where it stands.
        origin: Origin,
    },
    /// A value is not of its flag's kind.
    #[error("--{flag}={value} ({origin}): {reason}")]
    Value {
        /// The flag.
        flag: String,
        /// The value; hidden where it may hold a password.
        value: String,
        /// Where it stands.
        origin: Origin,
        /// What is expected.
        reason: String,
    },
    /// `$name` in a value cannot be replaced.
    #[error("--{flag} ({origin}): ${name} {reason}; write $$ for a dollar sign")]
    Substitution {
        /// The flag whose value holds it.
        flag: String,
        /// Where that stands.
        origin: Origin,
        /// The name after the dollar.
        name: String,
        /// Why not.
        reason: &'static str,
    },
}

/// What is odd about a configuration, but no reason not to start. Programs log these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// No Nova program has this flag.
    UnknownFlag {
        /// The flag as it was written.
        flag: String,
        /// Where.
        origin: Origin,
        /// The flag that was perhaps meant.
        meant: Option<&'static str>,
    },
    /// A line like `--s3_host  ### where images are`, copied from the guide with its explanation and without a value.
    OnlyExplained {
        /// The flag.
        flag: String,
        /// Where.
        origin: Origin,
    },
    /// A flag file includes itself.
    Loop {
        /// The file.
        path: PathBuf,
        /// The line that would have read it again.
        origin: Origin,
    },
    /// A value was understood, but does not say what it seems to.
    Remark {
        /// The flag.
        flag: String,
        /// Where.
        origin: Origin,
        /// How it was understood.
        remark: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownFlag { flag, origin, meant: None } => {
                write!(f, "{origin}: ignoring --{flag}, which is no flag of Nova")
            }
            Self::UnknownFlag { flag, origin, meant: Some(meant) } => {
                write!(f, "{origin}: ignoring --{flag}, which is no flag of Nova (did you mean --{meant}?)")
            }
            Self::OnlyExplained { flag, origin } => write!(f, "{origin}: ignoring --{flag}, which has no value"),
            Self::Loop { path, origin } => write!(f, "{origin}: {} is being read already", path.display()),
            Self::Remark { flag, origin, remark } => write!(f, "{origin}: --{flag}: {remark}"),
        }
    }
}
