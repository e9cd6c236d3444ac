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

use std::{sync::Arc, time::Duration};

use nova_bus::Bus;
use nova_config::ApiConfig;
use nova_db::{Db, DbError};
use nova_identity::SecretBox;
use nova_service::{Ready, Stop, chain, http::Limits};
use nova_types::Clock;
use tokio::net::TcpListener;
use tracing::warn;

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

/// Why the API does not go on serving.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The database is there, but not one that this program can work with.
    #[error("the database cannot be used")]
    Db(#[source] DbError),
}

/// How long to wait for a database that is away, before asking again.
const PATIENCE: Duration = Duration::from_secs(1);

/// Serves until `stop`, then finishes the requests under way, ten seconds at most.
///
/// While the database is away it serves, too, and says so to those who ask.
///
/// # Errors
/// [`ApiError::Db`] when the database has the wrong schema.
pub async fn run(parts: Parts, stop: Stop) -> Result<(), ApiError> {
    let (db, ready) = (parts.db.clone(), parts.ready.clone());
    let (api, listener) = Api::new(parts);
    let serving = server::serve(listener, router::router(Arc::new(api)), Limits::default(), stop.cancelled_owned());
    tokio::select! {
        () = serving => Ok(()),
        refused = announce(&db, &ready) => Err(ApiError::Db(refused)),
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
    async fn a_database_without_the_schema_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:///{}", folder.path().join("empty.sqlite").display());
        let db = nova_db::Db::open(&url, &nova_db::Options::default()).await.unwrap();
        let parts = parts(db).await;
        let ready = parts.ready.clone();
        assert!(matches!(run(parts, Stop::new()).await, Err(ApiError::Db(_))));
        assert!(!ready.is_set());
    }
}
