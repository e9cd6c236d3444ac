//! All of Nova in one process: the same daemons that run alone elsewhere, wired to a SQLite file in the state folder
//! (or any other database), a bus in memory, and a hypervisor that is chosen when they start.
//!
//! It is ready when requests are accepted and placed. The hypervisor may take seconds to be chosen, where KVM is there
//! and does not work; nobody waits for that but the instances.

mod error;
mod parts;

pub use error::CombinedError;

use std::path::PathBuf;
use std::sync::Arc;

use nova_bus::{Bus, InProcess};
use nova_config::{CombinedConfig, HypervisorChoice};
use nova_run::{Host, Runner};
use nova_service::{Daemon, SystemClock};
use nova_types::Clock;

use parts::Surroundings;

/// The daemons that are not to run beside this process on one state folder.
pub const ROLES: &[&str] =
    &["nova-combined", "nova-api", "nova-objectstore", "nova-scheduler", "nova-network", "nova-compute"];

/// Opens what the daemons need, and spawns them. `flag_file` is what `nova-dhcpbridge` is to read.
///
/// # Errors
/// What keeps them from working at all: the database, the listeners, the secrets; with `--hypervisor=libvirt` or `netns`
/// also missing rights and programs. The rest is theirs to wait for.
pub async fn assemble(
    daemon: &mut Daemon,
    config: &CombinedConfig,
    flag_file: Option<PathBuf>,
) -> Result<(), CombinedError> {
    let mut config = config.clone();
    nova_compute::settle_together(&mut config.compute, nova_link::may_change_network());
    let (config, runner): (&CombinedConfig, Arc<dyn Runner>) = (&config, Arc::new(Host));
    if matches!(config.compute.hypervisor, HypervisorChoice::Libvirt | HypervisorChoice::Netns) {
        nova_link::check_machine(&*runner, Some(config.network.network_manager)).await?;
    }
    let db = parts::database(&config.database).await?;
    daemon.watch_database(&db);
    let bus: Arc<dyn Bus> = Arc::new(InProcess::new());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let around = Surroundings { db, bus, clock, runner };
    parts::spawn_api(daemon, config, &around).await?;
    parts::spawn_objectstore(daemon, config, &around).await?;
    parts::spawn_scheduler(daemon, config, &around);
    let real = parts::spawn_compute(daemon, config, &around);
    parts::spawn_network(daemon, config, &around, flag_file, real);
    Ok(())
}

#[cfg(test)]
mod tests;
