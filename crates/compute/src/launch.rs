//! What is gathered step by step until a guest can be described to the hypervisor.

use std::sync::Arc;

use nova_hypervisor::{GuestSpec, Nic};
use nova_types::instance::{Instance, InstanceView};
use nova_types::network::Network;

use crate::desk::Ticket;
use crate::disks::{Bases, Files};
use crate::host::{Host, RealHost};
use crate::problem::Problem;
use crate::seed;

/// A guest on its way to running.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) host: Arc<Host>,
    pub(crate) view: InstanceView,
    pub(crate) ticket: Ticket,
    /// Known once the network was looked up.
    pub(crate) network: Option<Network>,
    /// Known once the images were fetched.
    pub(crate) bases: Option<Bases>,
}

impl Launch {
    pub(crate) fn new(host: Arc<Host>, view: InstanceView, ticket: Ticket) -> Self {
        Self { host, view, ticket, network: None, bases: None }
    }

    pub(crate) const fn instance(&self) -> &Instance {
        &self.view.instance
    }

    /// What is there for guests that are not simulated.
    pub(crate) fn real(&self) -> Option<&RealHost> {
        self.host.real.as_ref()
    }

    /// Looks up the network of the guest's address. The scheduler gave it one with its host.
    pub(crate) async fn look_up_network(&mut self) -> Result<&Network, Problem> {
        let (_, id) = self.view.fixed_ip.ok_or_else(no_address)?;
        let network = self.host.network(id).await?;
        Ok(self.network.insert(network))
    }

    /// What the seed disk says; `None` where there is to be none.
    pub(crate) fn seed(&self) -> Option<seed::Content> {
        let settings = &self.host.settings;
        if !settings.seed_disk && !settings.seed_network {
            return None;
        }
        let address = self.view.fixed_ip.filter(|_| settings.seed_network).map(|(address, _)| address);
        Some(seed::content(self.instance(), address.zip(self.network.as_ref()), settings.ipv6))
    }

    /// Describes the guest with what was gathered.
    pub(crate) fn spec(&self) -> Result<GuestSpec, Problem> {
        let instance = self.instance();
        let files = match (self.real(), &self.bases) {
            (Some(real), Some(bases)) => real.disks.files(instance, bases, self.seed().is_some()),
            (Some(_), None) => return Err(Problem::later("the images were not fetched")),
            (None, _) => Files { disks: Vec::new(), seed: None, boot: None },
        };
        let bridge = match (self.real(), &self.network) {
            (Some(_), None) => return Err(no_address()),
            (_, Some(network)) => network.bridge.clone(),
            (None, None) => String::new(),
        };
        Ok(GuestSpec {
            id: instance.id,
            memory_mb: instance.memory_mb,
            vcpus: instance.vcpus,
            disks: files.disks,
            seed: files.seed,
            boot: files.boot,
            nic: Nic { mac: instance.mac, bridge, tap: Instance::tap_name(instance.id) },
        })
    }

    /// Gathers all that a guest needs that ran before: its disks are there already, or it cannot be started.
    pub(crate) async fn gather_again(&mut self) -> Result<GuestSpec, Problem> {
        let id = self.instance().id;
        if let Some(real) = self.host.real.as_ref() {
            if !real.disks.has_root(id) {
                return Err(Problem::never("The disk of the instance is gone.", "there is no root disk"));
            }
            let bases = real.disks.fetch(&self.host.db, &self.view.instance).await?;
            self.bases = Some(bases);
            self.look_up_network().await?;
        }
        self.spec()
    }
}

fn no_address() -> Problem {
    Problem::never("The instance has no address.", "the row has no fixed address")
}
