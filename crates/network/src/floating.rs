//! Floating addresses: those bound to guests of this host's networks are on its public interface, and no others are.
//!
//! An address goes from the interface before it is no longer translated, and comes after it is, so that what is sent to
//! it never reaches this host's own services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use nova_db::{Db, floating_ips};
use nova_failpoint::{Point, hit};
use nova_link::links::Links;
use nova_types::NetworkId;
use tracing::info;

use crate::NetworkError;
use crate::plan::Plan;
use crate::settings::Settings;

/// How often the interface is compared with what should be on it when nothing changed.
const COMPARE: Duration = Duration::from_secs(30);

/// What of a machine's interfaces is ours to change.
#[derive(Debug, Default)]
pub(crate) struct Floating {
    /// What was last made so, and when.
    settled: Option<(BTreeSet<Ipv4Addr>, Instant)>,
    /// Where addresses are to be; found anew with each comparison.
    interface: Option<String>,
}

impl Floating {
    /// Reads which floating address stands for which guest's, in the networks of `plan`.
    ///
    /// # Errors
    /// [`NetworkError::Db`]: then nothing is concluded.
    pub(crate) async fn read(
        &self,
        db: &Db,
        settings: &Settings,
        plan: &Plan,
    ) -> Result<BTreeMap<Ipv4Addr, Ipv4Addr>, NetworkError> {
        if plan.served.is_empty() {
            return Ok(BTreeMap::new());
        }
        let served: BTreeSet<NetworkId> = plan.served.values().map(|served| served.id).collect();
        let rows = floating_ips::on_host(&mut db.read().await?, &settings.host).await?;
        Ok(rows.iter().filter(|row| served.contains(&row.network)).map(|row| (row.public, row.fixed)).collect())
    }

    /// Takes from all interfaces what is from a pool and not `wanted` there. What is from no pool is somebody else's.
    ///
    /// # Errors
    /// [`NetworkError`]; the next turn goes on from there.
    pub(crate) async fn unbind(
        &mut self,
        wanted: &BTreeMap<Ipv4Addr, Ipv4Addr>,
        db: &Db,
        settings: &Settings,
        links: &dyn Links,
    ) -> Result<(), NetworkError> {
        if self.is_settled(wanted) {
            return Ok(());
        }
        self.settled = None;
        self.interface = match &settings.public_interface {
            Some(interface) => Some(interface.clone()),
            None => links.default_interface().await?,
        };
        let mut strays = Vec::new();
        for link in links.list().await?.into_iter().filter(|link| link.name != "lo") {
            let here = self.interface.as_ref() == Some(&link.name);
            let alone = link.addresses.iter().filter(|net| net.prefix_len() == 32).map(|net| net.addr());
            // Whatever a pool says, this host keeps the address that it speaks from.
            let stray = alone.filter(|a| !(here && wanted.contains_key(a)) && *a != settings.routing_source);
            strays.extend(stray.map(|address| (link.name.clone(), address)));
        }
        if strays.is_empty() {
            return Ok(());
        }
        let addresses: Vec<Ipv4Addr> = strays.iter().map(|(_, address)| *address).collect();
        let ours = floating_ips::among(&mut db.read().await?, &addresses).await?;
        for (interface, address) in strays.into_iter().filter(|(_, address)| ours.contains(address)) {
            hit(Point::AddressUnbinding);
            links.remove_address(&interface, address).await?;
            hit(Point::AddressUnbound);
            info!(interface, %address, "Took the floating address {address} from {interface}.");
        }
        Ok(())
    }

    /// Puts on the public interface what is `wanted` there, and tells neighbours.
    ///
    /// # Errors
    /// [`NetworkError::NoPublicInterface`], [`NetworkError::Link`]; the next turn goes on from there.
    pub(crate) async fn bind(
        &mut self,
        wanted: &BTreeMap<Ipv4Addr, Ipv4Addr>,
        links: &dyn Links,
    ) -> Result<(), NetworkError> {
        if self.is_settled(wanted) {
            return Ok(());
        }
        if !wanted.is_empty() {
            let interface = self.interface.as_ref().ok_or(NetworkError::NoPublicInterface)?;
            hit(Point::AddressBinding);
            for address in wanted.keys() {
                links.bind(interface, *address).await?;
            }
            hit(Point::AddressBound);
        }
        self.settled = Some((wanted.keys().copied().collect(), Instant::now()));
        Ok(())
    }

    fn is_settled(&self, wanted: &BTreeMap<Ipv4Addr, Ipv4Addr>) -> bool {
        let fresh =
            |(last, at): &(BTreeSet<Ipv4Addr>, Instant)| last.iter().eq(wanted.keys()) && at.elapsed() < COMPARE;
        self.settled.as_ref().is_some_and(fresh)
    }
}
