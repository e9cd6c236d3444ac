//! Why all of Nova together cannot start.

use std::io;

use nova_config::DatabaseUrl;

/// Why all of Nova together cannot start, or ended other than asked. Each is one line with its causes.
#[derive(Debug, thiserror::Error)]
pub enum CombinedError {
    /// The state folder, the log, the lock; or a daemon that failed.
    #[error(transparent)]
    Service(#[from] nova_service::ServiceError),
    /// The database cannot be opened, or is another's.
    #[error("cannot use the database {url} (--sql_connection)")]
    Database {
        /// The database, without its password.
        url: DatabaseUrl,
        /// Why not.
        #[source]
        source: nova_db::DbError,
    },
    /// The API's port.
    #[error("cannot listen on {address} (--ec2_listen, --ec2_listen_port)")]
    Listen {
        /// Address and port.
        address: std::net::SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The object store's port.
    #[error(transparent)]
    Objectstore(#[from] nova_objectstore::ObjectstoreError),
    /// The key that opens users' secrets.
    #[error("cannot open users' secrets (--secret_key_file)")]
    Secrets(#[source] nova_identity::SecretBoxError),
    /// Real guests were asked for, and cannot be connected here.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

/// Why this machine cannot have real guests on its network.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// Not root.
    #[error("bridges and firewalls need root (or CAP_NET_ADMIN); without it there is --hypervisor=simulated")]
    Privilege,
    /// A program that is not there, or does not run.
    #[error("{package} is needed for real guests (apt-get install {package})")]
    Program {
        /// The Debian package that has it.
        package: &'static str,
        /// What is wrong.
        #[source]
        source: nova_run::RunError,
    },
}

/// Why network ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkFailure {
    /// Before it began.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// Later.
    #[error(transparent)]
    Run(#[from] nova_network::NetworkError),
}

/// Why compute ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ComputeFailure {
    /// Before it began.
    #[error(transparent)]
    Prepare(#[from] nova_compute::PrepareError),
    /// Later.
    #[error(transparent)]
    Run(#[from] nova_compute::ComputeError),
}
