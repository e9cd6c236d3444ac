//! Makes a guest for an instance that was placed here.

use std::sync::Arc;

use async_trait::async_trait;
use nova_failpoint::Point;
use nova_link::carrier::Carrier;
use nova_link::links::{Bridge, LinkError};
use nova_types::instance::InstanceView;
use nova_types::state::Event;

use crate::desk::Ticket;
use crate::host::Host;
use crate::launch::Launch;
use crate::ledger::Outcome;
use crate::problem::Problem;
use crate::router;
use crate::steps::{self, Step};

/// The way from a row to a running guest. Rules hold before it boots, and until after it is gone.
pub(crate) const STEPS: &[&dyn Step<Launch>] = &[&LetNobodyIn, &BuildBridge, &FetchImages, &MakeDisks, &Boot];

/// Builds and boots. What cannot work ends as `error`, to be cleaned next.
pub(crate) async fn run_instance(host: &Arc<Host>, view: InstanceView, ticket: &Ticket) -> Result<(), Problem> {
    let mut launch = Launch::new(Arc::clone(host), view, ticket.clone());
    match steps::act(STEPS, &mut launch).await {
        Ok(()) => host.ledger.record(Outcome::moved(launch.instance(), Event::Booted, None)).await,
        Err(Problem::Never { reason, cause }) => {
            tracing::warn!(instance.id = %launch.instance().id, error = %nova_service::chain(cause.as_ref()), "Building failed; cleaning up.");
            host.ledger.record(Outcome::failed(launch.instance(), reason)).await?;
            ticket.look_again();
            Ok(())
        }
        Err(problem) => Err(problem),
    }
}

/// Undoes all of it, however far it came.
pub(crate) async fn tear_down(launch: &mut Launch) -> Result<(), Problem> {
    steps::undo(STEPS, launch).await
}

/// Puts the rules of the guest, which are there before its tap is.
pub(crate) struct LetNobodyIn;

#[async_trait]
impl Step<Launch> for LetNobodyIn {
    fn name(&self) -> &'static str {
        "firewall"
    }

    fn points(&self) -> [Point; 4] {
        [
            Point::LaunchBeforeFirewall,
            Point::LaunchAfterFirewall,
            Point::TerminateBeforeFirewall,
            Point::TerminateAfterFirewall,
        ]
    }

    async fn act(&self, launch: &mut Launch) -> Result<(), Problem> {
        match launch.real() {
            Some(real) => real.groups.refresh().await,
            None => Ok(()),
        }
    }

    async fn undo(&self, launch: &mut Launch) -> Result<(), Problem> {
        match launch.real() {
            Some(real) => real.groups.forget(launch.instance().id).await,
            None => Ok(()),
        }
    }
}

/// The bridge of the guest's network, and what carries the network between hosts. On a host without nova-network nobody
/// else makes it, unless under `FlatManager` an administrator did; there it has no address. It stays, for other guests are on it: see `unused`.
pub(crate) struct BuildBridge;

#[async_trait]
impl Step<Launch> for BuildBridge {
    fn name(&self) -> &'static str {
        "bridge"
    }

    fn points(&self) -> [Point; 4] {
        [Point::LaunchBeforeBridge, Point::LaunchAfterBridge, Point::TerminateBeforeBridge, Point::TerminateAfterBridge]
    }

    async fn act(&self, launch: &mut Launch) -> Result<(), Problem> {
        if launch.real().is_none() {
            return Ok(());
        }
        let network = launch.look_up_network().await?.clone();
        router::is_there(&launch.host, &network).await?;
        let (bridge, tag) =
            (Bridge { name: network.bridge.clone(), address: None, address6: None, mtu: None }, network.vlan);
        if let Some(real) = launch.real() {
            let _no_removal = real.bridges.read().await;
            let made = real.carrier.ensure(&*real.links, &bridge, tag).await;
            made.map_err(|error| unreachable(&real.carrier, error))?;
        }
        Ok(())
    }

    async fn undo(&self, _: &mut Launch) -> Result<(), Problem> {
        Ok(())
    }
}

/// What only an administrator can mend fails the launch with its reason, so that it is found; the rest may pass.
fn unreachable(carrier: &Carrier, error: LinkError) -> Problem {
    let reason = match (carrier, &error) {
        (Carrier::ByHand, LinkError::NoInterface(bridge) | LinkError::NotABridge(bridge)) => {
            format!("The host has no bridge {bridge}: under FlatManager it is set up by hand.")
        }
        (Carrier::Vlans(on), LinkError::NoInterface(missing)) if on == missing => {
            format!("The host has no interface {on} to carry VLANs (--vlan_interface).")
        }
        (Carrier::Vlans(_), LinkError::NoVlan(_)) => {
            "The network has a number that no VLAN can have: it was made for VxlanManager.".to_owned()
        }
        (Carrier::Vxlans(_), LinkError::NoAddress(address)) => {
            format!("No interface of the host has the address {address} (--my_ip).")
        }
        (Carrier::Vlans(_) | Carrier::Vxlans(_), LinkError::Unsupported { kind, .. }) => {
            format!("The kernel of the host has no {kind}.")
        }
        (Carrier::Vlans(_) | Carrier::Vxlans(_), LinkError::Taken(name)) => {
            format!("The host has another interface in the place of {name}.")
        }
        _ => return Problem::from(error),
    };
    Problem::never(reason, error)
}

/// The images, which stay in the cache for the next guest.
struct FetchImages;

#[async_trait]
impl Step<Launch> for FetchImages {
    fn name(&self) -> &'static str {
        "images"
    }

    fn points(&self) -> [Point; 4] {
        [Point::LaunchBeforeImages, Point::LaunchAfterImages, Point::TerminateBeforeImages, Point::TerminateAfterImages]
    }

    async fn act(&self, launch: &mut Launch) -> Result<(), Problem> {
        if let Some(real) = &launch.host.real {
            launch.bases = Some(real.disks.fetch(&launch.host.db, &launch.view.instance).await?);
        }
        Ok(())
    }

    async fn undo(&self, _: &mut Launch) -> Result<(), Problem> {
        Ok(())
    }
}

/// The guest's folder and the disks in it.
struct MakeDisks;

#[async_trait]
impl Step<Launch> for MakeDisks {
    fn name(&self) -> &'static str {
        "disks"
    }

    fn points(&self) -> [Point; 4] {
        [Point::LaunchBeforeDisks, Point::LaunchAfterDisks, Point::TerminateBeforeDisks, Point::TerminateAfterDisks]
    }

    async fn act(&self, launch: &mut Launch) -> Result<(), Problem> {
        let (Some(real), Some(bases)) = (launch.real(), &launch.bases) else { return Ok(()) };
        real.disks.make(launch.instance(), bases, launch.seed(), &launch.ticket).await
    }

    async fn undo(&self, launch: &mut Launch) -> Result<(), Problem> {
        match launch.real() {
            Some(real) => real.disks.remove(launch.instance().id).await,
            None => Ok(()),
        }
    }
}

/// The guest itself.
struct Boot;

#[async_trait]
impl Step<Launch> for Boot {
    fn name(&self) -> &'static str {
        "boot"
    }

    fn points(&self) -> [Point; 4] {
        [Point::LaunchBeforeBoot, Point::LaunchAfterBoot, Point::TerminateBeforeBoot, Point::TerminateAfterBoot]
    }

    async fn act(&self, launch: &mut Launch) -> Result<(), Problem> {
        Ok(launch.host.hypervisor.ensure_running(&launch.spec()?).await?)
    }

    /// A guest that does not go away now must go away later: nothing it has may be given to others before.
    async fn undo(&self, launch: &mut Launch) -> Result<(), Problem> {
        launch.host.hypervisor.destroy(launch.instance().id).await.map_err(Problem::later)
    }
}

#[cfg(test)]
mod tests;
