//! DHCP servers in memory, and what every implementation must do.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use nova_types::network::DhcpHost;

use super::{DhcpChange, DhcpError, DhcpNetwork, DhcpServers, Server};

/// Servers that only remember.
#[derive(Debug, Default)]
pub struct FakeDhcpServers {
    networks: Mutex<BTreeMap<String, FakeServer>>,
}

/// One server in memory: its settings once it runs, and its hosts.
#[derive(Clone, Debug, Default)]
pub struct FakeServer {
    /// What it was started with; `None` while it does not run.
    pub settings: Option<DhcpNetwork>,
    /// Whom it would answer.
    pub hosts: Vec<DhcpHost>,
    /// How often it was told all hosts, and each change, unless empty, that it was told instead.
    pub told: (usize, Vec<DhcpChange>),
}

impl FakeDhcpServers {
    /// Returns the server of a bridge.
    pub fn server(&self, bridge: &str) -> Option<FakeServer> {
        self.networks().get(bridge).cloned()
    }

    /// Lets the server of a bridge die by itself.
    pub fn dies(&self, bridge: &str) {
        if let Some(server) = self.networks().get_mut(bridge) {
            server.settings = None;
        }
    }

    fn networks(&self) -> MutexGuard<'_, BTreeMap<String, FakeServer>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl DhcpServers for FakeDhcpServers {
    async fn ensure(&self, network: &DhcpNetwork) -> Result<Server, DhcpError> {
        let mut networks = self.networks();
        let server = networks.entry(network.bridge.clone()).or_default();
        match server.settings.replace(network.clone()) {
            None => Ok(Server::Started),
            Some(old) if old == *network => Ok(Server::Running),
            Some(_) => Ok(Server::Restarted),
        }
    }

    async fn set_hosts(&self, network: &DhcpNetwork, hosts: &[DhcpHost]) -> Result<usize, DhcpError> {
        let mut networks = self.networks();
        let server = networks.entry(network.bridge.clone()).or_default();
        let entry = |host: &DhcpHost| (host.instance, host.mac, host.address, host.hostname.clone());
        let old: BTreeMap<_, _> = server.hosts.iter().map(|host| (host.instance, entry(host))).collect();
        let new: BTreeMap<_, _> = hosts.iter().map(|host| (host.instance, entry(host))).collect();
        let changed = new.iter().filter(|(id, host)| old.get(id) != Some(host)).count();
        let gone = old.keys().filter(|id| !new.contains_key(id)).count();
        server.hosts = hosts.to_vec();
        server.told.0 += 1;
        Ok(changed + gone)
    }

    async fn change_hosts(&self, network: &DhcpNetwork, change: &DhcpChange) -> Result<usize, DhcpError> {
        let mut networks = self.networks();
        let not_set = || DhcpError::NotSet(network.bridge.clone());
        let server = networks.get_mut(&network.bridge).filter(|server| server.told.0 > 0).ok_or_else(not_set)?;
        let before = server.hosts.len();
        server.hosts.retain(|host| !change.gone.contains(&host.instance));
        let mut changed = before - server.hosts.len();
        for host in &change.set {
            match server.hosts.iter_mut().find(|known| known.instance == host.instance) {
                Some(known) => {
                    let entry = |host: &DhcpHost| (host.mac, host.address, host.hostname.clone());
                    changed += usize::from(entry(known) != entry(host));
                    *known = host.clone();
                }
                None => {
                    changed += 1;
                    server.hosts.push(host.clone());
                }
            }
        }
        if *change != DhcpChange::default() {
            server.told.1.push(change.clone());
        }
        Ok(changed)
    }

    async fn stop(&self, bridge: &str) -> Result<(), DhcpError> {
        self.networks().remove(bridge);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<String>, DhcpError> {
        Ok(self.networks().keys().cloned().collect())
    }
}

/// Runs against the fake here, and against dnsmasq in a network namespace that has a bridge `network.bridge` with the
/// address `network.gateway`.
///
/// # Panics
/// When the implementation does not keep what the trait promises.
#[expect(clippy::unwrap_used, reason = "a contract is a test that several crates run")]
pub async fn dhcp_servers_contract(servers: &dyn DhcpServers, mut network: DhcpNetwork) {
    use nova_types::{InstanceId, Mac};
    let host = |number: u8| DhcpHost {
        instance: InstanceId::new(number.into()),
        mac: Mac::of_guest([0, 0, number]),
        address: std::net::Ipv4Addr::from(u32::from(network.first) + u32::from(number)),
        hostname: InstanceId::new(number.into()).to_string(),
        leased: false,
        updated_at: std::time::SystemTime::UNIX_EPOCH.into(),
    };
    let change = |set: &[u8], gone: &[u8]| DhcpChange {
        set: set.iter().map(|number| host(*number)).collect(),
        gone: gone.iter().map(|number| InstanceId::new((*number).into())).collect(),
    };
    let early = servers.change_hosts(&network, &change(&[1], &[])).await;
    assert!(matches!(early, Err(DhcpError::NotSet(_))), "a change before all hosts is refused");
    assert_eq!(servers.set_hosts(&network, &[host(1), host(2)]).await.unwrap(), 2);
    assert_eq!(servers.ensure(&network).await.unwrap(), Server::Started);
    assert_eq!(servers.ensure(&network).await.unwrap(), Server::Running, "a server that is right is not touched");
    assert_eq!(servers.set_hosts(&network, &[host(1), host(2)]).await.unwrap(), 0);
    assert_eq!(servers.set_hosts(&network, &[host(2), host(3)]).await.unwrap(), 2, "one new, one gone");
    assert_eq!(servers.change_hosts(&network, &change(&[2, 4], &[3, 9])).await.unwrap(), 2, "one new, one gone");
    assert_eq!(servers.change_hosts(&network, &change(&[2, 4], &[3])).await.unwrap(), 0);
    assert_eq!(servers.set_hosts(&network, &[host(2), host(4)]).await.unwrap(), 0, "changes add up to the whole");
    network.lease = std::time::Duration::from_secs(240);
    assert_eq!(servers.ensure(&network).await.unwrap(), Server::Restarted);
    assert_eq!(servers.ensure(&network).await.unwrap(), Server::Running);
    network.prefix6 = Some("fd00:9::/64".parse().unwrap());
    assert_eq!(servers.ensure(&network).await.unwrap(), Server::Restarted, "what is advertised is a setting too");
    assert_eq!(servers.ensure(&network).await.unwrap(), Server::Running);
    network.prefix6 = None;
    assert_eq!(servers.ensure(&network).await.unwrap(), Server::Restarted);
    assert_eq!(servers.ensure(&network).await.unwrap(), Server::Running);
    network.prefix6 = Some("fd00:9::/64".parse().unwrap());
    assert_eq!(servers.ensure(&network).await.unwrap(), Server::Restarted);
    assert_eq!(servers.list().await.unwrap(), [network.bridge.clone()]);
    servers.stop(&network.bridge).await.unwrap();
    servers.stop(&network.bridge).await.unwrap();
    assert!(servers.list().await.unwrap().is_empty());
    assert_eq!(servers.ensure(&network).await.unwrap(), Server::Started);
    servers.stop(&network.bridge).await.unwrap();
}
