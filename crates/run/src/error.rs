//! What can go wrong with an external command, in words that name it.

use std::io;
use std::time::Duration;

/// Why a command gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is no such program on this machine.
    #[error("{program} is not installed (looked in PATH)")]
    NotInstalled {
        /// The program that was looked for.
        program: String,
    },
    /// The program is there, but the kernel did not start it.
    #[error("starting {command}")]
    Start {
        /// The command line.
        command: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// It ran, and ended with something else than status 0.
    #[error("{command} ended with {}: {first_line}", end(*status))]
    Failed {
        /// The command line.
        command: String,
        /// The exit status; `None` when a signal ended it.
        status: Option<i32>,
        /// The first line of stderr that is not blank, or of stdout when stderr is empty.
        first_line: String,
        /// All of stderr, up to 64 KiB.
        stderr: String,
    },
    /// It did not end in time, and was killed.
    #[error("{command} did not end within {} s and was killed", deadline.as_secs_f32())]
    Deadline {
        /// The command line.
        command: String,
        /// The time that it was given.
        deadline: Duration,
    },
    /// It printed more than it may, and was killed.
    #[error("{command} printed more than {cap_bytes} bytes and was killed")]
    TooMuchOutput {
        /// The command line.
        command: String,
        /// The most that it may print on stdout.
        cap_bytes: usize,
    },
    /// Talking to it failed.
    #[error("exchanging data with {command}")]
    Pipe {
        /// The command line.
        command: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// An argument that comes from data would be read as an option, or holds a NUL byte.
    #[error("{operand:?} cannot be an argument of {program}")]
    Operand {
        /// The program.
        program: String,
        /// The refused text.
        operand: String,
    },
    /// A signal could not be sent.
    #[error("signalling process {pid}")]
    Signal {
        /// The process.
        pid: u32,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

impl RunError {
    /// The exit status, when the command ran and ended with one.
    pub fn status(&self) -> Option<i32> {
        match self {
            Self::Failed { status, .. } => *status,
            Self::NotInstalled { .. }
            | Self::Start { .. }
            | Self::Deadline { .. }
            | Self::TooMuchOutput { .. }
            | Self::Pipe { .. }
            | Self::Operand { .. }
            | Self::Signal { .. } => None,
        }
    }
}

fn end(status: Option<i32>) -> String {
    status.map_or_else(|| "a signal".to_owned(), |code| format!("status {code}"))
}

/// The first line that says something; control characters are escaped, for it ends up in logs.
pub(crate) fn first_line(stderr: &[u8], stdout: &[u8]) -> String {
    [stderr, stdout]
        .iter()
        .flat_map(|text| text.split(|byte| *byte == b'\n'))
        .map(|line| String::from_utf8_lossy(line).trim().to_owned())
        .find(|line| !line.is_empty())
        .map_or_else(|| "it said nothing".to_owned(), |line| printable(&line))
}

/// At most 300 characters, all of them printable.
pub(crate) fn printable(line: &str) -> String {
    line.chars().take(300).flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
