//! Runs external programs. Everything that Nova starts goes through [`Runner`]: arguments are a list and never
//! a shell's text, each command has a deadline and a cap on what it may print, and an error names the command,
//! how it ended and the first line it wrote to stderr.
//!
//! [`Host`] starts real processes. `fake::Script` (feature `fake`) answers from a list and remembers what was asked.

mod command;
mod error;
#[cfg(feature = "fake")]
pub mod fake;
mod host;
mod process;

pub use command::{Command, Output};
pub use error::RunError;
pub use host::Host;
pub use process::{Process, Signal};

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

/// How Nova starts, watches and stops other programs.
#[async_trait]
pub trait Runner: Send + Sync + std::fmt::Debug {
    /// Runs a command to its end and returns what it printed.
    ///
    /// # Errors
    /// Any [`RunError`]; an exit status other than 0 is [`RunError::Failed`]. When the deadline passes or the
    /// returned future is dropped, the command and everything it started is killed.
    async fn run(&self, command: Command) -> Result<Output, RunError>;

    /// Starts a helper that is spoken to through its stdin and stdout. Its stderr goes to our log, line by line.
    /// The command's deadline and input are not used.
    ///
    /// # Errors
    /// [`RunError::NotInstalled`] or [`RunError::Start`].
    async fn spawn(&self, command: Command) -> Result<Child, RunError>;

    /// Starts a daemon in a process group of its own. It keeps running when we end.
    ///
    /// # Errors
    /// [`RunError::NotInstalled`] or [`RunError::Start`].
    async fn detach(&self, command: Command) -> Result<Process, RunError>;

    /// Looks at a running process; `None` when there is none, or only its corpse.
    fn look(&self, pid: u32) -> Option<Process>;

    /// Sends a signal, if the process with this pid is still the one that was seen. Returns whether it was.
    ///
    /// # Errors
    /// [`RunError::Signal`] when the kernel refuses.
    fn signal(&self, process: &Process, signal: Signal) -> Result<bool, RunError>;
}

/// Tells whether `process` still runs; another process under the same pid does not count.
pub fn alive(runner: &dyn Runner, process: &Process) -> bool {
    runner.look(process.pid).is_some_and(|now| now.started_ticks == process.started_ticks)
}

/// A helper under our control: both ends of a conversation, and the leash that ends it.
pub struct Child {
    /// The process, for logs.
    pub process: Process,
    /// What is written here, the helper reads.
    pub stdin: Box<dyn AsyncWrite + Send + Unpin>,
    /// What the helper prints.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// Dropping it kills the helper.
    pub leash: Leash,
}

impl std::fmt::Debug for Child {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Child").field("process", &self.process).finish_non_exhaustive()
    }
}

/// Holds a helper alive: when it is dropped, the helper and all it started is killed and reaped.
#[derive(Debug)]
pub struct Leash {
    hold: Option<tokio::sync::oneshot::Sender<()>>,
    end: tokio::sync::watch::Receiver<Option<String>>,
}

impl Leash {
    /// Waits until the helper has ended, and says how, as in "exit status 1" or "signal 9".
    pub async fn ended(&mut self) -> String {
        match self.end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or_default(),
            Err(_) => "killed".to_owned(),
        }
    }

    /// Kills the helper and waits until it is gone.
    pub async fn kill(mut self) {
        drop(self.hold.take());
        self.ended().await;
    }
}
