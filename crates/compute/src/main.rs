//! `nova-compute`: runs the instances of this host.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use nova_compute::{ComputeError, Wiring};
use nova_config::{ComputeConfig, Config};
use nova_run::Host;
use nova_service::{Daemon, ServiceError, SystemClock};

const NAME: &str = ComputeConfig::BINARY;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Compute(#[from] ComputeError),
}

#[tokio::main]
async fn main() -> ExitCode {
    nova_service::finish(NAME, run(Instant::now()).await)
}

async fn run(began: Instant) -> Result<(), Failure> {
    let loaded = nova_config::load_or_exit::<ComputeConfig>();
    let mut config = loaded.config;
    let mut daemon = Daemon::start(NAME, &[NAME], &config.common, &loaded.warnings, began).await?;
    nova_compute::settle_alone(&mut config.compute, &Host).await.map_err(ComputeError::from)?;
    let db = nova_service::open_database(&config.database).await?;
    daemon.watch_database(&db);
    let bus = nova_service::open_bus(&config.bus);
    daemon.watch_bus(&bus);
    let wiring = Wiring { config, db, bus, clock: Arc::new(SystemClock), ready: daemon.expect() };
    daemon.spawn(NAME, nova_compute::start(wiring, daemon.stop(), |_| {}));
    Ok(daemon.run().await?)
}
