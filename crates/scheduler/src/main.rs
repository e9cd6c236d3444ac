//! `nova-scheduler`: chooses hosts for instances.

use std::process::ExitCode;
use std::time::Instant;

use nova_config::{Config, SchedulerConfig};
use nova_service::{Daemon, ServiceError};

const NAME: &str = SchedulerConfig::BINARY;

#[tokio::main]
async fn main() -> ExitCode {
    nova_service::finish(NAME, run(Instant::now()).await)
}

async fn run(began: Instant) -> Result<(), ServiceError> {
    let loaded = nova_config::load_or_exit::<SchedulerConfig>();
    let config = loaded.config;
    let mut daemon = Daemon::start(NAME, &[NAME], &config.common, &loaded.warnings, began).await?;
    let db = nova_service::open_database(&config.database).await?;
    daemon.watch_database(&db);
    let bus = nova_service::open_bus(&config.bus);
    daemon.watch_bus(&bus);
    let parts = nova_scheduler::Parts { db, bus, config, ready: daemon.expect() };
    daemon.spawn(NAME, nova_scheduler::run(parts, daemon.stop()));
    daemon.run().await
}
