//! What stops the network daemon, or one of its turns.

use nova_link::dnsmasq::DhcpError;
use nova_link::gateway::FirewallError;
use nova_link::links::LinkError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A flag that must name an IPv4 address does not.
    #[error("--{flag}={value} does not lead to an IPv4 address")]
    Address {
        /// The flag.
        flag: &'static str,
        /// Its value.
        value: String,
    },
    /// The database.
    #[error("asking the database")]
    Db(#[from] nova_db::DbError),
    /// The bus.
    #[error("listening for messages")]
    Bus(#[from] nova_bus::BusError),
    /// Another works as this host's nova-network.
    #[error(transparent)]
    Tenure(#[from] nova_service::TenureError),
    /// This machine cannot serve networks.
    #[error(transparent)]
    Machine(#[from] nova_link::MachineError),
    /// A bridge or an address.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The machines on a link.
    #[error(transparent)]
    Neighbours(#[from] nova_link::neighbours::NeighbourError),
    /// The way to other hosts.
    #[error(transparent)]
    Mesh(#[from] nova_link::tunnels::MeshError),
    /// Nowhere to bind floating addresses.
    #[error("there is no default route, so floating addresses need --public_interface")]
    NoPublicInterface,
    /// The firewall.
    #[error(transparent)]
    Firewall(#[from] FirewallError),
    /// A DHCP server.
    #[error(transparent)]
    Dhcp(#[from] DhcpError),
    /// A kernel setting.
    #[error(transparent)]
    Setting(#[from] nova_link::SettingError),
    /// The folder of lease events.
    #[error(transparent)]
    Spool(#[from] crate::spool::SpoolError),
}
