//! The networks of this host: each turn reads the rows, compares, and mends what differs.

mod entry;
mod routers;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use nova_db::services::Addresses;
use nova_db::{Db, DbError, fixed_ips, networks, transaction};
use nova_link::carrier::{Carrier, remove_unused};
use nova_link::dnsmasq::{DhcpNetwork, Server};
use nova_link::gateway::Gateway;
use nova_link::links::{Link, LinkKind};
use nova_service::chain;
use nova_types::NetworkId;
use nova_types::network::Network;
use tracing::{debug, info, warn};

use crate::floating::Floating;
use crate::host::entry::Entry;
use crate::plan::{Plan, Served, gateway, in_use, plan};
use crate::settings::Settings;
use crate::spool::{self, LeaseKind};
use crate::told::Told;
use crate::{Machine, NetworkError};

/// How often the firewall is compared with what it should be when nothing changed.
const COMPARE: Duration = Duration::from_secs(30);

/// This host as a server of networks.
#[derive(Debug)]
pub(crate) struct NetworkHost {
    settings: Settings,
    db: Db,
    machine: Machine,
    /// The DHCP servers that run as they should, as far as is known; none of a network that is being left.
    running: BTreeMap<String, DhcpNetwork>,
    served: BTreeMap<String, Served>,
    /// Whether that is all: a former process may have served others, and not come to the end of leaving them.
    complete: bool,
    began: Instant,
    claimed: Option<Instant>,
    entry: Entry,
    /// With which addresses of this host its bridges were last rid of all others.
    shed: Option<Vec<(String, Option<Ipv4Addr>)>>,
    firewall: Option<(Gateway, Instant)>,
    /// Whether what a former process translated is gone, and when that was last tried.
    exposed: bool,
    floating: Floating,
    /// The other hosts, and the MTU that is left on the way to them.
    addresses: Addresses,
    mtu: Option<u32>,
    told: Told,
    /// What was last said of a bridge, so that it is said once.
    complaints: BTreeMap<String, String>,
    /// Whether packets are forwarded already, and those of IPv6.
    forwards: bool,
    forwards6: bool,
    /// The address on the link that was last published of each network's router of IPv6.
    routers: BTreeMap<NetworkId, Ipv6Addr>,
}

impl NetworkHost {
    pub(crate) fn new(settings: Settings, db: Db, machine: Machine) -> Self {
        let forwards = !machine.forwards;
        Self {
            settings,
            db,
            machine,
            running: BTreeMap::new(),
            served: BTreeMap::new(),
            complete: false,
            began: Instant::now(),
            claimed: None,
            entry: Entry::default(),
            shed: None,
            firewall: None,
            exposed: false,
            floating: Floating::default(),
            addresses: Addresses::default(),
            mtu: None,
            told: Told::default(),
            complaints: BTreeMap::new(),
            forwards,
            forwards6: forwards,
            routers: BTreeMap::new(),
        }
    }

    /// One turn. One network that cannot be served does not keep the others waiting.
    ///
    /// # Errors
    /// [`NetworkError::Db`] when the rows cannot be read: then nothing is concluded and everything stays as it is.
    pub(crate) async fn turn(&mut self) -> Result<(), NetworkError> {
        match self.note_leases().await {
            Err(error @ NetworkError::Db(_)) => return Err(error),
            // A folder that cannot be read keeps no guest from its address.
            noted => self.complain("leases", noted.err().map(|error| chain(&error).to_string())),
        }
        let all = networks::list(&mut self.db.read().await?).await?;
        let mut rows = self.rows(&all).await?;
        match self.learn().await {
            Err(error @ NetworkError::Db(_)) => return Err(error),
            learned => {
                // Who cannot reach the other hosts has no use for their silence.
                if learned.is_ok() {
                    self.take_over(&all, &mut rows).await?;
                }
                self.complain("the way to other hosts", learned.err().map(|error| chain(&error).to_string()));
            }
        }
        rows.extend(self.own(&all).await?);
        let mut plan = plan(&rows, &self.settings);
        self.admit(&mut plan).await?;
        plan.served.values_mut().for_each(|served| served.dhcp.mtu = self.mtu);
        for id in &plan.crowded_out {
            let text = format!("Network {id} is not served: its bridge carries another network.");
            self.complain(&id.to_string(), Some(text));
        }
        let elsewhere = self.leave(&plan).await;
        let shed = self.shed(&all, &plan).await;
        self.complain("former addresses of this host", shed.err().map(|error| chain(&error).to_string()));
        let public = self.floating.read(&self.db, &self.settings, &plan).await?;
        let unbound = self.floating.unbind(&public, &self.db, &self.settings, &*self.machine.links).await;
        let firewall = self.protect(&plan, &public).await;
        // An address that is bound before it is translated would lead to this host itself.
        let bound = match &firewall {
            Ok(()) => unbound.and(self.floating.bind(&public, &*self.machine.links).await),
            Err(_) => unbound,
        };
        self.complain("firewall", firewall.err().map(|error| chain(&error).to_string()));
        self.complain("floating addresses", bound.err().map(|error| chain(&error).to_string()));
        self.told.read(&self.db, &plan).await?;
        for (bridge, served) in &plan.served {
            self.served.insert(bridge.clone(), served.clone());
            let outcome = self.serve(served).await;
            if matches!(outcome, Err(NetworkError::Db(_))) {
                return outcome;
            }
            self.complain(bridge, outcome.err().map(|error| chain(&error).to_string()));
        }
        self.look_for(&elsewhere).await;
        Ok(())
    }

    /// Starts DHCP servers that ended as they were: for while the database cannot be asked how they should be.
    pub(crate) async fn keep(&mut self) {
        for (bridge, server) in self.running.clone() {
            match self.machine.dhcp.ensure(&server).await {
                Ok(Server::Running) => {}
                Ok(_) => info!(bridge, "The DHCP server of {bridge} had ended; it runs as before."),
                Err(error) => self.complain(&bridge, Some(chain(&error).to_string())),
            }
        }
    }

    /// Writes down what dnsmasq told since the last turn. Quarantined addresses come free by themselves: whoever takes one
    /// looks at the clock of the database.
    async fn note_leases(&self) -> Result<(), NetworkError> {
        let taken = spool::take(&self.settings.folder)?;
        if !taken.is_empty() {
            let events: Vec<_> = taken.iter().map(|taken| taken.event).collect();
            transaction!(self.db, |tx| {
                for event in &events {
                    let known = match event.kind {
                        LeaseKind::Held => fixed_ips::leased(tx, event.address, event.mac).await?,
                        LeaseKind::Ended => fixed_ips::lease_ended(tx, event.address, event.mac).await?,
                    };
                    debug!(address = %event.address, mac = %event.mac, kind = ?event.kind, known, "A lease changed.");
                }
                Ok(())
            })?;
            spool::done(taken)?;
        }
        Ok(())
    }

    /// Makes VXLANs lead to the hosts that there are, under `VxlanManager`.
    async fn learn(&mut self) -> Result<(), NetworkError> {
        let Some(mesh) = self.settings.carrier.mesh() else { return Ok(()) };
        mesh.learn(&*self.machine.links, self.addresses.follow(&self.db).await?).await?;
        self.mtu = Some(mesh.mtu().await?);
        Ok(())
    }

    /// Reads the networks of this host. It claims those that nobody ever served at once, and now and then its own.
    async fn rows(&mut self, all: &[Network]) -> Result<Vec<Network>, NetworkError> {
        let host = &self.settings.host;
        let mut rows = all.to_vec();
        let nobodys = |row: &Network| row.host.is_none() && row.epoch == 0 && !row.multi_host;
        if self.claimed.is_none_or(|last| last.elapsed() >= self.settings.renew) || rows.iter().any(nobodys) {
            let (begun, lease_seconds) = (Instant::now(), self.settings.lease_seconds);
            rows = transaction!(self.db, |tx| { networks::claim(tx, host, lease_seconds).await })?;
            self.claimed = Some(begun);
        }
        rows.retain(|row| row.host.as_ref() == Some(host));
        match self.settings.vpn {
            Some(address) => self.publish_vpns(address, rows).await,
            None => Ok(rows),
        }
    }

    /// Says where the VPNs of this host's networks are reached. One whose place is another's keeps no other from its own.
    async fn publish_vpns(&mut self, address: Ipv4Addr, mut rows: Vec<Network>) -> Result<Vec<Network>, NetworkError> {
        let host = &self.settings.host;
        let elsewhere = |row: &Network| row.vpn_host.as_ref().is_some_and(|other| other != host);
        let unsaid = |row: &Network| row.vpn_public_address.is_none() || elsewhere(row);
        let nowhere = |row: &&Network| row.vpn_private_address.is_some() && unsaid(row) && in_use(row);
        let wanted: Vec<(NetworkId, Ipv4Net)> = rows.iter().filter(nowhere).map(|row| (row.id, row.cidr)).collect();
        let mut complaint = None;
        if !wanted.is_empty() {
            match transaction!(self.db, |tx| { networks::publish_vpns(tx, host, address, None).await }) {
                Err(DbError::Duplicate(_)) => {
                    for (id, cidr) in wanted {
                        match transaction!(self.db, |tx| { networks::publish_vpns(tx, host, address, Some(id)).await })
                        {
                            Err(DbError::Duplicate(_)) => {
                                complaint = Some(format!("another network has {address} and the VPN port of {cidr}"));
                            }
                            published => rows = published?,
                        }
                    }
                }
                published => rows = published?,
            }
        }
        self.complain("VPNs", complaint);
        Ok(rows)
    }

    async fn serve(&mut self, served: &Served) -> Result<(), NetworkError> {
        let bridge = &served.bridge.name;
        if !self.forwards {
            nova_link::forward_packets()?;
            self.forwards = true;
        }
        if served.bridge.address6.is_some() && !self.forwards6 {
            nova_link::forward_ipv6_packets()?;
            self.forwards6 = true;
        }
        self.settings.carrier.ensure(&*self.machine.links, &served.bridge, served.tag).await?;
        self.publish_router(served).await?;
        let changed = self.told.tell(&self.db, &*self.machine.dhcp, served).await?;
        if changed > 0 {
            debug!(bridge, changed, "DHCP hosts of {bridge} changed.");
        }
        match self.machine.dhcp.ensure(&served.dhcp).await? {
            Server::Running => {}
            outcome @ (Server::Started | Server::Restarted) => {
                debug!(bridge, ?outcome, "The DHCP server of {bridge} was not as it should be.");
                // Whoever ended it may have been at its files, too.
                self.told.forget(served.id);
            }
        }
        self.running.insert(bridge.clone(), served.dhcp.clone());
        // Last, for guests are served whether or not it can be said; until it was, each turn tries again.
        if self.entry.is_new(bridge) {
            self.machine.neighbours.announce(bridge, served.dhcp.gateway).await?;
            self.entry.announced(bridge);
        }
        Ok(())
    }

    /// Says in the row by which address guests hear their router of IPv6: firewalls let them hear no other. It is found on
    /// the bridge, which somebody else may have made, once for each network that this host begins to serve.
    async fn publish_router(&mut self, served: &Served) -> Result<(), NetworkError> {
        let current = served.router6.is_some() && served.router6 == self.routers.get(&served.id).copied();
        if served.bridge.address6.is_none() || current {
            return Ok(());
        }
        let links = self.machine.links.list().await?;
        let bridge = links.iter().find(|link| link.name == served.bridge.name);
        // None before the first port is on the bridge; the next turn looks again.
        let Some(router) = bridge.and_then(Link::link_local) else { return Ok(()) };
        if served.router6 != Some(router) {
            let (id, host) = (served.id, &self.settings.host);
            transaction!(self.db, |tx| { networks::publish_router(tx, id, host, router).await })?;
        }
        self.routers.insert(served.id, router);
        Ok(())
    }

    /// Makes the firewall fit the plan, if the plan changed or it is time to compare.
    async fn protect(&mut self, plan: &Plan, public: &BTreeMap<Ipv4Addr, Ipv4Addr>) -> Result<(), NetworkError> {
        let wanted = gateway(plan, &self.settings, public);
        // Before the first network, as under FlatManager, the host's packets are none of our business.
        if self.settings.carrier == Carrier::ByHand || (wanted.networks.is_empty() && self.firewall.is_none()) {
            return self.expose().await;
        }
        let fresh = |(last, at): &(Gateway, Instant)| *last == wanted && at.elapsed() < COMPARE;
        if self.firewall.as_ref().is_some_and(fresh) {
            return Ok(());
        }
        let commands = self.machine.firewall.ensure(&wanted).await?;
        if commands > 0 {
            info!(commands, networks = wanted.networks.len(), "The firewall of this network host changed.");
        }
        self.firewall = Some((wanted, Instant::now()));
        Ok(())
    }

    /// A former process may have had networks, or another manager, and what it left would go on translating.
    async fn expose(&mut self) -> Result<(), NetworkError> {
        if !self.exposed {
            if self.machine.firewall.clear().await? {
                info!("Removed the firewall of this network host: it translates nothing any more.");
            }
            self.exposed = true;
        }
        Ok(())
    }

    /// Stops serving what is no longer ours: the server first, for two on a network would answer guests differently. What
    /// cannot be left now is left later. Returns the gateways of those that others serve by now, with their bridges.
    async fn leave(&mut self, plan: &Plan) -> Vec<(String, Ipv4Addr)> {
        self.running.retain(|bridge, _| plan.served.contains_key(bridge));
        let (all, leaving) = match self.leaving(plan).await {
            Ok(found) => found,
            Err(error) => {
                self.complain("networks of former times", Some(chain(&error).to_string()));
                return Vec::new();
            }
        };
        self.complain("networks of former times", None);
        let (mut all_well, mut elsewhere) = (true, Vec::new());
        for bridge in leaving {
            let complaint = match self.stop_serving(&all, &bridge).await {
                Ok(gateways) => {
                    self.served.remove(&bridge);
                    elsewhere.extend(gateways.into_iter().map(|gateway| (bridge.clone(), gateway)));
                    None
                }
                Err(error) => {
                    all_well = false;
                    Some(chain(&error).to_string())
                }
            };
            self.complain(&bridge, complaint);
        }
        self.complete |= all_well;
        elsewhere
    }

    /// The bridges of the networks that this host served and does not any more, and all rows, if there may be such bridges.
    async fn leaving(&self, plan: &Plan) -> Result<(Vec<Network>, BTreeSet<String>), NetworkError> {
        let mut known: BTreeSet<String> = self.machine.dhcp.list().await?.into_iter().collect();
        known.extend(self.served.keys().cloned());
        known.retain(|bridge| !plan.served.contains_key(bridge));
        if self.complete && known.is_empty() {
            return Ok((Vec::new(), known));
        }
        let all = networks::list(&mut self.db.read().await?).await?;
        if !self.complete {
            let links = self.machine.links.list().await?;
            // One that no row names may be another cloud's: nova-manage check tells of it.
            // Where each host is a router, its address may be another's by now.
            let has = |link: &Link, network: &Network| {
                let own = |at: &Ipv4Net| network.multi_host && at.trunc() == network.cidr;
                link.addresses.iter().any(|at| at.addr() == network.gateway || own(at))
            };
            let served = |link: &Link| all.iter().any(|network| network.bridge == link.name && has(link, network));
            let bridges = links.into_iter().filter(|link| link.ours && link.kind == LinkKind::Bridge);
            known.extend(bridges.filter(served).map(|link| link.name));
            known.retain(|bridge| !plan.served.contains_key(bridge));
        }
        Ok((all, known))
    }

    /// Returns the gateways that other hosts have there by now.
    async fn stop_serving(&self, all: &[Network], bridge: &str) -> Result<Vec<Ipv4Addr>, NetworkError> {
        self.machine.dhcp.stop(bridge).await?;
        // Whoever serves it now has the same address.
        let mut gateways: BTreeSet<Ipv4Addr> =
            all.iter().filter(|network| network.bridge == bridge).map(|network| network.gateway).collect();
        gateways.extend(self.served.get(bridge).map(|served| served.dhcp.gateway));
        for gateway in &gateways {
            self.machine.links.remove_address(bridge, *gateway).await?;
        }
        // A bridge with guests on it stays, and so does one that guests of this host may need: another host serves it.
        if !all.iter().any(|network| network.bridge == bridge && in_use(network)) {
            remove_unused(&*self.machine.links, bridge).await?;
        }
        info!(bridge, "This host does not serve the network of {bridge} any more.");
        let shared = |network: &Network| in_use(network) && !network.multi_host;
        gateways.retain(|gateway| all.iter().any(|network| network.gateway == *gateway && shared(network)));
        Ok(gateways.into_iter().collect())
    }

    /// Says what is wrong with something once, and once that it is right again.
    fn complain(&mut self, about: &str, complaint: Option<String>) {
        match complaint {
            Some(text) if self.complaints.get(about) != Some(&text) => {
                warn!(about, error = %text, "Serving {about} failed; trying again.");
                self.complaints.insert(about.to_owned(), text);
            }
            Some(_) => {}
            None => {
                if self.complaints.remove(about).is_some() {
                    info!(about, "Serving {about} succeeds again.");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
