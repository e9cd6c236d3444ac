//! Where the brokers are, and how they are spoken to.

use std::path::PathBuf;
use std::time::Duration;

use nova_config::{BusFlags, Password, QuorumQueues};

/// Where the brokers are, and how they are spoken to.
#[derive(Clone, Debug)]
pub struct RabbitOptions {
    /// Host and port of each broker, in the order they are tried.
    pub brokers: Vec<(String, u16)>,
    /// As whom.
    pub user: String,
    /// That user's password.
    pub password: Password,
    /// Where in the broker.
    pub virtual_host: String,
    /// The exchange of all messages; also the beginning of the dead letters' queue's name.
    pub exchange: String,
    /// With TLS, the certificates that the broker's must be signed by: a PEM file, read at each try.
    pub tls: Option<PathBuf>,
    /// After how long a silence a connection is given up; whole seconds, at least one.
    pub keepalive: Duration,
    /// The longest wait between tries to connect.
    pub retry_interval: Duration,
    /// Whether new queues are kept by a majority of the brokers.
    pub quorum: bool,
}

impl RabbitOptions {
    /// What the flags say.
    pub fn of(flags: &BusFlags) -> Self {
        let brokers = flags.rabbit_host.as_slice();
        Self {
            brokers: brokers.iter().map(|at| (at.host.clone(), at.port.unwrap_or(flags.rabbit_port))).collect(),
            user: flags.rabbit_userid.clone(),
            password: flags.rabbit_password.clone(),
            virtual_host: flags.rabbit_virtual_host.clone(),
            exchange: flags.control_exchange.clone(),
            tls: flags.rabbit_use_ssl.then(|| flags.rabbit_ca_file.clone()),
            keepalive: flags.rabbit_keepalive,
            retry_interval: flags.rabbit_retry_interval,
            quorum: match flags.rabbit_quorum_queues {
                QuorumQueues::Yes => true,
                QuorumQueues::No => false,
                // The protocol does not tell whether a broker has peers; its administrator does.
                QuorumQueues::Auto => brokers.len() > 1,
            },
        }
    }
}
