//! `nova-api`: serves the EC2 API and metadata.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use nova_api::ApiError;
use nova_config::{ApiConfig, Config};
use nova_service::{Daemon, ServiceError, SystemClock};

const NAME: &str = ApiConfig::BINARY;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Api(#[from] ApiError),
}

#[tokio::main]
async fn main() -> ExitCode {
    nova_service::finish(NAME, run(Instant::now()).await)
}

async fn run(began: Instant) -> Result<(), Failure> {
    let loaded = nova_config::load_or_exit::<ApiConfig>();
    let config = loaded.config;
    let mut daemon = Daemon::start(NAME, &[NAME], &config.common, &loaded.warnings, began).await?;
    let db = nova_service::open_database(&config.database).await?;
    daemon.watch_database(&db);
    let bus = nova_service::open_bus(&config.bus);
    daemon.watch_bus(&bus);
    let parts = nova_api::prepare(config, db, bus, Arc::new(SystemClock), daemon.expect()).await?;
    daemon.spawn(NAME, nova_api::run(parts, daemon.stop()));
    Ok(daemon.run().await?)
}
