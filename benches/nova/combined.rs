//! `nova-combined` as a process of its own: the program that `NOVA_BIN` names, or this one in its role.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nova_combined::{CombinedError, ROLES, assemble};
use nova_config::{CombinedConfig, Config as _};
use nova_service::Daemon;
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

/// The argument that makes this program `nova-combined`; its flags follow.
pub(crate) const ROLE: &str = "--as-nova-combined";

const PATIENCE: Duration = Duration::from_secs(20);

/// What `main` of `nova-combined` does.
pub(crate) async fn run(flags: &[String]) -> Result<(), CombinedError> {
    let began = Instant::now();
    let args = [CombinedConfig::BINARY].into_iter().chain(flags.iter().map(String::as_str)).map(Into::into);
    let loaded = match CombinedConfig::load(args) {
        Ok(loaded) => loaded,
        Err(error) => panic!("the flags of a bench are refused: {error}"),
    };
    let common = &loaded.config.common;
    let mut daemon = Daemon::start(CombinedConfig::BINARY, ROLES, common, &loaded.warnings, began).await?;
    assemble(&mut daemon, &loaded.config, None).await?;
    Ok(daemon.run().await?)
}

/// The process.
pub(crate) struct Combined {
    child: Child,
    pid: u32,
}

impl Combined {
    /// Starts it, and returns how long that took: from before its exec until it says that it is ready.
    pub(crate) async fn start(state: &Path, flags: &[String]) -> anyhow::Result<(Self, Duration)> {
        let socket = state.join("notify");
        let _ = std::fs::remove_file(&socket);
        let told = UnixDatagram::bind(&socket)?;
        let log = std::fs::OpenOptions::new().create(true).append(true).open(state.join("log"))?;
        let mut command = program()?;
        command.args(flags).env("NOTIFY_SOCKET", &socket);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).kill_on_drop(true);
        let began = Instant::now();
        let mut child = command.spawn()?;
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
            ended = child.wait() => anyhow::bail!("it ended: {}, see {}", ended?, state.join("log").display()),
        }
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

fn program() -> anyhow::Result<Command> {
    if let Some(binary) = binary() {
        return Ok(outside(binary));
    }
    let mut this = outside(std::env::current_exe()?);
    this.arg(ROLE);
    Ok(this)
}

/// The program that `NOVA_BIN` names.
pub(crate) fn binary() -> Option<std::ffi::OsString> {
    std::env::var_os("NOVA_BIN").filter(|binary| !binary.is_empty())
}

#[expect(clippy::disallowed_methods, reason = "a daemon under measure is no command with a deadline")]
fn outside(program: impl AsRef<std::ffi::OsStr>) -> Command {
    Command::new(program)
}
