//! Flag files and command lines, read once into one typed struct per program.
//!
//! The flags and the file format are the first Nova's: `--name=value`, one to a line, in one `/etc/nova/nova.conf` for
//! all. What was a trap there is not one here: comments and blanks are welcome anywhere, stray text is refused with
//! its file and line, and a flag that no Nova program knows is warned about.
//!
//! ```
//! use nova_config::{Config, SchedulerConfig, Surroundings};
//! let args = ["nova-scheduler", "--max_cores=32", "--noverbose"].map(Into::into);
//! let loaded = SchedulerConfig::load_in(args, &Surroundings::bare())?;
//! assert_eq!(loaded.config.scheduler.max_cores, 32);
//! # Ok::<(), nova_config::ConfigError>(())
//! ```

mod binaries;
mod brokers;
mod choices;
mod command_line;
mod database_url;
mod error;
#[cfg(feature = "failpoints")]
mod failpoints;
mod flagfile;
mod groups;
mod known;
mod rules;
mod settings;
mod surroundings;
mod value;

pub use binaries::{
    ApiConfig, CombinedConfig, ComputeConfig, Config, DhcpbridgeConfig, Loaded, ManageConfig, NetworkConfig,
    ObjectstoreConfig, SchedulerConfig, load_or_exit,
};
pub use brokers::{Broker, Brokers};
pub use choices::{ConnectionType, HypervisorChoice, LibvirtType, Placement, QuorumQueues, Region, SchedulerDriver};
pub use database_url::{DatabaseUrl, DatabaseUrlError};
pub use error::{ConfigError, Origin, Warning};
pub use groups::{
    ApiFlags, BusFlags, CommonFlags, ComputeFlags, DatabaseFlags, DhcpbridgeFlags, EndpointFlags, IdentityFlags,
    ImageFlags, NetworkFlags, ObjectstoreFlags, SchedulerFlags,
};
pub use surroundings::Surroundings;
pub use value::Password;

#[cfg(test)]
mod tests;
