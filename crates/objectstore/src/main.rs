//! `nova-objectstore`: gives images to compute hosts.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use nova_config::{Config, ObjectstoreConfig};
use nova_db::{Db, Options};
use nova_objectstore::{ObjectstoreError, Parts};
use nova_service::{Daemon, SystemClock};

const BINARY: &str = ObjectstoreConfig::BINARY;

#[tokio::main]
async fn main() -> ExitCode {
    nova_service::finish(BINARY, run(Instant::now()).await)
}

async fn run(began: Instant) -> Result<(), ObjectstoreError> {
    let loaded = nova_config::load_or_exit::<ObjectstoreConfig>();
    let config = loaded.config;
    let mut daemon = Daemon::start(BINARY, &[BINARY], &config.common, &loaded.warnings, began).await?;
    let flags = &config.database;
    let options =
        Options { max_connections: flags.sql_pool_size, idle_timeout: flags.sql_idle_timeout, ..Options::default() };
    let opened = Db::open(flags.sql_connection.expose(), &options).await;
    let db = opened.map_err(|source| ObjectstoreError::Open { url: flags.sql_connection.clone(), source })?;
    let listener = nova_objectstore::listen(&config.objectstore).await?;
    let parts = Parts { db, clock: Arc::new(SystemClock), config, listener, ready: daemon.expect() };
    daemon.spawn(BINARY, nova_objectstore::run(parts, daemon.stop()));
    Ok(daemon.run().await?)
}
