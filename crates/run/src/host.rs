//! The real machine: starts processes in groups of their own, and never leaves one behind that it must not.

use std::io;
use std::process::Stdio;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStdin;
use tokio::sync::{oneshot, watch};
use tracing::{debug, warn};

use crate::error::{first_line, printable};
use crate::{Child, Command, Leash, Output, Process, RunError, Runner, Signal, process};

const STDERR_CAP_BYTES: usize = 64 << 10;
/// A command may leave a daemon behind that holds its pipes open; after its end we wait no longer than this for them.
const PIPE_GRACE: Duration = Duration::from_millis(250);

/// Starts real processes on this machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host;

#[async_trait]
impl Runner for Host {
    async fn run(&self, command: Command) -> Result<Output, RunError> {
        let begun = Instant::now();
        let result = run(&command).await;
        debug!(command = %command, took_ms = begun.elapsed().as_millis(), ok = result.is_ok(), "Ran a command.");
        result
    }

    async fn spawn(&self, command: Command) -> Result<Child, RunError> {
        let mut child = start(&command, [Stdio::piped(), Stdio::piped(), Stdio::piped()])?;
        let group = Group::of(&child);
        let process = seen(&command, &child);
        let broken = || RunError::Pipe { command: command.to_string(), source: io::ErrorKind::BrokenPipe.into() };
        let stdin = child.stdin.take().ok_or_else(broken)?;
        let stdout = child.stdout.take().ok_or_else(broken)?;
        let stderr = child.stderr.take().ok_or_else(broken)?;
        tokio::spawn(log_lines(command.program.clone(), stderr));
        Ok(Child { process, stdin: Box::new(stdin), stdout: Box::new(stdout), leash: leash(child, group) })
    }

    async fn detach(&self, command: Command) -> Result<Process, RunError> {
        let mut child = start(&command, [Stdio::null(), Stdio::null(), Stdio::null()])?;
        let process = seen(&command, &child);
        // Reaps it if it ends while we live; init does so later.
        tokio::spawn(async move { child.wait().await });
        Ok(process)
    }

    fn look(&self, pid: u32) -> Option<Process> {
        process::look(pid)
    }

    fn signal(&self, process: &Process, signal: Signal) -> Result<bool, RunError> {
        process::signal(process, signal)
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one place that starts processes")]
fn start(command: &Command, [stdin, stdout, stderr]: [Stdio; 3]) -> Result<tokio::process::Child, RunError> {
    tokio::process::Command::new(&command.program)
        .args(&command.args)
        .env("LC_ALL", "C")
        .envs(command.env.iter().map(|(name, value)| (name, value)))
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .process_group(0)
        .spawn()
        .map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => RunError::NotInstalled { program: command.program.clone() },
            _ => RunError::Start { command: command.to_string(), source },
        })
}

async fn run(command: &Command) -> Result<Output, RunError> {
    let stdin = if command.stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut child = start(command, [stdin, Stdio::piped(), Stdio::piped()])?;
    let mut group = Group::of(&child);
    let line = || command.to_string();
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let talk = {
        let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (stdout, stderr) = (&mut stdout, &mut stderr);
        async move {
            tokio::try_join!(
                write_all(input, &command.stdin),
                read_capped(output, stdout, command.output_cap_bytes),
                read_start(errors, stderr)
            )
        }
    };
    let finish = async {
        tokio::pin!(talk);
        let talked = tokio::select! {
            talked = &mut talk => Some(talked),
            _ = child.wait() => tokio::time::timeout(PIPE_GRACE, &mut talk).await.ok(),
        };
        talked.transpose().map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => {
                RunError::TooMuchOutput { command: line(), cap_bytes: command.output_cap_bytes }
            }
            _ => RunError::Pipe { command: line(), source },
        })?;
        child.wait().await.map_err(|source| RunError::Pipe { command: line(), source })
    };
    let status = tokio::time::timeout(command.deadline, finish)
        .await
        .map_err(|_| RunError::Deadline { command: line(), deadline: command.deadline })??;
    group.let_go();
    if status.success() {
        return Ok(Output { stdout, stderr });
    }
    Err(RunError::Failed {
        command: line(),
        status: status.code(),
        first_line: first_line(&stderr, &stdout),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

async fn write_all(pipe: Option<ChildStdin>, bytes: &[u8]) -> io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    match pipe.write_all(bytes).await {
        // A command may end without reading all; its exit status tells whether it minded.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

async fn read_capped(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>, cap: usize) -> io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut chunk = vec![0; 16 << 10];
    loop {
        let count = pipe.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        if into.len() + count > cap {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        into.extend_from_slice(&chunk[..count]);
    }
}

async fn read_start(pipe: Option<impl AsyncRead + Unpin>, into: &mut Vec<u8>) -> io::Result<()> {
    let Some(mut pipe) = pipe else { return Ok(()) };
    let mut chunk = vec![0; 4 << 10];
    loop {
        let count = pipe.read(&mut chunk).await?;
        if count == 0 {
            return Ok(());
        }
        let room = STDERR_CAP_BYTES.saturating_sub(into.len());
        into.extend_from_slice(&chunk[..count.min(room)]);
    }
}

/// Kills a process group when dropped, unless let go.
struct Group(Option<u32>);

impl Group {
    fn of(child: &tokio::process::Child) -> Self {
        Self(child.id())
    }

    fn let_go(&mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            process::kill_group(leader);
        }
    }
}

fn seen(command: &Command, child: &tokio::process::Child) -> Process {
    let pid = child.id().unwrap_or_default();
    // It may have ended already; then nobody will take this for a living process, as no start time is 0.
    process::look(pid).unwrap_or_else(|| Process {
        pid,
        started_ticks: 0,
        argv: std::iter::once(command.program.clone()).chain(command.args.iter().cloned()).collect(),
    })
}

fn leash(mut child: tokio::process::Child, mut group: Group) -> Leash {
    let (hold, held) = oneshot::channel::<()>();
    let (tell, end) = watch::channel(None);
    tokio::spawn(async move {
        let status = tokio::select! {
            status = child.wait() => status,
            _ = held => {
                drop(Group(group.0));
                child.wait().await
            }
        };
        group.let_go();
        tell.send_replace(Some(status.map_or_else(|error| error.to_string(), |status| status.to_string())));
    });
    Leash { hold: Some(hold), end }
}

async fn log_lines(program: String, stderr: impl AsyncRead + Unpin) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        warn!(program, "{program} says: {}", printable(&line));
    }
}

#[cfg(test)]
mod tests;
