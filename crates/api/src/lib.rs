//! `nova-api`: serves the EC2 API to clients and metadata to guests.
//!
//! A request becomes a [`Caller`](caller::Caller) (`auth`), is looked up in the one list of actions (`actions`), done
//! by one file per kind of resource (`ec2`), and answered in XML. It writes rows, and sends hints; it never waits for
//! another daemon to act.

mod actions;
mod auth;
mod caller;
mod cloud;
mod dispatch;
mod ec2;
mod error;
mod incoming;
mod metadata;
mod router;
mod server;
#[cfg(test)]
mod testing;

use std::{io, net::SocketAddr, sync::Arc};

use nova_bus::Bus;
use nova_config::{ApiConfig, Config};
use nova_db::{Db, DbError};
use nova_identity::{SecretBox, SecretBoxError};
use nova_service::{Heartbeat, Ready, Stop, http::Limits};
use nova_types::Clock;
use tokio::net::TcpListener;

use crate::dispatch::Api;

/// What the daemon is made of. Whoever starts it decides which database, bus and clock.
#[derive(Debug)]
pub struct Parts {
    /// Rows.
    pub db: Db,
    /// Hints to the other daemons.
    pub bus: Arc<dyn Bus>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Opens users' secrets.
    pub secrets: SecretBox,
    /// Settings.
    pub config: ApiConfig,
    /// Where clients connect, already bound: a port in use is the starter's to report.
    pub listener: TcpListener,
    /// Set once requests can be answered.
    pub ready: Ready,
}

/// Why the API does not serve, or not any longer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The port.
    #[error("cannot listen on {address} (--ec2_listen, --ec2_listen_port)")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The key that opens users' secrets.
    #[error("cannot open users' secrets (--secret_key_file)")]
    Secrets(#[source] SecretBoxError),
    /// The database is there, but not one that this program can work with.
    #[error("the database cannot be used")]
    Db(#[source] DbError),
}

/// Makes the parts from flags: begins to listen, and opens users' secrets.
///
/// # Errors
/// [`ApiError::Listen`] and [`ApiError::Secrets`].
pub async fn prepare(
    config: ApiConfig,
    db: Db,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    ready: Ready,
) -> Result<Parts, ApiError> {
    let address = SocketAddr::new(config.api.ec2_listen, config.api.ec2_listen_port);
    let listener = TcpListener::bind(address).await.map_err(|source| ApiError::Listen { address, source })?;
    let secrets = SecretBox::open_or_create(&config.identity.secret_key_file).map_err(ApiError::Secrets)?;
    Ok(Parts { db, bus, clock, secrets, config, listener, ready })
}

/// Serves until `stop`, then finishes the requests under way, ten seconds at most.
///
/// While the database is away it serves, too, and says so to those who ask. Several may serve at once, also on one host.
///
/// # Errors
/// [`ApiError::Db`] when the database can never be used.
pub async fn run(parts: Parts, stop: Stop) -> Result<(), ApiError> {
    let (db, ready, common) = (parts.db.clone(), parts.ready.clone(), parts.config.common.clone());
    let heartbeat = Heartbeat {
        db: db.clone(),
        host: common.host,
        binary: ApiConfig::BINARY,
        zone: common.node_availability_zone,
        enable_new: common.enable_new_services,
        interval: common.report_interval,
    };
    let reporting = async {
        nova_service::usable(&db).await?;
        nova_service::heartbeat(heartbeat, stop.clone()).await;
        std::future::pending::<Result<(), DbError>>().await
    };
    let (api, listener) = Api::new(parts);
    let serving =
        server::serve(listener, router::router(Arc::new(api)), Limits::default(), stop.clone().cancelled_owned());
    ready.set();
    tokio::select! {
        () = serving => Ok(()),
        refused = reporting => refused.map_err(ApiError::Db),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nova_bus::InProcess;
    use nova_config::{ApiConfig, Config as _, Surroundings};
    use nova_identity::SecretBox;
    use nova_service::{Ready, Stop};
    use nova_types::clock::FixedClock;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::{TcpListener, TcpStream},
    };

    use super::{ApiError, Parts, run};

    async fn parts(db: nova_db::Db) -> Parts {
        Parts {
            db,
            bus: Arc::new(InProcess::new()),
            clock: Arc::new(FixedClock::at(0)),
            secrets: SecretBox::in_memory().unwrap(),
            config: ApiConfig::load_in(["nova-api".into()], &Surroundings::bare()).unwrap().config,
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            ready: Ready::default(),
        }
    }

    #[tokio::test]
    async fn the_daemon_gets_ready_answers_and_stops() {
        let db = nova_db::dev::sqlite().await;
        let parts = parts(db.clone()).await;
        let (address, ready, stop) = (parts.listener.local_addr().unwrap(), parts.ready.clone(), Stop::new());
        let running = tokio::spawn(run(parts, stop.clone()));
        ready.wait().await;
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /services/Cloud/ HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.0 400 ") && answer.contains("<Code>MissingParameter</Code>"), "{answer}");
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn who_sends_too_much_reads_why_it_was_refused() {
        let db = nova_db::dev::sqlite().await;
        let parts = parts(db.clone()).await;
        let (address, stop) = (parts.listener.local_addr().unwrap(), Stop::new());
        let running = tokio::spawn(run(parts, stop.clone()));
        for _ in 0..20 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let length = 4 * 1024 * 1024;
            let head = format!("POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            stream.write_all(&vec![b'a'; length]).await.expect("the server takes it");
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("<Code>RequestEntityTooLarge</Code>"), "{answer}");
        }
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_database_of_a_newer_nova_is_refused_at_once() {
        let db = nova_db::dev::sqlite().await;
        let newer = "update migrate_version set version = 100000";
        db.write().await.unwrap().execute(newer, &[]).await.unwrap();
        assert!(matches!(run(parts(db.clone()).await, Stop::new()).await, Err(ApiError::Db(_))));
    }
}
