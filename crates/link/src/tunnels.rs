//! VXLANs to all other hosts: which these are, and that nobody else speaks to ours.
//!
//! A VXLAN is neither signed nor encrypted: whoever reaches its port could send frames into every network. So the port
//! is open to the addresses of other hosts alone, and what guests send to that port of a host is not forwarded: on its
//! way out it would get the address of a host.

mod guard;
mod kernel;
mod mesh;

#[cfg(feature = "fake")]
mod fake;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use async_trait::async_trait;

use crate::links::LinkError;
use crate::nft::FirewallError;

#[cfg(feature = "fake")]
pub use fake::tunnels_contract;
pub use kernel::KernelTunnels;
pub use mesh::{Mesh, MeshError};

/// What Nova asks of this machine for VXLANs to other hosts. Every call is idempotent.
#[async_trait]
pub trait Tunnels: Send + Sync + std::fmt::Debug {
    /// The MTU within a VXLAN from an address of this machine: that of its interface, less what a frame grows by.
    ///
    /// # Errors
    /// [`LinkError::NoAddress`] when no interface has the address; other [`LinkError`]s.
    async fn mtu(&self, local: Ipv4Addr) -> Result<u32, LinkError>;

    /// Lists the hosts that a VXLAN floods to; none where there is no such interface.
    ///
    /// # Errors
    /// [`LinkError`].
    async fn peers(&self, interface: &str) -> Result<BTreeSet<Ipv4Addr>, LinkError>;

    /// Makes the hosts that a VXLAN leads to exactly these, by adding and removing what differs. Returns how many differed.
    ///
    /// # Errors
    /// [`LinkError::NoInterface`]; other [`LinkError`]s: what was done before stays, and the next call goes on from there.
    async fn set_peers(&self, interface: &str, peers: &BTreeSet<Ipv4Addr>) -> Result<usize, LinkError>;

    /// Lets nobody but these hosts speak to VXLANs of this machine, and no guest to those of any host, in one
    /// transaction that holds only what differs. Returns how many commands that took.
    ///
    /// # Errors
    /// [`FirewallError`]; what was there then still holds.
    async fn guard(&self, peers: &BTreeSet<Ipv4Addr>) -> Result<usize, FirewallError>;
}
