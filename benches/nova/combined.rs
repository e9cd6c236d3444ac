//! `nova-combined` as a process of its own: the program that `NOVA_BIN` names, or this one in its role.

use std::path::Path;
use std::time::{Duration, Instant};

use nova_combined::{CombinedError, ROLES, assemble};
use nova_config::{CombinedConfig, Config as _};
use nova_service::Daemon;
use tokio::process::Command;

use crate::process::{Process, outside};

/// The argument that makes this program `nova-combined`; its flags follow.
pub(crate) const ROLE: &str = "--as-nova-combined";

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

/// Starts it, and returns how long that took.
pub(crate) async fn start(state: &Path, flags: &[String]) -> anyhow::Result<(Process, Duration)> {
    let mut command = program()?;
    command.args(flags);
    Process::start(command, CombinedConfig::BINARY, state).await
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
