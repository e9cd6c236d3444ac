//! Powers a guest off and keeps all it has.

use std::sync::Arc;

use nova_types::instance::InstanceView;
use nova_types::state::Event;

use crate::host::Host;
use crate::ledger::Outcome;
use crate::problem::Problem;

/// Asks the guest to shut down, and pulls the plug if it does not in time. One that cannot be stopped now is later.
pub(crate) async fn stop(host: &Arc<Host>, view: InstanceView) -> Result<(), Problem> {
    let instance = &view.instance;
    host.hypervisor.stop(instance.id, host.settings.stop_grace).await.map_err(Problem::later)?;
    nova_failpoint::hit(nova_failpoint::Point::StopHalted);
    host.ledger.record(Outcome::moved(instance, Event::Halted, None)).await
}
