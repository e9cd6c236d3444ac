//! The processes of dnsmasq.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nova_run::{Command, Process, Runner, Signal};
use nova_types::network::DhcpHost;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::files::{
    HostsChange, Written, advertiser_path, bridges, change_hosts, file, hosts_path, make_folder, pid_path, remove_all,
    remove_file, write_hosts,
};
use super::leases::Leases;
use super::{DhcpChange, DhcpError, DhcpNetwork, DhcpServers, Server, advertise};

/// How long a server has to end, and the pause between looks.
const END: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);
/// Reading four thousand hosts anew takes dnsmasq 0.1 s, in which it answers nobody: not more often than this.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// The same where it would only hear that some are gone.
const TELL_GONE_EVERY: Duration = Duration::from_secs(10);

/// dnsmasq on this machine.
#[derive(Debug)]
pub struct Dnsmasq {
    runner: Arc<dyn Runner>,
    folder: PathBuf,
    known: Mutex<BTreeMap<String, Known>>,
}

/// Which of a network's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Dhcp,
    Advertiser,
}

impl Role {
    /// Where its pid is kept, which is what it is known by.
    fn pid_path(self, folder: &Path, bridge: &str) -> PathBuf {
        match self {
            Self::Dhcp => pid_path(folder, bridge),
            Self::Advertiser => advertiser_path(folder, bridge),
        }
    }
}

/// What is known of a server's hosts.
#[derive(Debug)]
struct Known {
    /// The files, as we wrote them.
    written: Written,
    /// What the file of leases is to say, once all hosts were told; a failure leaves that open again.
    leases: Option<Leases>,
    /// Whether it must be told to read them anew. When we start it is: we may have ended between writing and telling.
    due: bool,
    /// The addresses of those that are gone, of which it was not told.
    stale: BTreeSet<Ipv4Addr>,
    /// When it was last told.
    told: Option<Instant>,
}

impl Default for Known {
    fn default() -> Self {
        Self { written: Written::new(), leases: None, due: true, stale: BTreeSet::new(), told: None }
    }
}

impl Dnsmasq {
    /// Keeps the files of all servers in `folder`, which is made when it is needed.
    pub fn new(runner: Arc<dyn Runner>, folder: impl Into<PathBuf>) -> Self {
        Self { runner, folder: folder.into(), known: Mutex::default() }
    }

    /// Finds our server of a bridge: the process named by its pid file or, where that file is lost, any.
    ///
    /// A process is ours if one of its arguments is our pid file. A foreign one under an old pid is not.
    fn find(&self, bridge: &str, role: Role) -> Option<Process> {
        // As the arguments have it, which know no links.
        let folder = fs::canonicalize(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let path = role.pid_path(&folder, bridge);
        let argument = format!("--pid-file={}", path.display());
        let ours = |process: &Process| process.argv.contains(&argument);
        let named = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
        if let Some(process) = named.and_then(|pid| self.runner.look(pid)).filter(ours) {
            return Some(process);
        }
        let pids = fs::read_dir("/proc").ok()?.flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // dnsmasq's helper for scripts has the same arguments, and the higher pid as it was forked later.
        pids.filter_map(|pid| self.runner.look(pid)).filter(ours).min_by_key(|process| process.started_ticks)
    }

    async fn start(&self, network: &DhcpNetwork, arguments: Vec<String>, role: Role) -> Result<(), DhcpError> {
        if role == Role::Dhcp
            && let Some(leases) =
                self.known.lock().await.get_mut(&network.bridge).and_then(|known| known.leases.as_mut())
        {
            leases.write(&self.folder, &network.bridge)?;
        }
        let mut command = Command::new("dnsmasq").args(arguments);
        // nova-dhcpbridge inherits these through dnsmasq.
        command = command.env("DNSMASQ_INTERFACE", &network.bridge);
        command = command.env("NOVA_NETWORKS_PATH", self.folder.display().to_string());
        if let Some(flag_file) = &network.flag_file {
            command = command.env("FLAGFILE", flag_file.display().to_string());
        }
        let started = self.runner.run(command).await;
        started.map_err(|source| DhcpError::Run { bridge: network.bridge.clone(), source })?;
        let found = self.find(&network.bridge, role);
        let process = found.ok_or_else(|| DhcpError::Gone(network.bridge.clone()))?;
        if role == Role::Dhcp {
            let mut all = self.known.lock().await;
            let known = all.entry(network.bridge.clone()).or_default();
            known.due = false;
            known.stale.clear();
        }
        info!(bridge = %network.bridge, pid = process.pid, "dnsmasq serves {} on {}.", network.cidr, network.bridge);
        Ok(())
    }

    /// Makes one process of a network run with these arguments.
    async fn ensure_process(
        &self,
        network: &DhcpNetwork,
        arguments: Vec<String>,
        role: Role,
    ) -> Result<Server, DhcpError> {
        let outcome = match self.find(&network.bridge, role) {
            Some(process) if process.argv.get(1..) == Some(arguments.as_slice()) => return Ok(Server::Running),
            Some(process) => {
                info!(bridge = %network.bridge, pid = process.pid, "dnsmasq of {} gets new settings.", network.bridge);
                self.end(&network.bridge, &process).await?;
                Server::Restarted
            }
            None => Server::Started,
        };
        make_folder(&self.folder)?;
        make_folder(&hosts_path(&self.folder, &network.bridge))?;
        self.start(network, arguments, role).await?;
        Ok(outcome)
    }

    /// Has the prefix of a network advertised, if it has one.
    async fn advertise(&self, network: &DhcpNetwork) -> Result<Server, DhcpError> {
        let bridge = &network.bridge;
        if let Some(prefix) = network.prefix6 {
            let folder = fs::canonicalize(&self.folder).map_err(file("finding", &self.folder))?;
            return self.ensure_process(network, advertise::arguments(&folder, bridge, prefix), Role::Advertiser).await;
        }
        let path = advertiser_path(&self.folder, bridge);
        if !path.exists() {
            return Ok(Server::Running);
        }
        self.end_if_there(bridge, Role::Advertiser).await?;
        remove_file(&path)?;
        Ok(Server::Restarted)
    }

    async fn end_if_there(&self, bridge: &str, role: Role) -> Result<(), DhcpError> {
        if let Some(process) = self.find(bridge, role) {
            self.end(bridge, &process).await?;
            info!(bridge, pid = process.pid, "Stopped dnsmasq of {bridge}.");
        }
        Ok(())
    }

    /// Ends a server, by force if it must be.
    async fn end(&self, bridge: &str, process: &Process) -> Result<(), DhcpError> {
        for signal in [Signal::Terminate, Signal::Kill] {
            self.signal(bridge, process, signal)?;
            let begun = Instant::now();
            while begun.elapsed() < END {
                if !nova_run::alive(self.runner.as_ref(), process) {
                    return Ok(());
                }
                tokio::time::sleep(LOOK).await;
            }
            warn!(bridge, pid = process.pid, "dnsmasq of {bridge} did not end in time.");
        }
        Err(DhcpError::StillRuns { bridge: bridge.to_owned(), pid: process.pid })
    }

    fn signal(&self, bridge: &str, process: &Process, signal: Signal) -> Result<bool, DhcpError> {
        let sent = self.runner.signal(process, signal);
        sent.map_err(|source| DhcpError::Run { bridge: bridge.to_owned(), source })
    }

    /// Tells a server what it does not notice by itself, and returns how many files changed.
    fn pass_on(
        &self,
        bridge: &str,
        known: &mut Known,
        change: Result<HostsChange, DhcpError>,
    ) -> Result<usize, DhcpError> {
        match change {
            Ok(change) => {
                known.due |= change.tell;
                self.tell(bridge, known)?;
                Ok(change.files)
            }
            Err(error) => {
                // Half of it may be done, of which the next try knows nothing.
                (known.written, known.leases, known.due) = (Written::new(), None, true);
                Err(error)
            }
        }
    }

    /// Tells a server to read its hosts anew, if it must be and was not a moment ago.
    fn tell(&self, bridge: &str, known: &mut Known) -> Result<(), DhcpError> {
        let every = if known.due { TELL_EVERY } else { TELL_GONE_EVERY };
        let nothing = !known.due && known.stale.is_empty();
        if nothing || known.told.is_some_and(|told| told.elapsed() < every) {
            return Ok(());
        }
        if let Some(process) = self.find(bridge, Role::Dhcp) {
            self.signal(bridge, &process, Signal::Hangup)?;
        }
        known.stale.clear();
        (known.due, known.told) = (false, Some(Instant::now()));
        Ok(())
    }
}

#[async_trait]
impl DhcpServers for Dnsmasq {
    async fn ensure(&self, network: &DhcpNetwork) -> Result<Server, DhcpError> {
        let arguments = arguments(&self.folder, network)?;
        let server = self.ensure_process(network, arguments, Role::Dhcp).await?;
        match (server, self.advertise(network).await?) {
            (Server::Running, Server::Running) => Ok(Server::Running),
            (Server::Started, _) => Ok(Server::Started),
            (Server::Restarted, _) | (Server::Running, Server::Started | Server::Restarted) => Ok(Server::Restarted),
        }
    }

    async fn set_hosts(&self, network: &DhcpNetwork, hosts: &[DhcpHost]) -> Result<usize, DhcpError> {
        check_words(network)?;
        make_folder(&self.folder)?;
        let mut all = self.known.lock().await;
        let known = all.entry(network.bridge.clone()).or_default();
        let change = write_hosts(&self.folder, network, hosts, &mut known.written).and_then(|change| {
            let mut leases = Leases::of(network, hosts);
            leases.write(&self.folder, &network.bridge)?;
            known.leases = Some(leases);
            Ok(change)
        });
        self.pass_on(&network.bridge, known, change)
    }

    async fn change_hosts(&self, network: &DhcpNetwork, change: &DhcpChange) -> Result<usize, DhcpError> {
        check_words(network)?;
        let mut all = self.known.lock().await;
        let not_set = || DhcpError::NotSet(network.bridge.clone());
        let known = all.get_mut(&network.bridge).ok_or_else(not_set)?;
        let leases = known.leases.as_mut().ok_or_else(not_set)?;
        leases.change(network, change);
        let written = change_hosts(&self.folder, network, change, &mut known.written, &mut known.stale);
        let done = written.and_then(|done| leases.write_now_and_then(&self.folder, &network.bridge).map(|()| done));
        self.pass_on(&network.bridge, known, done)
    }

    async fn stop(&self, bridge: &str) -> Result<(), DhcpError> {
        check_word(bridge)?;
        self.end_if_there(bridge, Role::Advertiser).await?;
        self.end_if_there(bridge, Role::Dhcp).await?;
        self.known.lock().await.remove(bridge);
        remove_all(&self.folder, bridge)
    }

    async fn list(&self) -> Result<Vec<String>, DhcpError> {
        bridges(&self.folder)
    }
}

/// The arguments of old Nova (nova-core §4.5), and what it lacked: the netmask, room for every lease, the domain and
/// the lease time from flags, and a folder of hosts instead of a file.
fn arguments(folder: &Path, network: &DhcpNetwork) -> Result<Vec<String>, DhcpError> {
    check_words(network)?;
    let folder = fs::canonicalize(folder).or_else(|_| {
        make_folder(folder).map(|()| folder.to_owned())?;
        fs::canonicalize(folder).map_err(file("finding", folder))
    })?;
    let bridge = &network.bridge;
    let (first, netmask) = (network.first, network.cidr.netmask());
    let addresses = 1_u64 << (32 - network.cidr.prefix_len());
    let mut arguments = vec![
        "--strict-order".to_owned(),
        "--bind-interfaces".to_owned(),
        "--conf-file=".to_owned(),
        format!("--domain={}", network.domain),
        format!("--pid-file={}", pid_path(&folder, bridge).display()),
        format!("--listen-address={}", network.gateway),
        "--except-interface=lo".to_owned(),
        format!("--dhcp-range={first},static,{netmask},{}s", network.lease.as_secs()),
        format!("--dhcp-lease-max={addresses}"),
        format!("--dhcp-hostsdir={}", hosts_path(&folder, bridge).display()),
        format!("--dhcp-script={}", network.script.display()),
        "--leasefile-ro".to_owned(),
        "--no-hosts".to_owned(),
    ];
    if network.for_guests {
        // Not on others: it would answer names on the host's own addresses there, and fail where somebody else does.
        arguments.push(format!("--interface={bridge}"));
    }
    if let Some(mtu) = network.mtu {
        arguments.push(format!("--dhcp-option=option:mtu,{mtu}"));
    }
    if !network.domain.contains('.') {
        // A domain of one word is nobody else's. Else what a name does not have, such as an IPv6 address, is asked of a
        // server that does not know, for which each look-up in a guest would wait.
        arguments.push(format!("--local=/{}/", network.domain));
    }
    if let Some(server) = network.name_server {
        arguments.extend(["--no-resolv".to_owned(), format!("--server={server}")]);
    }
    Ok(arguments)
}

fn check_words(network: &DhcpNetwork) -> Result<(), DhcpError> {
    check_word(&network.bridge)?;
    check_word(&network.domain)?;
    // dnsmasq hands this one to a shell when it starts.
    let script = network.script.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/_.-+".contains(c);
    if script.starts_with('/') && script.chars().all(plain) {
        Ok(())
    } else {
        Err(DhcpError::Word(script.into_owned()))
    }
}

fn check_word(word: &str) -> Result<(), DhcpError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    let good = (1..=253).contains(&word.len()) && word.chars().all(plain) && !word.starts_with(['.', '-']);
    if good { Ok(()) } else { Err(DhcpError::Word(word.to_owned())) }
}

#[cfg(test)]
mod tests;
