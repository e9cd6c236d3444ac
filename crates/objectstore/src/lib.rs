//! `nova-objectstore`: gives images to compute hosts, at `/_images/<id>/image`.
//!
//! Several may run at once: they keep nothing but files, and ask the same database which image is which. A request is
//! signed with the key of the cloud; users have no part in it. Of S3 it says that it is not there.

mod abandoned;
mod answer;
mod file;
mod image;
mod keys;
mod refusal;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use hyper_util::service::TowerToHyperService;
use nova_config::{Config, ObjectstoreConfig};
use nova_db::{Db, DbError};
use nova_images::ImageStore;
use nova_service::http::{self, Limits};
use nova_service::{Heartbeat, Ready, Stop};
use nova_types::Clock;
use tokio::net::TcpListener;

use crate::answer::Store;
use crate::keys::Keys;

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

/// Why the object store does not serve, or not any longer.
#[derive(Debug, thiserror::Error)]
pub enum ObjectstoreError {
    /// The port.
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

/// Makes the parts from flags: begins to listen.
///
/// # Errors
/// [`ObjectstoreError::Listen`].
pub async fn prepare(
    config: ObjectstoreConfig,
    db: Db,
    clock: Arc<dyn Clock>,
    ready: Ready,
) -> Result<Parts, ObjectstoreError> {
    let address = SocketAddr::new(config.objectstore.s3_listen_host, config.objectstore.s3_listen_port);
    let listener = TcpListener::bind(address).await.map_err(|source| ObjectstoreError::Listen { address, source })?;
    Ok(Parts { db, clock, config, listener, ready })
}

/// Serves until `stop`, then finishes the requests under way, ten seconds at most: who fetches goes on elsewhere, or later.
///
/// While the database is away it serves, too, and says so to those who ask. Several may serve at once, also on one host.
///
/// # Errors
/// [`ObjectstoreError::Db`] when the database can never be used.
pub async fn run(parts: Parts, stop: Stop) -> Result<(), ObjectstoreError> {
    let Parts { db, clock, config, listener, ready } = parts;
    let heartbeat = Heartbeat {
        db: db.clone(),
        host: config.common.host.clone(),
        binary: ObjectstoreConfig::BINARY,
        zone: config.common.node_availability_zone.clone(),
        enable_new: config.common.enable_new_services,
        interval: config.common.report_interval,
    };
    let reporting = async {
        nova_service::usable(&db).await?;
        let images = ImageStore::new(&config.images.images_path);
        let clearing = abandoned::keep_clear(db.clone(), images, stop.clone());
        tokio::join!(nova_service::heartbeat(heartbeat, stop.clone()), clearing);
        std::future::pending::<Result<(), DbError>>().await
    };
    let images = ImageStore::new(&config.images.images_path);
    let store = Arc::new(Store { db: db.clone(), clock, images, keys: Keys::new(db.clone()) });
    let router = Router::new().fallback(answer::answer).with_state(store);
    let service = |_| TowerToHyperService::new(router.clone());
    let limits = Limits { connections: CONNECTIONS, ..Limits::default() };
    let serving = http::serve(listener, service, limits, stop.clone().cancelled_owned());
    ready.set();
    tokio::select! {
        () = serving => Ok(()),
        refused = reporting => refused.map_err(ObjectstoreError::Db),
    }
}

#[cfg(test)]
mod tests;
