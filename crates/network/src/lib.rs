//! The network daemon: for each network that this host serves a bridge with the gateway's address, a DHCP server,
//! translation of addresses, and the metadata address. Rows say what is wanted; each turn compares and mends.

pub mod dhcpbridge;
mod error;
mod floating;
mod handler;
mod host;
mod plan;
mod settings;
pub mod spool;
mod told;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use nova_bus::{Bus, Subscription};
use nova_config::{Config, NetworkConfig};
use nova_db::Db;
use nova_link::dnsmasq::{DhcpServers, Dnsmasq, FakeDhcpServers};
use nova_link::gateway::{FakeNetworkFirewall, KernelNetworkFirewall, NetworkFirewall};
use nova_link::links::{FakeLinks, KernelLinks, Links};
use nova_link::neighbours::{FakeNeighbours, KernelNeighbours, Neighbours};
use nova_link::tunnels::{KernelTunnels, Tunnels};
use nova_run::Runner;
use nova_service::{Hint, Holder, Membership, Ready, Stop, Ticks, Turn};
use nova_wire::Topic;

pub use error::NetworkError;

use handler::Messages;
use host::NetworkHost;
use settings::Settings;

/// How many messages are handled at once; each is only a hint.
const PREFETCH: u16 = 16;

/// What the daemon works with.
#[derive(Debug)]
pub struct Parts {
    /// Its flags.
    pub config: NetworkConfig,
    /// The flag file it was given, for `nova-dhcpbridge`.
    pub flag_file: Option<PathBuf>,
    /// The database.
    pub db: Db,
    /// Where hints come from.
    pub bus: Arc<dyn Bus>,
    /// This machine, as its network is concerned.
    pub machine: Machine,
    /// Is set when messages are listened to and the networks looked at, or waiting for the database has begun.
    pub ready: Ready,
}

/// The parts of a machine that the daemon changes.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Bridges and addresses.
    pub links: Arc<dyn Links>,
    /// Who else is on them.
    pub neighbours: Arc<dyn Neighbours>,
    /// What leads to other hosts, under `VxlanManager`.
    pub tunnels: Arc<dyn Tunnels>,
    /// Translation and protection.
    pub firewall: Arc<dyn NetworkFirewall>,
    /// DHCP servers.
    pub dhcp: Arc<dyn DhcpServers>,
    /// Whether packets are forwarded: the real machine must, one in memory need not.
    pub forwards: bool,
}

impl Machine {
    /// The machine that the flags ask for, if it can do what it must.
    ///
    /// # Errors
    /// [`NetworkError::Machine`] says what is missing.
    pub async fn of(runner: Arc<dyn Runner>, config: &NetworkConfig) -> Result<Self, NetworkError> {
        if config.network.fake_network {
            return Ok(Self::simulated(config));
        }
        nova_link::check_machine(&*runner, Some(config.network.network_manager)).await?;
        Ok(Self::real(runner, config))
    }

    /// One in memory, for simulated guests: the real machine's network is left alone.
    pub fn simulated(config: &NetworkConfig) -> Self {
        let links = Arc::new(FakeLinks::default());
        if config.network.network_manager.is_per_project() {
            let address = match config.common.my_ip {
                IpAddr::V4(address) => Some(address.into()),
                IpAddr::V6(_) => None,
            };
            links.plug(&config.network.vlan_interface, address.into_iter().collect());
        }
        Self {
            links: Arc::<FakeLinks>::clone(&links),
            tunnels: links,
            neighbours: Arc::new(FakeNeighbours::default()),
            firewall: Arc::new(FakeNetworkFirewall::default()),
            dhcp: Arc::new(FakeDhcpServers::default()),
            forwards: false,
        }
    }

    /// The machine that this process runs on.
    pub fn real(runner: Arc<dyn Runner>, config: &NetworkConfig) -> Self {
        Self {
            links: Arc::new(KernelLinks),
            neighbours: Arc::new(KernelNeighbours),
            tunnels: Arc::new(KernelTunnels::new(Arc::clone(&runner))),
            firewall: Arc::new(KernelNetworkFirewall::new(Arc::clone(&runner))),
            dhcp: Arc::new(Dnsmasq::new(runner, &config.network.networks_path)),
            forwards: true,
        }
    }
}

/// Serves networks until `stop`. What is set up stays when it ends, so that a restart changes no packet's path.
///
/// # Errors
/// [`NetworkError::Address`] for a flag that cannot be followed; [`NetworkError::Bus`] when messages can never be listened to, [`NetworkError::Tenure`] when another is this host's
/// nova-network. Everything else is tried again, and said in the log.
pub async fn run(parts: Parts, stop: Stop) -> Result<(), NetworkError> {
    let settings = Settings::of(&parts.config, parts.flag_file, Arc::clone(&parts.machine.tunnels)).await?;
    let (topic, host) = (Topic::Network, parts.config.common.host.to_string());
    let subscription = Subscription { topic, host, prefetch: PREFETCH };
    let hint = Hint::default();
    let messages = Arc::new(Messages::new(parts.db.clone(), hint.clone()));
    let serving = nova_bus::serve(parts.bus, subscription, messages, stop.clone());
    let common = parts.config.common;
    let membership = Membership {
        db: parts.db.clone(),
        hosts: vec![common.host],
        binary: NetworkConfig::BINARY,
        zone: common.node_availability_zone,
        enable_new: common.enable_new_services,
        address: match common.my_ip {
            IpAddr::V4(address) if parts.machine.forwards => Some(address),
            _ => None,
        },
        holder: Holder::of(&common.state_path),
        interval: common.report_interval,
    };
    let Some(tenure) = nova_service::enter(membership, &parts.ready, &stop).await? else { return Ok(()) };
    let turns = Turns(NetworkHost::new(settings, parts.db, parts.machine));
    let turns = Ticks::new("networks", common.tick_interval).hinted_by(&hint).run(stop, turns);
    // It listens by the time it is ready, or waits for the broker, which readiness does not.
    let work = async { tokio::join!(biased; serving, async { parts.ready.set() }, turns).0 };
    Ok(tenure.hold(work).await??)
}

struct Turns(NetworkHost);

#[async_trait]
impl Turn for Turns {
    type Error = NetworkError;

    async fn turn(&mut self) -> Result<(), NetworkError> {
        let done = self.0.turn().await;
        if matches!(done, Err(NetworkError::Db(_))) {
            self.0.keep().await;
        }
        done
    }
}
