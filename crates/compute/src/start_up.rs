//! From flags to a running daemon.

use std::sync::Arc;

use nova_bus::Bus;
use nova_config::ComputeConfig;
use nova_db::Db;
use nova_service::{Ready, Stop};
use nova_types::Clock;

use crate::prepare::prepare_all;
use crate::{ComputeError, run_all};

/// What the daemon is connected to, and how it is to behave.
#[derive(Debug)]
pub struct Wiring {
    /// Its flags.
    pub config: ComputeConfig,
    /// The rows.
    pub db: Db,
    /// The messages.
    pub bus: Arc<dyn Bus>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Set when messages are listened to, or waiting for the database has begun.
    pub ready: Ready,
}

/// Chooses the hypervisor, tells `decided` whether guests are real, and works until `stop`.
///
/// # Errors
/// [`ComputeError`].
pub async fn start(wiring: Wiring, stop: Stop, decided: impl FnOnce(bool) + Send) -> Result<(), ComputeError> {
    let Wiring { config, db, bus, clock, ready } = wiring;
    let mut hosts = tokio::select! {
        hosts = prepare_all(&config, &db, &bus, &clock) => hosts?,
        () = stop.cancelled() => return Ok(()),
    };
    decided(hosts.iter().any(|host| host.real.is_some()));
    for host in &mut hosts {
        host.ready = ready.clone();
    }
    run_all(hosts, stop).await
}
