//! What all operations on this host share.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nova_db::{Db, DbError, networks};
use nova_hypervisor::Hypervisor;
use nova_link::carrier::Carrier;
use nova_link::links::Links;
use nova_run::Runner;
use nova_types::network::Network;
use nova_types::{Clock, HostName, NetworkId};
use tokio::sync::{RwLock, Semaphore};
use tokio::time::Instant;

use crate::boot::BootMark;
use crate::desk::Desk;
use crate::disks::Disks;
use crate::groups::Groups;
use crate::ledger::Ledger;
use crate::problem::Problem;
use crate::source::Source;
use crate::{Parts, Settings};

/// A network's row hardly ever changes.
const NETWORK_KEPT: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) name: HostName,
    pub(crate) db: Db,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) hypervisor: Arc<dyn Hypervisor>,
    pub(crate) hypervisor_type: String,
    pub(crate) real: Option<RealHost>,
    pub(crate) settings: Settings,
    pub(crate) desk: Arc<Desk>,
    pub(crate) ledger: Ledger,
    /// Places for building and starting.
    pub(crate) builds: Semaphore,
    /// Places for all else, so that ending a guest never waits behind building one.
    pub(crate) quiet: Semaphore,
    networks: Mutex<HashMap<NetworkId, (Network, Instant)>>,
}

/// What is there only for guests that are not simulated.
#[derive(Debug)]
pub(crate) struct RealHost {
    pub(crate) groups: Groups,
    pub(crate) links: Arc<dyn Links>,
    pub(crate) disks: Disks,
    pub(crate) instances_path: PathBuf,
    pub(crate) boot: BootMark,
    pub(crate) runner: Arc<dyn Runner>,
    pub(crate) carrier: Carrier,
    /// Held for reading while a bridge is made, for writing while those that nobody needs are removed.
    pub(crate) bridges: RwLock<()>,
}

impl Host {
    /// Must be called within a Tokio runtime.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { name, db, bus: _, clock, hypervisor, hypervisor_type, real, settings, ready: _ } = parts;
        let real = real.map(|real| RealHost {
            groups: Groups::new(db.clone(), name.clone(), real.firewall, settings.ipv6),
            links: real.links,
            disks: Disks::new(
                Source::new(real.images, &real.instances_path, Arc::clone(&clock)),
                &real.instances_path,
                &settings,
            ),
            boot: BootMark::new(&real.instances_path, &name),
            instances_path: real.instances_path,
            runner: real.runner,
            carrier: real.carrier,
            bridges: RwLock::default(),
        });
        let ledger = Ledger::open(db.clone(), settings.quarantine_seconds);
        let (builds, quiet) = (Semaphore::new(settings.builds.max(1)), Semaphore::new(settings.quiet.max(1)));
        Self {
            name,
            db,
            clock,
            hypervisor,
            hypervisor_type,
            real,
            settings,
            desk: Arc::new(Desk::default()),
            ledger,
            builds,
            quiet,
            networks: Mutex::default(),
        }
    }

    /// Returns a network's row, at most a minute old.
    pub(crate) async fn network(&self, id: NetworkId) -> Result<Network, Problem> {
        let kept = self.networks.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned();
        if let Some((network, read)) = kept
            && read.elapsed() < NETWORK_KEPT
        {
            return Ok(network);
        }
        let network = match networks::get(&mut self.db.read().await?, id).await {
            Err(gone @ DbError::NotFound(_)) => {
                return Err(Problem::never("The network of the instance is gone.", gone));
            }
            read => read?,
        };
        let mut networks = self.networks.lock().unwrap_or_else(PoisonError::into_inner);
        networks.insert(id, (network.clone(), Instant::now()));
        Ok(network)
    }
}
