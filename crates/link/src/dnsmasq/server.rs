//! The processes of dnsmasq.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use nova_run::{Command, Process, Runner, Signal};
use nova_types::network::DhcpHost;
use tokio::sync::Mutex;
use tracing::{info, warn};

use super::files::{
    Written, advertiser_path, bridges, file, hosts_path, make_folder, pid_path, remove_all, remove_file, write_hosts,
};
use super::{DhcpError, DhcpNetwork, DhcpServers, Server, advertise};

/// How long a server has to end, and the pause between looks.
const END: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);
/// Reading ten thousand hosts anew takes dnsmasq 0.13 s, in which it answers nobody: not more often than this.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// dnsmasq on this machine.
#[derive(Debug)]
pub struct Dnsmasq {
    runner: Arc<dyn Runner>,
    folder: PathBuf,
    known: Mutex<BTreeMap<String, Known>>,
}

/// Which of a network's processes: where its pid is kept.
type Role = fn(&Path, &str) -> PathBuf;

/// What is known of a server's hosts.
#[derive(Debug)]
struct Known {
    /// The files, as we wrote them.
    written: Written,
    /// Whether it must be told to read them anew. When we start it is: we may have ended between writing and telling.
    due: bool,
    /// When it was last told.
    told: Option<Instant>,
}

impl Default for Known {
    fn default() -> Self {
        Self { written: Written::new(), due: true, told: None }
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
        let path = role(&folder, bridge);
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
            return self.ensure_process(network, advertise::arguments(&folder, bridge, prefix), advertiser_path).await;
        }
        let path = advertiser_path(&self.folder, bridge);
        if !path.exists() {
            return Ok(Server::Running);
        }
        self.end_if_there(bridge, advertiser_path).await?;
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

    /// Tells a server to read its hosts anew, if it must be and was not a moment ago.
    fn tell(&self, bridge: &str, known: &mut Known) -> Result<(), DhcpError> {
        if !known.due || known.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return Ok(());
        }
        if let Some(process) = self.find(bridge, pid_path) {
            self.signal(bridge, &process, Signal::Hangup)?;
        }
        (known.due, known.told) = (false, Some(Instant::now()));
        Ok(())
    }
}

#[async_trait]
impl DhcpServers for Dnsmasq {
    async fn ensure(&self, network: &DhcpNetwork) -> Result<Server, DhcpError> {
        let arguments = arguments(&self.folder, network)?;
        let server = self.ensure_process(network, arguments, pid_path).await?;
        if server != Server::Running {
            self.known.lock().await.entry(network.bridge.clone()).or_default().due = false;
        }
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
        let change = match write_hosts(&self.folder, network, hosts, &mut known.written) {
            Ok(change) => change,
            Err(error) => {
                // Half of it may be done, of which the next try knows nothing.
                (known.written, known.due) = (Written::new(), true);
                return Err(error);
            }
        };
        known.due |= change.tell;
        self.tell(&network.bridge, known)?;
        Ok(change.files)
    }

    async fn stop(&self, bridge: &str) -> Result<(), DhcpError> {
        check_word(bridge)?;
        self.end_if_there(bridge, advertiser_path).await?;
        self.end_if_there(bridge, pid_path).await?;
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
