//! What daemons are connected by: the database and the broker, opened from their flags. Neither need be there.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use nova_bus::{Bus, RabbitMq, RabbitOptions};
use nova_config::{BusFlags, DatabaseFlags};
use nova_db::{Db, DbError, Options};
use tracing::{info, warn};

use crate::{ServiceError, chain};

/// How long passes between looks for a database that is away.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Opens the database. A server need not be there: whoever asks it first learns that. A file is made.
///
/// # Errors
/// [`ServiceError::Database`] for an address that is none, or a file that cannot be opened.
pub async fn open_database(flags: &DatabaseFlags) -> Result<Db, ServiceError> {
    let url = &flags.sql_connection;
    let options = Options {
        max_connections: flags.sql_pool_size,
        idle_timeout: flags.sql_idle_timeout,
        read_urls: flags.sql_read_connection.iter().map(|url| url.expose().to_owned()).collect(),
        max_replica_lag: flags.sql_max_replica_lag,
        ..Options::default()
    };
    let opened = Db::open(url.expose(), &options).await;
    let db = opened.map_err(|source| ServiceError::Database { url: url.clone(), source })?;
    if let Some(file) = url.sqlite_file() {
        // Who reads it sees every project's rows. That it is somebody else's file is no reason not to start.
        let _ = std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o640));
    }
    Ok(db)
}

/// Opens the bus between processes. The broker need not be there. Must be called within a Tokio runtime.
pub fn open_bus(flags: &BusFlags) -> Arc<dyn Bus> {
    let bus = Arc::new(RabbitMq::open(RabbitOptions::of(flags)));
    if flags.bus_faults == 0 { bus } else { worse(bus, flags.bus_faults) }
}

#[cfg(feature = "failpoints")]
fn worse(bus: Arc<dyn Bus>, seed: u64) -> Arc<dyn Bus> {
    warn!("Messages come twice and out of order (--bus_faults).");
    Arc::new(nova_bus::Faulty::new(bus, seed))
}

#[cfg(not(feature = "failpoints"))]
fn worse(bus: Arc<dyn Bus>, _seed: u64) -> Arc<dyn Bus> {
    warn!("Ignoring --bus_faults, which only builds for tests heed.");
    bus
}

/// Waits until the database is there and has this program's schema; says once what it waits for. Changing the schema of a
/// shared database is an administrator's decision.
///
/// # Errors
/// What waiting does not mend: a newer schema, tables without transactions.
pub async fn usable(db: &Db) -> Result<(), DbError> {
    usable_or(db, || {}).await
}

/// The same; calls `waiting` when it is not so at once.
pub(crate) async fn usable_or(db: &Db, waiting: impl FnOnce()) -> Result<(), DbError> {
    let (mut waiting, mut told) = (Some(waiting), false);
    loop {
        let error = match db.ready().await {
            Ok(()) => {
                if told {
                    info!("The database is there.");
                }
                return Ok(());
            }
            Err(DbError::SchemaVersion { found, wanted }) if found > wanted => {
                return Err(DbError::SchemaVersion { found, wanted });
            }
            Err(error @ (DbError::NoTransactions(_) | DbError::Foreign(_))) => return Err(error),
            Err(error) => error,
        };
        if !std::mem::replace(&mut told, true) {
            let hint = if matches!(error, DbError::SchemaVersion { .. }) { " (nova-manage db sync)" } else { "" };
            warn!(error = %chain(&error), "Waiting for the database{hint}.");
        }
        if let Some(waiting) = waiting.take() {
            waiting();
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use nova_config::{Config, SchedulerConfig, Surroundings};

    use super::*;

    async fn open(url: &str) -> Result<Db, String> {
        let args = ["nova-scheduler".to_owned(), format!("--sql_connection={url}")].map(Into::into);
        let flags = SchedulerConfig::load_in(args, &Surroundings::bare()).unwrap().config.database;
        open_database(&flags).await.map_err(|error| chain(&error).to_string())
    }

    #[tokio::test]
    async fn a_database_file_is_for_its_owner_and_one_that_cannot_be_opened_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nova.sqlite");
        let _open = open(&format!("sqlite:///{}", file.display())).await.unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        let told = open(&format!("sqlite:///{}/none/nova.sqlite", folder.path().display())).await.unwrap_err();
        assert!(told.starts_with("cannot use the database sqlite:////"), "{told}");
        assert!(told.contains("/none/nova.sqlite (--sql_connection): the database is not available"), "{told}");
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_no_reason_not_to_start() {
        let db = open("mysql://nova:secret@127.0.0.1:1/nova").await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(50), usable(&db)).await;
        assert!(early.is_err(), "it waits");
    }
}
