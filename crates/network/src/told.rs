//! What DHCP servers were told: in each turn what changed since, and now and then everything, in case that a change was
//! missed or somebody else laid hands on the files.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nova_db::{Conn, Db, DbError, fixed_ips};
use nova_link::dnsmasq::{DhcpChange, DhcpServers};
use nova_types::network::DhcpHost;
use nova_types::{InstanceId, NetworkId};
use time::OffsetDateTime;

use crate::NetworkError;
use crate::plan::{Plan, Served};

/// How often all hosts of a network are compared; of several networks that are due, one in a turn.
const COMPARE: Duration = Duration::from_secs(60);
/// A change is stamped when it is made and seen when its transaction ends. One that took longer waits for a comparison.
const OVERLAP: Duration = Duration::from_secs(10);

/// What the servers of this host know.
#[derive(Debug, Default)]
pub(crate) struct Told {
    networks: BTreeMap<NetworkId, Known>,
    /// When rows were last read, by the database's clock.
    at: Option<OffsetDateTime>,
    /// Whose hosts are all compared in this turn.
    due: Option<NetworkId>,
}

#[derive(Debug)]
struct Known {
    hosts: BTreeMap<InstanceId, DhcpHost>,
    holders: BTreeMap<Ipv4Addr, InstanceId>,
    compared: Instant,
    /// Of whom the server is to be told.
    news: BTreeSet<InstanceId>,
}

impl Told {
    /// Begins a turn: reads what changed of all networks that are served, with one statement.
    ///
    /// # Errors
    /// [`NetworkError::Db`]: nothing is concluded.
    pub(crate) async fn read(&mut self, db: &Db, plan: &Plan) -> Result<(), NetworkError> {
        self.networks.retain(|id, _| plan.served.values().any(|served| served.id == *id));
        let due = self.networks.iter().filter(|(_, known)| known.compared.elapsed() >= COMPARE);
        self.due = due.min_by_key(|(_, known)| known.compared).map(|(id, _)| *id);
        let known: Vec<NetworkId> = self.networks.keys().copied().collect();
        let Some(at) = self.at.filter(|_| !known.is_empty()) else {
            self.at = None;
            return Ok(());
        };
        let changed = fixed_ips::changed_since(&mut db.read().await?, &known, at - OVERLAP).await?;
        self.at = changed.at.or(self.at);
        for (network, address, holder) in changed.addresses {
            if let Some(known) = self.networks.get_mut(&network) {
                known.note(address, holder);
            }
        }
        Ok(())
    }

    /// Tells the server of a network what changed, or all its hosts, if it is time for that or nothing was told yet.
    /// Returns how many of its entries changed. After an error the next turn tells it all.
    ///
    /// # Errors
    /// [`NetworkError::Db`] or [`NetworkError::Dhcp`].
    pub(crate) async fn tell(
        &mut self,
        db: &Db,
        servers: &dyn DhcpServers,
        served: &Served,
    ) -> Result<usize, NetworkError> {
        if let Some(host) = &served.only_of {
            // There are few of them, and that one moves to another host does not show in the row of its address.
            let hosts = fixed_ips::dhcp_hosts_on(&mut db.read().await?, served.id, host).await?;
            return Ok(servers.set_hosts(&served.dhcp, &hosts).await?);
        }
        let known = self.networks.remove(&served.id).filter(|_| self.due != Some(served.id));
        let (known, changed) = match known {
            Some(mut known) => {
                let changed = servers.change_hosts(&served.dhcp, &known.change()).await?;
                known.news.clear();
                (known, changed)
            }
            None => {
                // The clock first: what changes in between is read again.
                let (at, hosts) = read_all(&mut db.read().await?, served.id).await?;
                self.at.get_or_insert(at);
                let changed = servers.set_hosts(&served.dhcp, &hosts).await?;
                (Known::of(hosts), changed)
            }
        };
        self.networks.insert(served.id, known);
        Ok(changed)
    }

    /// Lets time pass until all networks are to be compared.
    #[cfg(test)]
    fn age(&mut self) {
        let long_ago = Instant::now().checked_sub(COMPARE);
        self.networks.values_mut().for_each(|known| known.compared = long_ago.unwrap_or(known.compared));
    }

    /// Lets the next turn tell a network's server all its hosts.
    pub(crate) fn forget(&mut self, network: NetworkId) {
        self.networks.remove(&network);
    }
}

async fn read_all(conn: &mut Conn, network: NetworkId) -> Result<(OffsetDateTime, Vec<DhcpHost>), DbError> {
    Ok((conn.now().await?, fixed_ips::dhcp_hosts(conn, network).await?))
}

impl Known {
    fn of(hosts: Vec<DhcpHost>) -> Self {
        Self {
            holders: hosts.iter().map(|host| (host.address, host.instance)).collect(),
            hosts: hosts.into_iter().map(|host| (host.instance, host)).collect(),
            compared: Instant::now(),
            news: BTreeSet::new(),
        }
    }

    /// Notes who holds an address now.
    fn note(&mut self, address: Ipv4Addr, holder: Option<DhcpHost>) {
        let now = holder.as_ref().map(|holder| holder.instance);
        if let Some(was) = self.holders.get(&address).copied().filter(|was| Some(*was) != now) {
            self.holders.remove(&address);
            // It may have another address meanwhile.
            if self.hosts.get(&was).is_some_and(|host| host.address == address) {
                self.hosts.remove(&was);
                self.news.insert(was);
            }
        }
        let Some(host) = holder else { return };
        self.holders.insert(address, host.instance);
        if self.hosts.get(&host.instance) != Some(&host) {
            self.news.insert(host.instance);
            self.hosts.insert(host.instance, host);
        }
    }

    /// What the server is to be told.
    fn change(&self) -> DhcpChange {
        let mut change = DhcpChange::default();
        for instance in &self.news {
            match self.hosts.get(instance) {
                Some(host) => change.set.push(host.clone()),
                None => change.gone.push(*instance),
            }
        }
        change
    }
}

#[cfg(test)]
mod tests;
