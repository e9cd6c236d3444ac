//! Asks database and machine. What cannot be asked is kept as that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use anyhow::bail;
use futures::future::join_all;
use nova_config::ClientKeys;
use nova_db::{accounts, compute_nodes, fixed_ips, instances, networks, routers, security_groups, services};
use nova_link::carrier::{Carrier, Wiring};
use nova_link::dnsmasq::{hosts_path, pid_path};
use nova_link::links::{KernelLinks, Links, Segment};
use nova_link::neighbours::{KernelNeighbours, Neighbours};
use nova_link::tunnels::{KernelTunnels, Tunnels};
use nova_run::{Command, Host, Runner};
use nova_types::instance::Instance;
use nova_types::network::{ManagerKind, Network};
use nova_types::service::Service;
use nova_types::{InstanceId, Mac};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::facts::{Asked, Guest, Keys, Machine, Wire};
use crate::context::Context;

const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How many gateways are asked for at once, as nova-network does.
const AT_ONCE: usize = 64;
const SIMULATED: &str = "simulated";

/// The machine that is looked at.
#[derive(Debug)]
pub(crate) struct Eyes {
    pub(crate) links: Arc<dyn Links>,
    pub(crate) neighbours: Arc<dyn Neighbours>,
    pub(crate) tunnels: Arc<dyn Tunnels>,
    pub(crate) runner: Arc<dyn Runner>,
    /// Where `/proc` is.
    pub(crate) proc: PathBuf,
    pub(crate) keys: ClientKeys,
}

impl Eyes {
    pub(crate) fn here() -> Self {
        let (keys, tunnels) = (ClientKeys::of_shell(), Arc::new(KernelTunnels::new(Arc::new(Host))));
        let (links, neighbours) = (Arc::new(KernelLinks), Arc::new(KernelNeighbours));
        Self { links, tunnels, neighbours, runner: Arc::new(Host), proc: "/proc".into(), keys }
    }

    /// Looks at the machine and reads the rows about it.
    pub(crate) async fn machine(&self, cx: &Context<'_, '_>) -> anyhow::Result<Machine> {
        let (common, flags) = (&cx.config.common, &cx.config.network);
        let conn = &mut cx.db.read().await?;
        let daemons = services::list(conn).await?;
        let mut networks = networks::list(conn).await?;
        routers::seen_from(conn, &common.host, &mut networks).await?;
        let abandoned = self.abandoned(cx, &daemons).await?;
        let nodes = compute_nodes::list(conn, i64::MAX).await?;
        let pretends = nodes.iter().any(|node| node.host == common.host && node.hypervisor_type == SIMULATED);
        let tables = self.tables().await;
        let metadata_rule = self.mentions(&tables, "ip nova_network", "169.254.169.254").await;
        let served = networks.iter().filter(|network| network.host.as_ref() == Some(&common.host));
        let dnsmasq = |network: &Network| (network.bridge.clone(), self.dnsmasq(&flags.networks_path, &network.bridge));
        let endpoint = &cx.config.endpoint;
        let place = format!("{}:{}", endpoint.ec2_dmz_host, endpoint.ec2_port);
        Ok(Machine {
            host: common.host.clone(),
            manager: flags.network_manager,
            simulated: flags.fake_network || pretends,
            daemons,
            down_after: i64::try_from(common.service_down_time.as_secs()).unwrap_or(i64::MAX),
            flat_interface: flags.flat_interface.clone(),
            vlan_interface: flags.vlan_interface.clone(),
            my_ip: common.my_ip,
            hosts: services::addresses(conn).await?,
            peers: self.peers(common.my_ip, flags.network_manager, &networks).await,
            links: self.links().await,
            dnsmasq: served.map(dnsmasq).collect::<BTreeMap<_, _>>(),
            networks,
            abandoned,
            forwarding: self.setting("sys/net/ipv4/ip_forward"),
            bridge_filter: self.setting("sys/net/bridge/bridge-nf-call-iptables"),
            metadata_rule,
            foreign: self.nft(&["list", "chains"]).await.map(|text| foreign(&text)),
            tables,
            default_route: self.read("net/route").map(|text| has_default_route(&text)),
            metadata: (place, Ok(answers(&endpoint.ec2_dmz_host, endpoint.ec2_port).await.err())),
            keys: self.keys(cx).await?,
        })
    }

    /// Where this host has a nova-network, asks as that would who has the gateways of silent hosts.
    async fn abandoned(
        &self,
        cx: &Context<'_, '_>,
        daemons: &[Service],
    ) -> anyhow::Result<Vec<(Network, Asked<Option<Mac>>)>> {
        let (host, flags) = (&cx.config.common.host, &cx.config.network);
        let wiring = Wiring {
            manager: flags.network_manager,
            flat_interface: flags.flat_interface.as_deref(),
            vlan_interface: &flags.vlan_interface,
            my_ip: cx.config.common.my_ip,
        };
        let Ok(carrier) = Carrier::of(wiring, Arc::clone(&self.tunnels)) else { return Ok(Vec::new()) };
        let real = carrier != Carrier::ByHand && !flags.fake_network;
        if !real || !daemons.iter().any(|d| d.host == *host && d.binary == "nova-network") {
            return Ok(Vec::new());
        }
        let mut found = networks::abandoned(&mut cx.db.read().await?, host).await?;
        found.retain(|network| network.vlan.is_none() || network.project.is_some());
        Ok(self.gateways(&carrier, found).await)
    }

    /// Asks for each network who has its gateway; many at once, for each answer may take seconds.
    async fn gateways(&self, carrier: &Carrier, all: Vec<Network>) -> Vec<(Network, Asked<Option<Mac>>)> {
        let ask = |network: &Network| {
            let (bridge, uplink, gateway) = (network.bridge.clone(), carrier.uplink(network.vlan), network.gateway);
            async move {
                let answer = self.neighbours.who_has(&bridge, uplink.as_deref(), gateway).await;
                answer.map_err(|e| told("nobody can be asked", e))
            }
        };
        let mut answers = Vec::with_capacity(all.len());
        for some in all.chunks(AT_ONCE) {
            answers.extend(join_all(some.iter().map(ask)).await);
        }
        all.into_iter().zip(answers).collect()
    }

    /// Reads an instance, and what this machine knows of it.
    pub(crate) async fn guest(&self, cx: &Context<'_, '_>, machine: &Machine, id: InstanceId) -> anyhow::Result<Guest> {
        let conn = &mut cx.db.read().await?;
        let Some(view) = instances::describe(conn, None, &[id]).await?.pop() else {
            bail!("no instance {id}; nova-manage instance list shows all");
        };
        let mut groups = security_groups::list(conn, Some(&view.instance.project)).await?;
        groups.retain(|group| view.groups.iter().any(|(of, _)| *of == group.id));
        let network = view.fixed_ip.map(|(_, network)| network);
        let addresses = match network {
            Some(network) => fixed_ips::list(conn, Some(network)).await?,
            None => Vec::new(),
        };
        let leased = addresses.iter().any(|ip| ip.leased && ip.holder.as_ref().is_some_and(|h| h.instance == id));
        let nodes = compute_nodes::list(conn, i64::MAX).await?;
        let pretends = |node: &nova_types::service::ComputeNode| {
            view.instance.host.as_ref() == Some(&node.host) && node.hypervisor_type == SIMULATED
        };
        let bridge = machine.networks.iter().find(|known| Some(known.id) == network).map(|n| n.bridge.as_str());
        let told = bridge.map_or(Ok(false), |bridge| {
            let file = hosts_path(&cx.config.network.networks_path, bridge).join(id.to_string());
            file.try_exists().map_err(|e| format!("{} cannot be read: {e}", file.display()))
        });
        let tap = Instance::tap_name(id);
        let guarded = self.mentions(&machine.tables, "bridge nova_compute", &tap).await;
        Ok(Guest { simulated: nodes.iter().any(pretends), groups, leased, told, guarded, view })
    }

    async fn links(&self) -> Asked<Vec<Wire>> {
        let links = self.links.list().await.map_err(|e| told("interfaces cannot be listed", e))?;
        let wire = |link: nova_link::links::Link| Wire {
            name: link.name,
            bridge: link.bridge,
            up: link.up,
            addresses: link.addresses,
        };
        Ok(links.into_iter().map(wire).collect())
    }

    /// The hosts that each VXLAN leads to.
    async fn peers(
        &self,
        my_ip: IpAddr,
        manager: ManagerKind,
        networks: &[Network],
    ) -> BTreeMap<String, Asked<BTreeSet<Ipv4Addr>>> {
        let (IpAddr::V4(local), ManagerKind::Vxlan) = (my_ip, manager) else { return BTreeMap::new() };
        let mut peers = BTreeMap::new();
        for vni in networks.iter().filter(|network| network.project.is_some()).filter_map(|network| network.vlan) {
            let name = Segment::Vxlan { local, vni }.name();
            let found = self.tunnels.peers(&name).await.map_err(|e| told("the hosts of VXLANs cannot be listed", e));
            peers.insert(name, found);
        }
        peers
    }

    async fn nft(&self, arguments: &[&str]) -> Asked<String> {
        let command = Command::new("nft").args(arguments.iter().copied()).deadline(ANSWER_WITHIN);
        self.runner.run(command).await.map(|output| output.text()).map_err(|e| told("nft cannot be asked", e))
    }

    async fn tables(&self) -> Asked<BTreeSet<String>> {
        let text = self.nft(&["list", "tables"]).await?;
        Ok(text.lines().filter_map(|line| line.strip_prefix("table ")).map(|name| name.trim().to_owned()).collect())
    }

    /// Whether a table is there and has a word in it.
    async fn mentions(&self, tables: &Asked<BTreeSet<String>>, table: &str, word: &str) -> Asked<bool> {
        if !tables.as_ref().map_err(Clone::clone)?.contains(table) {
            return Ok(false);
        }
        let mut arguments = vec!["list", "table"];
        arguments.extend(table.split(' '));
        Ok(self.nft(&arguments).await?.contains(word))
    }

    fn read(&self, name: &str) -> Asked<String> {
        let path = self.proc.join(name);
        fs::read_to_string(&path).map_err(|e| format!("{} cannot be read: {e}", path.display()))
    }

    /// Whether a kernel setting is 1. One that is not there belongs to a module that is not loaded.
    fn setting(&self, name: &str) -> Asked<bool> {
        let path = self.proc.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim() == "1"),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(format!("{} cannot be read: {e}", path.display())),
        }
    }

    /// Counts the processes that have our pid file of a bridge among their arguments.
    fn dnsmasq(&self, folder: &Path, bridge: &str) -> Asked<usize> {
        let Ok(folder) = fs::canonicalize(folder) else { return Ok(0) };
        let wanted = format!("--pid-file={}", pid_path(&folder, bridge).display());
        // Where others' processes are hidden, none would be found.
        self.read("1/cmdline").map_err(|e| format!("processes cannot be counted: {e}"))?;
        let entries = fs::read_dir(&self.proc).map_err(|e| format!("processes cannot be counted: {e}"))?;
        let is_ours = |entry: fs::DirEntry| {
            let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|argument| argument == wanted.as_bytes())
        };
        Ok(entries.flatten().filter(|entry| is_pid(&entry.file_name())).map(is_ours).filter(|ours| *ours).count())
    }

    /// Compares the shell's key with the user's.
    async fn keys(&self, cx: &Context<'_, '_>) -> anyhow::Result<Keys> {
        let Some(given) = &self.keys.access else { return Ok(Keys::Unset) };
        let (access, project) = given.split_once(':').map_or((given.as_str(), None), |(a, p)| (a, Some(p)));
        let identity = accounts::identify(&mut cx.db.read().await?, access, project).await?;
        let Some(user) = identity.map(|identity| identity.user) else { return Ok(Keys::NoUser(access.to_owned())) };
        let id = user.id.to_string();
        // Opening it would make one where there is none.
        if !cx.config.identity.secret_key_file.exists() {
            return Ok(Keys::Fit(id));
        }
        let opened = cx.secrets().and_then(|secrets| Ok(secrets.open(&id, &user.sealed_secret)?));
        Ok(match opened {
            Err(e) => Keys::Unread(format!("the secret of {id} cannot be read: {e:#}")),
            Ok(secret) if self.keys.secret.as_deref() == Some(secret.expose()) => Keys::Fit(id),
            Ok(_) => Keys::WrongSecret(id),
        })
    }
}

/// What was not possible, and all that is known of why.
fn told(what: &str, why: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{what}: {:#}", anyhow::Error::from(why))
}

fn is_pid(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Whether `/proc/net/route` has a route to everywhere.
fn has_default_route(text: &str) -> bool {
    let everywhere = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        matches!(fields.as_slice(), [_, "00000000", _, _, _, _, _, "00000000", ..])
    };
    text.lines().skip(1).any(everywhere)
}

/// Chains of others, in the output of `nft list chains`, that drop what is forwarded.
fn foreign(text: &str) -> Vec<String> {
    let (mut table, mut chain, mut found) = ("", "", Vec::new());
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("table ") {
            table = name.trim_end_matches(" {");
        } else if let Some(name) = line.strip_prefix("chain ") {
            chain = name.trim_end_matches(" {");
        } else if line.contains("hook forward") && line.contains("policy drop") && !table.contains(" nova_") {
            found.push(format!("the chain {chain} of table {table}"));
        }
    }
    found
}

/// Asks the metadata service for its list of versions; an error says why it gave none.
async fn answers(host: &str, port: u16) -> Result<(), String> {
    let ask = async {
        let mut stream = TcpStream::connect((host, port)).await?;
        stream.write_all(format!("GET / HTTP/1.0\r\nHost: {host}\r\n\r\n").as_bytes()).await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        Ok::<_, io::Error>(answer)
    };
    match tokio::time::timeout(ANSWER_WITHIN, ask).await {
        Ok(Ok(answer)) if &answer == b"HTTP/" => Ok(()),
        Ok(Ok(_)) => Err("what answers there does not speak HTTP".to_owned()),
        Ok(Err(e)) => Err(e.to_string()),
        Err(_) => Err(format!("no answer within {} s", ANSWER_WITHIN.as_secs())),
    }
}

#[cfg(test)]
mod tests;
