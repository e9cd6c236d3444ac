//! Guests on this host: what `nova-compute` asks of a hypervisor, and the two that answer.
//!
//! [`Libvirt`] speaks to libvirtd through a helper process of its own (`nova-libvirt`), so that no daemon links libvirt,
//! hangs with it or dies with it. [`Simulated`] keeps its guests in memory and in one small file. [`choose`] decides at
//! start which of them it is, and says why.
//!
//! "Could not ask" is an error of its own, and never means "is not there".

mod choose;
mod console;
#[cfg(any(test, feature = "fake"))]
pub mod contract;
mod domain;
mod error;
mod guest;
mod libvirt;
#[doc(hidden)]
pub mod protocol;
pub mod simulated;

pub use choose::{Choice, ChooseError, GuestKind, Kind, Options, Want, choose};
pub use error::HypervisorError;
pub use guest::{Accel, Change, CloudId, Disk, Guest, GuestSpec, KernelBoot, Nic, Power};
pub use libvirt::{Libvirt, LibvirtOptions};
pub use simulated::Simulated;

use std::time::Duration;

use async_trait::async_trait;
use nova_types::InstanceId;
use tokio::sync::broadcast;

/// What compute asks of a hypervisor. Every call is idempotent, and touches only guests that bear our mark.
///
/// Every call fails with [`HypervisorError::Unreachable`] when the hypervisor cannot be asked; then nothing is known.
#[async_trait]
pub trait Hypervisor: Send + Sync + std::fmt::Debug {
    /// Defines a guest as `spec` says and boots it. A guest that runs already is left as it is.
    async fn ensure_running(&self, spec: &GuestSpec) -> Result<(), HypervisorError>;

    /// Powers a guest off and keeps it: asks the guest first, pulls the plug after `grace`. No error if it is off
    /// or unknown.
    async fn stop(&self, id: InstanceId, grace: Duration) -> Result<(), HypervisorError>;

    /// Stops a guest as [`stop`](Self::stop) does, and starts it as `spec` says. Starts it too if it was off.
    async fn reboot(&self, spec: &GuestSpec, grace: Duration) -> Result<(), HypervisorError>;

    /// Pulls the plug and forgets the guest. Its files are not touched. No error if there is none.
    async fn destroy(&self, id: InstanceId) -> Result<(), HypervisorError>;

    /// Lists all our guests, running or off.
    async fn list(&self) -> Result<Vec<Guest>, HypervisorError>;

    /// Returns the last `max_bytes` of what the guest wrote to its console; nothing for an unknown guest.
    async fn console(&self, id: InstanceId, max_bytes: usize) -> Result<Vec<u8>, HypervisorError>;

    /// Hears of guests that were switched on or off, by us or by themselves. Only hints: some may be lost.
    fn events(&self) -> broadcast::Receiver<Change>;
}
