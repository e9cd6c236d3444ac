//! The other hosts as this one last heard of them, and its VXLANs to them.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tracing::info;

use super::Tunnels;
use crate::links::{Link, LinkError, LinkKind, Links, Segment, VXLAN};
use crate::nft::FirewallError;

/// How often VXLANs and firewall are compared with what they should be when no host came or went.
const COMPARE: Duration = Duration::from_secs(30);

/// This host among those that VXLANs lead to. Its copies are one.
#[derive(Clone, Debug)]
pub struct Mesh {
    local: Ipv4Addr,
    tunnels: Arc<dyn Tunnels>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// The other hosts; none before the first time that all were told.
    peers: Option<BTreeSet<Ipv4Addr>>,
    /// When every VXLAN led to exactly these.
    compared: Option<Instant>,
}

/// What went wrong with the way to other hosts.
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// VXLANs need IPv4 between hosts.
    #[error("--my_ip={0} is no IPv4 address, which VXLANs between hosts need")]
    NotIpv4(IpAddr),
    /// A VXLAN.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The firewall.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
}

impl Mesh {
    /// A host at the address `my_ip`.
    ///
    /// # Errors
    /// [`MeshError::NotIpv4`].
    pub fn new(my_ip: IpAddr, tunnels: Arc<dyn Tunnels>) -> Result<Self, MeshError> {
        match my_ip {
            IpAddr::V4(local) => Ok(Self { local, tunnels, known: Arc::default() }),
            other @ IpAddr::V6(_) => Err(MeshError::NotIpv4(other)),
        }
    }

    /// The address of this host.
    pub const fn local(&self) -> Ipv4Addr {
        self.local
    }

    /// The MTU of guests.
    ///
    /// # Errors
    /// [`LinkError::NoAddress`] when no interface has the address of this host; other [`LinkError`]s.
    pub async fn mtu(&self) -> Result<u32, LinkError> {
        self.tunnels.mtu(self.local).await
    }

    /// Makes every VXLAN of ours lead to exactly these hosts, without this one. Nothing is asked or touched where they are
    /// the same as before, but for a look now and then at whether somebody changed it.
    ///
    /// # Errors
    /// [`MeshError`]; the next call goes on from there.
    pub async fn learn(&self, links: &dyn Links, hosts: &BTreeSet<Ipv4Addr>) -> Result<(), MeshError> {
        let mut peers = hosts.clone();
        peers.remove(&self.local);
        let mut known = self.known.lock().await;
        let fresh = known.compared.is_some_and(|at| at.elapsed() < COMPARE);
        if fresh && known.peers.as_ref() == Some(&peers) {
            return Ok(());
        }
        known.compared = None;
        let begun = Instant::now();
        // The guard first: a network is open to nobody before it is to the hosts.
        self.tunnels.guard(&peers).await?;
        if known.peers.as_ref() != Some(&peers) {
            info!(hosts = peers.len(), "Networks of guests lead to {} other hosts.", peers.len());
        }
        let peers = known.peers.insert(peers);
        let ours = |link: &Link| link.ours && link.kind == LinkKind::Segment;
        for link in links.list().await?.into_iter().filter(ours) {
            if link.name.starts_with(VXLAN) {
                match self.tunnels.set_peers(&link.name, peers).await {
                    // It went in the meantime.
                    Err(LinkError::NoInterface(_)) => {}
                    set => drop(set?),
                }
            }
        }
        known.compared = Some(begun);
        Ok(())
    }

    /// Makes a VXLAN that leads to all other hosts. Returns whether anything changed.
    pub(crate) async fn ensure(&self, links: &dyn Links, segment: &Segment) -> Result<bool, LinkError> {
        let mut known = self.known.lock().await;
        let peers = known.peers.as_ref().ok_or(LinkError::NoPeers)?;
        let changed = links.ensure_segment(segment).await?;
        if changed && let Err(error) = self.tunnels.set_peers(&segment.name(), peers).await {
            // The next time it is there, and nobody would look.
            known.compared = None;
            return Err(error);
        }
        Ok(changed)
    }
}

/// By who it is, not by what it knows.
impl PartialEq for Mesh {
    fn eq(&self, other: &Self) -> bool {
        self.local == other.local
    }
}

impl Eq for Mesh {}
