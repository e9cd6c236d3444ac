//! `nova-compute`: runs the instances that were placed on this host.
//!
//! The rows are the truth. A message, a tick or a change seen by the hypervisor only makes the daemon look; what is due
//! is claimed in `desk`, so that one row is never worked on twice at once, and done by one file per operation. Each
//! operation is idempotent, its outcome is written with the state it was read in, and what could not be asked is tried
//! again and concludes nothing.
//!
//! One process is one host, or, for tests and benches, many simulated ones that share their connections.

mod boot;
mod calls;
mod console;
mod converge;
mod desk;
mod disks;
mod groups;
mod host;
mod launch;
mod ledger;
mod mesh;
mod prepare;
mod problem;
mod prune;
mod reboot;
mod resources;
mod router;
mod run_instance;
mod seed;
mod source;
mod start;
mod start_up;
mod steps;
mod stop;
mod terminate;
#[cfg(test)]
mod testing;
mod unused;
mod work;

pub use prepare::{PrepareError, prepare, settle_alone, settle_together};
pub use start_up::{Wiring, start};

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use nova_bus::{Bus, BusError, Subscription};
use nova_db::Db;
use nova_hypervisor::Hypervisor;
use nova_link::carrier::Carrier;
use nova_link::guests::GuestFirewall;
use nova_link::links::Links;
use nova_run::Runner;
use nova_service::{Holder, Membership, Ready, Stop, TenureError};
use nova_types::{Clock, HostName};
use nova_wire::Topic;

use host::Host;

const BINARY: &str = "nova-compute";
/// How many messages are looked at at once; each costs next to nothing.
const PREFETCH: u16 = 64;

/// What the daemon is made of.
#[derive(Debug)]
pub struct Parts {
    /// This host among the others.
    pub name: HostName,
    /// The rows.
    pub db: Db,
    /// The messages.
    pub bus: Arc<dyn Bus>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// What guests run on.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// What that is, as kept in `compute_nodes.hypervisor_type`.
    pub hypervisor_type: String,
    /// What real guests need besides; nothing of it where they are simulated.
    pub real: Option<Real>,
    /// How it behaves.
    pub settings: Settings,
    /// Set when messages are listened to.
    pub ready: Ready,
}

/// What guests need that are not simulated.
#[derive(Debug)]
pub struct Real {
    /// Who may reach them.
    pub firewall: Arc<dyn GuestFirewall>,
    /// The bridges they are on.
    pub links: Arc<dyn Links>,
    /// Where images are fetched from.
    pub images: ImageSource,
    /// Flag `--instances_path`.
    pub instances_path: PathBuf,
    /// Asks the host how much disk it has.
    pub runner: Arc<dyn Runner>,
    /// How guests' bridges are made, and what carries their networks between hosts.
    pub carrier: Carrier,
}

/// How the daemon behaves.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The zone of this host.
    pub zone: String,
    /// The installation that this daemon belongs to.
    pub holder: Holder,
    /// Whether this is one of many hosts of a process: others look for its rows, and its own looks are rare and spread.
    pub one_of_many: bool,
    /// How often rows are looked at that no message told of.
    pub tick: Duration,
    /// How often rows, guests and files are compared.
    pub converge: Duration,
    /// How often the daemon and its host's resources are reported.
    pub report: Duration,
    /// Whether a new host gets instances at once.
    pub enable_new: bool,
    /// Where other hosts reach this one, if guests are real.
    pub address: Option<Ipv4Addr>,
    /// How many guests are built or started at once.
    pub builds: usize,
    /// How many guests are restarted, stopped or ended at once; most of that is waiting.
    pub quiet: usize,
    /// How long a guest may take to shut down before its plug is pulled, when it is stopped.
    pub stop_grace: Duration,
    /// The same when it is restarted.
    pub reboot_grace: Duration,
    /// How long a guest must have been unknown before it is destroyed.
    pub stranger_grace: Duration,
    /// How long a given-back address is kept from others, in seconds.
    pub quarantine_seconds: i32,
    /// The least size of root disks, except of `m1.tiny`.
    pub minimum_root_bytes: u64,
    /// Whether guests get a disk with their configuration.
    pub seed_disk: bool,
    /// Whether that disk says the guest's address, because there is no DHCP.
    pub seed_network: bool,
    /// Whether guests have IPv6 where their network has.
    pub ipv6: bool,
    /// What of this host guests may have.
    pub capacity: resources::Capacity,
}

pub use resources::Capacity;
pub use source::ImageSource;

/// Why the daemon ended although it was not told to.
#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    /// Messages cannot be listened to, and waiting would not mend it.
    #[error("listening to messages")]
    Bus(#[from] BusError),
    /// Another works as this host's nova-compute.
    #[error(transparent)]
    Tenure(#[from] TenureError),
    /// The parts cannot be made.
    #[error(transparent)]
    Prepare(#[from] PrepareError),
    /// This machine cannot have real guests.
    #[error(transparent)]
    Machine(#[from] nova_link::MachineError),
}

/// Runs the instances of this host until `stop`, and then until what is begun has ended.
///
/// Database, broker and hypervisor may be absent at any time, also now.
///
/// # Errors
/// [`ComputeError`] when messages can never be listened to, or another has this host's name.
pub async fn run(parts: Parts, stop: Stop) -> Result<(), ComputeError> {
    run_all(vec![parts], stop).await
}

/// The same for all hosts of this process, which share database and bus; what is the same for all is read from the first.
///
/// # Errors
/// As [`run`].
pub async fn run_all(parts: Vec<Parts>, stop: Stop) -> Result<(), ComputeError> {
    let Some(first) = parts.first() else { return Ok(()) };
    let (bus, ready) = (Arc::clone(&first.bus), first.ready.clone());
    let membership = Membership {
        db: first.db.clone(),
        hosts: parts.iter().map(|parts| parts.name.clone()).collect(),
        binary: BINARY,
        zone: first.settings.zone.clone(),
        enable_new: first.settings.enable_new,
        address: first.settings.address,
        holder: first.settings.holder.clone(),
        interval: first.settings.report,
    };
    let Some(tenure) = nova_service::enter(membership, &ready, &stop).await? else { return Ok(()) };
    let hosts: Vec<Arc<Host>> = parts.into_iter().map(|parts| Arc::new(Host::new(parts))).collect();
    let work = async {
        let hosting = join_all(hosts.iter().map(|host| one(host, &bus, &stop)));
        let (hosted, (), (), ()) = tokio::join!(
            biased;
            hosting,
            // It has listened by now, or the broker must be waited for, which readiness does not do.
            async { ready.set() },
            resources::keep_reporting(&hosts, stop.clone()),
            work::keep_looking(&hosts, stop.clone()),
        );
        hosted.into_iter().collect::<Result<(), BusError>>()
    };
    Ok(tenure.hold(work).await??)
}

async fn one(host: &Arc<Host>, bus: &Arc<dyn Bus>, stop: &Stop) -> Result<(), BusError> {
    let subscription = Subscription { topic: Topic::Compute, host: host.name.as_str().to_owned(), prefetch: PREFETCH };
    let calls = Arc::new(calls::Calls(Arc::clone(host)));
    let served = nova_bus::serve(Arc::clone(bus), subscription, calls, stop.clone());
    let (served, (), (), (), (), (), ()) = tokio::join!(
        biased;
        async {
            let served = served.await;
            // Whatever ends the messages ends the rest.
            stop.cancel();
            served
        },
        groups::keep_current(host, stop.clone()),
        mesh::keep_joined(host, stop.clone()),
        work::keep_working(host, stop.clone()),
        converge::keep_equal(host, stop.clone()),
        prune::keep_pruned(host, stop.clone()),
        unused::keep_removed(host, stop.clone()),
    );
    served
}
