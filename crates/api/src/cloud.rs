//! What actions work with.

use std::sync::Arc;

use nova_bus::Bus;
use nova_config::ApiConfig;
use nova_db::Db;
use nova_types::{Clock, HostName};
use nova_wire::{ComputeCall, NetworkCall, SchedulerCall};
use tracing::warn;

use nova_service::chain;

/// The cloud as the API meets it: rows, messages, time, settings.
#[derive(Debug)]
pub(crate) struct Cloud {
    /// The truth.
    pub(crate) db: Db,
    /// Hints to the other daemons.
    pub(crate) bus: Arc<dyn Bus>,
    /// For signatures and display; time-outs use the monotonic clock, leases the database's.
    pub(crate) clock: Arc<dyn Clock>,
    /// How this daemon was told to behave.
    pub(crate) config: ApiConfig,
}

impl Cloud {
    /// Tells `host` to look at its rows. They are stored, and its tick finds them: a hint that is lost costs a second.
    pub(crate) async fn hint_compute(&self, host: &HostName, call: ComputeCall) {
        if let Err(error) = self.bus.cast_compute(host.as_str(), call).await {
            warn!(host = %host, error = %chain(&error), "Telling {host} failed; it will see by itself.");
        }
    }

    /// Tells the network host `host` to look at these networks, with the same promise.
    pub(crate) async fn hint_network(&self, host: &HostName, network_ids: Vec<u32>) {
        if let Err(error) = self.bus.cast_network(host.as_str(), NetworkCall::RefreshNetwork { network_ids }).await {
            warn!(host = %host, error = %chain(&error), "Telling {host} failed; it will see by itself.");
        }
    }

    /// Tells a scheduler to look at its rows, with the same promise.
    pub(crate) async fn hint_scheduler(&self, instance_ids: Vec<u32>) {
        if let Err(error) = self.bus.cast_scheduler(SchedulerCall::RunInstance { instance_ids }).await {
            warn!(error = %chain(&error), "Telling the scheduler failed; it will see by itself.");
        }
    }
}
