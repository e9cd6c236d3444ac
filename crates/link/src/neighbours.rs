//! Who else on a link has an address: asked before this host takes one, and told after (ARP, RFC 5227).

mod arp;
#[cfg(feature = "fake")]
mod fake;

use std::io;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nova_types::Mac;

use crate::links::{LinkError, leads_somewhere};

pub(crate) use arp::announce;
#[cfg(feature = "fake")]
pub use fake::FakeNeighbours;

/// How long an interface that was just made may take until it lets frames through, and the pause between looks.
const SETTLE: Duration = Duration::from_millis(1_200);
const LOOK: Duration = Duration::from_millis(50);

/// What `nova-network` asks of and tells the other machines on a link.
#[async_trait]
pub trait Neighbours: Send + Sync + std::fmt::Debug {
    /// Asks on `interface` who has `address`, without pretending to have any, and returns who answered. Nobody is the
    /// answer only after a second of silence. Where `interface` is a bridge, `uplink` is the port that leads to others.
    ///
    /// # Errors
    /// [`NeighbourError`] when the question cannot have reached anybody: from that nothing may be concluded.
    async fn who_has(
        &self,
        interface: &str,
        uplink: Option<&str>,
        address: Ipv4Addr,
    ) -> Result<Option<Mac>, NeighbourError>;

    /// Tells everybody on `interface` that `address` is here.
    ///
    /// # Errors
    /// [`NeighbourError`]: then they find out within minutes.
    async fn announce(&self, interface: &str, address: Ipv4Addr) -> Result<(), NeighbourError>;
}

/// Why neighbours could not be asked or told.
#[derive(Debug, thiserror::Error)]
pub enum NeighbourError {
    /// What leads to them is not there, is down, or is plugged in nowhere.
    #[error("{0} leads nowhere: it is missing, down or unplugged")]
    Unplugged(String),
    /// The interfaces could not be seen.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The kernel refused.
    #[error("{doing} {address} on {interface}")]
    Kernel {
        /// What was tried.
        doing: &'static str,
        /// About what.
        address: Ipv4Addr,
        /// Where.
        interface: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// The machines on this one's links.
#[derive(Clone, Copy, Debug, Default)]
pub struct KernelNeighbours;

#[async_trait]
impl Neighbours for KernelNeighbours {
    async fn who_has(
        &self,
        interface: &str,
        uplink: Option<&str>,
        address: Ipv4Addr,
    ) -> Result<Option<Mac>, NeighbourError> {
        let begun = Instant::now();
        while !leads_somewhere(interface, uplink).await? {
            if begun.elapsed() >= SETTLE {
                return Err(NeighbourError::Unplugged(uplink.unwrap_or(interface).to_owned()));
            }
            tokio::time::sleep(LOOK).await;
        }
        let name = interface.to_owned();
        let answer = run(move || arp::who_has(&name, address)).await;
        let answer = answer.map_err(failed("asking who has", interface, address))?;
        // Silence on a wire that was cut meanwhile means nothing.
        if answer.is_none() && !leads_somewhere(interface, uplink).await? {
            return Err(NeighbourError::Unplugged(uplink.unwrap_or(interface).to_owned()));
        }
        Ok(answer)
    }

    async fn announce(&self, interface: &str, address: Ipv4Addr) -> Result<(), NeighbourError> {
        let name = interface.to_owned();
        run(move || announce(&name, address)).await.map_err(failed("announcing", interface, address))
    }
}

fn failed(doing: &'static str, interface: &str, address: Ipv4Addr) -> impl FnOnce(io::Error) -> NeighbourError {
    let interface = interface.to_owned();
    move |source| NeighbourError::Kernel { doing, address, interface, source }
}

async fn run<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
