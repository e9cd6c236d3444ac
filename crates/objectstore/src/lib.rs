//! `nova-objectstore`: gives images to compute hosts, at `/_images/<id>/image`.
//!
//! Several may run at once: they keep nothing but files, and ask the same database which image is which. A request is
//! signed with the key of the cloud; users have no part in it. Of S3 it says that it is not there.

mod answer;
mod file;
mod image;
mod keys;
mod refusal;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::service::TowerToHyperService;
use nova_config::{DatabaseUrl, ObjectstoreConfig, ObjectstoreFlags};
use nova_db::{Db, DbError};
use nova_images::ImageStore;
use nova_service::http::{self, Limits};
use nova_service::{Heartbeat, Ready, Stop, chain};
use nova_types::Clock;
use tokio::net::TcpListener;
use tracing::warn;

use crate::answer::Store;
use crate::keys::Keys;

/// The name of the daemon.
const BINARY: &str = "nova-objectstore";
/// How long to wait for a database that is away, before asking again.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connections in all. Each may hold some blocks of a file in memory.
const CONNECTIONS: usize = 256;

/// What the daemon is made of. Whoever starts it decides which database and clock.
#[derive(Debug)]
pub struct Parts {
    /// Which image is which.
    pub db: Db,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Settings.
    pub config: ObjectstoreConfig,
    /// Where compute hosts connect, already bound: a port in use is the starter's to report.
    pub listener: TcpListener,
    /// Set once requests can be answered.
    pub ready: Ready,
}

/// Why the object store does not serve, or not any longer. Each is one line with its causes.
#[derive(Debug, thiserror::Error)]
pub enum ObjectstoreError {
    /// The state folder, the log, the lock; or a part that failed.
    #[error(transparent)]
    Service(#[from] nova_service::ServiceError),
    /// The database cannot be opened.
    #[error("cannot use the database {url} (--sql_connection)")]
    Open {
        /// The database, without its password.
        url: DatabaseUrl,
        /// Why not.
        #[source]
        source: DbError,
    },
    /// The port is taken, or not to be had.
    #[error("cannot listen on {address} (--s3_listen_host, --s3_listen_port)")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database is there, but not one that this program can work with.
    #[error("the database cannot be used")]
    Db(#[source] DbError),
}

/// Binds what the object store listens on.
///
/// # Errors
/// [`ObjectstoreError::Listen`].
pub async fn listen(flags: &ObjectstoreFlags) -> Result<TcpListener, ObjectstoreError> {
    let address = SocketAddr::new(flags.s3_listen_host, flags.s3_listen_port);
    TcpListener::bind(address).await.map_err(|source| ObjectstoreError::Listen { address, source })
}

/// Serves until `stop`, then finishes the requests under way, ten seconds at most: who fetches goes on elsewhere, or later.
///
/// While the database is away it serves, too, and says so to those who ask.
///
/// # Errors
/// [`ObjectstoreError::Db`] when the database has the wrong schema.
pub async fn run(parts: Parts, stop: Stop) -> Result<(), ObjectstoreError> {
    let Parts { db, clock, config, listener, ready } = parts;
    let heartbeat = Heartbeat {
        db: db.clone(),
        host: config.common.host.clone(),
        binary: BINARY,
        zone: config.common.node_availability_zone.clone(),
        enable_new: config.common.enable_new_services,
        interval: config.common.report_interval,
    };
    let images = ImageStore::new(&config.images.images_path);
    let store = Arc::new(Store { db: db.clone(), clock, images, keys: Keys::new(db.clone()) });
    let router = Router::new().fallback(answer::answer).with_state(store);
    let service = |_| TowerToHyperService::new(router.clone());
    let limits = Limits { connections: CONNECTIONS, ..Limits::default() };
    let serving = http::serve(listener, service, limits, stop.clone().cancelled_owned());
    let beating = nova_service::heartbeat(heartbeat, stop);
    tokio::select! {
        ((), ()) = async { tokio::join!(serving, beating) } => Ok(()),
        refused = announce(&db, &ready) => Err(ObjectstoreError::Db(refused)),
    }
}

/// Sets `ready` once the database is; returns only if it never will be.
async fn announce(db: &Db, ready: &Ready) -> DbError {
    loop {
        match db.ready().await {
            Ok(()) => {
                ready.set();
                return std::future::pending().await;
            }
            Err(error @ DbError::Unavailable(_)) => {
                warn!(error = %chain(&error), "Waiting for the database.");
                tokio::time::sleep(PATIENCE).await;
            }
            Err(error) => return error,
        }
    }
}

#[cfg(test)]
mod tests;
