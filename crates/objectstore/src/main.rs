//! `nova-objectstore`: gives images to compute hosts.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use nova_config::{Config, ObjectstoreConfig};
use nova_objectstore::ObjectstoreError;
use nova_service::{Daemon, ServiceError, SystemClock};

const NAME: &str = ObjectstoreConfig::BINARY;

/// Why the daemon ended.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error(transparent)]
    Objectstore(#[from] ObjectstoreError),
}

#[tokio::main]
async fn main() -> ExitCode {
    nova_service::finish(NAME, run(Instant::now()).await)
}

async fn run(began: Instant) -> Result<(), Failure> {
    let loaded = nova_config::load_or_exit::<ObjectstoreConfig>();
    let config = loaded.config;
    let mut daemon = Daemon::start(NAME, &[NAME], &config.common, &loaded.warnings, began).await?;
    let db = nova_service::open_database(&config.database).await?;
    daemon.watch_database(&db);
    let parts = nova_objectstore::prepare(config, db, Arc::new(SystemClock), daemon.expect()).await?;
    daemon.spawn(NAME, nova_objectstore::run(parts, daemon.stop()));
    Ok(daemon.run().await?)
}
