//! This program as each of the five daemons: what their `main` functions do. One build is then all that a bench needs, and
//! what is measured is what was built last.

use std::sync::Arc;
use std::time::Instant;

use nova_compute::Wiring;
use nova_config::{ApiConfig, ComputeConfig, Config, Loaded, NetworkConfig, ObjectstoreConfig, SchedulerConfig};
use nova_network::Machine;
use nova_run::Host;
use nova_service::{Daemon, SystemClock};

/// Runs `daemon` with its flags; `None` where this program is not asked to be one.
pub(crate) async fn run(name: &str, flags: &[String]) -> Option<anyhow::Result<()>> {
    let began = Instant::now();
    Some(match name {
        ApiConfig::BINARY => api(flags, began).await,
        ObjectstoreConfig::BINARY => objectstore(flags, began).await,
        SchedulerConfig::BINARY => scheduler(flags, began).await,
        NetworkConfig::BINARY => network(flags, began).await,
        ComputeConfig::BINARY => compute(flags, began).await,
        _ => return None,
    })
}

fn load<C: Config>(flags: &[String]) -> anyhow::Result<Loaded<C>> {
    let args = [C::BINARY].into_iter().chain(flags.iter().map(String::as_str)).map(Into::into);
    Ok(C::load(args)?)
}

async fn api(flags: &[String], began: Instant) -> anyhow::Result<()> {
    let Loaded { config, warnings, .. } = load::<ApiConfig>(flags)?;
    let name = ApiConfig::BINARY;
    let mut daemon = Daemon::start(name, &[name], &config.common, &warnings, began).await?;
    let db = nova_service::open_database(&config.database).await?;
    daemon.watch_database(&db);
    let bus = nova_service::open_bus(&config.bus);
    daemon.watch_bus(&bus);
    let parts = nova_api::prepare(config, db, bus, Arc::new(SystemClock), daemon.expect()).await?;
    daemon.spawn(name, nova_api::run(parts, daemon.stop()));
    Ok(daemon.run().await?)
}

async fn objectstore(flags: &[String], began: Instant) -> anyhow::Result<()> {
    let Loaded { config, warnings, .. } = load::<ObjectstoreConfig>(flags)?;
    let name = ObjectstoreConfig::BINARY;
    let mut daemon = Daemon::start(name, &[name], &config.common, &warnings, began).await?;
    let db = nova_service::open_database(&config.database).await?;
    daemon.watch_database(&db);
    let parts = nova_objectstore::prepare(config, db, Arc::new(SystemClock), daemon.expect()).await?;
    daemon.spawn(name, nova_objectstore::run(parts, daemon.stop()));
    Ok(daemon.run().await?)
}

async fn scheduler(flags: &[String], began: Instant) -> anyhow::Result<()> {
    let Loaded { config, warnings, .. } = load::<SchedulerConfig>(flags)?;
    let name = SchedulerConfig::BINARY;
    let mut daemon = Daemon::start(name, &[name], &config.common, &warnings, began).await?;
    let db = nova_service::open_database(&config.database).await?;
    daemon.watch_database(&db);
    let bus = nova_service::open_bus(&config.bus);
    daemon.watch_bus(&bus);
    let parts = nova_scheduler::Parts { db, bus, config, ready: daemon.expect() };
    daemon.spawn(name, nova_scheduler::run(parts, daemon.stop()));
    Ok(daemon.run().await?)
}

async fn network(flags: &[String], began: Instant) -> anyhow::Result<()> {
    let Loaded { config, warnings, flagfiles, .. } = load::<NetworkConfig>(flags)?;
    let (name, flag_file) = (NetworkConfig::BINARY, flagfiles.first().cloned());
    let mut daemon = Daemon::start(name, &[name], &config.common, &warnings, began).await?;
    let machine = Machine::of(Arc::new(Host), &config).await?;
    let db = nova_service::open_database(&config.database).await?;
    daemon.watch_database(&db);
    let bus = nova_service::open_bus(&config.bus);
    daemon.watch_bus(&bus);
    let parts = nova_network::Parts { config, flag_file, db, bus, machine, ready: daemon.expect() };
    daemon.spawn(name, nova_network::run(parts, daemon.stop()));
    Ok(daemon.run().await?)
}

async fn compute(flags: &[String], began: Instant) -> anyhow::Result<()> {
    let Loaded { mut config, warnings, .. } = load::<ComputeConfig>(flags)?;
    let name = ComputeConfig::BINARY;
    let mut daemon = Daemon::start(name, &[name], &config.common, &warnings, began).await?;
    nova_compute::settle_alone(&mut config.compute, &Host).await?;
    let db = nova_service::open_database(&config.database).await?;
    daemon.watch_database(&db);
    let bus = nova_service::open_bus(&config.bus);
    daemon.watch_bus(&bus);
    let wiring = Wiring { config, db, bus, clock: Arc::new(SystemClock), ready: daemon.expect() };
    daemon.spawn(name, nova_compute::start(wiring, daemon.stop(), |_| {}));
    Ok(daemon.run().await?)
}
