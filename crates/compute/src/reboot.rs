//! Restarts a guest as its row describes it now. Its rules stay in force throughout.

use std::sync::Arc;

use nova_types::instance::InstanceView;
use nova_types::state::Event;

use crate::desk::Ticket;
use crate::host::Host;
use crate::launch::Launch;
use crate::problem::Problem;
use crate::start;
use crate::steps;

/// Asks the guest to shut down, pulls the plug if it does not, and boots it again.
pub(crate) async fn reboot(host: &Arc<Host>, view: InstanceView, ticket: &Ticket) -> Result<(), Problem> {
    let mut launch = Launch::new(Arc::clone(host), view, ticket.clone());
    let restarted = async {
        steps::act(start::BEFORE, &mut launch).await?;
        let spec = launch.gather_again().await?;
        Ok(host.hypervisor.reboot(&spec, host.settings.reboot_grace).await?)
    };
    let restarted = restarted.await;
    nova_failpoint::hit(nova_failpoint::Point::RebootBooted);
    start::conclude(&launch, restarted, Event::Rebooted).await
}
