//! Makes the daemon's parts from its flags: chooses the hypervisor, and what goes with it.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nova_bus::Bus;
use nova_config::{ComputeConfig, ComputeFlags, ConnectionType, HypervisorChoice, LibvirtType};
use nova_db::Db;
use nova_hypervisor::simulated::{self, Delays};
use nova_hypervisor::{Choice, ChooseError, CloudId, GuestKind, Kind, Options, Simulated, Want, choose};
use nova_images::{ImageStore, Remote};
use nova_link::MachineError;
use nova_link::carrier::{self, Carrier};
use nova_link::guests::{KernelGuestFirewall, Policy};
use nova_link::links::KernelLinks;
use nova_link::tunnels::{KernelTunnels, MeshError};
use nova_run::{Host, Runner};
use nova_service::{Holder, Ready};
use nova_types::network::ManagerKind;
use nova_types::{Clock, HostName};

use tracing::info;

use crate::{Capacity, ImageSource, Parts, Real, Settings, boot};

const DEFAULT_URI: &str = "qemu:///system";
const RANDOM: &str = "/proc/sys/kernel/random/uuid";
/// Simulated guests wait for nothing but a timer.
const SIMULATED_AT_ONCE: usize = 4096;
/// Most of restarting, stopping and ending is waiting.
const QUIET_AT_ONCE: usize = 16;
const CONVERGE_EVERY: Duration = Duration::from_secs(10);
/// Simulated guests seldom differ from their rows, and a thousand hosts must not ask all the time.
const MANY_CONVERGE_EVERY: Duration = Duration::from_secs(120);
/// Long enough for a system of today to go down in order; one that does not listen loses no more than that.
const STOP_GRACE: Duration = Duration::from_secs(60);
/// Whoever asks for a restart waits for it.
const REBOOT_GRACE: Duration = Duration::from_secs(20);
const STRANGER_GRACE: Duration = Duration::from_secs(60);

/// Why the daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// A folder or file that it must have.
    #[error("preparing {path}")]
    File {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// There is nothing to run guests on.
    #[error(transparent)]
    Choose(ChooseError),
    /// Guests of other hosts cannot be reached as the flags say.
    #[error(transparent)]
    Mesh(#[from] MeshError),
    /// A simulated host's name is too long.
    #[error("--host={host} leaves no room for the names of --simulated_hosts={count}")]
    Name {
        /// The common beginning of their names.
        host: HostName,
        /// How many they are to be.
        count: u16,
    },
}

/// Settles what `nova-compute` runs guests on when it is by itself: libvirt, which may come later, unless simulated guests
/// were asked for. Nothing is simulated because libvirt is down at the moment.
///
/// # Errors
/// [`MachineError`] when this machine can never have real guests.
pub async fn settle_alone(flags: &mut ComputeFlags, runner: &dyn Runner) -> Result<(), MachineError> {
    flags.hypervisor = match flags.hypervisor {
        _ if is_simulated(flags) => HypervisorChoice::Simulated,
        HypervisorChoice::Simulated => HypervisorChoice::Simulated,
        HypervisorChoice::Netns => HypervisorChoice::Netns,
        HypervisorChoice::Auto | HypervisorChoice::Libvirt => HypervisorChoice::Libvirt,
    };
    match flags.hypervisor {
        HypervisorChoice::Libvirt | HypervisorChoice::Netns => nova_link::check_machine(runner, None).await,
        HypervisorChoice::Auto | HypervisorChoice::Simulated => Ok(()),
    }
}

/// The same in one process with the other daemons: `auto` stays, to be decided by what is there. Where bridges cannot be
/// made there can be no real guests, so that libvirt need not be asked.
pub fn settle_together(flags: &mut ComputeFlags, may_change_network: bool) {
    if is_simulated(flags) {
        flags.hypervisor = HypervisorChoice::Simulated;
    }
    if flags.hypervisor == HypervisorChoice::Auto && !may_change_network {
        info!("Guests will be simulated: real ones need root, for bridges and firewalls.");
        flags.hypervisor = HypervisorChoice::Simulated;
    }
}

fn is_simulated(flags: &ComputeFlags) -> bool {
    flags.connection_type == ConnectionType::Fake || flags.simulated_hosts > 0
}

/// Makes the parts of all hosts that this process is to be.
pub(crate) async fn prepare_all(
    config: &ComputeConfig,
    db: &Db,
    bus: &Arc<dyn Bus>,
    clock: &Arc<dyn Clock>,
) -> Result<Vec<Parts>, PrepareError> {
    let count = config.compute.simulated_hosts;
    if count == 0 {
        return Ok(vec![prepare(config, db.clone(), Arc::clone(bus), Arc::clone(clock)).await?]);
    }
    let common = settings(config, true);
    let many = Settings { one_of_many: true, converge: MANY_CONVERGE_EVERY, ..common };
    let host = &config.common.host;
    let one = |number: u16| {
        let name: HostName =
            format!("{host}-{number}").parse().map_err(|_| PrepareError::Name { host: host.clone(), count })?;
        let file = guests_file(&config.compute.instances_path.join(name.as_str()));
        let guests = simulated_guests(&config.compute, file.clone());
        let hypervisor = Simulated::open(guests).map_err(|source| PrepareError::File { path: file, source })?;
        Ok(Parts {
            name,
            db: db.clone(),
            bus: Arc::clone(bus),
            clock: Arc::clone(clock),
            hypervisor: Arc::new(hypervisor),
            hypervisor_type: Kind::Simulated.to_string(),
            real: None,
            settings: many.clone(),
            ready: Ready::default(),
        })
    };
    info!(hosts = count, "Simulating the hosts {host}-1 to {host}-{count}.");
    (1..=count).map(one).collect()
}

/// Chooses the hypervisor and makes the parts. Takes seconds where KVM is there and does not work: do not keep other
/// daemons of the same process waiting for it. Must be called within a Tokio runtime.
///
/// # Errors
/// [`PrepareError`]; that libvirt, the database or the broker is absent is no error.
pub async fn prepare(
    config: &ComputeConfig,
    db: Db,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
) -> Result<Parts, PrepareError> {
    let flags = &config.compute;
    let folder = &flags.instances_path;
    fs::create_dir_all(folder).map_err(|source| PrepareError::File { path: folder.clone(), source })?;
    let runner: Arc<dyn Runner> = Arc::new(Host);
    let options = options(flags, cloud_id(folder)?);
    let Choice { hypervisor, kind, .. } = choose(options, Arc::clone(&runner)).await.map_err(|error| match error {
        ChooseError::Simulated(source) => PrepareError::File { path: guests_file(folder), source },
        error @ (ChooseError::Helper(_) | ChooseError::Netns(_)) => PrepareError::Choose(error),
    })?;
    let simulated = kind == Kind::Simulated;
    let real = if simulated { None } else { Some(real(config, runner)?) };
    Ok(Parts {
        name: config.common.host.clone(),
        db,
        bus,
        clock,
        hypervisor,
        hypervisor_type: kind.to_string(),
        real,
        settings: settings(config, simulated),
        ready: Ready::default(),
    })
}

/// What guests need that are not simulated.
fn real(config: &ComputeConfig, runner: Arc<dyn Runner>) -> Result<Real, MeshError> {
    let (flags, network) = (&config.compute, &config.network);
    let wiring = carrier::Wiring {
        manager: network.network_manager,
        flat_interface: network.flat_interface.as_deref(),
        vlan_interface: &network.vlan_interface,
        my_ip: config.common.my_ip,
    };
    let policy = Policy { project_traffic: flags.allow_project_net_traffic, ipv6: config.common.use_ipv6 };
    Ok(Real {
        firewall: Arc::new(KernelGuestFirewall::new(Arc::clone(&runner), policy)),
        links: Arc::new(KernelLinks),
        images: ImageSource {
            local: ImageStore::new(&config.images.images_path),
            remote: Some(Remote::new(config.endpoint.s3_host.clone(), config.endpoint.s3_port)),
            patience: flags.image_fetch_timeout,
        },
        instances_path: flags.instances_path.clone(),
        carrier: Carrier::of(wiring, Arc::new(KernelTunnels::new(Arc::clone(&runner))))?,
        runner,
    })
}

fn options(flags: &ComputeFlags, cloud: CloudId) -> Options {
    let want = match (flags.connection_type, flags.hypervisor) {
        (ConnectionType::Fake, _) | (_, HypervisorChoice::Simulated) => Want::Simulated,
        (ConnectionType::Libvirt, HypervisorChoice::Libvirt) => Want::Libvirt,
        (ConnectionType::Libvirt, HypervisorChoice::Netns) => Want::Netns,
        (ConnectionType::Libvirt, HypervisorChoice::Auto) => Want::Auto,
    };
    let guests = match flags.libvirt_type {
        LibvirtType::Kvm => GuestKind::Kvm,
        LibvirtType::Qemu => GuestKind::Qemu,
    };
    Options {
        want,
        guests,
        uri: flags.libvirt_uri.clone().unwrap_or_else(|| DEFAULT_URI.to_owned()),
        helper: flags.libvirt_helper.clone(),
        instances_path: flags.instances_path.clone(),
        cloud,
        simulated: simulated_guests(flags, guests_file(&flags.instances_path)),
    }
}

fn simulated_guests(flags: &ComputeFlags, file: PathBuf) -> simulated::Options {
    let boot = flags.simulated_boot_time;
    simulated::Options { delays: Delays { boot, stop: boot, destroy: boot }, state_file: Some(file), seed: 0 }
}

fn guests_file(instances_path: &Path) -> PathBuf {
    instances_path.join("simulated-guests")
}

fn settings(config: &ComputeConfig, simulated: bool) -> Settings {
    let (flags, network) = (&config.compute, &config.network);
    let flat = network.network_manager == ManagerKind::Flat;
    // Without DHCP nobody holds a lease of an address whose guest is gone.
    let quarantine = if flat { Duration::ZERO } else { network.dhcp_lease_time };
    Settings {
        zone: config.common.node_availability_zone.clone(),
        holder: Holder::of(&config.common.state_path),
        one_of_many: false,
        tick: config.common.tick_interval,
        converge: CONVERGE_EVERY,
        report: config.common.report_interval,
        enable_new: config.common.enable_new_services,
        address: match config.common.my_ip {
            IpAddr::V4(address) if !simulated => Some(address),
            _ => None,
        },
        builds: if simulated {
            SIMULATED_AT_ONCE
        } else {
            usize::try_from(flags.concurrent_builds).unwrap_or(QUIET_AT_ONCE)
        },
        quiet: if simulated { SIMULATED_AT_ONCE } else { QUIET_AT_ONCE },
        stop_grace: STOP_GRACE,
        reboot_grace: REBOOT_GRACE,
        stranger_grace: STRANGER_GRACE,
        quarantine_seconds: i32::try_from(quarantine.as_secs()).unwrap_or(i32::MAX),
        minimum_root_bytes: flags.minimum_root_size,
        seed_disk: flags.config_drive,
        seed_network: flat,
        ipv6: config.common.use_ipv6,
        capacity: if simulated {
            Capacity::Fixed {
                memory_mb: flags.simulated_memory_mb,
                vcpus: flags.simulated_vcpus,
                local_gb: flags.simulated_local_gb,
            }
        } else {
            Capacity::Measured {
                reserved_memory_mb: flags.reserved_host_memory_mb,
                reserved_disk_gb: flags.reserved_host_disk_gb,
                ram_ratio: flags.ram_allocation_ratio,
                cpu_ratio: flags.cpu_allocation_ratio,
                disk_ratio: flags.disk_allocation_ratio,
            }
        },
    }
}

/// The mark of our guests: drawn once, and kept with their files.
fn cloud_id(instances_path: &Path) -> Result<CloudId, PrepareError> {
    let path = instances_path.join(".cloud-id");
    let refused = |source| PrepareError::File { path: path.clone(), source };
    match fs::read_to_string(&path) {
        Ok(text) if !text.trim().is_empty() => return Ok(CloudId::new(text.trim())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(error)),
        _ => {}
    }
    let text = fs::read_to_string(RANDOM).map_err(refused)?;
    // Drawn a second time, it would make strangers of all guests.
    boot::replace(&path, &text).map_err(refused)?;
    Ok(CloudId::new(text.trim()))
}

#[cfg(test)]
mod tests {
    use nova_config::{Config, Surroundings};

    use super::*;

    fn config(flags: &[&str], folder: &Path) -> ComputeConfig {
        let instances = format!("--instances_path={}", folder.join("instances").display());
        let args = ["nova-compute", &instances].into_iter().chain(flags.iter().copied()).map(Into::into);
        ComputeConfig::load_in(args, &Surroundings::bare()).unwrap().config
    }

    #[test]
    fn the_mark_is_drawn_once() {
        let folder = tempfile::tempdir().unwrap();
        let first = cloud_id(folder.path()).unwrap();
        assert_eq!(cloud_id(folder.path()).unwrap(), first);
        assert_ne!(cloud_id(tempfile::tempdir().unwrap().path()).unwrap(), first);
    }

    #[test]
    fn the_flags_say_what_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        for (flags, want, guests) in [
            (&[][..], Want::Auto, GuestKind::Kvm),
            (&["--connection_type=fake"], Want::Simulated, GuestKind::Kvm),
            (&["--hypervisor=simulated"], Want::Simulated, GuestKind::Kvm),
            (&["--hypervisor=netns"], Want::Netns, GuestKind::Kvm),
            (&["--hypervisor=libvirt", "--libvirt_type=qemu"], Want::Libvirt, GuestKind::Qemu),
        ] {
            let options = options(&config(flags, folder.path()).compute, CloudId::new("a"));
            assert_eq!((options.want, options.guests), (want, guests), "{flags:?}");
        }
    }

    #[test]
    fn with_the_other_daemons_and_without_root_auto_means_simulated() {
        let folder = tempfile::tempdir().unwrap();
        for (flags, root, choice) in [
            (&[][..], true, HypervisorChoice::Auto),
            (&[], false, HypervisorChoice::Simulated),
            (&["--hypervisor=libvirt"], false, HypervisorChoice::Libvirt),
            (&["--hypervisor=netns"], false, HypervisorChoice::Netns),
            (&["--connection_type=fake"], true, HypervisorChoice::Simulated),
        ] {
            let mut config = config(flags, folder.path());
            settle_together(&mut config.compute, root);
            assert_eq!(config.compute.hypervisor, choice, "{flags:?} {root}");
        }
    }

    #[tokio::test]
    async fn alone_guests_are_simulated_only_where_that_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        for (flags, choice) in [
            (&[][..], HypervisorChoice::Libvirt),
            (&["--hypervisor=netns"], HypervisorChoice::Netns),
            (&["--hypervisor=simulated"], HypervisorChoice::Simulated),
            (&["--connection_type=fake"], HypervisorChoice::Simulated),
            (&["--simulated-hosts", "3"], HypervisorChoice::Simulated),
        ] {
            let mut config = config(flags, folder.path());
            // Whether this machine could is another question, which depends on who runs the test.
            let _ = settle_alone(&mut config.compute, &nova_run::fake::Script::new()).await;
            assert_eq!(config.compute.hypervisor, choice, "{flags:?}");
        }
    }

    #[tokio::test]
    async fn many_simulated_hosts_have_names_and_guests_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let db = nova_db::dev::sqlite().await;
        let bus: Arc<dyn Bus> = Arc::new(nova_bus::InProcess::new());
        let clock: Arc<dyn Clock> = Arc::new(nova_types::clock::FixedClock::at(0));
        let wanted = config(&["--simulated_hosts=3", "--host=h"], folder.path());
        let parts = prepare_all(&wanted, &db, &bus, &clock).await.unwrap();
        let names: Vec<&str> = parts.iter().map(|parts| parts.name.as_str()).collect();
        assert_eq!(names, ["h-1", "h-2", "h-3"]);
        assert!(parts.iter().all(|parts| parts.settings.one_of_many && parts.real.is_none()));
        assert!(folder.path().join("instances/h-3/simulated-guests").is_file());
    }

    #[tokio::test]
    async fn a_simulated_host_needs_nothing_of_the_real_one() {
        let folder = tempfile::tempdir().unwrap();
        let db = nova_db::dev::sqlite().await;
        let config = config(&["--hypervisor=simulated", "--simulated_vcpus=7", "--host=h1"], folder.path());
        let clock = Arc::new(nova_types::clock::FixedClock::at(0));
        let parts = prepare(&config, (*db).clone(), Arc::new(nova_bus::InProcess::new()), clock).await.unwrap();
        assert!(parts.real.is_none());
        assert_eq!((parts.name.as_str(), parts.hypervisor_type.as_str()), ("h1", "simulated"));
        let wanted = Capacity::Fixed { memory_mb: 524_288, vcpus: 7, local_gb: 16_384 };
        assert_eq!(parts.settings.capacity, wanted);
    }
}
