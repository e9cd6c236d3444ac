//! `nova-combined`: all of Nova in one process.

use std::process::ExitCode;
use std::time::Instant;

use nova_combined::{CombinedError, ROLES, assemble};
use nova_config::{CombinedConfig, Config};
use nova_service::Daemon;

#[tokio::main]
async fn main() -> ExitCode {
    nova_service::finish(CombinedConfig::BINARY, run(Instant::now()).await)
}

async fn run(began: Instant) -> Result<(), CombinedError> {
    let loaded = nova_config::load_or_exit::<CombinedConfig>();
    let flags = &loaded.config.common;
    let mut daemon = Daemon::start(CombinedConfig::BINARY, ROLES, flags, &loaded.warnings, began).await?;
    assemble(&mut daemon, &loaded.config, loaded.flagfiles.first().cloned()).await?;
    Ok(daemon.run().await?)
}
