//! `nova-network`: serves networks on this host.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use nova_config::{Config, NetworkConfig};
use nova_network::{Machine, NetworkError};
use nova_run::Host;
use nova_service::{Daemon, ServiceError};

const NAME: &str = NetworkConfig::BINARY;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Network(#[from] NetworkError),
}

#[tokio::main]
async fn main() -> ExitCode {
    nova_service::finish(NAME, run(Instant::now()).await)
}

async fn run(began: Instant) -> Result<(), Failure> {
    let loaded = nova_config::load_or_exit::<NetworkConfig>();
    let (config, flag_file) = (loaded.config, loaded.flagfiles.first().cloned());
    let mut daemon = Daemon::start(NAME, &[NAME], &config.common, &loaded.warnings, began).await?;
    let machine = Machine::of(Arc::new(Host), &config).await?;
    let db = nova_service::open_database(&config.database).await?;
    daemon.watch_database(&db);
    let bus = nova_service::open_bus(&config.bus);
    daemon.watch_bus(&bus);
    let parts = nova_network::Parts { config, flag_file, db, bus, machine, ready: daemon.expect() };
    daemon.spawn(NAME, nova_network::run(parts, daemon.stop()));
    Ok(daemon.run().await?)
}
