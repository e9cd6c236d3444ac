//! Five daemons as processes, on servers that keep what they are told.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nova_bus::dev::OwnRabbit;
use nova_db::dev::{self, Durable};
use nova_db::{Engine, compute_nodes};
use nova_identity::SecretBox;

use crate::launches::Target;
use crate::process::{Process, outside};
use crate::tenant::{self, Tenant};

/// In the order in which they begin.
pub(crate) const NAMES: [&str; 5] = ["nova-api", "nova-objectstore", "nova-scheduler", "nova-network", "nova-compute"];
/// 16,000 addresses.
const PREFIX: u8 = 18;
const PATIENCE: Duration = Duration::from_secs(60);
const GLANCE: Duration = Duration::from_millis(50);
/// A host that reported within that lives.
const ALIVE_SECONDS: i64 = 60;

/// Nothing of the machine is touched, and there is room for all instances, on one host, too.
const FLAGS: &[&str] = &[
    "--host=bench",
    "--my_ip=127.0.0.1",
    "--simulated_boot_time=0",
    "--simulated_vcpus=100000",
    "--simulated_memory_mb=100000000",
    "--quota_instances=100000",
    "--quota_cores=100000",
    "--network_manager=nova.network.manager.FlatDHCPManager",
    "--fake_network",
    "--ec2_listen=127.0.0.1",
    "--s3_listen_host=127.0.0.1",
];

/// The daemons, and what they work on.
pub(crate) struct Five {
    pub(crate) database: Durable,
    pub(crate) processes: Vec<(&'static str, Process)>,
    /// The broker's process.
    pub(crate) broker: Option<u32>,
    tenant: Tenant,
    address: SocketAddr,
    programs: Option<PathBuf>,
    folder: tempfile::TempDir,
}

impl Five {
    /// Starts the daemons on a database of their own and a place of the broker; `None` where there is no such server.
    pub(crate) async fn start(
        programs: Option<&Path>,
        broker: &OwnRabbit,
        (engine, place, hosts): (Engine, usize, u16),
    ) -> anyhow::Result<Option<Self>> {
        let Some(database) = dev::on_durable(engine).await else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        let secrets = SecretBox::open_or_create(&folder.path().join("secret.key"))?;
        let tenant = tenant::create(&database.db, &secrets, PREFIX).await?;
        // Ports that are free now; should another take one, the start fails and says so.
        let (api, store) = (free_address()?, free_address()?);
        let own = [
            format!("--state_path={}", folder.path().display()),
            format!("--sql_connection={}", database.url),
            format!("--simulated_hosts={hosts}"),
            format!("--ec2_port={}", api.port()),
            format!("--s3_port={}", store.port()),
        ];
        let all = FLAGS.iter().map(|flag| (*flag).to_owned()).chain(own).chain(broker.place_number(place).arguments());
        std::fs::write(folder.path().join("nova.conf"), all.map(|flag| flag + "\n").collect::<String>())?;
        let (broker, programs) = (broker.pid(), programs.map(Path::to_owned));
        let mut five = Self { database, processes: Vec::new(), broker, tenant, address: api, programs, folder };
        for name in NAMES {
            five.begin(name).await?;
        }
        five.until_hosts_report(hosts).await?;
        Ok(Some(five))
    }

    /// Starts a daemon, and returns how long it took until it was ready.
    pub(crate) async fn begin(&mut self, name: &'static str) -> anyhow::Result<Duration> {
        let mut command = match &self.programs {
            Some(folder) => outside(folder.join(name)),
            None => outside(std::env::current_exe()?),
        };
        if self.programs.is_none() {
            command.arg(name);
        }
        command.arg(format!("--flagfile={}", self.folder.path().join("nova.conf").display()));
        let (process, took) = Process::start(command, name, self.folder.path()).await?;
        self.processes.push((name, process));
        Ok(took)
    }

    /// Ends a daemon.
    pub(crate) async fn end(&mut self, name: &str) -> anyhow::Result<()> {
        let index = self.processes.iter().position(|(known, _)| *known == name).context("no such daemon")?;
        self.processes.remove(index).1.stop().await?;
        Ok(())
    }

    /// Ends all daemons; an error that one of them logged is shown, for it makes the figures worthless.
    pub(crate) async fn stop(mut self) -> anyhow::Result<()> {
        for name in NAMES.into_iter().rev() {
            self.end(name).await?;
            let log = std::fs::read_to_string(self.folder.path().join(format!("{name}.log")))?;
            for line in log.lines().filter(|line| line.contains(" ERROR ") || line.contains(" WARN ")).take(5) {
                println!("  {name}: {line}");
            }
        }
        self.database.db.close().await;
        Ok(())
    }

    /// The cloud as what launches are for.
    pub(crate) fn target(&self) -> Target<'_> {
        Target { db: &self.database.db, address: self.address, image: self.tenant.image }
    }

    async fn until_hosts_report(&self, hosts: u16) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let nodes = compute_nodes::list(&mut self.database.db.read().await?, ALIVE_SECONDS).await?;
            let alive = nodes.iter().filter(|node| node.eligible).count();
            if alive == usize::from(hosts) {
                return Ok(());
            }
            ensure!(began.elapsed() < PATIENCE, "{alive} of {hosts} hosts report after {PATIENCE:?}");
            tokio::time::sleep(GLANCE).await;
        }
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}
