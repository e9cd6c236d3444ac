//! Why a daemon cannot start, or ended.

use std::io;
use std::path::PathBuf;

/// Why a daemon cannot start, or ended other than asked. Each is one line with its causes.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The state folder is absent and cannot be made.
    #[error("cannot make the folder {} (--state_path)", path.display())]
    MakeFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Nothing can be written in the state folder.
    #[error("cannot write in the folder {} (--state_path)", path.display())]
    WriteFolder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The same daemon runs already.
    #[error("{name} is already running on {}{}", path.display(), pid.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    AlreadyRunning {
        /// The daemon.
        name: String,
        /// The state folder, of which it is the only one.
        path: PathBuf,
        /// Its process id, as its lock file says.
        pid: Option<String>,
    },
    /// A lock file cannot be made or locked.
    #[error("cannot lock {}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The log cannot be written.
    #[error("cannot open the log {}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Logging was set up before in this process.
    #[error("logging is set up already")]
    LogTwice,
    /// The signals that stop a daemon cannot be caught.
    #[error("cannot listen for signals")]
    Signals(#[source] io::Error),
    /// The database cannot be opened.
    #[error("cannot use the database {url} (--sql_connection)")]
    Database {
        /// The database, without its password.
        url: nova_config::DatabaseUrl,
        /// Why not.
        #[source]
        source: nova_db::DbError,
    },
    /// A part of the daemon failed.
    #[error("{part} failed")]
    Part {
        /// The part.
        part: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A part of the daemon ended although nobody told it to.
    #[error("{0} ended unasked")]
    Ended(&'static str),
    /// A part of the daemon panicked.
    #[error("{part} panicked: {message}")]
    Panicked {
        /// The part.
        part: &'static str,
        /// What it said.
        message: String,
    },
}
