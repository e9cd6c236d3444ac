//! Each daemon, made from its flags and spawned.

use std::path::PathBuf;
use std::sync::Arc;

use nova_bus::Bus;
use nova_compute::Wiring;
use nova_config::{CombinedConfig, DatabaseFlags, HypervisorChoice};
use nova_db::Db;
use nova_network::Machine;
use nova_run::Runner;
use nova_service::{Daemon, Ready};
use nova_types::Clock;
use tokio::sync::watch;

use crate::error::CombinedError;

/// What all daemons share.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) db: Db,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runner: Arc<dyn Runner>,
}

/// Whether guests are real; `None` until that is decided.
pub(crate) type Real = watch::Receiver<Option<bool>>;

/// Opens the database. A file of our own gets its schema; a server's is shared, and an administrator's to change.
pub(crate) async fn database(flags: &DatabaseFlags) -> Result<Db, CombinedError> {
    let db = nova_service::open_database(flags).await?;
    let url = &flags.sql_connection;
    if url.sqlite_file().is_some() {
        db.migrate().await.map_err(|source| CombinedError::Schema { url: url.clone(), source })?;
    }
    Ok(db)
}

pub(crate) async fn spawn_api(
    daemon: &mut Daemon,
    config: &CombinedConfig,
    around: &Surroundings,
) -> Result<(), CombinedError> {
    let Surroundings { db, bus, clock, .. } = around.clone();
    let parts = nova_api::prepare(config.api_config(), db, bus, clock, daemon.expect()).await?;
    daemon.spawn("nova-api", nova_api::run(parts, daemon.stop()));
    Ok(())
}

pub(crate) async fn spawn_objectstore(
    daemon: &mut Daemon,
    config: &CombinedConfig,
    around: &Surroundings,
) -> Result<(), CombinedError> {
    let Surroundings { db, clock, .. } = around.clone();
    let parts = nova_objectstore::prepare(config.objectstore_config(), db, clock, daemon.expect()).await?;
    daemon.spawn("nova-objectstore", nova_objectstore::run(parts, daemon.stop()));
    Ok(())
}

pub(crate) fn spawn_scheduler(daemon: &mut Daemon, config: &CombinedConfig, around: &Surroundings) {
    let Surroundings { db, bus, .. } = around.clone();
    let parts = nova_scheduler::Parts { db, bus, config: config.scheduler_config(), ready: daemon.expect() };
    daemon.spawn("nova-scheduler", nova_scheduler::run(parts, daemon.stop()));
}

/// Spawns compute, which first chooses the hypervisor. Returns where it says whether guests are real.
pub(crate) fn spawn_compute(daemon: &mut Daemon, config: &CombinedConfig, around: &Surroundings) -> Real {
    let known = match config.compute.hypervisor {
        HypervisorChoice::Auto => None,
        HypervisorChoice::Libvirt | HypervisorChoice::Netns => Some(true),
        HypervisorChoice::Simulated => Some(false),
    };
    let (say, real) = watch::channel(known);
    let Surroundings { db, bus, clock, .. } = around.clone();
    let wiring = Wiring { config: config.compute_config(), db, bus, clock, ready: Ready::default() };
    let decided = move |real| {
        say.send_replace(Some(real));
    };
    daemon.spawn("nova-compute", nova_compute::start(wiring, daemon.stop(), decided));
    real
}

/// Spawns network, once it is known whether there will be real guests: where all are simulated, the machine's own
/// network is left alone.
pub(crate) fn spawn_network(
    daemon: &mut Daemon,
    config: &CombinedConfig,
    around: &Surroundings,
    flag_file: Option<PathBuf>,
    mut real: Real,
) {
    let (config, stop) = (config.network_config(), daemon.stop());
    let Surroundings { db, bus, runner, .. } = around.clone();
    daemon.spawn("nova-network", async move {
        let real = tokio::select! {
            real = real.wait_for(Option::is_some) => real.is_ok_and(|real| *real == Some(true)),
            () = stop.cancelled() => return Ok(()),
        };
        let machine = if real { Machine::of(runner, &config).await? } else { Machine::simulated(&config) };
        let parts = nova_network::Parts { config, flag_file, db, bus, machine, ready: Ready::default() };
        nova_network::run(parts, stop).await
    });
}
