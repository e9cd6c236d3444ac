//! A daemon as a process of its own, and what the kernel says of a process.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(20);
/// What the kernel counts a process's time in.
const TICKS_PER_SECOND: f64 = 100.0;

/// A daemon that said that it is ready.
pub(crate) struct Process {
    child: Child,
    pid: u32,
}

impl Process {
    /// Starts it, and returns how long that took: from before its exec until it says that it is ready. Its socket and its
    /// log are in `folder`, named after it.
    pub(crate) async fn start(mut command: Command, name: &str, folder: &Path) -> anyhow::Result<(Self, Duration)> {
        let socket = folder.join(format!("{name}.notify"));
        let _ = std::fs::remove_file(&socket);
        let told = UnixDatagram::bind(&socket)?;
        let log = folder.join(format!("{name}.log"));
        let out = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        command.env("NOTIFY_SOCKET", &socket);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(out).kill_on_drop(true);
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let pid = child.id().context("it has ended")?;
        let mut message = [0; 512];
        let ready = async {
            while !message.starts_with(b"READY=1") {
                told.recv(&mut message).await?;
            }
            anyhow::Ok(began.elapsed())
        };
        tokio::select! {
            ready = tokio::time::timeout(PATIENCE, ready) => Ok((Self { child, pid }, ready??)),
            ended = child.wait() => {
                anyhow::bail!("{name} ended: {}: {}", ended?, std::fs::read_to_string(&log).unwrap_or_default())
            }
        }
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches("kB").trim().parse::<u64>()? * 1024)
    }

    /// Tells it to stop, and returns how long it took to.
    pub(crate) async fn stop(mut self) -> anyhow::Result<Duration> {
        let began = Instant::now();
        let told = outside("kill").arg(self.pid.to_string()).status().await?;
        ensure!(told.success(), "kill failed");
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await??;
        ensure!(ended.success(), "it stopped with {ended}");
        Ok(began.elapsed())
    }
}

/// For how many seconds a process was on a processor so far, with all its threads.
pub(crate) fn busy_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // Its name is in brackets, and may be anything. User and system time are words 14 and 15.
    let (_, words) = stat.rsplit_once(')').context("no name")?;
    let ticks: Result<Vec<f64>, _> = words.split_whitespace().skip(11).take(2).map(str::parse).collect();
    Ok(ticks?.iter().sum::<f64>() / TICKS_PER_SECOND)
}

#[expect(clippy::disallowed_methods, reason = "a daemon under measure is no command with a deadline")]
pub(crate) fn outside(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}
