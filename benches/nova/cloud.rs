//! A cloud in this process: the daemons as `nova-combined` wires them, on a SQLite file of their own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use nova_bus::{Bus, InProcess};
use nova_config::{CombinedConfig, Config as _, Surroundings};
use nova_db::{Db, Options};
use nova_identity::SecretBox;
use nova_network::Machine;
use nova_service::{Ready, Stop, SystemClock};
use nova_types::Clock;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::launches::Target;
use crate::tenant::{self, Tenant};

/// The daemons, and what they work on.
pub(crate) struct Cloud {
    pub(crate) db: Db,
    pub(crate) tenant: Tenant,
    pub(crate) address: SocketAddr,
    config: CombinedConfig,
    bus: Arc<dyn Bus>,
    clock: Arc<dyn Clock>,
    stop: Stop,
    daemons: JoinSet<anyhow::Result<()>>,
    folder: tempfile::TempDir,
}

/// Flags of a cloud for benches: nothing of the machine is touched, and there is room for some thousand instances.
pub(crate) const FLAGS: &[&str] = &[
    "--host=bench",
    "--hypervisor=simulated",
    "--simulated_boot_time=0",
    "--simulated_vcpus=100000",
    "--simulated_memory_mb=100000000",
    "--quota_instances=100000",
    "--quota_cores=100000",
    "--network_manager=nova.network.manager.FlatDHCPManager",
    "--ec2_listen=127.0.0.1",
    "--s3_listen_host=127.0.0.1",
    "--s3_listen_port=0",
];

/// How large the network is: there are 4,000 addresses.
const PREFIX: u8 = 20;

impl Cloud {
    /// Starts the API alone: rows stay as the bench puts them.
    pub(crate) async fn start_api() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let state = format!("--state_path={}", folder.path().display());
        let args = ["nova-combined", &state].into_iter().chain(FLAGS.iter().copied()).map(OsString::from);
        let config = CombinedConfig::load_in(args, &Surroundings::bare())?.config;
        let db = Db::open(config.database.sql_connection.expose(), &Options::default()).await?;
        db.migrate().await?;
        let secrets = SecretBox::in_memory()?;
        let tenant = tenant::create(&db, &secrets, PREFIX).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let mut cloud = Self {
            db,
            tenant,
            address: listener.local_addr()?,
            config,
            bus: Arc::new(InProcess::new()),
            clock: Arc::new(SystemClock),
            stop: Stop::new(),
            daemons: JoinSet::new(),
            folder,
        };
        let (db, bus, clock) = cloud.shared();
        let (config, ready) = (cloud.config.api_config(), Ready::default());
        let parts = nova_api::Parts { db, bus, clock, secrets, config, listener, ready: ready.clone() };
        let stop = cloud.stop.clone();
        cloud.daemons.spawn(async move { Ok(nova_api::run(parts, stop).await?) });
        ready.wait().await;
        Ok(cloud)
    }

    /// Starts all daemons, on a simulated hypervisor and a network in memory.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let mut cloud = Self::start_api().await?;
        let ready: [Ready; 3] = std::array::from_fn(|_| Ready::default());
        let [scheduler, network, compute] = ready.clone();

        let ((db, bus, _), config, stop) = (cloud.shared(), cloud.config.scheduler_config(), cloud.stop.clone());
        let parts = nova_scheduler::Parts { db, bus, config, ready: scheduler };
        cloud.daemons.spawn(async move { Ok(nova_scheduler::run(parts, stop).await?) });

        let ((db, bus, _), config, stop) = (cloud.shared(), cloud.config.network_config(), cloud.stop.clone());
        let machine = Machine::simulated(&config);
        let parts = nova_network::Parts { config, flag_file: None, db, bus, machine, ready: network };
        cloud.daemons.spawn(async move { Ok(nova_network::run(parts, stop).await?) });

        let ((db, bus, clock), stop) = (cloud.shared(), cloud.stop.clone());
        let mut parts = nova_compute::prepare(&cloud.config.compute_config(), db, bus, clock).await?;
        parts.ready = compute;
        cloud.daemons.spawn(async move { Ok(nova_compute::run(parts, stop).await?) });

        for daemon in ready {
            daemon.wait().await;
        }
        Ok(cloud)
    }

    /// The cloud as what launches are for.
    pub(crate) fn target(&self) -> Target<'_> {
        Target { db: &self.db, address: self.address, image: self.tenant.image }
    }

    /// Where SQLite counts the commits of the database: its shared memory, whose third word they are.
    pub(crate) fn commits(&self) -> anyhow::Result<u32> {
        let shared: PathBuf = self.folder.path().join("nova.sqlite-shm");
        let bytes = std::fs::read(shared)?;
        let word = bytes.get(8..12).and_then(|word| word.try_into().ok());
        Ok(word.map(u32::from_ne_bytes).unwrap_or_default())
    }

    /// Ends the daemons.
    ///
    /// # Errors
    /// What one of them ended with.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.daemons.join_next().await {
            ended??;
        }
        self.db.close().await;
        Ok(())
    }

    fn shared(&self) -> (Db, Arc<dyn Bus>, Arc<dyn Clock>) {
        (self.db.clone(), Arc::clone(&self.bus), Arc::clone(&self.clock))
    }
}
