//! Each daemon, made from its flags and spawned.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use nova_bus::Bus;
use nova_config::{CombinedConfig, DatabaseFlags, HypervisorChoice, NetworkConfig};
use nova_db::{Db, Options};
use nova_identity::SecretBox;
use nova_link::dnsmasq::FakeDhcpServers;
use nova_link::gateway::FakeNetworkFirewall;
use nova_link::links::FakeLinks;
use nova_network::Machine;
use nova_run::{Command, RunError, Runner};
use nova_service::{Daemon, Ready};
use nova_types::Clock;
use nova_types::network::ManagerKind;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::error::{CombinedError, ComputeFailure, MachineError, NetworkFailure};
use crate::privilege;

/// What all daemons share.
#[derive(Clone, Debug)]
pub(crate) struct Surroundings {
    pub(crate) db: Db,
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) runner: Arc<dyn Runner>,
}

/// Whether guests are real; `None` until that is decided.
pub(crate) type Real = watch::Receiver<Option<bool>>;

/// Opens the database and brings its schema up to date.
pub(crate) async fn database(flags: &DatabaseFlags) -> Result<Db, CombinedError> {
    let url = &flags.sql_connection;
    let refused = |source| CombinedError::Database { url: url.clone(), source };
    let options =
        Options { max_connections: flags.sql_pool_size, idle_timeout: flags.sql_idle_timeout, ..Options::default() };
    let db = Db::open(url.expose(), &options).await.map_err(refused)?;
    if let Some(file) = url.sqlite_file() {
        // Who reads it sees every project's rows. That it is somebody else's file is no reason not to start.
        let _ = std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o640));
    }
    db.migrate().await.map_err(refused)?;
    Ok(db)
}

pub(crate) async fn spawn_api(
    daemon: &mut Daemon,
    config: &CombinedConfig,
    around: &Surroundings,
) -> Result<(), CombinedError> {
    let address = SocketAddr::new(config.api.ec2_listen, config.api.ec2_listen_port);
    let listener = TcpListener::bind(address).await.map_err(|source| CombinedError::Listen { address, source })?;
    let secrets = SecretBox::open_or_create(&config.identity.secret_key_file).map_err(CombinedError::Secrets)?;
    let Surroundings { db, bus, clock, .. } = around.clone();
    let parts =
        nova_api::Parts { db, bus, clock, secrets, config: config.api_config(), listener, ready: daemon.expect() };
    daemon.spawn("nova-api", nova_api::run(parts, daemon.stop()));
    Ok(())
}

pub(crate) async fn spawn_objectstore(
    daemon: &mut Daemon,
    config: &CombinedConfig,
    around: &Surroundings,
) -> Result<(), CombinedError> {
    let listener = nova_objectstore::listen(&config.objectstore).await?;
    let Surroundings { db, clock, .. } = around.clone();
    let config = config.objectstore_config();
    let parts = nova_objectstore::Parts { db, clock, config, listener, ready: daemon.expect() };
    daemon.spawn("nova-objectstore", nova_objectstore::run(parts, daemon.stop()));
    Ok(())
}

pub(crate) fn spawn_scheduler(daemon: &mut Daemon, config: &CombinedConfig, around: &Surroundings) {
    let Surroundings { db, bus, .. } = around.clone();
    let parts = nova_scheduler::Parts { db, bus, config: config.scheduler_config(), ready: daemon.expect() };
    daemon.spawn("nova-scheduler", nova_scheduler::run(parts, daemon.stop()));
}

/// Spawns compute, which first chooses the hypervisor. Returns where it says whether guests are real.
pub(crate) fn spawn_compute(daemon: &mut Daemon, config: &CombinedConfig, around: &Surroundings) -> Real {
    let known = match config.compute.hypervisor {
        HypervisorChoice::Auto => None,
        HypervisorChoice::Libvirt => Some(true),
        HypervisorChoice::Simulated => Some(false),
    };
    let (say, real) = watch::channel(known);
    let (config, stop) = (config.compute_config(), daemon.stop());
    let Surroundings { db, bus, clock, .. } = around.clone();
    daemon.spawn("nova-compute", async move {
        let parts = tokio::select! {
            parts = nova_compute::prepare(&config, db, bus, clock) => parts?,
            () = stop.cancelled() => return Ok(()),
        };
        say.send_replace(Some(parts.real.is_some()));
        Ok::<(), ComputeFailure>(nova_compute::run(parts, stop).await?)
    });
    real
}

/// Spawns network, once it is known whether there will be real guests: where all are simulated, the machine's own
/// network is left alone.
pub(crate) fn spawn_network(
    daemon: &mut Daemon,
    config: &CombinedConfig,
    around: &Surroundings,
    flag_file: Option<PathBuf>,
    mut real: Real,
) {
    let (config, stop) = (config.network_config(), daemon.stop());
    let Surroundings { db, bus, runner, .. } = around.clone();
    daemon.spawn("nova-network", async move {
        let real = tokio::select! {
            real = real.wait_for(Option::is_some) => real.is_ok_and(|real| *real == Some(true)),
            () = stop.cancelled() => return Ok(()),
        };
        let machine = if real { real_machine(runner, &config).await? } else { simulated_machine() };
        let parts = nova_network::Parts { config, flag_file, db, bus, machine, ready: Ready::default() };
        Ok::<(), NetworkFailure>(nova_network::run(parts, stop).await?)
    });
}

fn simulated_machine() -> Machine {
    Machine {
        links: Arc::new(FakeLinks::default()),
        firewall: Arc::new(FakeNetworkFirewall::default()),
        dhcp: Arc::new(FakeDhcpServers::default()),
        forwards: false,
    }
}

async fn real_machine(runner: Arc<dyn Runner>, config: &NetworkConfig) -> Result<Machine, NetworkFailure> {
    check_machine(&*runner, config.network.network_manager).await?;
    Ok(Machine::real(runner, config))
}

/// Whether this process may, and this machine can, connect real guests.
pub(crate) async fn check_machine(runner: &dyn Runner, manager: ManagerKind) -> Result<(), MachineError> {
    if !privilege::may_change_network() {
        return Err(MachineError::Privilege);
    }
    check_programs(runner, manager).await
}

/// Says at the start what is not installed, instead of at the first instance.
pub(crate) async fn check_programs(runner: &dyn Runner, manager: ManagerKind) -> Result<(), MachineError> {
    let check = async |program: &'static str, package: &'static str| {
        match runner.run(Command::new(program).arg("--version")).await {
            Err(source @ RunError::NotInstalled { .. }) => Err(MachineError::Program { package, source }),
            // One that is there and odd is found out, and told, where it is used.
            Ok(_) | Err(_) => Ok(()),
        }
    };
    let dnsmasq = async {
        match manager {
            ManagerKind::Flat => Ok(()),
            ManagerKind::FlatDhcp | ManagerKind::Vlan => check("dnsmasq", "dnsmasq-base").await,
        }
    };
    tokio::try_join!(check("nft", "nftables"), dnsmasq).map(|_| ())
}
