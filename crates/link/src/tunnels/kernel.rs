//! VXLANs of this machine, by rtnetlink and nftables.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use async_trait::async_trait;
use nova_run::Runner;

use super::Tunnels;
use super::guard::{TABLE, table};
use crate::links::{LinkError, flood};
use crate::nft::{FirewallError, Nft, diff};

/// Asks the kernel of this machine.
#[derive(Debug)]
pub struct KernelTunnels {
    nft: Nft,
}

impl KernelTunnels {
    /// With a firewall that is reached by running `nft`.
    pub fn new(runner: Arc<dyn Runner>) -> Self {
        Self { nft: Nft::new(runner) }
    }
}

#[async_trait]
impl Tunnels for KernelTunnels {
    async fn mtu(&self, local: Ipv4Addr) -> Result<u32, LinkError> {
        flood::mtu(local).await
    }

    async fn peers(&self, interface: &str) -> Result<BTreeSet<Ipv4Addr>, LinkError> {
        flood::peers(interface).await
    }

    async fn set_peers(&self, interface: &str, peers: &BTreeSet<Ipv4Addr>) -> Result<usize, LinkError> {
        flood::set_peers(interface, peers).await
    }

    async fn guard(&self, peers: &BTreeSet<Ipv4Addr>) -> Result<usize, FirewallError> {
        let commands = diff(TABLE, self.nft.list(TABLE).await?.as_ref(), &table(peers));
        self.nft.apply(&commands).await?;
        Ok(commands.len())
    }
}
